"""From a finished study to final models: what is chosen, in which order, and that a stop anywhere changes nothing."""

import math
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result

from kmnist_search.data.search_data import TrainingSet
from kmnist_search.data.test_set import SealedSet, open_test_set
from kmnist_search.database.storage import open_storage
from kmnist_search.engine import checkpoint
from kmnist_search.engine.batched import BatchedTraining
from kmnist_search.engine.replica import Replica
from kmnist_search.errors import NoCompleteTrialError, StudyInUseError, TrainingDivergedError
from kmnist_search.evaluation import testing as testing_module
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.lock import alone
from kmnist_search.evaluation.metrics import Recipe
from kmnist_search.host.signals import StopSignals
from kmnist_search.retrain import retraining as retraining_module
from kmnist_search.retrain.events import (
    ModelTested,
    RetrainingEvent,
    TrainingEnded,
    TrainingStarted,
    WinnerChosen,
)
from kmnist_search.retrain.plan import RetrainOptions
from kmnist_search.retrain.preparation import Preparation, prepare
from kmnist_search.retrain.retraining import Retraining, RetrainingResult
from kmnist_search.saved_model.model import SavedModel
from kmnist_search.study.opening import find_study
from kmnist_search.study.ranking import distinct, duplicates
from kmnist_search.study.study import SearchStudy

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = RetrainOptions(top_k=3, seeds=2, final_seeds=2)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database of a finished study."""
    from click.testing import CliRunner

    from kmnist_search.cli.main import main
    from tests.support.command import TINY_STUDY

    folder = tmp_path_factory.mktemp("searched")
    (folder / "tiny.toml").write_text(TINY_STUDY)
    arguments = ["run", str(folder / "tiny.toml"), "--storage", f"sqlite:///{folder / 'search.db'}"]
    ran = CliRunner().invoke(main, [*arguments, "--set", "study.pruner=none"])
    assert ran.exit_code == 0, ran.output
    return folder


@pytest.fixture
def study(searched: Path, tmp_path: Path) -> SearchStudy:
    """That study in a copy of its own."""
    shutil.copytree(searched, tmp_path, dirs_exist_ok=True)
    return find_study(open_storage(f"sqlite:///{tmp_path / 'search.db'}", create=False), None)


def prepared(study: SearchStudy, options: RetrainOptions = SMALL) -> Preparation:
    return prepare(study, replace(options, device="cpu"))


def found(preparation: Preparation, events: list[RetrainingEvent] | None = None) -> RetrainingResult:
    """Retrain to the end, and add what happens to `events`."""
    retraining = Retraining(preparation, StopSignals())
    for event in retraining.work():
        if events is not None:
            events.append(event)
    assert retraining.result is not None
    return retraining.result


def retrained(study: SearchStudy, options: RetrainOptions = SMALL) -> RetrainingResult:
    return found(prepared(study, options))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Replica]:
    """Every training that is made from now on."""
    made: list[Replica] = []

    class Watched(BatchedTraining):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[arg-type]
            made.extend(self.replicas)

    monkeypatch.setattr(retraining_module, "BatchedTraining", Watched)
    return made


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of every look that a model has at some, from now on."""
    seen: list[int] = []
    real = SavedModel.probabilities

    def watched(self: SavedModel, images: torch.Tensor) -> object:
        seen.append(len(images))
        return real(self, images)

    monkeypatch.setattr(SavedModel, "probabilities", watched)
    return seen


def test_the_winner_is_the_candidate_with_the_best_mean_over_fresh_seeds_and_splits(study: SearchStudy) -> None:
    finding = retrained(study)
    means = [candidate.mean_val_accuracy for candidate in finding.candidates]
    assert len(means) == 3
    assert means == sorted(means, key=lambda mean: -(mean or 0))
    assert finding.recipe.trial == finding.candidates[0].trial
    for candidate in finding.candidates:
        assert candidate.mean_val_accuracy == pytest.approx(sum(r.val_accuracy for r in candidate.reruns) / 2)
        assert candidate.luck == pytest.approx(candidate.study_val_accuracy - (candidate.mean_val_accuracy or 0))
    assert {candidate.trial for candidate in finding.candidates} == {
        trial.number for trial in distinct(study.complete())[:3]
    }


