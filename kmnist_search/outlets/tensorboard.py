"""The curves of a run as TensorBoard reads them: a folder for each trial, with its hyperparameters."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmnist_search.errors import ConfigError
from kmnist_search.host.files import check_writable
from kmnist_search.run.search import Search
from kmnist_search.worker.events import EpochDone, Event, TrialEnded, TrialStarted

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: The figures of an epoch that are curves.
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
#: How long an epoch stays unwritten at most.
FLUSH_SECONDS = 10


def check_tensorboard(folder: Path) -> None:
    """Raise ConfigError if TensorBoard is not installed, or nothing can be written to the folder."""
    if find_spec("tensorboard") is None:
        raise ConfigError("--tensorboard needs a package: pip install 'kmnist-search[tensorboard]'")
    check_writable(folder, option="--tensorboard")


def recorded(events: Iterator[Event], search: Search, folder: Path) -> Generator[Event, None, None]:
    """Pass events on, and write the epochs of each trial to a folder of its own.

    A trial that resumes continues its curves.

    Args:
        events: of a run.
        search: the search that runs.
        folder: gets a folder `STUDY/trial-0000` for each trial.
    """
    writers: dict[int, SummaryWriter] = {}
    try:
        for event in events:
            match event:
                case TrialStarted():
                    place = folder / search.study.name / f"trial-{event.number:04}"
                    writers[event.number] = _writer(place, after=event.epochs_done)
                case EpochDone() if event.number in writers:
                    for name, value in asdict(event.epoch).items():
                        if name in CURVES and value is not None:
                            writers[event.number].add_scalar(name, value, event.epoch.number)
                case TrialEnded() if event.number in writers:
                    _close(writers.pop(event.number), event, search.study.metric)
            yield event
    finally:
        for writer in writers.values():
            writer.close()


def _writer(place: Path, *, after: int) -> "SummaryWriter":
    """Return a writer of a trial's curves, which drops what was written of later epochs than `after`."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(place), purge_step=after + 1 if after else None, flush_secs=FLUSH_SECONDS)


def _close(writer: "SummaryWriter", ended: TrialEnded, metric: str) -> None:
    if ended.outcome in ("complete", "paused", "pruned") and ended.value is not None:
        writer.add_hparams(_plain(ended.params), {f"final/{metric}": ended.value}, run_name=".")
    writer.close()


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters as TensorBoard takes them: numbers, words and truth values."""
    return {name: value if isinstance(value, int | float | str) else str(value) for name, value in params.items()}
