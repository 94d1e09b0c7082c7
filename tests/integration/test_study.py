"""Studies in a real database: remembered, found, refused, and how they propose and prune."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from kmnist_search.errors import StudyChangedError, StudyNotFoundError
from kmnist_search.progress import progress_of
from kmnist_search.queue import Owner
from kmnist_search.storage import Storage, open_storage
from kmnist_search.study import SearchStudy, find_study, open_study, study_names
from kmnist_search.study_file import StudyFile
from kmnist_search.study_parser import load

OWNER = Owner(host="nowhere", pid=1, born=0.0)


@pytest.fixture
def storage(storage_url: str) -> Storage:
    return open_storage(storage_url, create=True)


@pytest.fixture
def file(tiny_study: Path) -> StudyFile:
    return load(tiny_study)


def _finish(study: SearchStudy, file: StudyFile, *values: float) -> None:
    study.queue.fill(study.queue.counts().total + len(values))
    for value in values:
        trial = study.claim(OWNER, file, budget=1000)
        assert trial is not None
        file.suggest(trial)
        study.complete(trial, value, {"seconds": 1.0})


def test_a_study_goes_on_where_it_was(storage: Storage, file: StudyFile) -> None:
    _finish(open_study(storage, file), file, 0.5)
    again = open_study(storage, file)
    assert again.queue.counts().complete == 1


def test_a_changed_study_file_is_refused_with_the_difference_and_the_way_out(
    storage: Storage, tiny_study: Path, file: StudyFile
) -> None:
    open_study(storage, file)
    changed = load(tiny_study, overrides=["train.epochs=9", "space.dim={choices = [8]}", "fixed.skip=false"])
    with pytest.raises(StudyChangedError) as error:
        open_study(storage, changed)
    assert str(error.value) == (
        f"study 'tiny' in {storage.shown_url} was begun with other settings:\n"
        "  fixed.skip: not there then, False now\n"
        "  space.dim.choices: [8, 16] then, [8] now\n"
        "  train.epochs: 4 then, 9 now\n"
        "Trials of different settings cannot be compared. Go back to those it was begun with, or begin another study: "
        "--name tiny-2"
    )


def test_a_new_budget_is_no_change(storage: Storage, tiny_study: Path, file: StudyFile) -> None:
    open_study(storage, file)
    again = open_study(storage, load(tiny_study, overrides=["study.trials=99"]))
    assert study_names(storage) == [again.name] == ["tiny"]


def test_a_study_that_somebody_else_made_is_refused(storage: Storage, file: StudyFile) -> None:
    foreign = optuna.create_study(study_name="tiny", storage=storage.rdb, direction="maximize")
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StudyChangedError, match="has a study 'tiny' that kmnist-search did not make"):
        open_study(storage, file)


def test_other_images_are_refused(storage: Storage, file: StudyFile) -> None:
    open_study(storage, file).remember_data("aaa")
    open_study(storage, file).remember_data("aaa")
    with pytest.raises(StudyChangedError, match=r"data digest aaa, now bbb"):
        open_study(storage, file).remember_data("bbb")


def test_without_a_name_the_study_last_worked_on_is_found(storage: Storage, tiny_study: Path) -> None:
    for name in ("one", "two", "three"):
        open_study(storage, load(tiny_study, overrides=[f"study.name={name}"])).touch()
    find_study(storage, "two").touch()
    assert find_study(storage, None).name == "two"
    assert study_names(storage) == ["two", "three", "one"]


def test_a_missing_study_names_those_that_exist(storage: Storage, tiny_study: Path) -> None:
    with pytest.raises(StudyNotFoundError, match=r"holds no study yet\. Begin one with: kmnist-search run"):
        find_study(storage, None)
    open_study(storage, load(tiny_study)).touch()
    with pytest.raises(StudyNotFoundError, match=r"has no study 'tinny'. Did you mean 'tiny'\? It holds: tiny."):
        find_study(storage, "tinny")


def test_every_trial_draws_its_own_proposals_and_a_restart_does_not_repeat_them(
    storage: Storage, file: StudyFile
) -> None:
    for _ in range(4):  # as four processes, one after another, would
        _finish(open_study(storage, file), file, 0.5)
    rates = [trial.params["learning_rate"] for trial in open_study(storage, file).ranked()]
    assert len(set(rates)) == 4


def test_the_same_seed_proposes_the_same_and_another_seed_does_not(tmp_path: Path, tiny_study: Path) -> None:
    def rates(name: str, seed: int) -> list[float]:
        file = load(tiny_study, overrides=[f"study.seed={seed}"])
        study = open_study(open_storage(f"sqlite:///{tmp_path}/{name}.db", create=True), file)
        _finish(study, file, *[0.1 * number for number in range(6)])
        return [trial.params["learning_rate"] for trial in study.optuna.trials]

    assert rates("a", 1) == rates("b", 1)
    assert rates("a2", 1) != rates("c", 2)


def test_trainings_of_different_trials_have_different_seeds(storage: Storage, file: StudyFile) -> None:
    study = open_study(storage, file)
    seeds = [study.training_seed(number) for number in range(100)]
    assert len(set(seeds)) == 100
    assert seeds == [open_study(storage, file).training_seed(number) for number in range(100)]


def test_the_best_is_the_highest_accuracy_or_the_lowest_loss(tmp_path: Path, tiny_study: Path) -> None:
    for metric, best, target in (("val_accuracy", 0.9, 0.8), ("val_loss", 0.1, 0.2)):
        file = load(tiny_study, overrides=[f"study.metric={metric}"])
        study = open_study(open_storage(f"sqlite:///{tmp_path}/{metric}.db", create=True), file)
        assert not study.reached(target)
        _finish(study, file, 0.5)
        assert not study.reached(target)
        _finish(study, file, best)
        assert study.ranked()[0].value == best
        assert study.reached(target)


@pytest.mark.parametrize("pruner", ["hyperband", "successive_halving", "median"])
def test_each_pruner_ends_the_worst_of_many_trials(storage: Storage, tiny_study: Path, pruner: str) -> None:
    overrides = [f"study.pruner={pruner}", "train.epochs=9"]
    file = load(tiny_study, overrides=overrides)
    study = open_study(storage, file)
    study.queue.fill(20)
    ended = []
    for number in range(20):
        trial = study.claim(OWNER, file, budget=20)
        assert trial is not None
        file.suggest(trial)
        for epoch in range(1, 10):
            trial.report((20 - number) * 0.01 * epoch, epoch)
            if trial.should_prune():
                study.prune(trial, "worst", {})
                ended.append(number)
                break
        else:
            study.complete(trial, 0.0, {})
    assert ended
    assert study.queue.counts().pruned == len(ended)
    assert study.optuna.trials[ended[0]].user_attrs["reason"] == "worst"


def test_no_pruner_prunes_nothing(storage: Storage, tiny_study: Path) -> None:
    file = load(tiny_study, overrides=["study.pruner=none"])
    study = open_study(storage, file)
    _finish(study, file, *[0.9] * 5)
    study.queue.fill(6)
    trial = study.claim(OWNER, file, budget=6)
    assert trial is not None
    trial.report(0.0, 3)
    assert not trial.should_prune()


def test_progress_tells_states_best_running_and_failures(storage: Storage, file: StudyFile) -> None:
    study = open_study(storage, file)
    _finish(study, file, 0.5, 0.7)
    study.queue.fill(5)
    broken, running = study.claim(OWNER, file, budget=5), study.claim(OWNER, file, budget=5)
    assert broken is not None
    assert running is not None
    study.fail(broken, "it broke", "Traceback ...", {})
    running.report(0.4, 2)
    progress = progress_of(study)
    assert (progress.counts.complete, progress.counts.fail, progress.counts.running, progress.counts.waiting) == (
        2,
        1,
        1,
        1,
    )
    assert progress.best is not None
    assert progress.best.value == 0.7
    assert [(each.number, each.epoch, each.value, each.owner) for each in progress.running] == [(3, 2, 0.4, OWNER)]
    assert [(each.number, each.reason, each.traceback) for each in progress.failures] == [
        (2, "it broke", "Traceback ...")
    ]
    assert study.optuna.trials[2].state == TrialState.FAIL
    assert progress.time_left(5) is not None
