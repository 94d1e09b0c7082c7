"""The check that all workers of a study keep its models in the same artifact store.

The first process stores a marker, whose id the study remembers. A process that cannot read it uses another store: the
models that it trains would never be found.
"""

from io import BytesIO
from pathlib import Path
from uuid import uuid4

from kmnist_search.database.storage import default_artifact_dir
from kmnist_search.errors import ConfigError
from kmnist_search.study.artifacts import folder_of, open_artifact_store
from kmnist_search.study.study import SearchStudy

#: The study attribute with the marker's id, and the place of the store as its first user wrote it.
STORE_KEY = "kmnist_search:model_store"


def check_shared(study: SearchStudy, artifacts: str | None) -> None:
    """Check that `artifacts` is the store of the study's models; the first process decides which.

    Args:
        study: whose trainings keep models.
        artifacts: the store: a folder or the URL of a bucket; None for the folder beside the database.

    Raises:
        ConfigError: it is another store, or cannot be used.
    """
    store = open_artifact_store(artifacts, study.storage.url)
    place = artifacts or str(default_artifact_dir(study.storage.url))
    shown = str(Path(place).absolute()) if folder_of(place) else place
    before = study.optuna.user_attrs.get(STORE_KEY)
    try:
        if before is None:
            marker = uuid4().hex
            store.write(marker, BytesIO(study.name.encode()))
            study.optuna.set_user_attr(STORE_KEY, {"marker": marker, "place": shown})
        store.open_reader(study.optuna.user_attrs[STORE_KEY]["marker"]).close()  # perhaps another process was faster
    except Exception as error:  # each store has its own errors
        there = "" if before is None else f" Its first process keeps them in {before['place']}."
        raise ConfigError(
            f"the models of study {study.name!r} cannot be kept in {shown}: {error}.{there} Name one folder or bucket "
            "(s3://, gs://) that all its workers see, with --artifacts."
        ) from None


def marker_of(study: SearchStudy) -> list[str]:
    """Return the id of the marker of a study, if there is one."""
    known = study.optuna.user_attrs.get(STORE_KEY)
    return [] if known is None else [str(known["marker"])]
