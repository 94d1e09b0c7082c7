"""Real searches side by side: `kmnist-cpu`, the same without its first configurations, random search, optuna's default.

    python tests/benchmarks/search/real.py DATA_DIR FOLDER [--seeds 3]

Each search has a process of one thread, two run at a time, and writes a table of its trials into FOLDER. Searches whose
table is there are not repeated, and the two by plain optuna continue where they were stopped. At the end it prints, for
the tables that are there, the best accuracy after so many epochs of all trials together.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path

import optuna
from optuna.study import MaxTrialsCallback
from optuna.trial import Trial, TrialState

sys.path.insert(0, str(Path(__file__).parents[3]))

STUDY = "kmnist-cpu"
#: Trials of the product, which pauses two of three at their second epoch; and of the others.
OUR_TRIALS, TRIALS = 40, 100
BUDGETS = (15, 30, 60, 90, 125, 250, 500)

#: Epochs and last accuracy of the trainings of a search, in their order.
Rows = list[tuple[int, float]]


def ours(seed: int, folder: Path, data_dir: Path, *, has_first: bool) -> Iterator[tuple[int, float]]:
    """Search with the product; a trial that pauses and resumes has several rows."""
    from kmnist_search.host.signals import StopSignals
    from kmnist_search.run.options import RunOptions
    from kmnist_search.run.submission import prepare
    from kmnist_search.study_file.builtin import find_study_file
    from kmnist_search.study_file.parser import load
    from kmnist_search.worker.events import EpochDone, TrialEnded

    name = f"ours-{'first' if has_first else 'alone'}-{seed}"
    text = find_study_file(STUDY).read_text(encoding="utf-8")
    path = folder / f"{name}.toml"
    path.with_suffix(".db").unlink(missing_ok=True)
    path.write_text(text if has_first else text.partition("[[enqueue]]")[0], encoding="utf-8")
    options = RunOptions(
        storage_url=f"sqlite:///{folder.resolve()}/{name}.db",
        trials=OUR_TRIALS,
        data_dir=data_dir,
        device="cpu",
        workers=1,
    )
    _, events = prepare(load(path, overrides=[f"study.seed={seed}"]), options).work(StopSignals())
    epochs = 0
    with closing(events):
        for event in events:
            epochs += isinstance(event, EpochDone)
            if isinstance(event, TrialEnded):
                assert event.value is not None, event
                yield epochs, event.value
                epochs = 0


def by_optuna(seed: int, folder: Path, data_dir: Path, *, is_random: bool) -> Iterator[tuple[int, float]]:
    """Search with plain optuna, as its documentation shows it."""
    import torch

    from kmnist_search.config import DataConfig, trial_config
    from kmnist_search.data import search_data
    from kmnist_search.engine.training import Training
    from kmnist_search.study_file.builtin import find_study_file
    from kmnist_search.study_file.parser import load
    from kmnist_search.study_file.schema import SearchFile

    file, data = load(find_study_file(STUDY)), search_data.load(DataConfig(), data_dir)
    assert isinstance(file, SearchFile)

    def objective(trial: Trial) -> float:
        params = {name: spec.suggest(trial, name) for name, spec in file.space.items()}
        config = trial_config({**file.fixed, **params}, file.train)
        training = Training(config, data, seed=1000 * seed + trial.number, device=torch.device("cpu"))
        accuracy = 0.0
        for epoch in training.epochs():
            accuracy = epoch.val_accuracy or 0.0
            trial.report(accuracy, epoch.number)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    storage = f"sqlite:///{folder}/{'random' if is_random else 'default'}-{seed}.db"
    pruner = optuna.pruners.NopPruner() if is_random else optuna.pruners.MedianPruner()
    study = optuna.create_study(
        study_name=STUDY, storage=storage, direction="maximize", pruner=pruner, load_if_exists=True
    )
    fresh = 1000 * seed + len(study.trials)  # a search that continues must not propose the same again
    study.sampler = optuna.samplers.RandomSampler(fresh) if is_random else optuna.samplers.TPESampler(seed=fresh)
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    if sum(trial.state in ended for trial in study.trials) < TRIALS:
        study.optimize(objective, callbacks=[MaxTrialsCallback(TRIALS, states=ended)])
    for trial in study.get_trials(states=ended):
        yield len(trial.intermediate_values), trial.intermediate_values[max(trial.intermediate_values)]


WAYS: dict[str, Callable[[int, Path, Path], Iterator[tuple[int, float]]]] = {
    "ours": lambda *where: ours(*where, has_first=True),
    "ours alone": lambda *where: ours(*where, has_first=False),
    "default": lambda *where: by_optuna(*where, is_random=False),
    "random": lambda *where: by_optuna(*where, is_random=True),
}


def search(way: str, seed: int, folder: Path, data_dir: Path) -> None:
    """Run one search and write its table."""
    from kmnist_search.host.runtimes import set_up_runtimes

    set_up_runtimes()
    import torch

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = list(WAYS[way](seed, folder, data_dir))
    with _table(way, seed, folder).open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _table(way: str, seed: int, folder: Path) -> Path:
    return folder / f"{way.replace(' ', '-')}-{seed}.csv"


def read(path: Path) -> Rows:
    """Read the table of a search."""
    with path.open(newline="") as file:
        return [(int(epochs), float(value)) for epochs, value in csv.reader(file)]


def best_after(rows: Rows) -> list[tuple[int, float]]:
    """Return all epochs spent, and the best accuracy found with them, after each row."""
    spent = accumulate(epochs for epochs, _ in rows)
    return list(zip(spent, accumulate((value for _, value in rows), max), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    chosen.folder.mkdir(exist_ok=True)
    jobs = [(way, seed) for seed in range(1, chosen.seeds + 1) for way in WAYS]
    todo = [job for job in jobs if not _table(*job, chosen.folder).exists()]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        for done in [processes.submit(search, *job, chosen.folder, chosen.data_dir) for job in todo]:
            done.result()
    print(f"{'':14}", *(f"{budget:>7}" for budget in BUDGETS), "   as random  as default")
    for way, seed in jobs:
        found = best_after(read(_table(way, seed, chosen.folder)))
        best = [max((value for spent, value in found if spent <= budget), default=0.0) for budget in BUDGETS]
        goals = [best_after(read(_table(goal, seed, chosen.folder)))[-1][1] for goal in ("random", "default")]
        reached = [next((str(spent) for spent, value in found if value >= goal), "never") for goal in goals]
        print(f"{way:10} {seed:3}", *(f"{value:7.2%}" for value in best), *(f"{epochs:>11}" for epochs in reached))


if __name__ == "__main__":
    main()
