"""The commands that keep, move and delete studies, as a user meets them: messages, exit codes, files, questions."""

import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from click.testing import Result
from optuna.trial import TrialState, create_trial
from sqlalchemy import make_url

from kmnist_search.database.storage import Storage, open_storage
from kmnist_search.study.opening import find_study, open_study, study_names
from kmnist_search.study_file.builtin import builtin_studies, find_study_file
from kmnist_search.study_file.parser import load
from tests.support.postgres import PostgresServer

Invoke = Callable[..., Result]
HERE = "sqlite:///kmnist-search.db"


@pytest.fixture
def storage(invoke: Invoke, tiny_study: Path) -> Storage:
    """The default database with the study "tiny" of two trials, complete and pruned."""
    storage = open_storage(HERE, create=True)
    study = open_study(storage, load(tiny_study))
    study.touch()
    study.optuna.add_trials([create_trial(value=0.5), create_trial(state=TrialState.PRUNED)])
    return storage


def _done(result: Result, *lines: str) -> None:
    assert (result.exit_code, result.stdout.splitlines()) == (0, list(lines)), result.output


def _refused(result: Result, message: str) -> None:
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {message}\n"


@pytest.mark.parametrize("source", [*builtin_studies(), "tiny.toml"])
def test_what_show_prints_is_the_study_file_again(invoke: Invoke, source: str) -> None:
    settings = load(find_study_file(source), overrides=["study.name=mine"])
    study = open_study(open_storage(HERE, create=True), settings)
    shown = invoke("studies", "show", "mine")
    assert shown.stdout.startswith(f"# study mine in {HERE}\n# 0 trials\n\n[study]\n")
    Path("again.toml").write_text(shown.stdout)
    again = load(Path("again.toml"))
    assert again == settings
    assert json.loads(again.model_dump_json()) == study.settings


def test_show_writes_every_kind_of_hyperparameter_as_the_study_file_does(invoke: Invoke) -> None:
    Path("odd.toml").write_text(
        "[space]\n"
        "dim = { low = 8, high = 64, log = true }\n"
        "num_blocks = { low = 1, high = 9, step = 2 }\n"
        "dropout = { low = 0.0, high = 0.5, step = 0.1 }\n"
        "shift = { low = 0.0, high = 4.0, step = 1.0 }\n"
        "skip = { choices = [true, false] }\n"
        'norm = { choices = ["layer", "none"] }\n'
        "[fixed]\n"
        "learning_rate = 1e-05\n"
        "clip_norm = 0.0\n"
        "[[enqueue]]\nskip = true\n[[enqueue]]\ndim = 16\nshift = 2.0\n"
    )
    odd = load(Path("odd.toml"), overrides=["study.name=größer"])
    open_study(open_storage(HERE, create=True), odd)
    Path("again.toml").write_text(invoke("studies", "show", "größer").stdout)
    assert load(Path("again.toml")) == odd


def test_a_study_resumes_with_the_file_that_show_printed(invoke: Invoke) -> None:
    invoke("run", "tiny.toml", "--trials", 1)
    Path("again.toml").write_text(invoke("studies", "show", "tiny").stdout)
    assert "Done: 2 of 2 trials are finished." in invoke("run", "again.toml", "--trials", 2).stdout
    assert "# 2 trials: " in invoke("studies", "show", "tiny").stdout


def test_show_as_json_has_settings_and_counts(invoke: Invoke, storage: Storage) -> None:
    shown = json.loads(invoke("studies", "show", "tiny", "--json").stdout)
    assert shown["study"] == "tiny"
    assert shown["settings"] == find_study(storage, "tiny").settings
    assert (shown["trials"]["complete"], shown["trials"]["pruned"], shown["trials"]["total"]) == (1, 1, 2)
    assert "# 2 trials: 1 complete, 1 pruned\n" in invoke("studies", "show", "tiny").stdout


