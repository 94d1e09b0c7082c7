"""All errors that this package raises on purpose: an `InputError` ends with exit code 2, a `WorkError` with 1."""


class KmnistSearchError(Exception):
    """Base of all errors that are shown to the user without a traceback."""

    exit_code = 1


class StoppedError(KmnistSearchError):
    """The work was stopped before its end by the user or a time limit; all of it is kept, and can be resumed."""

    def __init__(self, message: str, *, by_user: bool) -> None:
        super().__init__(message)
        self.exit_code = 130 if by_user else 0


class InputError(KmnistSearchError):
    """The user's input is wrong; nothing was started."""

    exit_code = 2


class ConfigError(InputError, ValueError):
    """A configuration holds an invalid value."""


class StudyFileError(InputError):
    """A study file cannot be used; the message names file, table and key."""


class DataError(InputError):
    """The images are missing or damaged, or are not what their name says."""


class StorageError(InputError):
    """The database cannot be opened, or was not made by this package."""


class ReadOnlyError(StorageError):
    """The user may read the database, but has no right to make this change."""


class StorageAwayError(StorageError):
    """The database cannot be reached now."""


class StorageEmptyError(StorageError):
    """The database does not exist or has no studies yet."""


class StudyNotFoundError(InputError):
    """The storage has no study of that name."""


class TrialNotFoundError(InputError):
    """The study has no such trial."""


class StudyChangedError(InputError):
    """The study was created with other settings than those given now."""


class StudyExistsError(InputError):
    """A study of that name exists already."""


class StudyInUseError(InputError):
    """The request is not possible while trials of the study run."""


class ArchiveError(InputError):
    """The file of an exported study cannot be written or read; the message names file and line."""


class ResultFolderError(InputError):
    """The result folder exists already, or cannot be made."""


class ModelError(InputError):
    """A saved model cannot be read, or an exported one cannot be written; the message names the file."""


class ImageError(InputError):
    """An image cannot be read or is empty; the message names its file."""


class NoCompleteTrialError(InputError):
    """The request needs a complete trial, and the study has none."""


class ReportError(InputError):
    """A report would be empty, or its file cannot be written."""


class SchedulerError(InputError):
    """There is no scheduler here, or it refuses the job; nothing was submitted."""


class WorkError(KmnistSearchError):
    """The work itself failed."""


class ArtifactsLeftError(WorkError):
    """The study was deleted, but some of its artifacts could not be removed."""


class DatabaseAwayError(WorkError):
    """The database was away for longer than the time limit."""


class TrialsKeepFailingError(WorkError):
    """Several trials in a row failed, so the run was stopped."""


class DeviceLostError(WorkError):
    """This process cannot use its GPU any more; another process may."""


class ExportFailedError(WorkError):
    """An exported model predicts something else than the model."""


class MeasurementError(WorkError):
    """A measurement did not run."""


class SubmissionError(WorkError):
    """A scheduler did not accept a job, or does not report its state."""


class TrainingDivergedError(WorkError):
    """A loss is no longer finite, so the training was stopped."""


class TrainingsFailedError(WorkError):
    """Planned trainings did not finish."""


class WorkerDiedError(WorkError):
    """A worker failed unexpectedly, or died repeatedly, so the run was stopped."""
