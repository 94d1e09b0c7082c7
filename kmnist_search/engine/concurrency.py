"""The number of trainings that run at once on a GPU, found by measuring the throughput."""

from dataclasses import dataclass

from kmnist_search.config import TrialConfig
from kmnist_search.config.cost import flops_per_image

#: A step takes as long as its arithmetic plus this. By two nets on one H200, CUDA graphs, one at a time: 1.9 ms a step
#: of 99 GFLOP, 2.97 ms a step of 189 GFLOP; the line through both is at 0.73 ms, worth 61 GFLOP, for no arithmetic.
STEP_OVERHEAD_FLOPS = 6e10
#: More small trainings than this only wait for the one thread that drives them (reasoned, not measured).
MAX_CONCURRENT = 16
#: One more training is worth its memory if the throughput grows by more than this factor.
MIN_GAIN = 1.05
#: A window is at least this long and has at least this many epochs per training, so that it averages over several nets.
WINDOW_SECONDS = 10.0
WINDOW_EPOCHS = 4


def epoch_cost(config: TrialConfig, train_images: int) -> float:
    """Return the cost of an epoch on a GPU in floating-point operations, which makes different nets comparable."""
    steps = train_images // config.batch.batch_size
    return steps * (3.0 * config.batch.batch_size * flops_per_image(config.model) + STEP_OVERHEAD_FLOPS)


@dataclass(frozen=True, kw_only=True)
class TrainedEpoch:
    """The cost of one epoch and the times of its start and end. The cost is spread evenly between the two."""

    cost: float
    begun: float
    ended: float

    def cost_between(self, start: float, end: float) -> float:
        """Return the part of the cost that falls between `start` and `end`."""
        common = min(self.ended, end) - max(self.begun, start)
        return self.cost * max(common, 0.0) / max(self.ended - self.begun, 1e-9)


class Window:
    """A span of time, from `start` on, in which the throughput is measured."""

    def __init__(self, start: float) -> None:
        self.start, self.lengths = start, 1
        self._end: float | None = None
        self._epochs: list[TrainedEpoch] = []

    def throughput(self, epoch: TrainedEpoch, trainings: int) -> float | None:
        """Add an epoch. Return the cost per second when the window is complete, None before.

        A window is complete when all epochs that were running at its end have ended.
        """
        self._epochs.append(epoch)
        if self._end is None:
            lengths = min((epoch.ended - self.start) / WINDOW_SECONDS, len(self._epochs) / (WINDOW_EPOCHS * trainings))
            self._end = epoch.ended if lengths >= self.lengths else None
            return None
        if epoch.ended - self._end < max(epoch.ended - epoch.begun for epoch in self._epochs):
            return None
        return sum(epoch.cost_between(self.start, self._end) for epoch in self._epochs) / (self._end - self.start)

    def double(self) -> None:
        """Continue for the same length again."""
        self.lengths, self._end = 2, None


class Concurrency:
    """Chooses how many trainings run at once: adds one while the throughput grows, then takes one back and stays there.

    The throughput is the cost of the epochs in a window, divided by its length. A window without growth is doubled
    before it counts. The limit is final on purpose: the throughput also depends on which nets happen to train, and a
    search that never ends would follow that noise.

    Attributes:
        limit: how many trainings may run at once now.
        maximum: the upper bound of `limit`.
    """

    def __init__(self, *, start: int, maximum: int) -> None:
        self.limit, self.maximum = start, maximum
        self._is_settled = start >= maximum
        self._best_throughput = 0.0
        self._window: Window | None = None

    @classmethod
    def fixed(cls, limit: int) -> "Concurrency":
        """Return a fixed limit, which only running out of memory lowers."""
        return cls(start=limit, maximum=limit)

    @classmethod
    def adaptive(cls) -> "Concurrency":
        """Return a limit that is found by measuring. It starts at four, which always paid off on an H200."""
        return cls(start=4, maximum=MAX_CONCURRENT)

    def epoch_done(self, cost: float, *, seconds: float, active: int, now: float) -> None:
        """Record an epoch that has just ended.

        Args:
            cost: of the epoch, see `epoch_cost`.
            seconds: how long it took.
            active: how many trainings were running.
            now: the time, in seconds of a monotonic clock.
        """
        if self._is_settled:
            return
        if self._window is None:  # starts when all trainings run; later, a short gap between two trials counts
            self._window = Window(now) if active >= self.limit else None
            return
        throughput = self._window.throughput(TrainedEpoch(cost=cost, begun=now - seconds, ended=now), self.limit)
        if throughput is None:
            return
        if throughput > self._best_throughput * MIN_GAIN:
            self._best_throughput = throughput
            self._set_limit(min(self.limit + 1, self.maximum), is_settled=self.limit == self.maximum)
        elif self._window.lengths == 1:
            self._window.double()
        else:
            self._set_limit(self.limit - 1, is_settled=True)

    def out_of_memory(self, active: int) -> None:
        """Record that memory ran out: from now on fewer than `active` trainings run at once."""
        self.maximum = max(1, min(self.maximum, active - 1))
        if self.limit >= self.maximum:
            self._set_limit(self.maximum, is_settled=True)

    def _set_limit(self, limit: int, *, is_settled: bool) -> None:
        self.limit, self._is_settled, self._window = limit, is_settled, None