def test_a_study_is_exported_to_a_file_or_to_standard_output_and_imported(invoke: Invoke, storage: Storage) -> None:
    _done(invoke("studies", "export", "tiny", "tiny.jsonl"), "study tiny with 2 trials is in tiny.jsonl")
    piped = invoke("studies", "export", "tiny", "-")
    assert piped.stdout_bytes == Path("tiny.jsonl").read_bytes()
    assert piped.stderr == ""
    assert not Path("-").exists()
    _done(
        invoke("studies", "import", "-", "--name", "tiny-1", input=piped.stdout_bytes),
        f"study tiny-1 with 2 trials is in {HERE}",
    )
    _refused(
        invoke("studies", "import", "-", "--name", "no", input=piped.stdout_bytes.splitlines()[0]),
        "standard input: ends after 0 of 2 trials: a part is missing. Export or copy it again.",
    )
    _refused(
        invoke("studies", "import", "tiny.jsonl"),
        f"{HERE} has a study 'tiny' already. Put it there under another name: --name tiny-2",
    )
    _done(invoke("studies", "import", "tiny.jsonl", "--name", "tiny-2"), f"study tiny-2 with 2 trials is in {HERE}")
    elsewhere = "sqlite:///elsewhere.db"
    _done(
        invoke("studies", "import", "tiny.jsonl", "--storage", elsewhere),
        f"study tiny with 2 trials is in {elsewhere}",
    )
    assert set(study_names(storage)) == {"tiny", "tiny-1", "tiny-2"}


def test_a_damaged_file_exits_with_two_and_names_the_line(invoke: Invoke, storage: Storage) -> None:
    invoke("studies", "export", "tiny", "tiny.jsonl")
    lines = Path("tiny.jsonl").read_bytes().splitlines(keepends=True)
    Path("tiny.jsonl").write_bytes(b"".join(lines[:2]))
    _refused(
        invoke("studies", "import", "tiny.jsonl", "--name", "two"),
        "tiny.jsonl: ends after 1 of 2 trials: a part is missing. Export or copy it again.",
    )
    Path("tiny.jsonl").write_bytes(b"".join(lines)[:-10])
    result = invoke("studies", "import", "tiny.jsonl", "--name", "two")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: tiny.jsonl, line 3: Invalid JSON: EOF while parsing")
    assert result.stderr.endswith(". The file is damaged: export or copy it again.\n")
    assert study_names(storage) == ["tiny"]


def test_import_and_copy_say_that_a_trial_which_ran_waits(invoke: Invoke, storage: Storage) -> None:
    find_study(storage, "tiny").optuna.add_trial(create_trial(state=TrialState.RUNNING))
    lines = ("study tiny-2 with 3 trials is in sqlite:///b.db", "1 trial ran in the source: waiting here")
    invoke("studies", "export", "tiny", "tiny.jsonl")
    arguments = ("--name", "tiny-2", "--storage", "sqlite:///b.db")
    _done(invoke("studies", "import", "tiny.jsonl", *arguments), *lines)
    Path("b.db").unlink()
    _done(invoke("studies", "copy", "tiny", "--to", "sqlite:///b.db", "--name", "tiny-2"), *lines)


def test_a_copied_study_resumes_in_the_other_database(invoke: Invoke, any_storage_url: str) -> None:
    invoke("run", "tiny.toml", "--trials", 2)
    copied = invoke("studies", "copy", "tiny", "--to", any_storage_url)
    _done(copied, f"study tiny with 2 trials is in {open_storage(any_storage_url, create=False).shown_url}")
    more = invoke("run", "tiny.toml", "--trials", 3, "--storage", any_storage_url)
    assert "[3/3]" in more.stdout
    assert "2 of 2" in invoke("studies").stdout


def test_no_password_of_a_url_is_shown(invoke: Invoke, request: pytest.FixtureRequest, tiny_study: Path) -> None:
    database = make_url(request.getfixturevalue("_postgres_url")())
    password = database.password or "hush"
    url = database.set(password=password).render_as_string(hide_password=False)
    open_study(open_storage(url, create=True), load(tiny_study))
    for arguments in (
        ("show", "tiny"),
        ("show", "tiny", "--json"),
        ("export", "tiny", "tiny.jsonl"),
        ("export", "tiny", "-"),
        ("import", "tiny.jsonl"),
        ("import", "tiny.jsonl", "--name", "two"),
        ("copy", "tiny", "--to", url),
        ("copy", "tiny", "--to", url, "--name", "three"),
        ("rename", "tiny", "two"),
        ("rename", "tiny", "four"),
        ("delete", "four"),
        ("delete", "tiny"),
    ):
        result = invoke("studies", *arguments, "--storage", url, input="y\n")
        assert result.exit_code in (0, 2), result.output
        assert result.stdout + result.stderr
        assert password not in result.stdout + result.stderr
    assert password not in Path("tiny.jsonl").read_text()


def test_a_renamed_study_is_found_by_its_new_name_only(invoke: Invoke, storage: Storage) -> None:
    _done(invoke("studies", "rename", "tiny", "first"), f"study tiny in {HERE} is called first now")
    _refused(invoke("status", "tiny"), f"{HERE} has no study 'tiny'. It contains: first.")
    assert "nothing to do" in invoke("run", "tiny.toml", "--name", "first", "--trials", 2).stdout


