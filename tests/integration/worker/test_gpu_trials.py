"""Several trainings on one GPU: each as if alone, an end that frees its memory, and one that asks for too much.

Without a GPU they run on a stand-in, in plain torch with CUDA graphs; what measures memory is skipped there.
"""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kmnist_search.config import DataConfig, TrainConfig, TrialConfig, trial_config
from kmnist_search.data import search_data
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine import verdict
from kmnist_search.engine.memory_budget import MemoryBudget
from kmnist_search.engine.training import Training
from kmnist_search.engine.verdict import Verdict
from kmnist_search.errors import DeviceLostError
from kmnist_search.host.signals import StopSignals
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare
from kmnist_search.study_file.parser import load
from kmnist_search.worker.events import TrialEnded, TrialStarted
from tests.support.stand_in_gpu import StandInGpu

pytestmark = pytest.mark.gpu
HAS_GPU = torch.cuda.is_available()
measures_memory = pytest.mark.skipif(not HAS_GPU, reason="there is no GPU that torch can use")

Prepare = Callable[..., Search]

#: torch has so many streams to give out and then gives them again; each keeps a workspace for cuBLAS.
STREAMS = 32


@pytest.fixture(scope="module")
def gpu() -> Iterator[torch.device]:
    device = torch.device("cuda", 0)
    if HAS_GPU:
        yield device
        return
    with StandInGpu(bfloat16=False):  # autocast of the stand-in is that of the CPU
        verdict._known[verdict._name(device)] = Verdict(kernels="their interpreter is slow", graphs="")
        yield device


@pytest.fixture(scope="module")
def data(gpu: torch.device) -> SearchData:
    return search_data.load(DataConfig(dataset="digits"), Path()).to(gpu)


@pytest.fixture
def prepared(tiny_study: Path, storage_url: str, tmp_path: Path, gpu: torch.device) -> Prepare:
    def make(*overrides: str, trials: int, trial_runs: int) -> Search:
        options = RunOptions(
            storage_url=storage_url, trials=trials, data_dir=tmp_path, device="cuda:0", per_gpu=trial_runs
        )
        return prepare(load(tiny_study, overrides=["study.sampler=random", "study.pruner=none", *overrides]), options)

    return make


@pytest.fixture
def little_memory(gpu: torch.device) -> Iterator[int]:
    """Let this process have a twentieth of the GPU's memory; return how many bytes that is."""
    share = 0.05
    if not HAS_GPU:
        yield StandInGpu.current().memory
        return
    torch.cuda.set_per_process_memory_fraction(share, gpu)
    yield int(torch.cuda.mem_get_info(gpu)[1] * share)
    torch.cuda.set_per_process_memory_fraction(1.0, gpu)


def _config(*, epochs: int = 3, **hyperparameters: Any) -> TrialConfig:
    base = {"patch_size": 7, "dim": 64, "token_width": 32, "channel_width": 128, "num_blocks": 2, "batch_size": 64}
    return trial_config({**base, **hyperparameters}, TrainConfig(epochs=epochs))


def test_two_trainings_at_once_give_the_results_of_each_alone(gpu: torch.device, data: SearchData) -> None:
    configs = [_config(dropout=0.1, shift=2.0), _config(dim=96, num_blocks=3, rotate=10.0, ema_decay=0.9)]

    def trainings() -> list[Training]:
        return [Training(config, data, seed=seed, device=gpu) for seed, config in enumerate(configs)]

    alone = [list(training.epochs()) for training in trainings()]
    beside = trainings()
    while not all(training.finished for training in beside):
        for training in beside:
            if not training.finished and training.advance():
                training.read()
    assert [training.history for training in beside] == alone


def test_trials_at_once_end_as_they_do_one_after_the_other(prepared: Prepare) -> None:
    alone = prepared("study.name=alone", trials=6, trial_runs=1)
    beside = prepared("study.name=beside", trials=6, trial_runs=3)
    for search in (alone, beside):
        _, events = search.work(StopSignals())
        list(events)
        assert search.study.counts().complete == 6
    one, other = alone.study.optuna.trials, beside.study.optuna.trials
    assert [trial.params for trial in one] == [trial.params for trial in other]
    assert [trial.intermediate_values for trial in one] == [trial.intermediate_values for trial in other]


