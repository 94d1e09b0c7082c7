"""The commands as a user meets them: messages, exit codes, JSON, help."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import torchvision
from click.testing import Result

from kmnist_search.cli.main import main
from kmnist_search.database.storage import open_storage
from kmnist_search.host.process import Owner
from kmnist_search.study.opening import find_study
from kmnist_search.study.study import SearchStudy
from tests.support.postgres import PostgresServer

Invoke = Callable[..., Result]


def _commands(group: click.Group, *path: str) -> dict[str, click.Command]:
    """Return all commands and those below them, by what is typed."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found[" ".join([*path, name])] = command
        if isinstance(command, click.Group):
            found |= _commands(command, *path, name)
    return found


COMMANDS = _commands(main)


def _refused(result: Result, message: str) -> None:
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {message}\n"


def without_workers(shown: str) -> list[str]:
    """Return the lines shown but the one about worker processes, which machines of one core do not see."""
    return [line for line in shown.splitlines() if not re.fullmatch(r"1 worker process, on up to \d+ cores", line)]


def test_a_run_shows_each_trial_and_the_best_and_run_again_does_nothing(invoke: Invoke) -> None:
    first = invoke("run", "tiny.toml", "--trials", 3)
    assert first.exit_code == 0, first.output
    lines = without_workers(first.stdout)
    assert lines[0] == "study tiny in sqlite:///kmnist-search.db: digits, 1,197 training images"
    assert [line.split("]")[0] for line in lines[1:4]] == ["[1/3", "[2/3", "[3/3"]
    assert lines[4] == "Done: 3 of 3 trials are finished."
    assert re.match(r"best: val_accuracy \d+\.\d\d %", lines[5])
    again = invoke("run", "tiny.toml", "--trials", 3)
    assert again.exit_code == 0
    assert "3 trials are finished, 3 were asked for: nothing to do." in again.stdout
    more = invoke("run", "tiny.toml", "--trials", 5)
    assert "[5/5]" in more.stdout
    assert "[4/5]" in more.stdout
    assert "[3/5]" not in more.stdout


def test_json_goes_to_standard_output_alone(invoke: Invoke) -> None:
    ran = invoke("run", "tiny.toml", "--trials", 2, "--json")
    summary = json.loads(ran.stdout)
    assert summary["trials"]["finished"] == summary["trials"]["total"] == 2
    assert summary["stopped_by"] == "budget"
    assert "[2/2]" in ran.stderr
    status = json.loads(invoke("status", "--json").stdout)
    assert status.pop("retraining") is None
    assert status == {key: value for key, value in summary.items() if key != "stopped_by"}
    shown = json.loads(invoke("best", "--json").stdout)
    assert shown["study"] == "tiny"
    best = shown["top"][0]
    assert best["number"] == summary["best"]["number"]
    assert best["config"]["model"]["dim"] == best["params"]["dim"]
    studies = json.loads(invoke("studies", "--json").stdout)
    assert [each["study"] for each in studies] == ["tiny"]


def test_status_best_and_studies_say_which_study_they_show(invoke: Invoke) -> None:
    invoke("run", "tiny.toml", "--trials", 1, "--name", "first")
    invoke("run", "tiny.toml", "--trials", 2, "--name", "second")
    assert invoke("status").stdout.splitlines()[0].split() == ["study", "second"]
    assert invoke("best").stdout.splitlines()[0].split() == ["study", "second"]
    assert invoke("best", "first").stdout.splitlines()[0].split() == ["study", "first"]
    listed = invoke("studies").stdout.splitlines()
    assert [line.split()[:4] for line in listed[1:]] == [["second", "2", "of", "2"], ["first", "1", "of", "1"]]


def _leave_trial_1_to(owner: Owner, url: str = "sqlite:///kmnist-search.db") -> SearchStudy:
    study = find_study(open_storage(url, create=False), "tiny")
    study.fill(2)
    with study.storage.writing() as connection:
        study.queue.claim(connection, owner, token="t", lease_seconds=100, budget=2)
    return study


def test_status_puts_the_trial_of_a_dead_process_back_and_says_so(invoke: Invoke, dead_owner: Owner) -> None:
    invoke("run", "tiny.toml", "--trials", 1)
    _leave_trial_1_to(dead_owner)
    shown = " ".join(invoke("status").stdout.split())
    assert "0 running 1 waiting" in shown
    assert "Put back into the queue, because its worker is gone: trial 1" in shown
    assert "Put back" not in invoke("status").stdout
    assert "Done: 2 of 2 trials are finished." in invoke("run", "tiny.toml", "--trials", 2).stdout