def test_deleting_asks_first_and_says_what_is_lost(invoke: Invoke, storage: Storage) -> None:
    question = f"Delete study tiny in {HERE} and lose its 2 trials (1 complete)? [y/N]: "
    for answer in ("n\n", "\n", ""):
        refused = invoke("studies", "delete", "tiny", input=answer)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr.startswith(question)
        assert refused.stderr.endswith("Aborted!\n")
        assert study_names(storage) == ["tiny"]
    deleted = invoke("studies", "delete", "tiny", input="y\n")
    assert deleted.exit_code == 0
    assert deleted.stdout.endswith(f"study tiny with 2 trials is deleted from {HERE}\n")
    assert study_names(storage) == []


def test_a_study_at_work_is_deleted_by_force_only(invoke: Invoke, storage: Storage) -> None:
    find_study(storage, "tiny").optuna.add_trial(create_trial(state=TrialState.RUNNING))
    refused = invoke("studies", "delete", "tiny", "--yes")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("Error: study 'tiny' has trials that run: 2. Stop its workers first")
    _done(invoke("studies", "delete", "tiny", "--yes", "--force"), f"study tiny with 3 trials is deleted from {HERE}")


def test_a_study_at_work_is_renamed_by_force_only(invoke: Invoke, storage: Storage) -> None:
    find_study(storage, "tiny").optuna.add_trial(create_trial(state=TrialState.RUNNING))
    _refused(
        invoke("studies", "rename", "tiny", "first"),
        "study 'tiny' has trials that run: 2. Stop its workers first (Ctrl-C; if one was killed, the next run resumes "
        "its trial), or rename the study all the same with --force.",
    )
    _done(invoke("studies", "rename", "tiny", "first", "--force"), f"study tiny in {HERE} is called first now")


@pytest.mark.parametrize(
    "arguments", [("rename", "tiny", "first"), ("delete", "tiny", "--yes")], ids=lambda typed: typed[0]
)
def test_who_may_only_read_is_told_so(
    invoke: Invoke,
    tiny_study: Path,
    postgres: PostgresServer,
    as_reader: Callable[[str], str],
    arguments: tuple[str, ...],
) -> None:
    url = postgres.new_database()
    storage = open_storage(url, create=True)
    open_study(storage, load(tiny_study))
    shown = as_reader(url)
    _refused(
        invoke("studies", *arguments, "--storage", as_reader(url)),
        f"{shown} does not let you change it: permission denied for table studies. "
        "Nothing was changed; use a role that may write.",
    )
    assert study_names(storage) == ["tiny"]
    storage.disconnect()


def test_the_storage_may_be_named_before_or_after_the_subcommand(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tiny_study: Path
) -> None:
    for name in ("a", "b", "c"):
        open_study(
            open_storage(f"sqlite:///{name}.db", create=True), load(tiny_study, overrides=[f"study.name={name}"])
        )
    monkeypatch.setenv("KMNIST_SEARCH_STORAGE", "sqlite:///a.db")
    before, after = ("--storage", "sqlite:///b.db"), ("--storage", "sqlite:///c.db")
    assert "# study a in sqlite:///a.db" in invoke("studies", "show", "a").stdout
    assert "# study b in sqlite:///b.db" in invoke("studies", *before, "show", "b").stdout
    assert "# study c in sqlite:///c.db" in invoke("studies", "show", "c", *after).stdout
    assert "# study c in sqlite:///c.db" in invoke("studies", *before, "show", "c", *after).stdout
    assert invoke("studies", *before).stdout.splitlines()[1].split()[0] == "b"


def test_json_before_a_subcommand_is_refused_with_where_it_belongs(invoke: Invoke, storage: Storage) -> None:
    result = invoke("studies", "--json", "show", "tiny")
    assert result.exit_code == 2
    assert "--json belongs after the command: studies show ... --json" in result.stderr


def test_a_study_of_another_program_can_be_seen_by_nobody(invoke: Invoke, storage: Storage) -> None:
    optuna.create_study(study_name="foreign", storage=storage.rdb)
    for arguments in (("show", "foreign"), ("delete", "foreign", "--yes"), ("export", "foreign", "f.jsonl")):
        _refused(invoke("studies", *arguments), f"{HERE} has no study 'foreign'. It contains: tiny.")
