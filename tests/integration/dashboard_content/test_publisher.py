"""What the dashboard shows of real searches on real databases: note, plots, artifacts of the best trials."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest
from click.testing import Result
from optuna.artifacts import ArtifactMeta, get_all_artifact_meta
from optuna.trial import FrozenTrial
from PIL import Image
from sqlalchemy import select

from kmnist_search.archive import studies as archive
from kmnist_search.dashboard.kept_text import END
from kmnist_search.dashboard_content import leader, publisher
from kmnist_search.dashboard_content.attributes import DashboardAttributes
from kmnist_search.database.storage import Storage
from kmnist_search.database.tables import put, study_system_attributes, system_attributes
from kmnist_search.host.signals import StopSignals
from kmnist_search.optuna_internals import ARTIFACT_KEY_PREFIX, trial_id_of
from kmnist_search.queue.queue import Counts
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare
from kmnist_search.study.artifacts import open_artifact_store
from kmnist_search.study.opening import find_study
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.parser import load
from kmnist_search.worker.events import Event, RunWarning, TrialEnded

pytestmark = pytest.mark.usefixtures("one_thread")

PLOTS = {f"kmnist-search-{name}" for name in ("best-by-seconds", "size", "best-curves", "spent", "timeline")}
Prepare = Callable[..., Search]


@pytest.fixture
def prepared(tiny_study: Path, tmp_path: Path) -> Prepare:
    def make(url: str, *overrides: str, trials: int = 11, artifacts: str | None = None) -> Search:
        options = RunOptions(
            storage_url=url,
            trials=trials,
            data_dir=tmp_path,
            device="cpu",
            artifacts=artifacts if artifacts is not None else str(tmp_path / "artifacts"),
        )
        return prepare(load(tiny_study, overrides=["study.pruner=none", "train.epochs=1", *overrides]), options)

    return make


def work(search: Search) -> list[Event]:
    _, events = search.work(StopSignals())
    return list(events)


def attributes(storage: Storage) -> dict[str, Any]:
    table = study_system_attributes
    with storage.reading() as connection:
        rows = connection.execute(select(table.c.key, table.c.value_json)).all()
    return {row.key: json.loads(row.value_json) for row in rows}


def shown_plots(storage: Storage) -> dict[str, Any]:
    """The plots as the dashboard reads them."""
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    return {name: json.loads(text) for name, text in get_plotly_graph_objects(attributes(storage)).items()}


def best(study: SearchStudy) -> list[FrozenTrial]:
    return study.ranked(study.optuna.get_trials(deepcopy=False))


def artifacts(study: SearchStudy) -> dict[int, list[Any]]:
    """What the database knows of artifacts, by the number of their trial."""
    found = {trial.number: get_all_artifact_meta(trial, storage=study.storage.rdb) for trial in study.optuna.trials}
    return {number: metas for number, metas in found.items() if metas}


def assert_the_best_are_shown(study: SearchStudy, store: Path) -> None:
    found = artifacts(study)
    assert set(found) == {trial.number for trial in best(study)[:10]}
    for number, metas in found.items():
        names = sorted(meta.filename for meta in metas)
        assert names == [f"{what}-{number}.{end}" for what, end in KINDS]
    assert {path.name for path in store.iterdir()} == {meta.artifact_id for metas in found.values() for meta in metas}


KINDS = [("confusion", "png"), ("curves", "png"), ("trial", "toml"), ("wrong", "png")]


def test_after_a_search_the_note_the_plots_and_the_artifacts_of_the_ten_best_are_there(
    prepared: Prepare, any_storage_url: str, tmp_path: Path
) -> None:
    search = prepared(any_storage_url)
    events = work(search)
    assert not [event for event in events if isinstance(event, RunWarning)]
    study = search.study
    note = optuna_dashboard.get_note(study.optuna)
    first = best(study)[0]
    assert "**11 of 11 trials** finished: 11 complete, 0 pruned, 0 failed. 0 running, 0 waiting." in note
    assert f"Trial {first.number}: **{100 * first.values[0]:.2f}" in note
    assert f"kmnist-search worker tiny --storage {study.storage.lasting_url}" in note
    assert "kill" not in note  # nobody works on it any more
    plots = shown_plots(study.storage)
    assert set(plots) == PLOTS
    (line,) = [
        trace for trace in plots["kmnist-search-best-curves"]["data"] if trace["name"] == f"trial {first.number}"
    ]
    assert line["line"]["width"] == 3
    assert plots["kmnist-search-spent"]["data"][0]["x"][0] == "complete<br>11 trials"
    assert_the_best_are_shown(study, tmp_path / "artifacts")
    for meta in artifacts(study)[first.number]:
        if meta.mimetype == "image/png":
            with Image.open(tmp_path / "artifacts" / meta.artifact_id) as picture:
                assert picture.width > 500
                assert len(picture.getcolors() or ()) > 10


def test_the_recipe_of_the_best_trial_runs_and_is_the_same_configuration(
    prepared: Prepare, storage_url: str, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    search = prepared(storage_url, trials=3)
    work(search)
    first = best(search.study)[0]
    (meta,) = [each for each in artifacts(search.study)[first.number] if each.filename.endswith(".toml")]
    (tmp_path / "again.toml").write_bytes((tmp_path / "artifacts" / meta.artifact_id).read_bytes())
    result = invoke("run", "again.toml", "--storage", storage_url)
    assert result.exit_code == 0, result.output
    (again,) = find_study(search.study.storage, f"tiny-trial-{first.number}").optuna.trials
    assert again.user_attrs["config_digest"] == first.user_attrs["config_digest"]


def test_two_workers_at_once_share_the_duty_and_leave_exactly_the_best(
    prepared: Prepare, any_storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(publisher, "UPDATE_SECONDS", 0.1)
    monkeypatch.setattr(publisher, "REST", 0)
    monkeypatch.setattr(publisher, "CHECKS_PER_SECOND", 100)
    writers, notes = [], []
    write = DashboardAttributes.write

    def noted(attributes: DashboardAttributes, connection: Any, note: Callable[[str], str]) -> int:
        rows = write(attributes, connection, note)
        writers.append(threading.current_thread().ident)
        notes.append((int(attributes._pieces()["dashboard:note_ver"]), optuna_dashboard.get_note(attributes._study)))
        return rows

    monkeypatch.setattr(DashboardAttributes, "write", noted)
    searches = [prepared(any_storage_url, trials=16) for _ in range(2)]
    told: list[Event] = []
    threads = [threading.Thread(target=lambda each=each: told.extend(work(each))) for each in searches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    study = searches[0].study
    assert study.counts().complete == 16
    assert not [event for event in told if isinstance(event, RunWarning)]
    assert writers
    # None wrote over another's: versions rise, and one that comes again is the same text, for there was no news.
    versions = [version for version, _ in notes]
    assert versions == sorted(versions)
    assert len(set(notes)) == len(set(versions)) > 1
    assert "**16 of 16 trials** finished" in optuna_dashboard.get_note(study.optuna)
    assert_the_best_are_shown(study, tmp_path / "artifacts")


def test_what_was_added_after_the_last_status_was_shown_is_removed_by_who_ends_last(
    prepared: Prepare, any_storage_url: str, tmp_path: Path
) -> None:
    search = prepared(any_storage_url, trials=12)
    work(search)
    study, store = search.study, tmp_path / "artifacts"
    assert_the_best_are_shown(study, store)
    late = best(study)[-1]
    open_artifact_store(str(store), study.storage.url).write("late", BytesIO(b"of a trial that is not among the best"))
    meta = ArtifactMeta(artifact_id="late", filename="curves.png", mimetype="image/png", encoding=None)
    row = {
        "trial_id": trial_id_of(late),
        "key": f"{ARTIFACT_KEY_PREFIX}late",
        "value_json": json.dumps(json.dumps(asdict(meta))),
    }
    with study.storage.writing() as connection:
        put(connection, system_attributes, [row], unique=("trial_id", "key"))
    assert late.number in artifacts(study)
    work(prepared(any_storage_url, trials=12))
    assert_the_best_are_shown(study, store)


def test_a_store_that_cannot_be_written_is_told_once_and_fails_no_trial(
    prepared: Prepare, storage_url: str, tmp_path: Path
) -> None:
    search = prepared(storage_url, trials=4)
    (tmp_path / "artifacts").rmdir()
    (tmp_path / "artifacts").write_text("in the way")
    events = work(search)
    (told,) = [event for event in events if isinstance(event, RunWarning)]
    assert str(tmp_path / "artifacts") in told.text
    assert [event.outcome for event in events if isinstance(event, TrialEnded)] == ["complete"] * 4
    assert "**4 of 4 trials** finished" in optuna_dashboard.get_note(search.study.optuna)
    assert artifacts(search.study) == {}


def test_a_database_that_goes_away_keeps_nobody_waiting_and_is_not_reported_twice(
    prepared: Prepare, any_storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = prepared(any_storage_url, trials=1)
    _, events = search.work(StopSignals())
    with closing(events):
        told = []
        for event in events:
            told.append(event)
            if isinstance(event, TrialEnded):
                monkeypatch.setattr(Storage, "writing", _away)
                monkeypatch.setattr(Storage, "reading", _away)
                ended = time.monotonic()
                break
    assert time.monotonic() - ended < 5
    assert not [event for event in told if isinstance(event, RunWarning)]


@contextmanager
def _away(storage: Storage) -> Iterator[Any]:
    """What a server that is gone does to a connection."""
    from sqlalchemy.exc import OperationalError

    raise OperationalError("SELECT 1", {}, Exception("connection refused"), connection_invalidated=True)
    yield


def test_what_people_add_to_the_note_survives_the_next_search(prepared: Prepare, storage_url: str) -> None:
    search = prepared(storage_url, trials=1)
    work(search)
    study = search.study.optuna
    optuna_dashboard.save_note(study, f"{optuna_dashboard.get_note(study)}\n\nTry wider nets next.")
    work(prepared(storage_url, trials=2))
    note = optuna_dashboard.get_note(study)
    assert "**2 of 2 trials** finished" in note
    assert note.endswith(f"{END}\n\nTry wider nets next.")


def test_a_study_that_is_finished_is_not_shown_anew(prepared: Prepare, storage_url: str) -> None:
    search = prepared(storage_url, trials=2)
    work(search)
    before = attributes(search.study.storage)
    work(prepared(storage_url, trials=2))
    assert attributes(search.study.storage) == before


def test_one_worker_has_the_leader_lease_until_it_releases_it_or_the_lease_expires(
    prepared: Prepare, any_storage_url: str
) -> None:
    study, counts = prepared(any_storage_url, trials=1).study, Counts(complete=7)

    with study.storage.writing() as connection:

        def take(worker: str, seconds: float = 60.0) -> str:
            return leader.acquire(connection, study.queue, worker, seconds=seconds).worker

        assert [take("a"), take("b"), take("a")] == ["a", "a", "a"]
        assert leader.extend(connection, study.queue, "a", shown=counts, seconds=60)
        assert not leader.extend(connection, study.queue, "b", shown=None, seconds=60)
        assert not leader.extend(connection, study.queue, "b", shown=None, seconds=0.0)
        assert take("b") == "a"
        assert leader.extend(connection, study.queue, "a", shown=counts, seconds=0.0)
        assert take("b", seconds=0.01) == "b"
        assert leader.read(connection, study.queue).shown == counts
        time.sleep(0.05)
        assert take("c") == "c"


def test_pieces_that_did_not_change_are_not_written_again(prepared: Prepare, any_storage_url: str) -> None:
    study = prepared(any_storage_url, trials=1).study
    attributes = DashboardAttributes(study.queue.study_id)
    with study.storage.writing() as connection:
        assert attributes.write(connection, lambda _: "a" * 5000) == 4  # three pieces and their version
        assert attributes.write(connection, lambda _: "a" * 5000) == 0
        assert attributes.write(connection, lambda _: "a" * 4999 + "b") == 2
        assert attributes.write(connection, lambda _: "a" * 100) == 4  # pieces that are left over are emptied
    assert optuna_dashboard.get_note(study.optuna) == "a" * 100


def test_a_copy_and_an_export_have_the_note_and_leave_plots_and_artifacts_where_they_are(
    prepared: Prepare, any_storage_url: str, tmp_path: Path
) -> None:
    search = prepared(any_storage_url, trials=2)
    work(search)
    storage, store = search.study.storage, tmp_path / "artifacts"
    archive.copy_study(storage, "tiny", storage, "copy")
    copied = find_study(storage, "copy")
    assert optuna_dashboard.get_note(copied.optuna).startswith("# tiny")
    assert artifacts(copied) == {}
    archive.export_study(storage, "tiny", tmp_path / "tiny.jsonl")
    assert b"plot_data" not in (tmp_path / "tiny.jsonl").read_bytes()
    assert b"artifacts:" not in (tmp_path / "tiny.jsonl").read_bytes()
    kept = open_artifact_store(str(store), storage.url)
    archive.delete_study(storage, "copy", store=kept)
    archive.rename_study(storage, "tiny", "other")
    assert_the_best_are_shown(find_study(storage, "other"), store)
    deleted = archive.delete_study(storage, "other", store=kept)
    assert (deleted.num_artifacts, deleted.num_missing) == (8, 0)
    assert list(store.iterdir()) == []


def test_deleting_a_study_tells_of_artifacts_that_are_not_where_it_looks(
    prepared: Prepare, storage_url: str, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    work(prepared(storage_url, trials=1))
    result = invoke("studies", "delete", "tiny", "--yes", "--storage", storage_url, "--artifacts", tmp_path / "none")
    assert result.exit_code == 0, result.output
    assert "4 of its 4 artifacts were not in" in result.output


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://bucket", "is not a place for artifacts. Give a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"),
        ("s3://", "is not a place for artifacts"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_anything_is_made(
    invoke: Callable[..., Result], tmp_path: Path, url: str, said: str
) -> None:
    result = invoke("run", "tiny.toml", "--trials", "1", "--artifacts", url)
    assert result.exit_code == 2
    assert f"Error: --artifacts {url}: {said}" in result.output
    assert not (tmp_path / "kmnist-search.db").exists()


def test_a_bucket_without_its_package_is_refused_with_what_to_install(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    for optional in ("_boto3", "_gcs"):
        module = getattr(optuna.artifacts, optional)
        monkeypatch.setattr(module._imports, "_deferred", (ImportError("not here"), "not here"))
    for url, package, extra in (
        ("s3://bucket", "boto3", "s3"),
        ("gs://bucket/prefix", "google-cloud-storage", "gcs"),
    ):
        result = invoke("run", "tiny.toml", "--trials", "1", "--artifacts", url)
        assert result.exit_code == 2
        assert (
            f"--artifacts {url}: needs {package}, which is not installed: pip install 'kmnist-search[{extra}]'"
            in result.output
        )