def test_status_for_who_may_only_read_shows_all_and_says_what_it_could_not_do(
    invoke: Invoke, dead_owner: Owner, postgres: PostgresServer, as_reader: Callable[[str], str]
) -> None:
    url = postgres.new_database()
    assert invoke("run", "tiny.toml", "--trials", 1, "--storage", url).exit_code == 0
    reader = as_reader(url)
    assert invoke("status", "--storage", reader).stderr == ""
    study = _leave_trial_1_to(dead_owner, url)
    plain, as_json = invoke("status", "--storage", reader), invoke("status", "--storage", reader, "--json")
    for status in (plain, as_json):
        assert status.exit_code == 0
        assert status.stderr.startswith("A trial whose worker is gone could not be put back into the queue: ")
        assert "permission denied for table kmnist_search_leases. Nothing was changed" in status.stderr
    assert "1 running" in " ".join(plain.stdout.split())
    assert json.loads(as_json.stdout)["trials"]["running"] == 1
    assert study.counts().running == 1
    assert "Put back into the queue" in invoke("status", "--storage", url).stdout


def test_json_tells_of_each_attempt_who_had_it_when_and_how_it_ended(invoke: Invoke) -> None:
    invoke("run", "tiny.toml", "--trials", 1)
    here = Owner.this_process()
    _leave_trial_1_to(here)
    told = json.loads(invoke("status", "--json").stdout)
    (ended,), (runs,) = told["best"]["attempts"], told["running"][0]["attempts"]
    facts = ["host", "pid", "began_at", "ended_at", "how", "epochs"]
    assert (list(ended), list(runs)) == (facts, facts)
    assert (ended["how"], ended["epochs"]) == ("complete", 4)
    assert ended["began_at"] < ended["ended_at"] < runs["began_at"]
    assert (runs["host"], runs["pid"]) == (here.host, here.pid)
    assert (runs["ended_at"], runs["how"], runs["epochs"]) == (None, None, None)


def test_a_run_takes_up_the_trial_of_a_dead_process_and_says_so(invoke: Invoke, dead_owner: Owner) -> None:
    invoke("run", "tiny.toml", "--trials", 1)
    study = _leave_trial_1_to(dead_owner)
    again = invoke("run", "tiny.toml", "--trials", 2)
    assert "back in the queue, because its worker is gone: trial 1\n" in again.stdout
    assert "Done: 2 of 2 trials are finished." in again.stdout
    lost, last = study.optuna.trials[1].user_attrs["attempts"]
    assert (lost["pid"], lost["how"]) == (dead_owner.pid, "its process died")
    assert last["how"] in ("complete", "pruned")


@pytest.mark.usefixtures("memory_runs_out")
def test_best_without_a_complete_trial_says_so(invoke: Invoke, tiny_study: Path) -> None:
    invoke("run", "tiny.toml", "--trials", 1)
    _refused(
        invoke("best"),
        "study 'tiny' has no complete trial yet: 0 of 1 (0 pruned, 1 failed). See: kmnist-search status tiny",
    )


def test_an_option_and_an_override_that_say_the_same_thing_are_refused(invoke: Invoke, tmp_path: Path) -> None:
    for command in (["run"], ["submit", "queue"]):
        refused = invoke(*command, "tiny.toml", "--epochs", 3, "--set", "train.epochs=9")
        assert refused.exit_code == 2
        assert "--epochs and --set train.epochs= say the same thing. Leave one of them out." in refused.stderr
    assert not (tmp_path / "kmnist-search.db").exists()


def test_a_wrong_study_name_suggests_the_nearest(invoke: Invoke) -> None:
    _refused(
        invoke("run", "quickstat"),
        "'quickstat' is neither a built-in study nor a file. Did you mean 'quickstart'? "
        "The built-in studies are: kmnist, kmnist-cpu, kmnist-hour, kmnist-wide, quickstart, references/... (13).",
    )


def test_a_wrong_file_name_is_named_whole(invoke: Invoke, tmp_path: Path) -> None:
    _refused(
        invoke("run", "tinny.toml"),
        f"there is no study file {tmp_path}/tinny.toml. "
        "The built-in studies are: kmnist, kmnist-cpu, kmnist-hour, kmnist-wide, quickstart, references/... (13).",
    )


