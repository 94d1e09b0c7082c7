"""From a finished study to final models: what is chosen, in which order, and that a stop anywhere changes nothing."""

import math
import random
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result

from kmnist_search.data.test_set import SealedSet, open_test_set
from kmnist_search.database.storage import open_storage
from kmnist_search.engine.training import Training
from kmnist_search.errors import (
    ConfigError,
    NoCompleteTrialError,
    StudyInUseError,
    TrainingDivergedError,
    TrainingsFailedError,
)
from kmnist_search.evaluation import testing as testing_module
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.host.signals import StopSignals
from kmnist_search.queue.queue import Counts
from kmnist_search.retrain.conclusion import RetrainingResult, concluded, final_models
from kmnist_search.retrain.plan import RetrainOptions
from kmnist_search.retrain.preparation import Preparation, prepare
from kmnist_search.retrain.retraining import Retraining, begin, enlist, rejoin
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.saved_model.model import SavedModel
from kmnist_search.study.opening import find_companion, find_study
from kmnist_search.study.ranking import distinct, duplicates
from kmnist_search.study.study import SearchStudy
from kmnist_search.worker import trial_run
from kmnist_search.worker.events import EpochDone, Event, RunWarning, TrialStarted
from kmnist_search.worker.stop import Limits
from kmnist_search.worker.trial_models import TrialModels

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = RetrainOptions(top_k=3, reruns=2, models=2)


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


def options_of(study: SearchStudy) -> RunOptions:
    return RunOptions(storage_url=study.storage.url.render_as_string(hide_password=False), device="cpu")


def prepared(study: SearchStudy, options: RetrainOptions = SMALL) -> Preparation:
    return prepare(study, options, options_of(study))


def begun(study: SearchStudy, options: RetrainOptions = SMALL) -> Search:
    return begin(prepared(study, options), options_of(study))


def work(search: Search, *, events: int | None = None) -> list[Event]:
    """Train to the end; or until so many events have come, and then as a process that is asked to stop."""
    signals, seen = StopSignals(), []
    _, work = search.work(signals)
    with closing(work):
        for event in work:
            seen.append(event)
            if len(seen) == events:
                signals.received = StopSignals.SIGNALS[0]
    return seen


def conclusion(study: SearchStudy, search: Search, options: RetrainOptions = SMALL) -> RetrainingResult | None:
    """Test the final models; None if one is gone."""
    plan = prepared(study, options).plan
    retraining = Retraining(source=study, companion=search.study, plan=plan, data=search.data)
    choice = retraining.choice()
    finals = final_models(retraining, choice, TrialModels(search.store))
    if finals is None:
        return None
    tests = concluded(retraining, choice, finals)
    while True:
        try:
            next(tests)
        except StopIteration as end:
            result: RetrainingResult = end.value
            return result


def retrained(study: SearchStudy, options: RetrainOptions = SMALL) -> RetrainingResult:
    """Retrain to the end."""
    while True:
        search = begun(study, options)
        if search.trials_left():
            work(search)
        result = conclusion(study, search, options)
        if result is not None:
            return result


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """Every training that is made from now on."""
    made: list[Training] = []

    class Watched(Training):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(trial_run, "Training", Watched)
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


