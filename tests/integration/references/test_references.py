"""Systems that are compared: planned trainings, each on images of its own, kept, tested once, and shown."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result

from kmnist_search.config import DataConfig, TrainConfig, trial_config
from kmnist_search.data import test_set as test_set_module
from kmnist_search.data.test_set import SealedSet
from kmnist_search.database.storage import open_storage
from kmnist_search.errors import ConfigError
from kmnist_search.evaluation import testing
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import Opening, Reproduced
from kmnist_search.evaluation.testing import Examination
from kmnist_search.evaluation.trained import Trained, all_over, kept, over, recipes
from kmnist_search.host.signals import StopSignals
from kmnist_search.queue.queue import Counts
from kmnist_search.references import results, systems
from kmnist_search.references.published import REFERENCES
from kmnist_search.run.join import join
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare
from kmnist_search.study.opening import find_study
from kmnist_search.study_file.schema import PlanFile, PlannedTraining, PlanTable, TrainingSpec
from kmnist_search.study_file.space import Choices, IntRange
from kmnist_search.worker.events import EpochDone
from kmnist_search.worker.trial_models import TrialModels

pytestmark = pytest.mark.usefixtures("one_thread")

FIXED = {"batch_size": 64, "learning_rate": 0.003, "patch_size": 7}
NETS: dict[str, dict[str, Any]] = {
    "wide": {**FIXED, "layers": ("linear features 24", "relu", "linear tokens 12", "dropout 0.1", "mean tokens")},
    "plain": {**FIXED, "dim": 8, "token_width": 4, "channel_width": 8, "num_blocks": 1},
}
DATAS = {
    "wide": DataConfig(dataset="digits"),
    "plain": DataConfig(dataset="digits", val_share=0.3, normalisation="none"),
}


def wanted(system: str, *, repeat: int = 0, epochs: int = 2, net: str | None = None) -> PlannedTraining:
    net = net or system
    return PlannedTraining(
        params={"system": system, "repeat": repeat, "epochs": epochs},
        spec=TrainingSpec(
            config=trial_config(NETS[net], TrainConfig(epochs=epochs, precision="float32")),
            data=DATAS[net],
            seed=repeat,
            keeps=("last", "best"),
        ),
    )


def plan(*trainings: PlannedTraining, name: str = "pair") -> PlanFile:
    return PlanFile(
        study=PlanTable(name=name, plan="references"),
        space={
            "system": Choices(choices=("wide", "plain", "S4")),
            "repeat": IntRange(low=0, high=9),
            "epochs": IntRange(low=1, high=9),
        },
        trainings=trainings,
    )


def prepare_on_cpu(file: PlanFile, storage_url: str, folder: Path, checkpoint_dir: Path | None = None) -> Search:
    options = RunOptions(storage_url=storage_url, data_dir=folder, device="cpu", checkpoint_dir=checkpoint_dir)
    return prepare(file, options)


@pytest.fixture
def prepared(storage_url: str, tmp_path: Path) -> Callable[..., Search]:
    def make(*trainings: PlannedTraining) -> Search:
        return prepare_on_cpu(plan(*trainings), storage_url, tmp_path)

    return make


def work(search: Search) -> Search:
    _, events = search.work(StopSignals())
    list(events)
    return search


def examined(search: Search, data_dir: Path, trained: Sequence[Trained]) -> list[results.TestedSystem]:
    models = kept(search.study, trained, TrialModels(search.store))
    examination = Examination(Ledger(search.study), recipes(trained), data_dir)
    return [
        results.TestedSystem(
            trained=each,
            last=examination.look(models[each.number]["last"]).opening,
            best=examination.look(models[each.number]["best"]).opening,
        )
        for each in trained
    ]


def test_each_trial_trains_its_system_on_that_systems_images(prepared: Callable[..., Search]) -> None:
    search = work(prepared(wanted("wide", epochs=3), wanted("plain")))
    wide, plain = all_over(search.study)
    assert (wide.params["system"], len(wide.epochs), plain.params["system"], len(plain.epochs)) == (
        "wide",
        3,
        "plain",
        2,
    )
    assert wide.spec.config.model.model_dump()["layers"] == NETS["wide"]["layers"]
    models = kept(search.study, [wide, plain], TrialModels(search.store))
    assert (models[1]["last"].info.mean, models[1]["last"].info.std) == (0.0, 1.0)
    assert models[0]["last"].info.mean > 0
    assert wide.recipe_digest != plain.recipe_digest


def test_a_trial_keeps_the_models_of_its_last_and_of_its_best_epoch(prepared: Callable[..., Search]) -> None:
    search = work(prepared(wanted("wide", epochs=4)))
    (each,) = all_over(search.study)
    curve = [epoch.val_accuracy or 0.0 for epoch in each.epochs]
    assert each.models["last"]["epoch"] == 4
    assert each.models["best"]["epoch"] == int(np.argmax(curve)) + 1
    data = search.data.of(DATAS["wide"])
    models = kept(search.study, [each], TrialModels(search.store))[each.number]
    assert models.keys() == {"last", "best"}
    for which, expected in (("last", curve[-1]), ("best", max(curve))):
        model = {str(key): packed for key, packed in models.items()}[which].unpacked()
        right = model.probabilities(data.val_images).argmax(axis=1) == data.val_labels.numpy()
        assert right.mean() == pytest.approx(expected)


def test_a_stopped_trial_keeps_the_very_models_that_it_would_have_kept(
    prepared: Callable[..., Search], storage_url: str, tmp_path: Path
) -> None:
    def weights(search: Search) -> list[str]:
        (each,) = all_over(search.study)
        return [each.models[which]["info"]["weights_sha256"] for which in each.spec.keeps]

    expected = weights(work(prepared(wanted("wide", epochs=4))))
    other = partial(
        prepare_on_cpu,
        plan(wanted("wide", epochs=4)),
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
    assert weights(work(other())) == expected


def test_what_is_asked_for_again_is_not_trained_again_and_more_is_added(prepared: Callable[..., Search]) -> None:
    first = work(prepared(wanted("plain")))
    assert prepared(wanted("plain")).trials_left() == 0
    search = work(prepared(wanted("plain"), wanted("plain", repeat=1), wanted("plain", epochs=1)))
    assert search.counts() == Counts(complete=3)
    assert all_over(search.study)[0] == all_over(first.study)[0]
    shorter, missing = over(search.study, [wanted("plain", epochs=1), wanted("wide")])
    assert shorter is not None
    assert (shorter.spec, missing) == (wanted("plain", epochs=1).spec, None)


def test_two_that_ask_at_the_same_time_add_each_trial_once(any_storage_url: str, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    trainings = [wanted("plain", repeat=repeat) for repeat in range(3)]

    def ask(_: int) -> int:
        return prepare_on_cpu(plan(*trainings), any_storage_url, tmp_path, tmp_path).trials_left()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [3] * 4


def test_a_worker_joins_such_a_study_by_its_name(
    prepared: Callable[..., Search], storage_url: str, tmp_path: Path
) -> None:
    prepared(wanted("wide"), wanted("plain"))
    joined = join("pair", RunOptions(storage_url=storage_url, data_dir=tmp_path, device="cpu"))
    assert isinstance(joined.file, PlanFile)
    assert [each.spec for each in joined.file.trainings] == [wanted("wide").spec, wanted("plain").spec]
    assert work(joined).counts() == Counts(complete=2)


def test_recipes_are_frozen_and_each_look_noted_before_the_test_set_is_opened(
    prepared: Callable[..., Search], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = work(prepared(wanted("wide", epochs=3), wanted("wide", repeat=1, epochs=3), wanted("plain")))
    those = all_over(search.study)
    ledger = Ledger(search.study)
    real = test_set_module.open_test_set
    opened: list[SealedSet] = []

    def watched(dataset: str, data_dir: Path) -> SealedSet:
        assert {recipe.digest for recipe in ledger.recipes()} == {each.recipe_digest for each in those}
        opened.append(real(dataset, data_dir))
        return opened[-1]

    monkeypatch.setattr(testing, "open_test_set", watched)
    done = examined(search, tmp_path, those)
    (test_set,) = opened
    models = kept(search.study, those, TrialModels(search.store))
    for each in done:
        for packed, opening in zip(models[each.trained.number].values(), (each.last, each.best), strict=True):
            predicted = torch.from_numpy(packed.unpacked().probabilities(test_set.images)).argmax(dim=1)
            assert opening.correct == int((predicted == test_set.labels).sum())
    looks = ledger.openings()
    assert len(looks) == len(
        {packed.info.weights_sha256 for of_trial in models.values() for packed in of_trial.values()}
    )
    again = examined(search, tmp_path, those)
    assert (again, ledger.openings()) == (done, looks)


def test_a_training_whose_model_is_gone_counts_as_failed_and_is_planned_again(
    prepared: Callable[..., Search], tmp_path: Path
) -> None:
    search = work(prepared(wanted("plain")))
    (artifact,) = (path for path in tmp_path.rglob("*-best") if path.is_file())
    artifact.write_bytes(b"others")
    assert kept(search.study, all_over(search.study), TrialModels(search.store)) == {}
    assert search.counts() == Counts(fail=1)
    assert work(prepared(wanted("plain"))).counts() == Counts(complete=1, fail=1)


def test_names_mean_a_system_with_all_its_settings_or_one_setting() -> None:
    assert [each.name for each in systems.chosen(["s1"])] == ["S1", "S1-64", "S1-128", "S1-256"]
    assert [each.name for each in systems.chosen(["S2-3", "S4"])] == ["S2-3", "S4"]
    assert systems.chosen([]) == REFERENCES
    with pytest.raises(ConfigError, match=r"^--only S5: there is no such reference. There are: S0, S1, S1-64"):
        systems.chosen(["S5"])


def test_the_study_queues_those_wanted_for_at_most_so_many_epochs_with_the_same_seeds() -> None:
    file = systems.study_file(systems.chosen(["S0", "S4"]), name="references", seeds=2, epochs=7)
    assert [each.params for each in file.trainings] == [
        {"system": system, "repeat": repeat, "epochs": epochs}
        for repeat in range(2)
        for system, epochs in (("S0", 7), ("S4", 5))
    ]
    assert file.space["system"].values() == tuple(reference.name for reference in REFERENCES)
    seeds = [{each.spec.seed for each in file.trainings if each.params["repeat"] == repeat} for repeat in (0, 1)]
    assert [len(those) for those in seeds] == [1, 1]
    assert seeds[0] != seeds[1]
    full = systems.study_file(REFERENCES, name="references", seeds=1, epochs=None)
    assert [each.spec.config.train.epochs for each in full.trainings] == [each.epochs for each in REFERENCES]


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
    those = all_over(search.study)
    assert results.tested(Ledger(search.study), those) == []
    examined(search, tmp_path, those)
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
    search = prepare_on_cpu(plan(wanted("S4", epochs=5, net="plain"), name="references"), storage_url, tmp_path)
    those = all_over(work(search).study)
    ran = invoke("run", "tiny.toml", "--trials", 2, "--storage", storage_url, "--workers", 1)
    assert ran.exit_code == 0, ran.output
    retrain = ("best", "tiny", "--retrain", "--top", 1, "--models", 1, "--storage", storage_url)
    assert invoke(*retrain).exit_code == 0
    before = (tmp_path / "tiny-best" / "report.md").read_text()
    assert "Published systems, trained again" not in before
    (each,) = examined(search, tmp_path, those)
    assert each.last.accuracy is not None
    assert invoke(*retrain, "--force").exit_code == 0
    report = (tmp_path / "tiny-best" / "report.md").read_text()
    rows = [line for line in report.splitlines() if line.startswith("| S4: ")]
    assert f"{100 * each.last.accuracy:.2f}" in rows[-1]
    assert "Published systems, trained again" in (tmp_path / "tiny-best" / "report.html").read_text()


def the_very_figures(folder: Path, real_data_dir: Path, database: Path) -> None:
    """See whether a table's figures are what the kept models come to on images that are read by other means."""
    import gzip

    from kmnist_search.study.artifacts import open_artifact_store

    table = json.loads((folder / "references.json").read_text())
    raw = real_data_dir / "MNIST" / "raw"

    def idx(name: str, offset: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        path = raw / name
        content = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{name}.gz").read_bytes())
        return np.frombuffer(content, np.uint8, offset=offset)

    images = torch.from_numpy(idx("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28).copy())
    labels = idx("t10k-labels-idx1-ubyte", 8)
    study = find_study(open_storage(f"sqlite:///{database}", create=False), "references")
    models = kept(study, all_over(study), TrialModels(open_artifact_store(None, study.storage.url)))
    last = [of_trial["last"].unpacked() for of_trial in models.values()]
    shares = [(model.probabilities(images).argmax(axis=1) == labels).mean() for model in last]
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
