"""The options of a run: database, devices, folders, limits, and where its events also go."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kmnist_search.errors import ConfigError
from kmnist_search.worker.stop import Limits


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of a run.

    Attributes:
        storage_url: the database.
        trials: the study's budget, if the run makes or extends the study; None means that of the study file.
        device: "auto", "cpu", "cuda" or "cuda:N".
        gpus: numbers of the GPUs to use instead of `device`.
        workers: processes on a CPU; None means the fastest number.
        per_gpu: trials to train at a time on a GPU; None means an adaptive number.
        data_dir: folder of the images; None means the one that the study used last, or the user's cache.
        checkpoint_dir: folder for checkpoints; None means the storage's own.
        artifacts: folder or bucket for artifacts; None means the folder beside the database.
        database_timeout: seconds that the database may be away while trials run.
        limits: when each worker stops.
        webhook: URL that gets messages about the run; None sends none.
        tensorboard: folder that gets the curves for TensorBoard; None writes none.

    Raises:
        ConfigError: the options contradict each other.
    """

    storage_url: str
    trials: int | None = None
    device: str = "auto"
    gpus: Sequence[int] | None = None
    workers: int | None = None
    per_gpu: int | None = None
    data_dir: Path | None = None
    checkpoint_dir: Path | None = None
    artifacts: str | None = None
    database_timeout: float = 600.0
    limits: Limits = field(default_factory=Limits)
    webhook: str | None = None
    tensorboard: Path | None = None

    def __post_init__(self) -> None:
        if self.gpus is not None and self.device != "auto":
            raise ConfigError("--gpus and --device both name the devices. Leave one of them out.")

    def on(self, device: str) -> "RunOptions":
        """Return the options of the worker process on one device."""
        return replace(self, device=device, gpus=None)