def test_trainings_use_the_folder_of_images_that_the_search_used(study: SearchStudy, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    study.record_data({}, tmp_path / "images")
    search = begun(study)
    assert search.data.data_dir == search.study.data_dir() == tmp_path / "images"


def test_the_winner_is_the_candidate_with_the_best_mean_over_fresh_seeds_and_splits(study: SearchStudy) -> None:
    result = retrained(study)
    means = [candidate.mean_val_accuracy for candidate in result.candidates]
    assert len(means) == 3
    assert means == sorted(means, key=lambda mean: -(mean or 0))
    assert result.recipe.trial == result.candidates[0].trial
    for candidate in result.candidates:
        assert candidate.mean_val_accuracy == pytest.approx(sum(r.val_accuracy for r in candidate.reruns) / 2)
        assert candidate.luck == pytest.approx(candidate.study_val_accuracy - (candidate.mean_val_accuracy or 0))
    assert {candidate.trial for candidate in result.candidates} == {
        trial.number for trial in distinct(study.complete())[:3]
    }


def test_reruns_have_seeds_and_splits_that_the_study_had_not_and_that_all_candidates_share(
    study: SearchStudy, trainings: list[Training]
) -> None:
    result = retrained(study)
    reruns = [[(rerun.seed, rerun.split_seed) for rerun in candidate.reruns] for candidate in result.candidates]
    assert reruns[0] == reruns[1] == reruns[2]
    seeds = {seed for seed, _ in reruns[0]}
    assert not seeds & {study.training_seed(number) for number in range(100)}
    assert not seeds & set(result.recipe.seeds)
    assert study.settings["data"]["split_seed"] not in {split for _, split in reruns[0]}
    rerun_data = {training.data.digest for training in trainings if len(training.data.val_images)}
    assert len(rerun_data) == 2
    assert study.optuna.user_attrs["data_digest"] not in rerun_data


def test_final_models_are_trained_on_all_training_images(study: SearchStudy, trainings: list[Training]) -> None:
    result = retrained(study)
    final = [training for training in trainings if training.seed in result.recipe.seeds]
    assert [(len(training.data.train_images), len(training.data.val_images)) for training in final] == [(1437, 0)] * 2


def test_the_recipe_is_frozen_before_a_final_model_is_trained_and_all_are_before_the_test_set_is_opened(
    study: SearchStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[tuple[str, int, int]] = []

    def seen(what: str) -> None:
        companion = find_companion(study)
        assert companion is not None
        known.append((what, len(Ledger(study).recipes()), companion.counts().complete))
        assert not Ledger(study).openings()

    def opened(dataset: str, data_dir: Path) -> SealedSet:
        seen("open")
        return open_test_set(dataset, data_dir)

    class Watched(Training):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[arg-type]
            seen("train" if len(self.data.val_images) else "train all")

    monkeypatch.setattr(testing_module, "open_test_set", opened)
    monkeypatch.setattr(trial_run, "Training", Watched)
    retrained(study)
    assert known == [
        *(("train", 0, done) for done in range(6)),
        ("train all", 1, 6),
        ("train all", 1, 7),
        ("open", 1, 8),
    ]


def test_each_look_is_in_the_ledger_before_it_is_had(study: SearchStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished: list[int] = []
    real = SavedModel.probabilities

    def watched(self: SavedModel, images: torch.Tensor) -> object:
        unfinished.append(sum(opening.accuracy is None for opening in Ledger(study).openings()))
        return real(self, images)

    monkeypatch.setattr(SavedModel, "probabilities", watched)
    result = retrained(study)
    assert unfinished == [1, 1]
    assert [opening.accuracy for opening in result.ledger] == [model.test_accuracy for model in result.models]


def test_done_again_nothing_is_trained_or_tested_again(
    study: SearchStudy, trainings: list[Training], looks: list[int]
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


def test_another_recipe_is_another_look_and_more_models_are_more_looks(study: SearchStudy, looks: list[int]) -> None:
    first = retrained(study)
    more = retrained(study, replace(SMALL, models=3))
    assert more.recipe.digest == first.recipe.digest
    assert more.recipe.frozen_at == first.recipe.frozen_at
    assert more.models[:2] == first.models
    other = retrained(study, replace(SMALL, epochs=5))
    assert other.recipe.digest != first.recipe.digest
    assert [opening.recipe_digest for opening in other.ledger] == [first.recipe.digest] * 3 + [other.recipe.digest] * 2
    assert looks == [360] * 5


def test_stopped_anywhere_and_started_again_it_gives_the_same_results(
    study: SearchStudy, trainings: list[Training], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "search.db", copy)
    expected = retrained(find_study(open_storage(f"sqlite:///{copy / 'search.db'}", create=False), None))
    trainings.clear()
    chance, starts, search = random.Random(1), 0, begun(study)
    while search.trials_left():
        starts += 1
        work(search, events=chance.randint(1, 12))
        search = begun(study)
    assert starts > 3
    result = conclusion(study, search)
    assert result is not None
    assert _facts(result) == _facts(expected)
    finished = [(training.config.digest, training.seed) for training in trainings if training.finished]
    assert len(set(finished)) == len(finished) == 3 * 2 + 2


def _facts(result: RetrainingResult) -> object:
    return (
        [(c.trial, c.mean_val_accuracy, [r.epochs for r in c.reruns]) for c in result.candidates],
        result.recipe.digest,
        [(model.weights_sha256, model.epochs, model.test_accuracy, model.test_loss) for model in result.models],
        [(opening.seed, opening.accuracy) for opening in result.ledger],
    )


def test_whoever_finds_all_reruns_finished_freezes_the_recipe_and_queues_the_final_models(study: SearchStudy) -> None:
    begun(study)
    helper = enlist(f"{study.name}-retraining", options_of(study))
    assert helper.goal(helper.counts()) == 8
    told = [event.text for event in work(helper) if isinstance(event, RunWarning)]
    (recipe,) = Ledger(study).recipes()
    assert told == [f"recipe {recipe.digest} of trial {recipe.trial} is frozen: 2 final models to train"]
    assert helper.counts() == Counts(complete=8)
    result = conclusion(study, begun(study))
    assert result is not None
    assert len(result.models) == 2


def test_after_the_first_epoch_the_time_left_for_all_trainings_is_known(study: SearchStudy) -> None:
    search = begun(study)
    worker, events = search.work(StopSignals())
    with closing(events):
        known = [search.seen_by(worker) for event in events if isinstance(event, EpochDone | TrialStarted)]
    assert [seen.total for seen in known] == [8] * len(known)
    before, after, *_ = (seen.time_left(seen.total) for seen in known)
    assert before is None
    assert after is not None
    assert after.total_seconds() > 0
    last = known[-1].time_left(8)
    assert last is not None
    assert last.total_seconds() < 1


def test_a_worker_that_waits_for_trials_leaves_when_a_retraining_begins(study: SearchStudy) -> None:
    waiting = replace(options_of(study), limits=Limits(waits="forever"))
    signals = StopSignals()
    worker, events = enlist(study.name, waiting).work(signals)
    for _ in events:  # it waits
        begun(study)
    assert worker.stopped_by == "elsewhere"


def test_a_look_that_was_cut_off_is_had_again_and_counted_once(
    study: SearchStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(testing_module, "log_loss", _killed)
        with pytest.raises(KeyboardInterrupt):
            retrained(study)
    cut_off = Ledger(study).openings()
    assert [opening.accuracy for opening in cut_off] == [None]
    result = retrained(study)
    assert len(result.ledger) == 2
    assert result.ledger[0].opened_at == cut_off[0].opened_at


def _killed(*_arguments: object, **_options: object) -> float:
    raise KeyboardInterrupt


def test_a_final_model_that_is_gone_or_damaged_is_trained_again_and_its_result_is_still_known(
    study: SearchStudy, looks: list[int], tmp_path: Path
) -> None:
    first = retrained(study)
    gone, damaged = sorted((tmp_path / "search.artifacts").glob("*-last"))
    gone.unlink()
    damaged.write_bytes(b"nothing")
    again = retrained(study)
    assert [model.weights_sha256 for model in again.models] == [model.weights_sha256 for model in first.models]
    assert (len(again.ledger), looks) == (2, [360, 360])
    companion = find_companion(study)
    assert companion is not None
    assert companion.counts() == Counts(complete=8, fail=2)


def test_a_worker_that_would_keep_models_elsewhere_is_refused_before_it_trains(
    study: SearchStudy, tmp_path: Path
) -> None:
    begun(study)
    elsewhere = replace(options_of(study), artifacts=str(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match=rf"cannot be kept in .*elsewhere.*keeps them in {tmp_path}/search.artifacts"):
        rejoin(study.name, elsewhere)
    companion = find_companion(study)
    assert companion is not None
    assert companion.counts() == Counts(waiting=6)


def test_one_candidate_is_retrained_directly(study: SearchStudy, trainings: list[Training]) -> None:
    result = retrained(study, RetrainOptions(top_k=1, models=2))
    assert len(trainings) == 2
    (candidate,) = result.candidates
    assert candidate.trial == study.complete()[0].number
    assert (candidate.reruns, candidate.mean_val_accuracy, result.paired_test) == ((), None, None)


def test_reruns_and_final_models_may_have_epochs_of_their_own(study: SearchStudy, trainings: list[Training]) -> None:
    result = retrained(study, RetrainOptions(top_k=2, reruns=1, models=1, rerun_epochs=2, epochs=3))
    assert [training.config.train.epochs for training in trainings] == [2, 2, 3]
    assert result.recipe.epochs == 3
    assert result.paired_test is not None
    assert result.paired_test.p_value is None


def test_the_study_file_says_how_the_winner_is_retrained_and_options_override_it(
    tiny_study: Path, invoke: Callable[..., Result], storage_url: str
) -> None:
    with tiny_study.open("a") as file:
        file.write("\n[retrain]\ntop_k = 2\nreruns = 4\nrerun_epochs = 1\n")
    assert invoke("run", "tiny.toml", "--storage", storage_url, "--set", "study.pruner=none").exit_code == 0
    study = find_study(open_storage(storage_url, create=False), None)
    planned = prepared(study, RetrainOptions(models=3))
    assert (len(planned.plan.candidates), len(planned.plan.repeats), len(planned.plan.final_seeds)) == (2, 4, 3)
    assert {each.rerun.train.epochs for each in planned.plan.candidates} == {1}
    assert {each.final.train.epochs for each in planned.plan.candidates} == {4}
    assert len(prepared(study, RetrainOptions(reruns=1)).plan.repeats) == 1
    changed = ("--set", "study.pruner=none", "--set", "retrain.top_k=4")  # of a study that is there already
    assert invoke("run", "tiny.toml", "--storage", storage_url, *changed).exit_code == 0
    study = find_study(study.storage, None)
    assert len(prepared(study, RetrainOptions()).plan.candidates) == 4


def test_a_candidate_that_diverges_in_a_rerun_does_not_win(study: SearchStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    first = distinct(study.complete())[0]
    study.with_details([first])

    class Fragile(Training):
        def advance(self) -> bool:
            if self.config.digest == first.user_attrs["config_digest"] and self.step:
                self.program.sums_S4[0, 0] = math.nan
            return super().advance()

    monkeypatch.setattr(trial_run, "Training", Fragile)
    result = retrained(study)
    last = result.candidates[-1]
    assert (last.trial, last.mean_val_accuracy, last.reruns[0].val_loss) == (first.number, 0.0, None)
    with pytest.raises(TrainingDivergedError, match="test set was not opened"):
        retrained(study, RetrainOptions(top_k=1, models=1))
    assert result.recipe.trial != first.number


def test_a_rerun_that_fails_is_told_and_tried_again(study: SearchStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    first = distinct(study.complete())[0]
    study.with_details([first])

    class Broken(Training):
        def advance(self) -> bool:
            if self.config.digest == first.user_attrs["config_digest"] and self.step:
                raise ValueError("broken")
            return super().advance()

    with monkeypatch.context() as patch:
        patch.setattr(trial_run, "Training", Broken)
        with pytest.raises(TrainingsFailedError, match=r"2 of 8 trainings did not finish; why: .* status tiny-retr"):
            retrained(study)
    assert len(retrained(study).models) == 2


def test_a_study_of_planned_trainings_is_not_retrained_itself(study: SearchStudy) -> None:
    begun(study)
    companion = find_companion(study)
    assert companion is not None
    with pytest.raises(StudyInUseError, match=r"repeat it as it was: kmnist-search best tiny --retrain"):
        prepared(companion)


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
