"""The self-check of a GPU: a few steps by the Triton kernels and by CUDA graphs, compared with steps of plain torch.

As a program it checks one part on one device and prints what it found as JSON; `verdict` runs it in a process of its
own, because a kernel that fails can take its whole process along.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kmnist_search.config import TrainConfig, TrialConfig, trial_config
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine import cuda_graphs
from kmnist_search.engine.cuda_graphs import GraphStepping
from kmnist_search.engine.device import first_line, has_bfloat16, is_out_of_memory
from kmnist_search.engine.noise_data import noise_data
from kmnist_search.engine.program import EpochPlan, Program
from kmnist_search.engine.stepping import EagerStepping, Stepping
from kmnist_search.engine.torch_program import TorchProgram
from kmnist_search.engine.verdict import NOT_NOW, Part

#: By how much the results of float32 steps may differ, as a share: sums in another order do so by about 1e-5, a wrong
#: term by several percent (measured on a CPU; see test_self_check.py).
FLOAT32_TOLERANCE = 0.003
#: The same for bfloat16, whose own rounding is 0.4 %.
BFLOAT16_TOLERANCE = 0.1
#: Two trainings in each program, because the kernels compute several trainings together.
SEEDS = (1, 2)
EPOCHS = 2

SHAPE = {"patch_size": 7, "dim": 48, "token_width": 24, "channel_width": 96, "num_blocks": 2, "batch_size": 16}
LEARNING_RATE = 0.003
RECIPE = {"learning_rate": LEARNING_RATE, "warmup_share": 0.0, "label_smoothing": 0.1}
USUAL = "usual size"
#: Nets and recipes that together use every kernel, each of its branches, and a net of the usual size.
CASES: Mapping[str, dict[str, Any]] = {
    "everything drawn": {
        "dropout": 0.2,
        "drop_path": 0.3,
        "mixup": 0.4,
        "shift": 1.5,
        "rotate": 10.0,
        "scale": 0.1,
        "shear": 8.0,
        "elastic": 1.0,
        "cutout": 6,
        "ema_decay": 0.9,
    },
    "no norm, no skip, relu, sgd": {"norm": "none", "skip": False, "activation": "relu", "optimizer": "sgd"},
    "own widths, adam, all decayed": {
        "token_width": [12, 20],
        "channel_width": [80, 36],
        "optimizer": "adam",
        "weight_decay": 0.3,
        "decayed": "all",
        "clip_norm": 0.0,
        "patch_size": 4,
    },
    USUAL: {"patch_size": 4, "dim": 256, "token_width": 128, "channel_width": 512, "batch_size": 128},
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What two epochs have come to, for S trainings and V validation images.

    Attributes:
        losses_S2: the sums of the train and the validation losses of the last epoch.
        logits_SVL: of the validation images; they depend on every weight, and so on every gradient.
        seconds: that the last epoch took.
    """

    losses_S2: Tensor
    logits_SVL: Tensor
    seconds: float

    def difference(self, other: "Outcome") -> float:
        """Return by how much this differs from `other`, as a share of its values; infinite for what is not finite."""
        shares = [
            (own - its).abs().max() / its.abs().max()
            for own, its in ((self.losses_S2, other.losses_S2), (self.logits_SVL, other.logits_SVL))
        ]
        largest = float(torch.stack([share.float() for share in shares]).nan_to_num(nan=torch.inf).max())
        return largest if self.logits_SVL.isfinite().all() else float("inf")


def problem(part: Part, device: torch.device, cases: Mapping[str, dict[str, Any]] = CASES) -> str:
    """Return what is wrong with a part on a device; empty if its results are those of plain torch.

    Raises:
        Exception: any error of torch, Triton, a compiler or a driver.
    """
    precisions = ["float32", "bfloat16"] if has_bfloat16(device) else ["float32"]
    for name, values in cases.items():
        for precision in precisions:
            settings = TrainConfig.model_validate({"epochs": EPOCHS, "precision": precision})
            config = trial_config({**SHAPE, **RECIPE, **values}, settings)
            tolerance = FLOAT32_TOLERANCE if precision == "float32" else BFLOAT16_TOLERANCE
            for how, difference in _differences(part, config, device):
                if not difference <= tolerance:
                    return f"{how} {difference:.1%} off plain torch ({name}, {precision})"
    return ""


