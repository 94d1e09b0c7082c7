"""The artifact store: a folder, or a bucket on S3 or Google Cloud Storage."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore, GCSArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from sqlalchemy.engine import URL

from kmnist_search.database.storage import default_artifact_dir
from kmnist_search.errors import ConfigError
from kmnist_search.host.files import whole_file
from kmnist_search.optuna_internals import ArtifactStore
from kmnist_search.study.samplers import experimental


def open_artifact_store(url: str | None, database: URL) -> ArtifactStore:
    """Return the store at `url`, a folder or a bucket; None means the folder beside the database.

    Nothing is created or requested before the first read or write.

    Raises:
        ConfigError: the URL is invalid, or a package it needs is not installed.
    """
    folder = default_artifact_dir(database) if url is None else folder_of(url)
    return open_bucket(str(url)) if folder is None else _Folder(folder)


def folder_of(url: str) -> Path | None:
    """Return the folder that `url` names; None if it is a bucket."""
    return None if "://" in url else Path(url)


def check_bucket(url: str) -> None:
    """Raise ConfigError unless `url` looks like a bucket's."""
    parts = urlsplit(url)
    if parts.scheme not in _BUCKETS or not parts.netloc:
        raise ConfigError(
            f"--artifacts {url}: is not a place for artifacts. Give a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"
        )


def open_bucket(url: str) -> ArtifactStore:
    """Return the store in a bucket, without contacting the bucket.

    Raises:
        ConfigError: the URL is invalid, or a package it needs is not installed.
    """
    check_bucket(url)
    parts = urlsplit(url)
    make, package, extra = _BUCKETS[parts.scheme]
    try:
        store = make(parts.netloc)
    except ImportError:
        raise ConfigError(
            f"--artifacts {url}: needs {package}, which is not installed: pip install 'kmnist-search[{extra}]'"
        ) from None
    except Exception as error:  # whatever a library raises about credentials, regions and so on
        raise ConfigError(f"--artifacts {url}: cannot be used: {error}") from None
    prefix = parts.path.strip("/")
    return _Prefixed(store, f"{prefix}/") if prefix else store


def _google(bucket: str) -> ArtifactStore:
    with experimental():
        return GCSArtifactStore(bucket)


#: By URL scheme: the function that makes the bucket's store, the package it needs, and our extra that installs it.
_BUCKETS: dict[str, tuple[Callable[[str], ArtifactStore], str, str]] = {
    "s3": (Boto3ArtifactStore, "boto3", "s3"),
    "gs": (_google, "google-cloud-storage", "gcs"),
}


#: The type of artifacts with the weights of models, which stay as long as their trial.
WEIGHTS_TYPE = "application/octet-stream"


def remove_all(store: ArtifactStore, artifact_ids: Iterable[str]) -> int:
    """Remove artifacts from a store; return how many existed."""
    found = 0
    for artifact_id in artifact_ids:
        try:
            store.open_reader(artifact_id).close()
            store.remove(artifact_id)
            found += 1
        except ArtifactNotFound:
            continue
    return found


def artifact_id_in(value_json: str) -> str | None:
    """Return the artifact id in an attribute; None if the dashboard has removed the artifact."""
    meta = json.loads(json.loads(value_json))
    return None if meta is None else str(meta["artifact_id"])


def has_weights(value_json: str) -> bool:
    """Return whether the artifact of an attribute is the weights of a model."""
    meta = json.loads(json.loads(value_json))
    return meta is not None and meta["mimetype"] == WEIGHTS_TYPE


class _Folder(FileSystemArtifactStore):
    """A folder, made at the first write; each file is written completely or not at all."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        with whole_file(self._path / artifact_id) as part, part.open("wb") as file:
            shutil.copyfileobj(content_body, file)


class _Prefixed:
    """A part of a store: all artifacts whose names begin with one prefix."""

    def __init__(self, store: ArtifactStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def open_reader(self, artifact_id: str) -> BinaryIO:
        return self._store.open_reader(self._prefix + artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self._store.write(self._prefix + artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        self._store.remove(self._prefix + artifact_id)