def test_reruns_have_seeds_and_splits_that_the_study_had_not_and_that_all_candidates_share(
    study: SearchStudy, trainings: list[Replica]
) -> None:
    finding = retrained(study)
    reruns = [[(rerun.seed, rerun.split_seed) for rerun in candidate.reruns] for candidate in finding.candidates]
    assert reruns[0] == reruns[1] == reruns[2]
    seeds = {seed for seed, _ in reruns[0]}
    assert not seeds & {study.training_seed(number) for number in range(100)}
    assert not seeds & set(finding.recipe.seeds)
    assert study.settings["data"]["split_seed"] not in {split for _, split in reruns[0]}
    rerun_data = {training.data.digest for training in trainings if len(training.data.val_images)}
    assert len(rerun_data) == 2
    assert study.optuna.user_attrs["data_digest"] not in rerun_data


def test_final_models_are_trained_on_all_training_images(study: SearchStudy, trainings: list[Replica]) -> None:
    finding = retrained(study)
    final = [training for training in trainings if training.seed in finding.recipe.seeds]
    assert [(len(training.data.train_images), len(training.data.val_images)) for training in final] == [(1437, 0)] * 2


def test_the_recipe_is_written_down_and_the_models_trained_before_the_test_set_is_opened(
    study: SearchStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[tuple[bool, int, int]] = []

    def watched(dataset: str, data_dir: Path) -> SealedSet:
        keys = study.optuna.user_attrs
        frozen = any(key.startswith("recipe:") for key in keys)
        finals = sum(key.startswith("final:") for key in keys)
        openings = sum(key.startswith("opening:") for key in keys)
        known.append((frozen, finals, openings))
        return open_test_set(dataset, data_dir)

    monkeypatch.setattr(retraining_module, "open_test_set", watched)
    retrained(study)
    assert known == [(True, 2, 0)]


def test_each_look_is_in_the_ledger_before_it_is_had(study: SearchStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished: list[int] = []
    real = SavedModel.probabilities

    def watched(self: SavedModel, images: torch.Tensor) -> object:
        unfinished.append(sum(opening.accuracy is None for opening in Ledger(study).openings()))
        return real(self, images)

    monkeypatch.setattr(SavedModel, "probabilities", watched)
    finding = retrained(study)
    assert unfinished == [1, 1]
    assert [opening.accuracy for opening in finding.ledger] == [model.test_accuracy for model in finding.models]


def test_done_again_everything_comes_from_the_ledger(
    study: SearchStudy, trainings: list[Replica], looks: list[int]
) -> None:
    first = retrained(study)
    assert (len(trainings), looks) == (3 * 2 + 2, [360, 360])
    again = retrained(study)
    assert (len(trainings), looks) == (3 * 2 + 2, [360, 360])
    assert (again.candidates, again.recipe, again.models, again.ledger) == (
        first.candidates,
        first.recipe,
        first.models,
        first.ledger,
    )


def test_another_recipe_is_another_look_and_more_seeds_are_more_looks(study: SearchStudy, looks: list[int]) -> None:
    first = retrained(study)
    more = retrained(study, RetrainOptions(top_k=3, seeds=2, final_seeds=3))
    assert more.recipe.digest == first.recipe.digest
    assert more.recipe.frozen_at == first.recipe.frozen_at
    assert more.models[:2] == first.models
    other = retrained(study, RetrainOptions(top_k=3, seeds=2, final_seeds=2, epochs=5))
    assert other.recipe.digest != first.recipe.digest
    assert [opening.recipe_digest for opening in other.ledger] == [first.recipe.digest] * 3 + [other.recipe.digest] * 2
    assert looks == [360] * 5


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_stopped_or_killed_anywhere_and_started_again_it_gives_the_same_results(
    study: SearchStudy, how: str, trainings: list[Replica], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "search.db", copy)
    expected = retrained(find_study(open_storage(f"sqlite:///{copy / 'search.db'}", create=False), None))
    trainings.clear()
    chance, finding, starts = random.Random(1), None, 0
    while finding is None:
        starts += 1
        finding = _ended_after(chance.randint(1, 25), Retraining(prepared(study), StopSignals()), how)
    assert starts > 3
    assert _facts(finding) == _facts(expected)
    finished = [(training.config.digest, training.seed) for training in trainings if training.finished]
    assert len(set(finished)) == 3 * 2 + 2
    if how == "stopped":  # a kill can come between the last epoch and its being written down
        assert len(finished) == 3 * 2 + 2


def _ended_after(events: int, retraining: Retraining, how: str) -> RetrainingResult | None:
    """Work until so many events have come, and then as a process that is asked to stop, or no more."""
    work: Iterator[object] = retraining.work()
    for _, _event in zip(range(events), work, strict=False):
        pass
    if how == "stopped":
        retraining.signals.received = StopSignals.SIGNALS[0]
        for _ in work:
            pass
    return retraining.result


def _facts(finding: RetrainingResult) -> object:
    return (
        [(c.trial, c.mean_val_accuracy, [r.epochs for r in c.reruns]) for c in finding.candidates],
        finding.recipe.digest,
        [(model.weights_sha256, model.epochs, model.test_accuracy, model.test_loss) for model in finding.models],
        [(opening.seed, opening.accuracy) for opening in finding.ledger],
    )


def test_a_checkpoint_that_cannot_be_written_ends_nothing_and_is_told(
    study: SearchStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    monkeypatch.setattr(retraining_module, "CHECKPOINT_EVERY_SECONDS", 0.0)
    retraining = Retraining(prepared(study), StopSignals())
    work = retraining.work()
    for _, _event in zip(range(3), work, strict=False):
        pass
    retraining.signals.received = StopSignals.SIGNALS[0]
    assert [*work] == []
    assert "No space left on device" in retraining.unsaved
    finding = retrained(study)
    assert len(finding.models) == 2


def test_a_look_that_was_cut_off_is_had_again_and_counted_once(
    study: SearchStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(testing_module, "log_loss", _killed)
        with pytest.raises(KeyboardInterrupt):
            retrained(study)
    cut_off = Ledger(study).openings()
    assert [opening.accuracy for opening in cut_off] == [None]
    finding = retrained(study)
    assert len(finding.ledger) == 2
    assert finding.ledger[0].opened_at == cut_off[0].opened_at


def _killed(*_arguments: object, **_options: object) -> float:
    raise KeyboardInterrupt


def test_a_final_model_that_is_gone_or_damaged_is_trained_again_and_its_result_is_still_known(
    study: SearchStudy, looks: list[int]
) -> None:
    first = retrained(study)
    shutil.rmtree(first.folders[0])
    (first.folders[1] / "weights.safetensors").write_bytes(b"nothing")
    again = retrained(study)
    assert [model.weights_sha256 for model in again.models] == [model.weights_sha256 for model in first.models]
    assert (len(again.ledger), looks) == (2, [360, 360])


def test_one_candidate_is_retrained_directly(study: SearchStudy, trainings: list[Replica]) -> None:
    retraining = Retraining(prepared(study, RetrainOptions(top_k=1, final_seeds=2)), StopSignals())
    events = list(retraining.work())
    assert len(trainings) == 2
    assert retraining.result is not None
    (candidate,) = retraining.result.candidates
    assert candidate.trial == study.complete()[0].number
    assert (candidate.reruns, candidate.mean_val_accuracy, retraining.result.paired_test) == ((), None, None)
    assert [type(event) for event in events if isinstance(event, WinnerChosen | Recipe | ModelTested)] == [
        WinnerChosen,
        Recipe,
        ModelTested,
        ModelTested,
    ]


def test_other_epochs_hold_for_every_training(study: SearchStudy, trainings: list[Replica]) -> None:
    finding = retrained(study, RetrainOptions(top_k=2, seeds=1, final_seeds=1, epochs=2))
    assert {training.config.train.epochs for training in trainings} == {2}
    assert finding.recipe.epochs == 2
    assert finding.paired_test is not None
    assert finding.paired_test.p_value is None


def test_a_candidate_that_diverges_in_a_rerun_does_not_win(study: SearchStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    first = distinct(study.complete())[0]
    study.with_details([first])

    class Fragile(BatchedTraining):
        def advance(self) -> bool:
            if self.config.digest == first.user_attrs["config_digest"] and self.replicas[0].step:
                self.replicas[0].program.sums_S4[0, 0] = math.nan
            return super().advance()

    monkeypatch.setattr(retraining_module, "BatchedTraining", Fragile)
    finding = retrained(study)
    last = finding.candidates[-1]
    assert (last.trial, last.mean_val_accuracy, last.reruns[0].val_loss) == (first.number, 0.0, None)
    with pytest.raises(TrainingDivergedError, match="test set was not opened"):
        retrained(study, RetrainOptions(top_k=1, final_seeds=1))
    assert finding.recipe.trial != first.number


@pytest.mark.slow
@pytest.mark.usefixtures("few_kernel_programs")
def test_trainings_computed_together_give_the_results_of_each_alone(
    searched: Path, tmp_path: Path, trainings: list[Replica]
) -> None:
    pytest.importorskip("triton", reason="there is no Triton for this platform")
    findings, events, programs = [], list[RetrainingEvent](), []
    for backend in ("torch", "triton"):  # in Triton's interpreter where there is no GPU
        shutil.copytree(searched, tmp_path / backend)
        study = find_study(open_storage(f"sqlite:///{tmp_path / backend / 'search.db'}", create=False), None)
        few = prepared(study, RetrainOptions(top_k=2, seeds=2, final_seeds=2, epochs=1))
        few = replace(few, images=TrainingSet(images=few.images.images[:160], labels=few.images.labels[:160]))
        findings.append(found(replace(few, backend=backend), events if backend == "triton" else None))
        programs.append(len({id(training.program) for training in trainings}))
        trainings.clear()
    alone, together = findings
    assert programs == [2 * 2 + 2, 2 + 1]
    started = [event for event in events if isinstance(event, TrainingStarted)]
    assert [(event.number, len(event.seeds)) for event in started] == [(1, 2), (3, 2), (5, 2)]
    assert [event.number for event in events if isinstance(event, TrainingEnded)] == [1, 2, 3, 4, 5, 6]
    for candidate, expected in zip(together.candidates, alone.candidates, strict=True):
        assert candidate.trial == expected.trial
        for rerun, other in zip(candidate.reruns, expected.reruns, strict=True):
            assert (rerun.seed, rerun.split_seed) == (other.seed, other.split_seed)
            assert rerun.val_loss == pytest.approx(other.val_loss, rel=1e-4)
    for model, of_alone in zip(together.models, alone.models, strict=True):
        assert model.epochs[-1].train_loss == pytest.approx(of_alone.epochs[-1].train_loss, rel=1e-4)
        assert model.test_accuracy == pytest.approx(of_alone.test_accuracy, abs=0.006)


def test_two_processes_do_not_retrain_the_same_study(study: SearchStudy) -> None:
    with alone(study), pytest.raises(StudyInUseError, match="another process"), alone(study):
        pass


def test_a_study_without_a_complete_trial_has_no_winner(tiny_study: Path, storage_url: str) -> None:
    from kmnist_search.study.opening import open_study
    from kmnist_search.study_file.parser import load

    empty = open_study(open_storage(storage_url, create=True), load(tiny_study))
    with pytest.raises(NoCompleteTrialError, match="no complete trial yet"):
        prepared(empty)


def test_trials_with_the_same_hyperparameters_are_one_candidate(
    tiny_study: Path, invoke: Callable[..., Result], storage_url: str
) -> None:
    with tiny_study.open("a") as file:
        file.write("\n[[enqueue]]\nlearning_rate = 5e-3\ndim = 8\n" * 2)
    assert invoke("run", "tiny.toml", "--storage", storage_url, "--set", "study.pruner=none").exit_code == 0
    study = find_study(open_storage(storage_url, create=False), None)
    ranked = study.complete()
    twins = {trial.number for trial in ranked if trial.number in (0, 1)}
    assert twins == {0, 1}
    assert set(duplicates(ranked)) | set(duplicates(ranked).values()) == {0, 1}
    assert len(distinct(ranked)) == 5


def test_the_events_count_the_trainings_to_the_end(study: SearchStudy) -> None:
    events = list(Retraining(prepared(study), StopSignals()).work())
    ended = [event for event in events if isinstance(event, TrainingEnded)]
    assert [event.number for event in ended] == list(range(1, 9))
    assert {event.total for event in ended} == {8}
    again = [event for event in Retraining(prepared(study), StopSignals()).work() if isinstance(event, TrainingEnded)]
    assert all(event.was_done for event in again)
