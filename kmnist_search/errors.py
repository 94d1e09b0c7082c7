"""Every error that this package raises on purpose.

KmnistSearchError
├── InputError                  what the user gave is wrong: exit code 2
│   ├── ConfigError             a value of a configuration
│   ├── StudyFileError          a study file: names file, table and key
│   ├── DataError               the images: missing, damaged, or not what they claim to be
│   ├── StorageError            the database: its URL, its file, its state
│   │   ├── ReadOnlyError       the user may read the database and not change it
│   │   ├── StorageAwayError    it cannot be reached now
│   │   └── StorageEmptyError   there are no studies in it yet
│   ├── StudyNotFoundError      no such study in that storage
│   ├── StudyChangedError       a study that was begun with other settings
│   ├── StudyExistsError        a study of that name is there already
│   ├── StudyInUseError         trials of a study run, which must not while this is done
│   ├── ArchiveError            the file of an exported study: names file and line
│   ├── ResultFolderError       the folder of a result: there already, or cannot be written
│   ├── ModelError              a saved model, or the file it is to be exported to
│   ├── ImageError              an image to predict: names its file
│   ├── NoCompleteTrialError    nothing to show or choose from yet
│   ├── ReportError             a report that cannot be made or written
│   └── SchedulerError          there is no scheduler, or it does not take such a job
└── WorkError                   the work itself failed: exit code 1
    ├── ArtifactsLeftError      artifacts could not be removed
    ├── DatabaseAwayError       the database could not be used for too long
    ├── ExportFailedError       an exported model does not do what the model does
    ├── MeasurementError        what was to be measured did not run
    ├── SubmissionError         a scheduler has not taken a job, or does not say what became of it
    ├── TrainingDivergedError   a loss is no longer finite
    ├── TrialsKeepFailingError  one trial after another failed
    └── WorkerDiedError         a worker process broke, or died again and again
"""


class KmnistSearchError(Exception):
    """Base of all errors that are shown to the user without a traceback."""

    exit_code = 1


class InputError(KmnistSearchError):
    """What the user gave is wrong; nothing was started."""

    exit_code = 2


class ConfigError(InputError, ValueError):
    """A configuration holds a value that cannot be."""


class StudyFileError(InputError):
    """A study file cannot be used; the message names file, table and key."""


class DataError(InputError):
    """The images are missing, damaged, or not what their name says."""


class StorageError(InputError):
    """The database cannot be opened or is not one of ours."""


class ReadOnlyError(StorageError):
    """The user may read the database, but not make this change."""


class StorageAwayError(StorageError):
    """The database cannot be reached now."""


class StorageEmptyError(StorageError):
    """There are no studies in the database yet, or no database."""


class StudyNotFoundError(InputError):
    """The storage has no study of that name."""


class StudyChangedError(InputError):
    """A study that exists was begun with other settings than those given now."""


class StudyExistsError(InputError):
    """A study cannot have a name because another one there has it."""


class StudyInUseError(InputError):
    """What was asked for cannot be done while trials of the study run."""


class ArchiveError(InputError):
    """The file of an exported study cannot be written or read; the message names file and line."""


class ResultFolderError(InputError):
    """The folder that a result is to be written to is there already, or cannot be made."""


class ModelError(InputError):
    """A saved model cannot be read, or the file it is to be exported to not written; the message names the file."""


class ImageError(InputError):
    """An image cannot be read, or there is nothing on it; the message names its file."""


class NoCompleteTrialError(InputError):
    """What was asked for needs a complete trial, and the study has none."""


class ReportError(InputError):
    """A report has nothing to show, or its file cannot be written."""


class SchedulerError(InputError):
    """There is no scheduler here, or it would not take such a job; none was submitted."""


class WorkError(KmnistSearchError):
    """The work itself failed."""


class ArtifactsLeftError(WorkError):
    """Artifacts of a study that is deleted could not be removed from their store."""


class DatabaseAwayError(WorkError):
    """The database could not be used for longer than one was ready to wait."""


class TrialsKeepFailingError(WorkError):
    """One trial after another failed, so the run was ended."""


class ExportFailedError(WorkError):
    """A model in another format does not predict what the model predicts."""


class MeasurementError(WorkError):
    """What was to be measured did not run."""


class SubmissionError(WorkError):
    """A scheduler has not taken a job that it should take, or does not say what became of it."""


class TrainingDivergedError(WorkError):
    """A loss is no longer finite, so the training was ended."""


class WorkerDiedError(WorkError):
    """A worker process broke, or died again and again, so the run was ended."""