def gain(part: Part, device: torch.device, values: Mapping[str, Any] = CASES[USUAL]) -> float:
    """Return how many times as long an epoch of a net takes without a part.

    Raises:
        Exception: as `problem`.
    """
    config = trial_config({**SHAPE, **RECIPE, **values}, TrainConfig.model_validate({"epochs": EPOCHS}))
    data = _noise_for(config, device)
    by_torch = partial(TorchProgram, config, data, seed=0, device=device)
    by_graphs = _outcome(by_torch, GraphStepping, device).seconds
    if part == "graphs":
        return _outcome(by_torch, EagerStepping, device).seconds / by_graphs
    from kmnist_search.engine.triton_program import TritonProgram  # needs Triton

    fused = partial(TritonProgram, config, [data], seeds=[0], device=device)
    return by_graphs / _outcome(fused, GraphStepping, device).seconds


def main(part: Part, device: str) -> None:
    """Print what is wrong with a part on a device and, if it runs, what it gains, as JSON.

    It exits with `NOT_NOW` if that cannot be known now.
    """
    found, gained = "", 0.0
    try:
        found = problem(part, torch.device(device))
        gained = gain(part, torch.device(device))
    except Exception as error:  # whatever a compiler or a driver raises is an answer
        if is_out_of_memory(error) or "busy or unavailable" in str(error):
            sys.exit(NOT_NOW)
        found = found or first_line(error)
    sys.stdout.write(json.dumps({"problem": found, "gain": round(gained, 2)}) + "\n")


def _differences(part: Part, config: TrialConfig, device: torch.device) -> Iterator[tuple[str, float]]:
    """Yield what was compared with plain torch, and by how much it differs."""
    data = _noise_for(config, device)
    by_torch = [partial(TorchProgram, config, data, seed=seed, device=device) for seed in SEEDS]
    expected = _joined([_outcome(make, EagerStepping, device) for make in by_torch])
    if part == "graphs":
        replayed = _joined([_outcome(make, GraphStepping, device) for make in by_torch])
        yield "CUDA graphs are", replayed.difference(expected)
        return
    from kmnist_search.engine.triton_program import TritonProgram  # needs Triton

    fused = partial(TritonProgram, config, [data] * len(SEEDS), seeds=SEEDS, device=device)
    yield "the Triton kernels are", _outcome(fused, EagerStepping, device).difference(expected)
    yield "the Triton kernels in CUDA graphs are", _outcome(fused, GraphStepping, device).difference(expected)


def _outcome(make: Callable[[], Program], kind: type[EagerStepping | GraphStepping], device: torch.device) -> Outcome:
    """Train a program for two epochs."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))  # the images were copied there
    with torch.cuda.stream(stream):
        program = make()
        stepping: Stepping = GraphStepping(program, stream) if kind is GraphStepping else EagerStepping(program)
        for epoch in range(EPOCHS):
            stepping.wait()
            begun = time.perf_counter()
            program.sums_S4.zero_()
            stepping.begin([_plan(epoch, program, device)] * len(program.sums_S4), 0)
            while not stepping.advance():
                pass
        stepping.wait()
        return Outcome(
            losses_S2=program.sums_S4[:, ::2].cpu(),
            logits_SVL=program.val_logits_SVL.cpu(),
            seconds=time.perf_counter() - begun,
        )


def _noise_for(config: TrialConfig, device: torch.device) -> SearchData:
    """Return images of noise: for training a graph of steps and a step left over, for validation half a batch."""
    size = config.batch.batch_size
    return noise_data(size * (cuda_graphs.STEPS_PER_GRAPH + 1), size // 2, device)


def _plan(epoch: int, program: Program, device: torch.device) -> EpochPlan:
    """Return a plan with the images in another order, and another learning rate, in each epoch."""
    images = len(program.datasets[0].train_images)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(epoch)).to(device)
    rates = [LEARNING_RATE / (1 + epoch)] * program.steps_per_epoch
    return EpochPlan(order=order, rates=rates, first_step=epoch * program.steps_per_epoch)


def _joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcomes of several programs as that of one."""
    return Outcome(
        losses_S2=torch.cat([outcome.losses_S2 for outcome in outcomes]),
        logits_SVL=torch.cat([outcome.logits_SVL for outcome in outcomes]),
        seconds=sum(outcome.seconds for outcome in outcomes),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