@measures_memory
def test_two_hundred_dropped_trainings_leave_no_memory_on_the_gpu(gpu: torch.device, data: SearchData) -> None:
    memory_budget = MemoryBudget(gpu)
    allocated, reserved = [], []
    gc.collect()
    gc.disable()  # nothing shall have to be collected
    try:
        for number in range(200):
            training = Training(_config(epochs=1), data, seed=number, device=gpu)
            list(training.epochs())
            del training
            memory_budget.clean_up(after_error=False)
            allocated.append(torch.cuda.memory_allocated(gpu))
            reserved.append(torch.cuda.memory_reserved(gpu))
    finally:
        gc.enable()
    settled = slice(STREAMS + 8, None)
    assert max(allocated[settled]) - min(allocated[settled]) < 2**20
    assert max(reserved[settled]) - min(reserved[settled]) <= 2 * 20 * 2**20  # the allocator asks for 20 MiB at a time


@measures_memory
def test_a_training_takes_no_more_than_its_estimate(gpu: torch.device, data: SearchData) -> None:
    config = _config(dim=512, channel_width=2048, token_width=256, num_blocks=8, patch_size=4, batch_size=512, epochs=1)
    memory_budget = MemoryBudget(gpu)
    needed = memory_budget.estimate(config, data)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(gpu)
    training = Training(config, data, seed=0, device=gpu)
    list(training.epochs())
    taken = torch.cuda.memory_reserved(gpu) - before
    assert taken < needed < 6 * taken


def test_a_trial_larger_than_the_gpu_is_infeasible_and_never_started(prepared: Prepare) -> None:
    search = prepared("space.dim={choices = [1_000_000_000]}", trials=2, trial_runs=2)
    _, events = search.work(StopSignals())
    assert not any(isinstance(event, TrialStarted) for event in events)
    reason = search.study.optuna.trials[0].user_attrs["reason"]
    assert reason.startswith("infeasible: needs about ")
    assert ", the GPU has " in reason


@pytest.mark.skipif(HAS_GPU, reason="the GPU would be lost for the other tests")
def test_a_worker_that_has_lost_its_gpu_touches_it_no_more(prepared: Prepare) -> None:
    search = prepared(trials=2, trial_runs=2)
    stand_in = StandInGpu.current()
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    def work_until_it_breaks() -> None:
        _, events = search.work(StopSignals())
        for event in events:
            if isinstance(event, TrialStarted) and event.number == 1:
                stand_in.fail_after(0, error, sticky=True)

    try:
        with pytest.raises(DeviceLostError, match="illegal memory access"):
            work_until_it_breaks()
    finally:
        stand_in.lost = stand_in.capturing = None
    assert search.study.counts().fail == 0


def test_out_of_memory_in_one_trial_harms_none_beside_it(
    prepared: Prepare, little_memory: int, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = prepared("study.name=undisturbed", trials=5, trial_runs=1)
    _, events = undisturbed.work(StopSignals())
    list(events)
    search = prepared("study.name=short-of-memory", trials=5, trial_runs=3)
    seed = search.study.training_seed(1)
    at_work: set[int] = set()
    advance = Training.advance

    def advance_or_too_much(training: Training) -> bool:
        if training.seed == seed and len(at_work) > 1:
            torch.empty(2 * little_memory, dtype=torch.uint8, device=gpu)
        return advance(training)

    monkeypatch.setattr(Training, "advance", advance_or_too_much)
    worker, events = search.work(StopSignals())
    handed_back = 0
    for event in events:
        if isinstance(event, TrialStarted):
            at_work.add(event.number)
        elif isinstance(event, TrialEnded):
            at_work.remove(event.number)
            handed_back += event.outcome == "handed back"
    assert handed_back == 2
    assert worker.concurrency.limit == 1
    one, other = undisturbed.study.optuna.trials, search.study.optuna.trials
    assert [trial.intermediate_values for trial in one] == [trial.intermediate_values for trial in other]
