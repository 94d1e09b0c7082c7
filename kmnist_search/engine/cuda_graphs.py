"""Takes the steps of an epoch as CUDA graphs, captured once and replayed in a stream of their own."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kmnist_search.engine.device import first_line, is_broken, is_out_of_memory
from kmnist_search.engine.program import EpochPlan, Program
from kmnist_search.engine.verdict import give_up_graphs
from kmnist_search.errors import DeviceLostError

#: Steps in one graph: fewer launches and gaps than with one step, and little more capture time (reasoned, unmeasured).
STEPS_PER_GRAPH = 8
#: Seconds of work in a slice; at most two slices are queued on a GPU: short enough to stop soon, long enough to keep
#: the GPU busy while the host builds and captures another training (reasoned, not measured).
SLICE_SECONDS = 0.15


class GraphStepping:
    """Steps as CUDA graphs, captured when the first epoch begins and replayed in their own stream.

    At most two slices of an epoch are queued, so that a stop comes soon. No call waits for the GPU.

    A method that captures raises `DeviceLostError` if the capture fails: torch then takes a capture to be under way
    still, and this process cannot use the GPU any more. If graphs are at fault, the next process does without them.
    """

    def __init__(self, program: Program, stream: torch.cuda.Stream) -> None:
        self.program, self.stream = program, stream
        self.position = 0
        self._is_validated = False
        self._slices: deque[tuple[torch.cuda.Event, torch.cuda.Event, int]] = deque()
        self._slice_graphs = 1
        self._pool = torch.cuda.graph_pool_handle()
        self._step_graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._val_graph: torch.cuda.CUDAGraph | None = None

    def begin(self, plans: list[EpochPlan], position: int) -> None:
        program = self.program
        program.begin(plans)
        if not self._step_graphs:
            self._warm_up()
            for steps in (STEPS_PER_GRAPH, 1):
                self._step_graphs[steps] = self._captured_steps(steps)
            self._val_graph = self._captured_validation()
        program.advance_position(position)
        self.position, self._is_validated = position, False

    def advance(self) -> bool:
        while self._slices and self._slices[0][1].query():
            self._measure(*self._slices.popleft())
        while len(self._slices) < 2 and not self._is_validated:
            self._queue_slice()
        return not self._slices

    def wait(self) -> None:
        self.stream.synchronize()

    def reset(self) -> None:
        self.wait()
        self._step_graphs.clear()
        self._val_graph = None
        self._pool = torch.cuda.graph_pool_handle()  # the old pool is dropped with its last graph

    def _queue_slice(self) -> None:
        begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record(self.stream)
        left = self.program.steps_per_epoch - self.position
        graphs = min(self._slice_graphs, left // STEPS_PER_GRAPH)
        for _ in range(graphs):
            self._step_graphs[STEPS_PER_GRAPH].replay()
        steps = graphs * STEPS_PER_GRAPH
        if left < STEPS_PER_GRAPH:
            for _ in range(left):
                self._step_graphs[1].replay()
            steps = left
            if self._val_graph is not None:
                self._val_graph.replay()
            self._is_validated = True
        self.position += steps
        done.record(self.stream)
        self._slices.append((begun, done, graphs))

    def _measure(self, begun: torch.cuda.Event, done: torch.cuda.Event, graphs: int) -> None:
        """Adapt the size of the slices to their duration, which also depends on the other work of the GPU."""
        if graphs:
            seconds = begun.elapsed_time(done) / 1000
            self._slice_graphs = max(1, round(graphs * SLICE_SECONDS / max(seconds, 1e-6)))

    def _warm_up(self) -> None:
        """Run a step and validation batches of both sizes, so that libraries set themselves up; then undo it all."""
        program = self.program
        before = {tensor.data_ptr(): tensor.clone() for tensor in program.changed_by_steps()}
        drawn = [generator.get_state() for generator in program.generators]
        program.train_step()
        program.advance_position(1)
        for number in sorted({0, program.val_batches - 1}) if program.val_batches else ():
            program.val_batch(number)
        with torch.no_grad():  # parameters are among them
            for tensor in program.changed_by_steps():
                if tensor.data_ptr() in before:
                    tensor.copy_(before[tensor.data_ptr()])
                else:
                    tensor.zero_()
        for generator, state in zip(program.generators, drawn, strict=True):
            generator.set_state(state)

    def _captured_steps(self, steps: int) -> torch.cuda.CUDAGraph:
        with self._capture() as graph:
            for offset in range(steps):
                self.program.train_step(offset)
            self.program.advance_position(steps)
        return graph

    def _captured_validation(self) -> torch.cuda.CUDAGraph | None:
        if not self.program.val_batches:
            return None
        with self._capture() as graph:
            for number in range(self.program.val_batches):
                self.program.val_batch(number)
        return graph

    @contextmanager
    def _capture(self) -> Iterator[torch.cuda.CUDAGraph]:
        """While entered, the work of this stream is captured as a graph instead of run.

        `torch.cuda.graph` would first wait for the whole GPU, collect garbage and empty the cache, which delays the
        other trainings on this GPU.
        """
        graph = torch.cuda.CUDAGraph()
        for generator in self.program.generators:
            graph.register_generator_state(generator)
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            yield graph
            graph.capture_end()
        except RuntimeError as error:
            if not is_out_of_memory(error) and not is_broken(error):
                give_up_graphs(self.stream.device, first_line(error))
            raise DeviceLostError(f"the capture of a CUDA graph failed: {first_line(error)}") from error
