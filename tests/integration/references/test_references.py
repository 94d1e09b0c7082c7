"""Systems that are compared: trained as trials of one study on images of their own, kept, tested once, and shown."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result

from kmnist_search.config import DataConfig, TrainConfig
from kmnist_search.data import test_set as test_set_module
from kmnist_search.data.test_set import SealedSet
from kmnist_search.database.storage import open_storage
from kmnist_search.errors import ConfigError, ModelError, StudyChangedError, StudyInUseError
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import Opening, Reproduced
from kmnist_search.host.signals import StopSignals
from kmnist_search.queue.queue import Counts
from kmnist_search.references import results, systems, testing
from kmnist_search.references.published import REFERENCES
from kmnist_search.retrain.plan import RetrainOptions
from kmnist_search.retrain.preparation import prepare
from kmnist_search.run.join import join
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare as prepare_search
from kmnist_search.saved_model import trial_models
from kmnist_search.saved_model.folder import load_model
from kmnist_search.study.opening import find_study
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.schema import (
    ComparisonFile,
    PrunerConfig,
    SamplerConfig,
    StudyTable,
    System,
    system_space,
)
from kmnist_search.worker.events import EpochDone

pytestmark = pytest.mark.usefixtures("one_thread")

FIXED = {"batch_size": 64, "learning_rate": 0.003, "patch_size": 7}
SYSTEMS = {
    "wide": System(
        data=DataConfig(dataset="digits"),
        train=TrainConfig(epochs=4),
        fixed={**FIXED, "layers": ("linear features 24", "relu", "linear tokens 12", "dropout 0.1", "mean tokens")},
    ),
    "plain": System(
        data=DataConfig(dataset="digits", val_share=0.3, normalisation="none"),
        train=TrainConfig(epochs=2),
        fixed={**FIXED, "dim": 8, "token_width": 4, "channel_width": 8, "num_blocks": 1},
    ),
}


def wanted(system: str, *, repeat: int = 0, epochs: int = 2) -> dict[str, str | int]:
    return {"system": system, "repeat": repeat, "epochs": epochs}


def comparison(*entries: dict[str, str | int]) -> ComparisonFile:
    return ComparisonFile(
        study=StudyTable(name="pair", sampler=SamplerConfig(name="random"), pruner=PrunerConfig(name="none")),
        systems=SYSTEMS,
        space=system_space(SYSTEMS),
        enqueue=entries,
    )


def prepare_on_cpu(file: ComparisonFile, storage_url: str, folder: Path, checkpoint_dir: Path | None = None) -> Search:
    options = RunOptions(storage_url=storage_url, data_dir=folder, device="cpu", checkpoint_dir=checkpoint_dir)
    return prepare_search(file, options)


@pytest.fixture
def prepared(storage_url: str, tmp_path: Path) -> Callable[..., Search]:
    def make(*entries: dict[str, str | int]) -> Search:
        return prepare_on_cpu(comparison(*entries), storage_url, tmp_path)

    return make


def work(search: Search) -> Search:
    _, events = search.work(StopSignals())
    list(events)
    return search


def kept_of(study: SearchStudy, number: int) -> dict[str, str]:
    (trial,) = [trial for trial in study.trials() if trial.number == number]
    study.with_details([trial])
    kept: dict[str, str] = trial.user_attrs[trial_models.MODELS_KEY]
    return kept


def test_each_trial_trains_its_system_on_that_systems_images(prepared: Callable[..., Search]) -> None:
    search = work(prepared(wanted("wide", epochs=3), wanted("plain")))
    wide, plain = results.trained(search.study)
    assert (wide.system, len(wide.epochs), plain.system, len(plain.epochs)) == ("wide", 3, "plain", 2)
    assert wide.config.model.model_dump()["layers"] == SYSTEMS["wide"].fixed["layers"]
    infos = [load_model(search.study.checkpoint_dir / f"trial-{number}-last").info for number in (0, 1)]
    assert (infos[1].mean, infos[1].std) == (0.0, 1.0)
    assert infos[0].mean > 0
    assert wide.recipe_digest != plain.recipe_digest


def test_a_trial_keeps_the_models_of_its_last_and_of_its_best_epoch(prepared: Callable[..., Search]) -> None:
    search = work(prepared(wanted("wide", epochs=4)))
    (each,) = results.trained(search.study)
    curve = [epoch.val_accuracy for epoch in each.epochs]
    assert each.models["best_epoch"] == int(np.argmax([value or 0.0 for value in curve])) + 1
    data = search.data.of(SYSTEMS["wide"].data)
    for which, expected in (("last", curve[-1]), ("best", max(value for value in curve if value is not None))):
        model = load_model(search.study.checkpoint_dir / f"trial-0-{which}")
        right = model.probabilities(data.val_images).argmax(axis=1) == data.val_labels.numpy()
        assert right.mean() == pytest.approx(expected)


def test_a_stopped_trial_keeps_the_very_models_that_it_would_have_kept(
    prepared: Callable[..., Search], storage_url: str, tmp_path: Path
) -> None:
    alone = work(prepared(wanted("wide", epochs=4)))
    expected = kept_of(alone.study, 0)
    other = partial(
        prepare_on_cpu,
        comparison(wanted("wide", epochs=4)),
        f"sqlite:///{tmp_path / 'other.db'}",
        tmp_path,
        tmp_path / "elsewhere",
    )
    for stop_after in (1, 3):
        signals = StopSignals()
        _, events = other().work(signals)
        for event in events:
            if isinstance(event, EpochDone) and event.epoch.number == stop_after:
                signals.received = StopSignals.SIGNALS[0]
    assert kept_of(work(other()).study, 0) == expected


def test_what_is_asked_for_again_is_not_trained_again_and_more_is_added(prepared: Callable[..., Search]) -> None:
    first = work(prepared(wanted("plain")))
    assert prepared(wanted("plain")).trials_left() == 0
    search = work(prepared(wanted("plain"), wanted("plain", repeat=1), wanted("plain", epochs=1)))
    assert search.counts() == Counts(complete=3)
    those = results.trained(search.study)
    assert those[0] == results.trained(first.study)[0]
    assert [each.params for each in results.requested(those, [wanted("plain", epochs=1), wanted("wide")])] == [
        wanted("plain", epochs=1)
    ]


def test_two_that_ask_at_the_same_time_add_each_trial_once(any_storage_url: str, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    entries = [wanted("plain", repeat=repeat) for repeat in range(3)]

    def ask(_: int) -> int:
        return prepare_on_cpu(comparison(*entries), any_storage_url, tmp_path, tmp_path).trials_left()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [3] * 4


def test_a_worker_joins_such_a_study_by_its_name(
    prepared: Callable[..., Search], storage_url: str, tmp_path: Path
) -> None:
    prepared(wanted("wide"), wanted("plain"))
    joined = join("pair", RunOptions(storage_url=storage_url, data_dir=tmp_path, device="cpu"))
    assert isinstance(joined.file, ComparisonFile)
    assert joined.file.systems == SYSTEMS
    assert work(joined).counts() == Counts(complete=2)


def test_a_system_that_has_changed_is_refused_with_what_has(
    prepared: Callable[..., Search], storage_url: str, tmp_path: Path
) -> None:
    prepared(wanted("plain"))
    changed = {**SYSTEMS, "plain": SYSTEMS["plain"].model_copy(update={"fixed": {**FIXED, "dim": 9}})}
    with pytest.raises(StudyChangedError, match=r"systems\.plain\.fixed\.dim: 8 then, 9 now"):
        prepare_on_cpu(comparison(wanted("plain")).model_copy(update={"systems": changed}), storage_url, tmp_path)


def test_recipes_are_frozen_and_each_look_noted_before_the_test_set_is_opened(
    prepared: Callable[..., Search], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = work(prepared(wanted("wide", epochs=3), wanted("wide", repeat=1, epochs=3), wanted("plain")))
    those = results.trained(search.study)
    ledger = Ledger(search.study)
    real = test_set_module.open_test_set

    def opened(dataset: str, data_dir: Path) -> SealedSet:
        frozen = search.study.storage.rdb.get_study_user_attrs(search.study.queue.study_id)
        assert {f"recipe:{each.recipe_digest}" for each in those} <= frozen.keys()
        return real(dataset, data_dir)

    monkeypatch.setattr(testing, "open_test_set", opened)
    test = testing.Test(search.study, those, tmp_path)
    done = list(test.work())
    assert list(test.test_sets) == ["digits"]
    labels = test.test_sets["digits"].labels
    for each in done:
        for which, opening in (("last", each.last), ("best", each.best)):
            folder = search.study.checkpoint_dir / f"trial-{each.trained.number}-{which}"
            right = torch.from_numpy(load_model(folder).probabilities(test.test_sets["digits"].images)).argmax(dim=1)
            assert opening.correct == int((right == labels).sum())
    looks = ledger.openings()
    models = {(each.trained.number, each.trained.models[which]) for each in done for which in ("last", "best")}
    assert len(looks) == len(models)
    again = list(testing.Test(search.study, those, tmp_path).work())
    assert (again, ledger.openings()) == (done, looks)


def test_models_that_are_gone_are_missed_before_the_test_set_is_opened(
    prepared: Callable[..., Search], tmp_path: Path
) -> None:
    search = work(prepared(wanted("plain")))
    (search.study.checkpoint_dir / "trial-0-best" / "weights.safetensors").write_bytes(b"others")
    with pytest.raises(ModelError, match=r"models of trial 0 \(plain\) are not in .* share the folder"):
        testing.Test(search.study, results.trained(search.study), tmp_path)
    assert Ledger(search.study).openings() == []


def test_a_study_of_systems_is_not_retrained(prepared: Callable[..., Search], tmp_path: Path) -> None:
    search = work(prepared(wanted("plain")))
    with pytest.raises(StudyInUseError, match="compares systems that are not searched"):
        prepare(search.study, RetrainOptions(data_dir=tmp_path, device="cpu"))


def test_names_mean_a_system_with_all_its_settings_or_one_setting() -> None:
    assert [each.name for each in systems.chosen(["s1"])] == ["S1", "S1-64", "S1-128", "S1-256"]
    assert [each.name for each in systems.chosen(["S2-3", "S4"])] == ["S2-3", "S4"]
    assert systems.chosen([]) == REFERENCES
    with pytest.raises(ConfigError, match=r"^--only S5: there is no such reference. There are: S0, S1, S1-64"):
        systems.chosen(["S5"])


def test_the_study_knows_every_reference_and_queues_those_wanted_for_at_most_so_many_epochs() -> None:
    file = systems.study_file(systems.chosen(["S0", "S4"]), name="references", seeds=2, epochs=7)
    assert list(file.systems) == [reference.name for reference in REFERENCES]
    assert file.enqueue == (
        *(wanted("S0", epochs=7), wanted("S4", epochs=5)),
        *(wanted("S0", repeat=1, epochs=7), wanted("S4", repeat=1, epochs=5)),
    )
    assert {name: system.train.epochs for name, system in file.systems.items()} == {
        reference.name: reference.epochs for reference in REFERENCES
    }


def test_a_difference_is_of_the_same_images_and_epochs_or_not_known() -> None:
    by_name = {reference.name: reference for reference in REFERENCES}
    ours = Reproduced(
        seeds=1,
        epochs=50,
        num_parameters=1,
        seconds=1.0,
        train_loss=0.1,
        train_accuracy=0.9,
        val_accuracy=0.95,
        best_val_accuracy=0.96,
        test_accuracy=0.89,
        test_accuracy_sd=None,
        best_test_accuracy=0.9,
    )
    reproduced = by_name["S0"].model_copy(update={"reproduced": ours})
    assert reproduced.difference == pytest.approx(0.89 - 0.8801)
    assert reproduced.model_copy(update={"reproduced": ours.model_copy(update={"epochs": 49})}).difference is None
    assert by_name["S0"].difference is None
    s4 = by_name["S4"].model_copy(update={"reproduced": ours.model_copy(update={"epochs": 5})})
    assert s4.difference is None


def test_figures_are_means_over_the_seeds_that_were_tested(prepared: Callable[..., Search], tmp_path: Path) -> None:
    search = work(prepared(*(wanted("plain", repeat=repeat) for repeat in range(2))))
    those = results.trained(search.study)
    assert results.tested(Ledger(search.study), those) == []
    list(testing.Test(search.study, those, tmp_path).work())
    both = results.tested(Ledger(search.study), those)
    reference = REFERENCES[0].model_copy(update={"name": "plain", "epochs": 2})
    (made,) = results.with_reproductions([reference], both)
    assert made.reproduced is not None
    accuracies = [each.last.accuracy or 0.0 for each in both]
    assert made.reproduced.test_accuracy == pytest.approx(np.mean(accuracies))
    assert made.reproduced.test_accuracy_sd == pytest.approx(np.std(accuracies, ddof=1))
    assert made.reproduced.seconds == pytest.approx(np.mean([each.seconds for each in those]))


@pytest.mark.slow
def test_the_final_report_shows_what_the_published_systems_came_to_here(
    invoke: Callable[..., Result], storage_url: str, tmp_path: Path
) -> None:
    file = comparison(wanted("S4", epochs=5))
    s4 = {"S4": SYSTEMS["plain"].model_copy(update={"train": TrainConfig(epochs=5)})}
    search = prepare_on_cpu(
        file.model_copy(
            update={
                "study": file.study.model_copy(update={"name": "references"}),
                "systems": s4,
                "space": system_space(s4),
            }
        ),
        storage_url,
        tmp_path,
    )
    those = results.trained(work(search).study)
    ran = invoke("run", "tiny.toml", "--trials", 2, "--storage", storage_url, "--workers", 1)
    assert ran.exit_code == 0, ran.output
    retrain = ("best", "tiny", "--retrain", "--top", 1, "--final-seeds", 1, "--storage", storage_url)
    assert invoke(*retrain).exit_code == 0
    before = (tmp_path / "tiny-best" / "report.md").read_text()
    assert "Published systems, trained again" not in before
    (each,) = testing.Test(search.study, those, tmp_path).work()
    assert each.last.accuracy is not None
    assert invoke(*retrain, "--force").exit_code == 0
    report = (tmp_path / "tiny-best" / "report.md").read_text()
    rows = [line for line in report.splitlines() if line.startswith("| S4: ")]
    assert f"{100 * each.last.accuracy:.2f}" in rows[-1]
    assert "Published systems, trained again" in (tmp_path / "tiny-best" / "report.html").read_text()


def the_very_figures(folder: Path, real_data_dir: Path, database: Path) -> None:
    """See whether a table's figures are what the kept models come to on images that are read by other means."""
    import gzip

    table = json.loads((folder / "references.json").read_text())
    raw = real_data_dir / "MNIST" / "raw"

    def idx(name: str, offset: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        path = raw / name
        content = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{name}.gz").read_bytes())
        return np.frombuffer(content, np.uint8, offset=offset)

    images = torch.from_numpy(idx("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28).copy())
    labels = idx("t10k-labels-idx1-ubyte", 8)
    study = find_study(open_storage(f"sqlite:///{database}", create=False), "references")
    models = [load_model(study.checkpoint_dir / f"trial-{number}-last") for number in (0, 1)]
    shares = [(model.probabilities(images).argmax(axis=1) == labels).mean() for model in models]
    (s4,) = [row for row in table["references"] if row["name"] == "S4"]
    assert s4["reproduced"]["test_accuracy"] == pytest.approx(np.mean(shares))
    assert s4["reproduced"]["num_parameters"] == 109_386


@pytest.mark.slow
def test_the_command_trains_tests_and_shows_and_does_none_of_it_twice(
    invoke: Callable[..., Result], real_data_dir: Path, tmp_path: Path
) -> None:
    arguments = ["references", "--only", "S4", "--epochs", "1", "--data-dir", str(real_data_dir), "--workers", "1"]
    first = invoke(*arguments, "--seeds", "2")
    assert first.exit_code == 0, first.output
    folder = tmp_path / "references"
    assert sorted(path.name for path in folder.iterdir()) == ["references.html", "references.json", "references.md"]
    the_very_figures(folder, real_data_dir, tmp_path / "kmnist-search.db")
    page = (folder / "references.html").read_text()
    for text in (
        "S4: perceptron of three layers, Adam",
        "1 of 5 epochs, 2 seeds",
        "S4-loss",
        "S4-accuracy",
    ):
        assert text in page
    assert page.count('class="ink"') == 100 + 10 + 20
    table = json.loads((folder / "references.json").read_text())
    again = invoke(*arguments, "--seeds", "2", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["ledger"] == table["ledger"]
    assert [Opening.model_validate(look).correct for look in table["ledger"]]
    (folder / "references.json").write_text("something else")
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert "references exists and holds something else. Choose another --out." in refused.stderr


def test_test_images_that_are_missing_are_missed_before_anything_is_trained(
    invoke: Callable[..., Result], real_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    raw = tmp_path / "images" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (real_data_dir / "MNIST" / "raw").glob("train-*"):
        (raw / file.name).symlink_to(file)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    refused = invoke("references", "--only", "S4", "--data-dir", tmp_path / "images")
    assert refused.exit_code == 2
    assert "MNIST is not in" in refused.stderr
    assert not (tmp_path / "kmnist-search.db").exists()
