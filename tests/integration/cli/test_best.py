"""The command `best`: what it shows, what it refuses, and what a retraining leaves behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torchvision
from click.testing import Result

from kmnist_search.database.storage import open_storage
from kmnist_search.database.trial_writer import Changes
from kmnist_search.host.process import Owner
from kmnist_search.study.opening import find_study

Invoke = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("one_thread")

RETRAIN = ("best", "--retrain", "--top", 2, "--reruns", 2, "--models", 2)


@pytest.fixture
def searched(invoke: Invoke) -> Invoke:
    """The command in a folder with a finished study."""
    ran = invoke("run", "tiny.toml", "--set", "study.pruner=none")
    assert ran.exit_code == 0, ran.output
    return invoke


def test_the_best_are_shown_with_curve_cost_and_hyperparameters(searched: Invoke) -> None:
    shown = searched("best", "--top", 3)
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert lines[0].split() == ["study", "tiny"]
    assert lines[2].split() == ["rank", "trial", "val_accuracy", "parameters", "time", "curve"]
    assert [line.split()[0] for line in lines[3:9:2]] == ["1", "2", "3"]
    assert all("learning_rate=" in line and "dim=" in line for line in lines[4:10:2])
    assert "configuration" in shown.output


def test_json_has_each_of_them_in_full(searched: Invoke) -> None:
    summary = json.loads(searched("best", "--top", 4, "--json").output)
    assert (summary["study"], summary["metric"], summary["complete"]) == ("tiny", "val_accuracy", 6)
    accuracies = [trial["val_accuracy"] for trial in summary["top"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert [trial["rank"] for trial in summary["top"]] == [1, 2, 3, 4]
    assert all(trial["config"]["model"]["dim"] == trial["params"]["dim"] for trial in summary["top"])
    assert {trial["duplicate_of"] for trial in summary["top"]} == {None}


def test_an_exact_duplicate_is_marked(invoke: Invoke, tiny_study: Path) -> None:
    with tiny_study.open("a") as file:
        file.write("\n[[enqueue]]\nlearning_rate = 5e-3\ndim = 8\n" * 2)
    assert invoke("run", "tiny.toml", "--trials", 2, "--set", "study.pruner=none").exit_code == 0
    first, second = json.loads(invoke("best", "--json").output)["top"]
    assert (first["duplicate_of"], second["duplicate_of"]) == (None, first["number"])
    assert f"the same as trial {first['number']}" in invoke("best").output


@pytest.mark.parametrize("option", [("--reruns", "3"), ("--out", "x"), ("--epochs", "3"), ("--force",)])
def test_an_option_for_retraining_without_it_is_refused(searched: Invoke, option: tuple[str, ...]) -> None:
    refused = searched("best", *option)
    assert refused.exit_code == 2
    assert f"{option[0]} is for retraining. Add --retrain" in refused.output


def test_a_misspelt_study_names_the_nearest(searched: Invoke) -> None:
    refused = searched("best", "tinny", "--retrain")
    assert refused.exit_code == 2
    assert "Did you mean 'tiny'?" in refused.output


def test_a_study_without_a_complete_trial_is_refused(invoke: Invoke) -> None:
    assert invoke("run", "tiny.toml", "--timeout", "1s", "--epochs", 100000).exit_code == 0
    for arguments in (("best",), ("best", "--retrain")):
        refused = invoke(*arguments)
        assert refused.exit_code == 2
        assert "no complete trial yet" in refused.output


def test_a_retraining_leaves_report_figures_and_models(searched: Invoke, tmp_path: Path) -> None:
    done = searched(*RETRAIN)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "tiny-best"
    metrics = json.loads((folder / "metrics.json").read_text())
    others = [str(seed) for seed in metrics["recipe"]["seeds"][1:]]
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "report.html",
        "report.md",
        "metrics.json",
        "recipe.json",
        "study.toml",
        "model/config.json",
        "model/weights.safetensors",
        "model/model.onnx",
        "model/README.md",
        *(f"other-seeds/{seed}/{file}" for seed in others for file in ("config.json", "weights.safetensors")),
    }
    assert f"test accuracy {100 * metrics['test']['mean_accuracy']:.2f} %, mean of 2 final models" in done.output
    assert metrics["recipe"] == json.loads((folder / "recipe.json").read_text())
    assert metrics["reproduction"]["command"].splitlines() == [
        "kmnist-search run study.toml --trials 6",
        "kmnist-search best tiny --retrain --top 2 --reruns 2 --models 2",
    ]
    refused = searched("best", "tiny-retraining")
    assert (refused.exit_code, "none is the best" in refused.output) == (2, True)
    again = searched("run", folder / "study.toml", "--trials", 6)
    assert "6 trials are finished, 6 were asked for" in again.output  # it describes this very study
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tiny-best")] == []


def test_done_again_it_says_so_and_changes_nothing(searched: Invoke, tmp_path: Path) -> None:
    assert searched(*RETRAIN).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "tiny-best").rglob("*")}
    again = searched(*RETRAIN)
    assert again.exit_code == 0
    assert "Done before: nothing to do." in again.output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "tiny-best").rglob("*")} == before


def test_a_folder_of_something_else_is_never_touched(searched: Invoke, tmp_path: Path) -> None:
    kept = tmp_path / "thesis"
    kept.mkdir()
    (kept / "chapter.txt").write_text("years of work")
    for arguments in ((), ("--force",)):
        refused = searched(*RETRAIN, "--out", "thesis", *arguments)
        assert refused.exit_code == 2
        assert "thesis exists and holds something else" in refused.output
    assert [path.name for path in kept.iterdir()] == ["chapter.txt"]
    assert not list(tmp_path.glob("*.artifacts/*-last"))


def test_a_result_of_another_retraining_is_kept_unless_forced_and_looks_are_counted(searched: Invoke) -> None:
    assert searched(*RETRAIN).exit_code == 0
    other = (*RETRAIN, "--epochs", 3)
    assert searched(*other).exit_code == 2
    forced = searched(*other, "--force", "--json")
    assert forced.exit_code == 0
    metrics = json.loads(forced.stdout)
    assert len(metrics["ledger"]) == 4
    assert len({opening["recipe_digest"] for opening in metrics["ledger"]}) == 2
    assert "2 recipes: choosing among them by these figures would be optimistic" in forced.stderr
    assert "epochs of a final model: 3, in the study 4: scores differ for that, too" in forced.stderr


def test_while_trials_run_nothing_is_retrained(searched: Invoke) -> None:
    study = find_study(open_storage("sqlite:///kmnist-search.db", create=False), "tiny")
    study.fill(7)
    with study.storage.writing() as connection:
        claim = study.queue.claim(connection, Owner.this_process(), token="t", lease_seconds=100, budget=7)
    assert claim is not None
    refused = searched(*RETRAIN)
    assert refused.exit_code == 2
    assert "1 of the trials of study 'tiny' are running, and one of them may become the best" in refused.output
    with study.storage.writing() as connection:
        assert study.queue.hand_back(connection, claim, Changes(), epochs=0, reason="it was asked to")
    assert "1 of the study's trials are not finished yet" in searched(*RETRAIN).output


def test_missing_test_images_are_told_before_anything_is_trained(
    invoke: Invoke, tmp_path: Path, real_data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "data" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (raw / file).symlink_to(real_data_dir / "KMNIST" / "raw" / file)
    monkeypatch.setattr(torchvision.datasets.KMNIST, "mirrors", ["http://127.0.0.1:9/"])  # nothing listens there
    settings = ("--set", "study.pruner=none", "--set", 'data.dataset="kmnist"', "--trials", 1, "--epochs", 1)
    ran = invoke("run", "tiny.toml", *settings, "--data-dir", tmp_path / "data")
    assert ran.exit_code == 0, ran.output
    refused = invoke("best", "--retrain", "--top", 1)
    assert refused.exit_code == 2
    assert "t10k-images-idx3-ubyte" in refused.output
    assert not list(tmp_path.glob("*.artifacts/*-last"))


def test_a_study_is_resumed_with_the_images_that_it_used_before(
    invoke: Invoke, tmp_path: Path, real_data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HOME", str(tmp_path / "empty"))
    settings = ("--set", "study.pruner=none", "--set", 'data.dataset="kmnist"', "--epochs", 1)
    assert invoke("run", "tiny.toml", *settings, "--trials", 1, "--data-dir", real_data_dir).exit_code == 0
    again = invoke("run", "tiny.toml", *settings, "--trials", 2)
    assert again.exit_code == 0, again.output
    retrained = invoke("best", "--retrain", "--top", 1, "--models", 1)
    assert retrained.exit_code == 0, retrained.output


def test_a_run_with_retraining_goes_from_nothing_to_the_report_though_more_trials_wait_than_it_asks_for(
    invoke: Invoke, tiny_study: Path, tmp_path: Path
) -> None:
    assert invoke("submit", "queue", "tiny.toml", "--trials", 4, "--set", "study.pruner=none").exit_code == 0
    little = ("--set", "retrain.top_k=2", "--set", "retrain.reruns=1", "--set", "retrain.models=1")
    done = invoke(
        "run", "tiny.toml", "--trials", 2, "--set", "study.pruner=none", *little, "--retrain", "--out", "result"
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "result" / "report.html").exists()
    assert "kmnist-search best tiny --retrain" not in done.output  # it is done already
    study = find_study(open_storage("sqlite:///kmnist-search.db", create=False), "tiny")
    assert (study.counts().finished, study.counts().waiting) == (2, 2)


@pytest.mark.parametrize("command", [("run", "tiny.toml"), ("worker", "tiny")])
def test_a_result_folder_that_is_taken_is_told_before_the_search(
    invoke: Invoke, tiny_study: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    assert invoke("submit", "queue", "tiny.toml", "--trials", 2).exit_code == 0
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    refused = invoke(*command, "--retrain", "--out", "taken")
    assert refused.exit_code == 2
    assert "taken exists and holds something else. Choose another --out." in refused.output
    study = find_study(open_storage("sqlite:///kmnist-search.db", create=False), "tiny")
    assert study.counts().finished == 0


@pytest.mark.parametrize("option", [("--out", "x"), ("--force",)])
@pytest.mark.parametrize("command", [("run", "tiny.toml"), ("worker", "tiny"), ("submit", "slurm", "--workers", "1")])
def test_options_for_a_result_without_a_retraining_are_refused(
    invoke: Invoke, command: tuple[str, ...], option: tuple[str, ...]
) -> None:
    refused = invoke(*command, *option)
    assert refused.exit_code == 2
    assert f"{option[0]} is for retraining. Add --retrain, or leave it out." in refused.output


def test_the_name_of_a_companion_is_kept_for_it(searched: Invoke) -> None:
    refused = searched("run", "tiny.toml", "--name", "other-retraining")
    assert refused.exit_code == 2
    assert "names that end in -retraining are those of retrainings" in refused.output
    assert searched("studies", "rename", "tiny", "x-retraining").exit_code == 2


def test_a_deletion_names_the_retraining_and_the_looks_that_are_lost_and_the_ledger_shows_them(
    searched: Invoke,
) -> None:
    assert searched(*RETRAIN).exit_code == 0
    for name in ("tiny", "tiny-retraining"):
        shown = searched("studies", "ledger", name)
        assert "study  tiny  2 looks at the test set by 1 frozen recipe" in shown.output
    looks = json.loads(searched("studies", "ledger", "--json").output)["looks"]
    assert [look["accuracy"] is not None for look in looks] == [True, True]
    asked = searched("studies", "delete", "tiny")  # and no answer
    assert "its retraining (6 trainings) and its ledger (2 looks at the test set)?" in asked.output
    assert searched("studies", "rename", "tiny", "mine").exit_code == 0
    assert [each["study"] for each in json.loads(searched("studies", "--json").output)] == ["mine-retraining", "mine"]
    assert "Of its retraining, 6 of 6 queued trainings are finished" in searched("status", "mine").output
    assert searched("studies", "delete", "mine", "--yes").exit_code == 0
    assert json.loads(searched("studies", "--json").output) == []


def test_the_front_has_the_trials_that_are_better_than_all_smaller_ones(searched: Invoke) -> None:
    everything = json.loads(searched("best", "--json").output)["top"]
    front = json.loads(searched("best", "--front", "--json").output)["top"]
    expected = [
        trial["number"]
        for trial in everything
        if not any(
            other["num_parameters"] < trial["num_parameters"] and other["val_accuracy"] >= trial["val_accuracy"]
            for other in everything
        )
        and trial["val_accuracy"]
        == max(each["val_accuracy"] for each in everything if each["num_parameters"] == trial["num_parameters"])
    ]
    assert [trial["number"] for trial in front] == expected
    assert len({trial["num_parameters"] for trial in everything}) > len(front) or len(front) > 1
    assert searched("best", "--front").output.splitlines()[2].split()[0] == "rank"
    refused = searched("best", "--front", "--retrain")
    assert refused.exit_code == 2
    assert "--front shows trials and retrains none" in refused.output


def test_nets_up_to_a_number_of_parameters_are_shown_and_retrained(searched: Invoke, tmp_path: Path) -> None:
    everything = json.loads(searched("best", "--json").output)["top"]
    most = min(trial["num_parameters"] for trial in everything)
    small = [trial["number"] for trial in everything if trial["num_parameters"] <= most]
    assert len(small) < len(everything)
    shown = json.loads(searched("best", "--max-parameters", str(most), "--json").output)["top"]
    assert [trial["number"] for trial in shown] == small
    retrained = searched(*RETRAIN, "--max-parameters", str(most))
    assert retrained.exit_code == 0, retrained.output
    metrics = json.loads((tmp_path / "tiny-best" / "metrics.json").read_text())
    assert {each["trial"] for each in metrics["candidates"]} <= set(small)
    assert f"--max-parameters {most}" in (tmp_path / "tiny-best" / "report.md").read_text()
    refused = searched("best", "--max-parameters", str(most - 1))
    assert refused.exit_code == 2
    assert (
        f"no complete trial has a net of at most {most - 1:,} parameters: the smallest has {most:,}" in refused.output
    )
