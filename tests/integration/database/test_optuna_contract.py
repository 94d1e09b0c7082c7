"""What is private of optuna and optuna-dashboard is as `optuna_internals` says: each side reads the other's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState
from optuna_dashboard import _serializer
from sqlalchemy import select
from werkzeug.test import Client

from kmnist_search.database import tables
from kmnist_search.database.storage import Storage, open_storage
from kmnist_search.database.trial_reader import read_trials
from kmnist_search.database.trial_writer import Changes, forget_reports, write_changes
from kmnist_search.host.process import Owner
from kmnist_search.optuna_internals import (
    ARTIFACT_KEY_PREFIX,
    FIXED_PARAMS_KEY,
    MAX_NAME_LENGTH,
    NOTE_KEY_PREFIX,
    PLOT_KEY_PREFIX,
    RUNG_KEY_PREFIX,
    contains,
    report_of,
    stored_report,
    stored_value,
    study_id_of,
    trial_id_of,
    value_of,
)
from kmnist_search.optuna_internals.dashboard import StudyJson, dashboard_app
from kmnist_search.queue.queue import Claim, Queue
from kmnist_search.study.artifacts import artifact_id_in
from kmnist_search.study.cached_storage import CachedStorage


@pytest.fixture
def storage(any_storage_url: str) -> Iterator[Storage]:
    opened = open_storage(any_storage_url, create=True)
    yield opened
    opened.disconnect()


@pytest.fixture
def study(storage: Storage) -> optuna.Study:
    return optuna.create_study(study_name="contract", storage=storage.rdb, direction="maximize")


def _claim(storage: Storage, study: optuna.Study) -> Claim:
    queue = Queue(study_id_of(study))
    with storage.writing() as connection:
        claim = queue.claim(connection, Owner.this_process(), token="a", lease_seconds=60, budget=None)
    assert claim is not None
    return claim


def test_ids_are_those_of_the_tables(storage: Storage, study: optuna.Study) -> None:
    trial = study.ask()
    with storage.reading() as connection:
        row = connection.execute(select(tables.trials)).one()
        named = connection.scalar(select(tables.studies.c.study_id).where(tables.studies.c.study_name == "contract"))
        (read,) = read_trials(connection, study_id_of(study))
    assert (row.study_id, row.trial_id) == (study_id_of(study), trial_id_of(trial))
    assert named == study_id_of(study) == study_id_of(storage.rdb.get_all_studies()[0])
    assert trial_id_of(read) == trial_id_of(study.trials[0]) == trial_id_of(trial)
    fresh = RDBStorage(storage.url.render_as_string(hide_password=False))
    assert trial_id_of(optuna.load_study(study_name="contract", storage=fresh).trials[0]) == trial_id_of(trial)


def test_a_trial_that_optuna_enqueues_is_read_and_claimed(storage: Storage, study: optuna.Study) -> None:
    study.enqueue_trial({"rate": 0.25})
    claim = _claim(storage, study)
    assert Trial(study, claim.trial_id).suggest_float("rate", 0.0, 1.0) == 0.25
    assert study.trials[0].state == TrialState.RUNNING


def test_a_trial_that_is_added_here_is_asked_for_by_optuna(storage: Storage, study: optuna.Study) -> None:
    with storage.writing() as connection:
        Queue(study_id_of(study)).fill(connection, 1, [{"rate": 0.25}])
    assert study.trials[0].system_attrs[FIXED_PARAMS_KEY] == {"rate": 0.25}
    trial = study.ask()
    assert (trial.number, trial.suggest_float("rate", 0.0, 1.0)) == (0, 0.25)


def test_a_rung_is_read_by_either_side(storage: Storage, study: optuna.Study) -> None:
    pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    cached = CachedStorage(study_id_of(study), StudyDirection.MAXIMIZE)
    trial = study.ask()
    with storage.reading() as connection:
        cached.read_news(connection)
    assert cached.begin(trial_id_of(trial))
    ours = optuna.Study(study_name=cached.NAME, storage=cached, pruner=pruner)
    running = Trial(ours, trial_id_of(trial))
    running.report(0.5, 1)
    running.should_prune()
    changes = cached.take_changes(trial_id_of(trial))
    assert [key for key in changes.system_attributes if key.startswith(RUNG_KEY_PREFIX)] == [f"{RUNG_KEY_PREFIX}0"]
    with storage.writing() as connection:
        write_changes(connection, trial_id_of(trial), changes)
    theirs = optuna.load_study(study_name="contract", storage=storage.rdb, pruner=pruner)
    other = theirs.ask()
    other.report(0.1, 1)
    assert other.should_prune()  # worse than the rung that was written here
    with storage.reading() as connection:
        read = read_trials(connection, study_id_of(study))
    assert [f"{RUNG_KEY_PREFIX}0" in each.system_attrs for each in read] == [True, True]
    with storage.writing() as connection:
        forget_reports(connection, trial_id_of(other))
    assert not theirs.trials[1].system_attrs
    assert not theirs.trials[1].intermediate_values


def test_an_artifact_is_found_by_its_key(storage: Storage, study: optuna.Study, tmp_path: Path) -> None:
    store, trial = FileSystemArtifactStore(tmp_path), study.ask()
    artifact = upload_artifact(artifact_store=store, file_path=__file__, study_or_trial=trial)
    with storage.reading() as connection:
        table = tables.system_attributes
        row = connection.execute(select(table).where(table.c.key.startswith(ARTIFACT_KEY_PREFIX))).one()
    assert (row.key, artifact_id_in(row.value_json)) == (ARTIFACT_KEY_PREFIX + artifact, artifact)
    changes = Changes(system_attributes={f"{ARTIFACT_KEY_PREFIX}copy": study.trials[0].system_attrs[row.key]})
    with storage.writing() as connection:
        write_changes(connection, trial_id_of(trial), changes)
    assert len(get_all_artifact_meta(study.trials[0], storage=storage.rdb)) == 2


def test_a_note_and_a_plot_have_their_keys(storage: Storage, study: optuna.Study) -> None:
    import plotly.graph_objects as go

    optuna_dashboard.save_note(study, "text")
    keys = set(storage.rdb.get_study_system_attrs(study_id_of(study)))
    assert keys
    assert all(key.startswith(NOTE_KEY_PREFIX) for key in keys)
    optuna_dashboard.save_plotly_graph_object(study, go.Figure(), graph_object_id="plot")
    added = set(storage.rdb.get_study_system_attrs(study_id_of(study))) - keys
    assert added
    assert all(key.startswith(PLOT_KEY_PREFIX) for key in added)


@pytest.mark.parametrize("number", [0.5, float("inf"), float("-inf")])
def test_numbers_are_stored_and_read(number: float) -> None:
    assert value_of(*stored_value(number)) == number
    assert report_of(*stored_report(number)) == number
    assert contains(optuna.distributions.FloatDistribution(0, 1), number) == (number == 0.5)
    assert MAX_NAME_LENGTH == 512


def test_a_waiting_trial_hides_no_hyperparameter_in_the_dashboard(storage: Storage, study: optuna.Study) -> None:
    trial = study.ask()
    trial.suggest_float("rate", 0.0, 1.0)
    study.tell(trial, 0.5)
    study.enqueue_trial({"rate": 0.1})
    app, forget = dashboard_app(storage.rdb, None)
    path = f"/api/studies/{study_id_of(study)}"

    def shown() -> Any:
        return Client(app).get(path, headers={"Accept-Encoding": ""}).get_json()

    assert [each["name"] for each in shown()["intersection_search_space"]] == ["rate"]
    study.add_trial(optuna.trial.create_trial(value=1.0))
    assert len(shown()["trials"]) == 3  # and not what was read a moment ago
    forget()
    assert len(shown()["trials"]) == 3


def test_a_study_is_written_as_optuna_dashboard_does_and_each_trial_once(storage: Storage, study: optuna.Study) -> None:
    for value in (0.5, float("inf")):
        trial = study.ask({"rate": optuna.distributions.FloatDistribution(0.0, 1.0)})
        trial.report(value, 1)
        study.tell(trial, value)
    study.enqueue_trial({"rate": 0.1})
    optuna_dashboard.save_note(study, "of the study")
    trials, study_json = study.get_trials(deepcopy=False), StudyJson()
    rest: Any = ([("rate", trials[0].distributions["rate"])], [], [("seconds", True)], True, {}, [])

    def texts() -> list[str]:
        """Return the trials as they are kept, after a comparison of the whole study."""
        frozen = storage.rdb.get_all_studies()[0]
        theirs = json.loads(json.dumps(_serializer.serialize_study_detail(frozen, trials[1:2], trials, *rest)))
        assert json.loads(study_json(frozen, trials[1:2], trials, *rest)) == theirs
        return [study_json._trial(study_id_of(study), each, others) for each, others, _ in kept.values()]

    kept = study_json._trials
    first = texts()
    optuna_dashboard.save_note(trial, "of a trial")
    second = texts()
    trials[0] = study.get_trials()[0]
    third = texts()
    assert [one is other for one, other in zip(first, second, strict=True)] == [True, False, True]
    assert [one is other for one, other in zip(second, third, strict=True)] == [False, True, True]


def test_the_best_value_is_rounded_and_no_other(storage: Storage, study: optuna.Study) -> None:
    study.add_trial(optuna.trial.create_trial(value=0.9791666666666666))
    app, _ = dashboard_app(storage.rdb, None)
    answer = Client(app).get(f"/api/studies/{study_id_of(study)}", headers={"Accept-Encoding": ""}).get_json()
    assert [trial["values"] for trial in answer["best_trials"]] == [[0.979167]]
    assert [trial["values"] for trial in answer["trials"]] == [[0.9791666666666666]]


def test_a_trial_is_searched_for_hyperparameters_until_it_is_finished(storage: Storage, study: optuna.Study) -> None:
    rate: dict[str, optuna.distributions.BaseDistribution] = {"rate": optuna.distributions.FloatDistribution(0.0, 1.0)}
    app, _ = dashboard_app(storage.rdb, None)

    def shown() -> tuple[list[str], list[str]]:
        answer = Client(app).get(f"/api/studies/{study_id_of(study)}", headers={"Accept-Encoding": ""}).get_json()
        spaces = (answer["intersection_search_space"], answer["union_search_space"])
        common, every = ([each["name"] for each in space] for space in spaces)
        return common, every

    study.tell(study.ask(rate), 0.5)
    assert shown() == (["rate"], ["rate"])
    running = study.ask(rate)
    study.tell(study.ask(rate), 0.5)
    assert shown() == (["rate"], ["rate"])
    running.suggest_int("width", 1, 8)
    assert shown() == (["rate"], ["rate", "width"])
    study.tell(study.ask({"width": optuna.distributions.IntDistribution(1, 8)}), 0.5)
    study.tell(running, 0.5)
    assert shown() == ([], ["rate", "width"])
