"""Planned trainings of one configuration on a GPU: claimed and computed together, each with its own lease and end.

The GPU is a stand-in, whose Triton kernels run in the interpreter.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kmnist_search.config import DataConfig, TrainConfig, TrialConfig, trial_config
from kmnist_search.data import search_data
from kmnist_search.data.search_data import TrainingSet
from kmnist_search.engine import batch, verdict
from kmnist_search.engine.backends import HAS_TRITON, program_for
from kmnist_search.engine.verdict import Verdict
from kmnist_search.evaluation.trained import all_over
from kmnist_search.host.process import Owner
from kmnist_search.host.signals import StopSignals
from kmnist_search.queue.queue import Counts
from kmnist_search.queue.workers import Registration, WorkerInfo
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare
from kmnist_search.study_file.schema import PlanFile, PlannedTraining, PlanTable, TrainingSpec
from kmnist_search.study_file.space import IntRange
from kmnist_search.worker import trial_attributes, trial_run
from kmnist_search.worker.events import EpochDone, TrialEnded
from tests.support.stand_in_gpu import StandInGpu

pytestmark = [
    pytest.mark.skipif(not HAS_TRITON, reason="there is no Triton for this platform"),
    pytest.mark.usefixtures("one_thread", "few_kernel_programs"),
]

NET = {"patch_size": 14, "dim": 4, "token_width": 4, "channel_width": 4, "num_blocks": 1, "batch_size": 28}
DATA = DataConfig(dataset="digits", val_share=0.3)


@pytest.fixture
def gpu() -> Iterator[StandInGpu]:
    with StandInGpu(bfloat16=False) as gpu:  # without graphs an epoch may have few steps
        verdict._known[verdict._name(torch.device("cuda:0"))] = Verdict(kernels="", graphs="not needed here")
        yield gpu


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    real = search_data.load_training_set

    def few(dataset: str, data_dir: Path) -> TrainingSet:
        images = real(dataset, data_dir)
        return TrainingSet(images=images.images[:80], labels=images.labels[:80])

    monkeypatch.setattr(search_data, "load_training_set", few)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of trainings in each program that is built from now on."""
    sizes: list[int] = []
    real = program_for

    def watched(*arguments: Any, **options: Any) -> Any:
        sizes.append(len(options["seeds"]))
        return real(*arguments, **options)

    monkeypatch.setattr(batch, "program_for", watched)
    return sizes


def training(seed: int, *, epochs: int = 2, **changes: Any) -> PlannedTraining:
    config = trial_config({**NET, **changes}, TrainConfig(epochs=epochs, precision="float32"))
    data = DATA.model_copy(update={"split_seed": seed})
    return PlannedTraining(
        params={"seed": seed}, spec=TrainingSpec(config=config, data=data, seed=seed, keeps=("last",))
    )


def planned(storage_url: str, folder: Path, *trainings: PlannedTraining, device: str = "cuda:0") -> Search:
    file = PlanFile(
        study=PlanTable(name="plan", plan="references"), space={"seed": IntRange(low=0, high=99)}, trainings=trainings
    )
    return prepare(file, RunOptions(storage_url=storage_url, data_dir=folder, device=device))


def curves(search: Search) -> dict[int, list[float]]:
    return {each.seed: [epoch.train_loss for epoch in each.epochs] for each in all_over(search.study)}


def test_trainings_of_one_configuration_are_computed_together_with_the_results_of_each_alone(
    gpu: StandInGpu, batches: list[int], storage_url: str, tmp_path: Path
) -> None:
    trainings = [training(0), training(1), training(2, dim=8, epochs=1), training(3)]
    search = planned(storage_url, tmp_path, *trainings)
    _, events = search.work(StopSignals())
    ended = [event for event in events if isinstance(event, TrialEnded)]
    assert search.counts() == Counts(complete=4)
    assert batches == [3, 1]
    assert sorted(event.number for event in ended) == [0, 1, 2, 3]
    on_cpu = planned(f"sqlite:///{tmp_path / 'cpu.db'}", tmp_path, *trainings, device="cpu")
    _, others = on_cpu.work(StopSignals())
    list(others)
    expected = curves(on_cpu)
    for seed, losses in curves(search).items():
        assert losses == pytest.approx(expected[seed], rel=1e-4)
    weights = {each.models["last"]["info"]["weights_sha256"] for each in all_over(search.study)}
    assert len(weights) == 4


def test_stopped_each_goes_back_with_its_own_checkpoint_and_resumes_alone(
    gpu: StandInGpu, batches: list[int], storage_url: str, tmp_path: Path
) -> None:
    search = planned(storage_url, tmp_path, training(0), training(1))
    signals = StopSignals()
    _, events = search.work(signals)
    for event in events:
        if isinstance(event, EpochDone):
            signals.received = StopSignals.SIGNALS[0]
    assert search.counts() == Counts(waiting=2)
    assert len(list(search.study.checkpoint_dir.glob("*.pt"))) == 2
    resumed = planned(storage_url, tmp_path, training(0), training(1))
    _, events = resumed.work(StopSignals())
    list(events)
    assert batches == [2, 1, 1]
    assert resumed.counts() == Counts(complete=2)
    undisturbed = planned(f"sqlite:///{tmp_path / 'other.db'}", tmp_path, training(0), training(1))
    _, events = undisturbed.work(StopSignals())
    list(events)
    expected = curves(undisturbed)
    for seed, losses in curves(resumed).items():
        assert losses == pytest.approx(expected[seed], rel=1e-4)


def test_a_batch_that_runs_out_of_memory_goes_back_and_its_trainings_are_tried_alone(
    gpu: StandInGpu, batches: list[int], storage_url: str, tmp_path: Path
) -> None:
    search = planned(storage_url, tmp_path, training(0), training(1))
    _, events = search.work(StopSignals())
    outcomes = list[str]()
    for event in events:
        if isinstance(event, EpochDone) and len(batches) == 1 and not outcomes:
            gpu.fail_after(0, torch.OutOfMemoryError("CUDA out of memory"), sticky=False)
        if isinstance(event, TrialEnded):
            outcomes.append(event.outcome)
    assert outcomes[:2] == ["handed back", "handed back"]
    assert batches == [2, 1, 1]
    assert search.counts() == Counts(complete=2)


def test_what_other_workers_could_train_at_the_same_time_is_left_to_them(
    gpu: StandInGpu, batches: list[int], storage_url: str, tmp_path: Path
) -> None:
    search = planned(storage_url, tmp_path, training(0), training(1), training(2), training(3))
    other = Registration(
        worker_id="other",
        study_id=search.study.queue.study_id,
        owner=Owner.this_process(),
        info=WorkerInfo(device="GPU", versions={}, job=None),
        seconds=600.0,
    )
    with search.study.storage.writing() as connection:
        other.heartbeat(connection, finished=0, age=1.0)
    _, events = search.work(StopSignals())
    list(events)
    assert batches[0] == 2  # of four, for two workers
    assert search.counts() == Counts(complete=4)


def test_a_training_that_fails_before_it_begins_does_not_hold_up_the_others(
    gpu: StandInGpu, batches: list[int], storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trial_attributes.description

    def described(config: TrialConfig, data_digest: str, seed: int, device: torch.device) -> dict[str, Any]:
        if seed == 0:
            raise ValueError("broken")
        return real(config, data_digest, seed, device)

    monkeypatch.setattr(trial_run, "description", described)
    search = planned(storage_url, tmp_path, training(0), training(1), training(2))
    _, events = search.work(StopSignals())
    list(events)
    assert len(batches) == 1
    assert search.counts() == Counts(complete=2, fail=1)