def test_a_mistake_in_a_study_file_is_shown_before_anything_starts(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[space]\nlearning_rat = { low = 1e-4, high = 1e-2 }\n")
    _refused(
        invoke("run", "mine.toml"),
        "mine.toml: [space] has no hyperparameter 'learning_rat'. Did you mean 'learning_rate'?",
    )
    assert not (tmp_path / "kmnist-search.db").exists()


def test_a_changed_study_is_refused_with_the_difference(invoke: Invoke) -> None:
    invoke("run", "tiny.toml", "--trials", 1)
    result = invoke("run", "tiny.toml", "--trials", 2, "--epochs", 9)
    assert result.exit_code == 2
    assert "  train.epochs: 4 then, 9 now\n" in result.stderr
    assert "--name tiny-2" in result.stderr


def test_options_change_what_the_file_says(invoke: Invoke) -> None:
    arguments = ("--trials", 1, "--epochs", 2, "--seed", 7, "--name", "true", "--set", "fixed.shift=1")
    ran = invoke("run", "tiny.toml", *arguments, "--json")
    best = json.loads(ran.stdout)["best"]
    assert json.loads(ran.stdout)["study"] == "true"
    assert len(best["reports"]) == 2
    assert json.loads(invoke("best", "--json").stdout)["top"][0]["config"]["augment"]["shift"] == 1.0


def test_no_data_and_no_network_is_one_clear_message(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.KMNIST, "mirrors", ["http://127.0.0.1:9/"])  # nothing listens there
    Path("images").mkdir()
    result = invoke("run", "kmnist", "--data-dir", "images")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: KMNIST is not in images/KMNIST/raw and could not be downloaded:\n")
    for name in ("train-images-idx3", "train-labels-idx1"):
        assert f"  {name}-ubyte\n" in result.stderr
    assert result.stderr.endswith("To try a search without a download: kmnist-search run quickstart\n")
    assert not Path("kmnist-search.db").exists()
    assert list(Path("images").iterdir()) == []
    assert "'elsewhere' does not exist" in invoke("run", "kmnist", "--data-dir", "elsewhere").stderr
    assert not Path("elsewhere").exists()


def test_a_smaller_budget_than_what_is_finished_does_nothing(invoke: Invoke) -> None:
    invoke("run", "tiny.toml", "--trials", 3)
    result = invoke("run", "tiny.toml", "--trials", 2)
    assert "3 trials are finished, 2 were asked for: nothing to do.\nFor ten more: --trials +10." in result.stdout
    assert "Done: 3 of 3 trials are finished." in result.stdout
    assert "nothing runs" in invoke("status").stdout


def test_a_run_that_does_nothing_leaves_another_study_the_one_last_worked_on(invoke: Invoke) -> None:
    for name in ("first", "second"):
        invoke("run", "tiny.toml", "--trials", 1, "--name", name)
    invoke("run", "tiny.toml", "--trials", 1, "--name", "first")
    assert invoke("status").stdout.split()[:2] == ["study", "second"]


def test_commands_to_type_next_have_the_storage_that_was_typed_without_its_password(
    invoke: Invoke, postgres: PostgresServer
) -> None:
    shown = postgres.new_database()
    url = shown.replace("tester@", "tester:s3cret@")
    done = invoke("run", "tiny.toml", "--trials", 1, "--storage", url)
    assert f"kmnist-search best tiny --retrain --storage {shown}\n" in done.stdout
    again = invoke("run", "tiny.toml", "--trials", 1, "--storage", url)
    assert f"The best: kmnist-search best tiny --storage {shown}\n" in again.stdout


def test_storage_and_data_may_come_from_the_environment(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KMNIST_SEARCH_STORAGE", "sqlite:///elsewhere.db")
    monkeypatch.setenv("KMNIST_SEARCH_DATA", str(tmp_path))
    assert invoke("run", "tiny.toml", "--trials", 1).exit_code == 0
    assert (tmp_path / "elsewhere.db").exists()


@pytest.mark.parametrize(
    ("text", "seconds"), [("45", 45), ("45s", 45), ("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("1h1m1s", 3661)]
)
@pytest.mark.parametrize(
    ("command", "option"), [("run", "--timeout"), ("worker", "--timeout"), ("worker", "--max-time")]
)
def test_a_time_is_written_as_people_write_it(command: str, option: str, text: str, seconds: float) -> None:
    """Jobs that an earlier version queued still say --max-time."""
    with main.commands[command].make_context(command, [option, text]) as context:
        assert context.params["timeout"] == seconds


@pytest.mark.parametrize("text", ["2x", "h", "-5", "1.5h"])
def test_a_time_that_is_none_is_refused(invoke: Invoke, text: str) -> None:
    result = invoke("run", "tiny.toml", "--timeout", text)
    assert result.exit_code == 2
    assert f"'--timeout': {text!r} is not a time. Write 45 or 45s (seconds), 90m, 2h or 1h30m." in result.stderr


def test_a_folder_that_no_checkpoint_can_be_written_to_is_refused_before_anything_starts(invoke: Invoke) -> None:
    Path("taken").touch()
    _refused(
        invoke("run", "tiny.toml", "--checkpoints", "taken/here"),
        "--checkpoints taken/here: no file can be written there: Not a directory. "
        "Name another folder, or fix its permissions.",
    )
    assert not Path("kmnist-search.db").exists()
    assert invoke("run", "tiny.toml", "--trials", 1, "--checkpoints", "not/yet/there").exit_code == 0


def test_a_study_for_a_gpu_says_what_it_would_take_on_this_cpu(invoke: Invoke, tiny_study: Path) -> None:
    result = invoke("run", "tiny.toml", "--trials", 1, "--device", "cpu", "--set", "study.meant_for=gpu")
    lines = without_workers(result.stdout)
    assert lines[1] == "This study is meant for a GPU and there is none here. Measuring how long it would take ..."
    assert lines[2].startswith("On this CPU about ")
    assert lines[2].endswith("A study for a CPU instead: kmnist-search run kmnist-cpu")


@pytest.mark.usefixtures("memory_runs_out")
def test_five_failures_exit_with_one_and_the_reason(invoke: Invoke) -> None:
    result = invoke("run", "tiny.toml")
    assert result.exit_code == 1
    assert "Error: 5 trials in a row failed, the last (number 4) with\n  out of memory: RuntimeError: " in result.stderr


def test_a_trial_too_large_for_this_machine_is_shown_with_its_reason_and_its_hyperparameters(invoke: Invoke) -> None:
    result = invoke("run", "tiny.toml", "--trials", 1, "--set", "space.dim={choices = [1_000_000_000_000]}")
    assert result.exit_code == 0
    assert "trial 0 pruned (infeasible: needs about " in result.stdout
    assert " dim=1000000000000\n" in result.stdout


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("3", "--per-gpu 3: the device is the CPU, which trains one trial at a time. Leave it out;"),
        ("many", "'many' is neither auto nor a number of trials."),
        ("0", "'0' is neither auto nor a number of trials."),
    ],
)
def test_trials_beside_each_other_are_for_a_gpu(invoke: Invoke, number: str, message: str) -> None:
    result = invoke("run", "tiny.toml", "--device", "cpu", "--per-gpu", number)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_database_that_fails_is_an_error_without_a_traceback(invoke: Invoke) -> None:
    invoke("run", "tiny.toml", "--trials", 1)
    with sqlite3.connect("kmnist-search.db") as connection:
        connection.execute("ALTER TABLE trials RENAME COLUMN number TO numero")
    for arguments in (("status",), ("run", "tiny.toml", "--trials", 2)):
        result = invoke(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: the database failed: ")
        assert "no such column" in result.stderr
        was_at_work = result.stderr.endswith("The same command resumes the trial that was running.\n")
        assert was_at_work == (arguments[0] == "run")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_that_parses(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert command.epilog is not None
    example = command.epilog.removeprefix(f"Example: kmnist-search {name}")
    assert example != command.epilog
    with command.make_context(name, example.split()) as context:
        # What a group leaves over is one of its commands, whose own example is parsed with its options.
        assert not context.args or f"{name} {example.split()[0]}" in COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    for parameter in COMMANDS[name].params:
        assert isinstance(parameter, click.Argument) or (isinstance(parameter, click.Option) and parameter.help)


@pytest.mark.parametrize(
    "arguments", [[], *(name.split() for name in COMMANDS)], ids=lambda names: " ".join(names) or "main"
)
def test_help_imports_nothing_that_takes_time(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "kmnist_search.cli", *arguments, "--help"]
    answered = subprocess.run(command, check=True, capture_output=True, text=True)
    assert answered.stdout.startswith("Usage: ")
    imported = {line.rpartition("|")[2].strip() for line in answered.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"torch", "numpy", "optuna", "sqlalchemy", "pydantic", "plotly", "rich", "PIL", "onnx"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "0,2"], "--gpus: there is no GPU 0, 2; this machine has no usable GPU. "),
        (["--gpus", "4"], "--gpus: there is no GPU 0, 1, 2, 3; this machine has no usable GPU. "),
        (["--gpus", "0"], "0 is no number of GPUs. The GPU numbered 0, and only that, is --device cuda:0."),
        (["--gpus", "1,1"], "'1,1' names a GPU twice."),
        (["--gpus", "all"], "'all' names no GPUs. Write 4 for the first four, or 0,2 for these two."),
        (["--gpus", "0,1", "--device", "cpu"], "--gpus and --device both name the devices. Leave one of them out."),
        (["--workers", "0"], "0 is not in the range x>=1."),
        (["--workers", "1000", "--device", "cpu"], "--workers 1000 (or KMNIST_SEARCH_WORKERS): this process may use "),
        (["--workers", "2", "--gpus", "1"], "--workers is for a CPU; on GPUs one process works on each."),
    ],
)
def test_devices_and_workers_that_cannot_be_are_refused_before_anything_starts(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    gpus = 1 if "--workers" in arguments else 0
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    result = invoke("run", "tiny.toml", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("kmnist-search.db").exists()
