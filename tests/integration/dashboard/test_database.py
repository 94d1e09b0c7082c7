"""The dashboard over real databases: it shows what optuna-dashboard shows, changes nothing by reading, and survives."""

import gzip
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import optuna_dashboard
import pytest
import sqlalchemy
from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore, upload_artifact
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from sqlalchemy import event
from werkzeug.test import Client

from kmnist_search.dashboard import database as database_module, storage as storage_module
from kmnist_search.dashboard.database import Database
from kmnist_search.dashboard.server import Access, application
from kmnist_search.database.storage import Storage, open_storage
from kmnist_search.database.tables import system_attributes
from kmnist_search.optuna_internals import ARTIFACT_KEY_PREFIX

if TYPE_CHECKING:
    from click.testing import Result

HERE = Access(host="127.0.0.1")


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each request see the database as it is now."""
    monkeypatch.setattr(storage_module, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(storage_module, "READING_SHARE", float("inf"))
    monkeypatch.setattr(database_module, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def storage(any_storage_url: str) -> Iterator[Storage]:
    opened = open_storage(any_storage_url, create=True)
    yield opened
    opened.disconnect()


def _study(storage: Storage, name: str = "mixed") -> optuna.Study:
    """A study with trials of every kind, notes, an attribute of every type."""
    study = optuna.create_study(storage=storage.rdb, study_name=name, direction="maximize")
    study.set_user_attr("list", [1, "a"])
    for number in range(4):
        trial = study.ask()
        trial.suggest_float("rate", 1e-3, 1e-1, log=True)
        trial.suggest_int("blocks", 1, 2 + number)
        trial.suggest_categorical("kind", ["a", "b"])
        trial.report(number / 10, 1)
        trial.report(float("nan") if number == 3 else number / 5, 2)
        trial.set_user_attr("seconds", number)
        trial.set_user_attr("device", "CPU" if number else 1)
        state = (TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)[number]
        study.tell(trial, number / 5 if state == TrialState.COMPLETE else None, state=state)
    running = study.ask()
    running.suggest_float("rate", 1e-3, 1e-1, log=True)
    running.report(0.5, 1)
    study.enqueue_trial({"rate": 0.01})
    optuna_dashboard.save_note(study, "about the study")
    optuna_dashboard.save_note(running, "about a trial\n" * 300)
    return study


class Asker:
    """A browser on this machine."""

    def __init__(self, url: str, **access: Any) -> None:
        self.client = Client(application(Database(url), Access(host="127.0.0.1", **access)))

    def __call__(self, path: str, method: str = "GET", **options: Any) -> Any:
        return self.client.open(path, method=method, base_url="http://127.0.0.1:8080", **options)


def test_a_study_is_shown_as_optuna_dashboard_shows_it(storage: Storage, any_storage_url: str) -> None:
    study = _study(storage)
    ask, plain = Asker(any_storage_url), Client(optuna_dashboard.wsgi(storage.rdb))
    number = study._study_id
    for path in ("/api/studies", f"/api/studies/{number}/param_importances", "/api/studies/99", "/api/meta"):
        assert ask(path).get_json() == plain.get(path).get_json(), path
    for after in ("", "?after=0", "?after=4", "?after=100"):
        ours = ask(f"/api/studies/{number}{after}").get_json()
        theirs = plain.get(f"/api/studies/{number}{after}").get_json()
        # Theirs is empty as long as a trial waits, which has no hyperparameters yet.
        common = ours.pop("intersection_search_space")
        assert theirs.pop("intersection_search_space") == []
        assert [each["name"] for each in common] == ["blocks", "kind", "rate"]
        assert sorted(ours.pop("union_user_attrs"), key=str) == sorted(theirs.pop("union_user_attrs"), key=str)
        assert _in_order(ours) == _in_order(theirs), after
    strange = ask(f"/api/studies/{number}?after=-1")
    assert (strange.status_code, strange.get_json()) == (400, {"reason": "`after` should be larger or equal 0."})
    assert ask(f"/csv/{number}").data == plain.get(f"/csv/{number}", headers={"Accept-Encoding": ""}).data


def _in_order(detail: dict[str, Any]) -> dict[str, Any]:
    """Sort what has no order: choices, which optuna-dashboard puts into a set, and rows as the database has them."""
    for each in detail["union_search_space"]:
        each["distribution"].get("choices", []).sort(key=str)
    for trial in (*detail["trials"], *detail["best_trials"]):
        trial["user_attrs"].sort(key=str)
    return detail


def test_studies_with_several_objectives_are_optuna_dashboards(storage: Storage, any_storage_url: str) -> None:
    study = optuna.create_study(storage=storage.rdb, directions=["minimize", "maximize"])
    study.add_trial(create_trial(values=[1.0, 2.0]))
    path = f"/api/studies/{study._study_id}?after=0"
    assert Asker(any_storage_url)(path).get_json() == Client(optuna_dashboard.wsgi(storage.rdb)).get(path).get_json()


def test_what_changed_is_shown_and_what_did_not_is_not_sent_again(storage: Storage, any_storage_url: str) -> None:
    study = _study(storage)
    ask, path = Asker(any_storage_url), f"/api/studies/{study._study_id}?after=0"

    def changed(since: Any) -> Any:
        answer = ask(path, headers={"If-None-Match": since.headers["ETag"]})
        return None if answer.status_code == 304 else answer

    first = ask(path)
    seen: list[Any] = [first]
    waiting, running = study.trials[5], study.trials[4]

    def see(change: Callable[[], object]) -> dict[str, Any]:
        change()
        answer = changed(seen[-1])
        assert answer is not None
        seen.append(answer)
        assert changed(answer) is None
        detail: dict[str, Any] = answer.get_json()
        return detail

    study.tell(3, float("nan"), skip_if_finished=True)  # what is finished stays as it is
    # A NaN that was reported does not compare, but is not read again.
    assert changed(first) is None
    rdb = storage.rdb
    assert see(lambda: rdb.set_trial_intermediate_value(running._trial_id, 2, 0.7))["trials"][4][
        "intermediate_values"
    ] == [{"step": 1, "value": 0.5}, {"step": 2, "value": 0.7}]
    assert (
        see(lambda: rdb.set_trial_state_values(waiting._trial_id, TrialState.RUNNING))["trials"][5]["state"]
        == "Running"
    )
    detail = see(lambda: rdb.set_trial_state_values(running._trial_id, TrialState.COMPLETE, [0.9]))
    assert [trial["number"] for trial in detail["best_trials"]] == [4]
    assert len(see(study.ask)["trials"]) == 7
    noted = see(lambda: optuna_dashboard.save_note(optuna.Trial(study, study.trials[0]._trial_id), "late"))
    assert [trial["note"]["body"] for trial in noted["trials"]][:2] == ["late", ""]
    assert see(lambda: study.set_user_attr("new", 1))["user_attrs"][-1] == {"key": "new", "value": "1"}


def test_lists_and_tables_among_the_attributes_are_not_shown(storage: Storage, any_storage_url: str) -> None:
    study = optuna.create_study(storage=storage.rdb)
    nested = {"config": {"dim": 64}, "val_loss_curve": [0.5, 0.25], "attempts": []}
    shown = {"seconds": 1.5, "device": "[CPU]", "is_best": True, "none": None}
    study.add_trial(create_trial(value=0.5, user_attrs={**nested, **shown}))
    detail = Asker(any_storage_url)(f"/api/studies/{study._study_id}?after=0").get_json()
    for trial in (*detail["trials"], *detail["best_trials"]):
        assert {each["key"] for each in trial["user_attrs"]} == set(shown)
    assert {each["key"] for each in detail["union_user_attrs"]} == set(shown)
    assert set(study.trials[0].user_attrs) == {*nested, *shown}, "they stay in the database"


def test_an_artifact_that_a_finished_trial_gets_or_loses_is_noticed(storage: Storage, any_storage_url: str) -> None:
    study = optuna.create_study(storage=storage.rdb)
    study.add_trial(create_trial(value=0.5, user_attrs={"num_parameters": 10}))
    meta = ArtifactMeta(artifact_id="0a", filename="curves-0.png", mimetype="image/png", encoding=None)
    row = {
        "trial_id": study.trials[0]._trial_id,
        "key": f"{ARTIFACT_KEY_PREFIX}0a",
        "value_json": json.dumps(json.dumps(asdict(meta))),
    }
    ask, path = Asker(any_storage_url), f"/api/studies/{study._study_id}?after=0"

    def shown() -> tuple[list[str], bool]:
        (only,) = ask(path).get_json()["trials"]
        return [each["filename"] for each in only["artifacts"]], "![learning curves](" in only["note"]["body"]

    assert shown() == ([], False)
    with storage.writing() as connection:
        connection.execute(sqlalchemy.insert(system_attributes), [row])
    assert shown() == (["curves-0.png"], True)
    with storage.writing() as connection:
        connection.execute(sqlalchemy.delete(system_attributes))
    assert shown() == ([], False)


def test_what_is_added_to_the_note_of_a_trial_is_stored_and_shown_once(storage: Storage, any_storage_url: str) -> None:
    study = optuna.create_study(storage=storage.rdb)
    study.add_trial(create_trial(value=0.5, user_attrs={"num_parameters": 10}))
    ask, path = Asker(any_storage_url), f"/api/studies/{study._study_id}"
    trial = study.trials[0]._trial_id

    def note() -> dict[str, Any]:
        found: dict[str, Any] = ask(f"{path}?after=0").get_json()["trials"][0]["note"]
        return found

    first = note()
    assert first["body"].startswith("0 epochs, 10 parameters")
    added = {"version": first["version"] + 1, "body": f"{first['body']}\n\nMine."}
    assert ask(f"{path}/{trial}/note", "PUT", json=added).status_code == 200
    assert note() == added


def test_a_finished_trial_is_read_once(storage: Storage, any_storage_url: str) -> None:
    study = _study(storage)
    for _ in range(50):
        study.add_trial(create_trial(value=0.5, intermediate_values={1: 0.5}))
    database = Database(any_storage_url)
    client = Client(application(database, HERE))
    path = f"/api/studies/{study._study_id}?after=0"
    read: list[int] = []
    with database.opened() as opened:
        event.listen(opened.engine, "after_cursor_execute", lambda *event: read.append(event[1].rowcount))
    statements = []
    for _ in range(3):
        read.clear()
        assert client.get(path, base_url="http://127.0.0.1").status_code == 200
        statements.append(len(read))
    assert statements[1] == statements[2]
    assert statements[1] <= 14, "a poll asks for much"


def test_a_new_study_in_the_place_of_a_deleted_one_is_shown(storage: Storage, any_storage_url: str) -> None:
    ask = Asker(any_storage_url)
    for values in ([0.1, 0.2], [0.8, 0.9]):
        study = optuna.create_study(storage=storage.rdb, study_name="again", direction="maximize")
        for value in values:
            study.add_trial(create_trial(value=value))
            time.sleep(0.002)
        detail = ask(f"/api/studies/{study._study_id}?after=0").get_json()
        assert [trial["values"] for trial in detail["trials"]] == [[value] for value in values]
        assert [trial["values"] for trial in detail["best_trials"]] == [[values[-1]]]
        optuna.delete_study(study_name="again", storage=storage.rdb)


def test_no_question_changes_anything_and_no_change_is_made_when_read_only(
    storage: Storage, any_storage_url: str, tmp_path: Path
) -> None:
    study = _study(storage)
    number, trial = study._study_id, study.trials[4]._trial_id
    artifacts = FileSystemArtifactStore(tmp_path)
    artifact = upload_artifact(artifact_store=artifacts, file_path=__file__, study_or_trial=study)
    app = application(Database(any_storage_url), Access(host="127.0.0.1", is_read_only=True), artifacts)
    before, client, rules = _content(storage), Client(app), optuna_dashboard.wsgi(storage.rdb).routes
    values = {
        "<study_id:int>": str(number),
        "<trial_id:int>": str(trial),
        "<filename:path>": "bundle.js",
        "<:re:(/.*)?>": "",
        "<plot_type>": "edf",
        "<artifact_id:re:[0-9a-fA-F-]+>": artifact,
        "<history_id>": "x",
    }
    asked: dict[str, int] = {}
    for rule in rules:
        path = rule.rule
        for placeholder, value in values.items():
            path = path.replace(placeholder, value)
        assert "<" not in path
        answer = client.open(path, method=rule.method, base_url="http://127.0.0.1", json={} if "<" in path else None)
        asked[f"{rule.method} {rule.rule}"] = answer.status_code
        if rule.method != "GET":
            assert answer.status_code == 403, path
        answer.close()
    assert len(asked) > 25
    assert asked["GET /api/studies/<study_id:int>"] == 200
    assert _content(storage) == before


def _content(storage: Storage) -> dict[str, list[Any]]:
    metadata = sqlalchemy.MetaData()
    metadata.reflect(storage.engine)
    with storage.reading() as connection:
        return {
            name: sorted(map(repr, connection.execute(sqlalchemy.select(table)).all()))
            for name, table in metadata.tables.items()
        }


def test_changes_by_the_page_are_made_and_seen_at_once(
    storage: Storage, any_storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "FRESH_SECONDS", 60.0)
    study = _study(storage)
    ask, path = Asker(any_storage_url), f"/api/studies/{study._study_id}"
    assert ask(path).get_json()["note"] == {"version": 1, "body": "about the study"}
    assert ask(f"{path}/note", "PUT", json={"version": 2, "body": "changed"}).get_json() == {}
    assert ask(path).get_json()["note"] == {"version": 2, "body": "changed"}
    assert ask(f"{path}/note", "PUT", json={"version": 2, "body": "late"}).status_code == 409
    trial = study.trials[4]._trial_id
    assert ask(f"/api/trials/{trial}/tell", "POST", json={"state": "Complete", "values": [0.5]}).get_json() == {}
    assert ask(path).get_json()["trials"][4]["state"] == "Complete"
    renamed = ask(f"{path}/rename", "POST", json={"study_name": "other"}).get_json()
    assert ask(path).status_code == 404
    assert ask(f"/api/studies/{renamed['study_id']}", "DELETE").get_json() == {}
    assert ask("/api/studies").get_json() == {"study_summaries": []}


def test_a_role_that_may_only_read_sees_all_and_is_told_what_it_may_not(
    request: pytest.FixtureRequest, as_reader: Callable[[str], str]
) -> None:
    url: str = request.getfixturevalue("_postgres_url")()
    study = _study(open_storage(url, create=True))
    ask = Asker(as_reader(url))
    assert len(ask(f"/api/studies/{study._study_id}?after=0").get_json()["trials"]) == 6
    for method, path, body in (
        ("DELETE", f"/api/studies/{study._study_id}", {}),
        ("PUT", f"/api/studies/{study._study_id}/note", {"version": 2, "body": "x"}),
        ("POST", "/api/studies", {"study_name": "x", "directions": ["minimize"]}),
    ):
        refused = ask(path, method, json=body)
        assert refused.status_code == 403, path
        assert "does not let this dashboard change it" in refused.get_json()["reason"]
    assert ask("/api/studies").get_json()["study_summaries"][0]["study_name"] == "mixed"


def test_a_database_without_studies_is_an_empty_list_until_there_is_one(any_storage_url: str) -> None:
    ask = Asker(any_storage_url)
    assert ask("/dashboard").status_code == 200
    assert ask("/api/studies").get_json() == {"study_summaries": []}
    made = ask("/api/studies", "POST", json={"study_name": "x", "directions": ["minimize"]})
    assert made.status_code == 503
    assert "Start a search with" in made.get_json()["reason"]
    if any_storage_url.startswith("sqlite"):
        assert not Path(any_storage_url.removeprefix("sqlite:///")).exists()
    _study(open_storage(any_storage_url, create=True))
    assert [each["study_name"] for each in ask("/api/studies").get_json()["study_summaries"]] == ["mixed"]


def test_a_file_that_is_gone_or_another_one_is_noticed(storage_url: str, tmp_path: Path) -> None:
    file = tmp_path / "search.db"
    study = _study(open_storage(storage_url, create=True))
    ask, path = Asker(storage_url), f"/api/studies/{study._study_id}"
    assert ask(path).get_json()["name"] == "mixed"
    for each in tmp_path.glob("search.db*"):
        each.unlink()
    assert ask("/api/studies").get_json() == {"study_summaries": []}
    assert "there is no database at" in ask(path).get_json()["reason"]
    assert not file.exists()
    _study(open_storage(storage_url, create=True), "other")
    assert ask(path).get_json()["name"] == "other"


def test_a_database_that_is_away_is_told_in_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    ask = Asker("postgresql://somebody:s3cret@127.0.0.1:9/nowhere")
    for path in ("/api/studies", "/api/studies/1?after=3", "/csv/1", "/api/studies/1/param_importances"):
        away = ask(path)
        assert (away.status_code, away.headers["Retry-After"]) == (503, "5"), path
        assert "Connection refused" in away.get_data(as_text=True)
        assert "s3cret" not in away.get_data(as_text=True)
    page = ask("/dashboard/studies/1")
    assert (page.status_code, page.headers["Refresh"]) == (503, "5")
    assert "<h1>The database is away</h1>" in page.get_data(as_text=True)
    assert ask("/static/bundle.js").status_code == ask("/health").status_code == 200
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1, "it is said once, not at each poll"
    assert said[0].startswith("postgresql://somebody:***@127.0.0.1:9/nowhere cannot be used")
    assert "s3cret" not in caplog.text


def test_a_fault_within_optuna_dashboard_is_logged_and_not_shown(
    storage: Storage, any_storage_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = _study(storage)
    ask = Asker(any_storage_url)

    def fails(*_: object) -> None:
        raise RuntimeError("within")

    monkeypatch.setattr(storage_module.DashboardStorage, "get_all_studies", fails)
    monkeypatch.setattr(storage_module.DashboardStorage, "study", fails)
    for path in ("/api/studies", "/dashboard", f"/csv/{study._study_id}", f"/api/studies/{study._study_id}"):
        caplog.clear()
        answer = ask(path)
        assert answer.status_code == 500, path
        assert "within" not in answer.get_data(as_text=True)
        assert "Traceback" not in answer.get_data(as_text=True)
        assert "within" in caplog.text, path


def test_the_page_has_the_script_that_says_what_failed_and_a_style(storage: Storage, any_storage_url: str) -> None:
    ask = Asker(any_storage_url)
    page = ask("/dashboard").get_data(as_text=True)
    scripts = re.findall(r'<script[^>]* src="([^"]+)"', page)
    assert scripts == ["/kmnist-search/banner.js", "/static/bundle.js"]
    styles = re.findall(r'<link rel="stylesheet" href="([^"]+)"', page)
    assert styles == ["/kmnist-search/page.css"]
    for path, mimetype in ((scripts[0], "text/javascript"), (styles[0], "text/css")):
        file = ask(path)
        assert file.mimetype == mimetype
        assert ask(path, headers={"If-None-Match": file.headers["ETag"]}).status_code == 304


def test_large_answers_are_small_on_the_way(storage: Storage, any_storage_url: str) -> None:
    study = _study(storage)
    path = f"/api/studies/{study._study_id}?after=0"
    ask = Asker(any_storage_url)
    small, plain = ask(path, headers={"Accept-Encoding": "gzip"}), ask(path)
    assert small.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(small.data)) == plain.get_json()
    assert len(small.data) < len(plain.data) / 3
    assert isinstance(storage.rdb, RDBStorage)


def test_the_command_listens_elsewhere_only_if_that_is_wanted(invoke: Callable[..., "Result"], tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::", "example.org"):
        for more in ((), ("--read-only",)):
            _refused(
                invoke("dashboard", "--host", host, *more),
                f"--host {host}: without --password-file FILE",
            )
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("secret\n")
    # The next thing that is looked at.
    for protected in (("--i-know-it-is-open",), ("--password-file", password)):
        _refused(invoke("dashboard", "--host", "192.0.2.1", *protected), "port 8080 of 192.0.2.1 cannot be used")


def test_the_command_refuses_half_a_login(
    invoke: Callable[..., "Result"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o644)
    _refused(invoke("dashboard", "--password-file", password), "other users can read or change it (mode 644)")
    password.chmod(0o600)
    _refused(invoke("dashboard", "--password-file", password, "--user", "a:b"), "--user 'a:b': a user name must not")
    _refused(invoke("dashboard", "--user", "me"), "a user needs a password")
    _refused(invoke("dashboard", "--password-file", password, "--i-know-it-is-open"), "Leave one of them out")
    monkeypatch.setenv("KMNIST_SEARCH_DASHBOARD_PASSWORD_FILE", str(tmp_path / "missing"))
    _refused(invoke("dashboard"), "cannot be read: No such file or directory. Make it with: ")
    monkeypatch.setenv("KMNIST_SEARCH_DASHBOARD_PASSWORD_FILE", str(password))
    monkeypatch.setenv("KMNIST_SEARCH_DASHBOARD_USER", "")
    monkeypatch.setenv("KMNIST_SEARCH_STORAGE", "mysql://me@server/kmnist")
    _refused(invoke("dashboard"), "mysql databases are not supported")


def _refused(result: "Result", message: str) -> None:
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "secret" not in result.output
    assert "Traceback" not in result.output
