"""Pictures and recipes of the best trials, as artifacts.

Each worker adds those of its own trials; the holder of the leader lease (see `leader.py`) removes outdated ones.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from io import BytesIO
from uuid import uuid4

from optuna.artifacts import ArtifactMeta
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import delete, select
from sqlalchemy.engine import Connection

from kmnist_search.charts.predictions import Predictions
from kmnist_search.dashboard_content.pictures import MAX_WRONG, confusion_picture, curves_picture, wrong_picture
from kmnist_search.dashboard_content.plots import TOP
from kmnist_search.dashboard_content.recipe import recipe
from kmnist_search.data.catalog import CLASS_NAMES
from kmnist_search.data.search_data import StudyData
from kmnist_search.database.tables import put, system_attributes, trials, values
from kmnist_search.optuna_internals import ARTIFACT_KEY_PREFIX, ArtifactStore, trial_id_of
from kmnist_search.study.artifacts import artifact_id_in, has_weights, remove_all
from kmnist_search.study.cached_storage import CachedStorage
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.schema import StudyFile
from kmnist_search.worker.events import TrialValidated


class TrialArtifacts:
    """The artifacts of the best trials of one study, in a store."""

    def __init__(self, study: SearchStudy, file: StudyFile, store: ArtifactStore, images: StudyData) -> None:
        self.study, self.file, self.store, self.images = study, file, store, images

    def add(self, validated: TrialValidated, cached_storage: CachedStorage) -> None:
        """Store a trial's artifacts if it is among the best, and record them in the database."""
        best = self.study.ranked(cached_storage.get_all_trials(cached_storage.study_id, deepcopy=False))[:TOP]
        if validated.trial_id not in [trial_id_of(trial) for trial in best]:
            return
        rows = []
        for name, mimetype, content in self._files(validated):
            artifact_id = str(uuid4())
            self.store.write(artifact_id, BytesIO(content))
            meta = ArtifactMeta(artifact_id=artifact_id, filename=name, mimetype=mimetype, encoding=None)
            text = json.dumps(json.dumps(asdict(meta)))
            rows.append({"trial_id": validated.trial_id, "key": ARTIFACT_KEY_PREFIX + artifact_id, "value_json": text})
        with self.study.storage.writing() as connection:
            self.study.queue.lock(connection)
            put(connection, system_attributes, rows, unique=("trial_id", "key"))

    def remove_outdated(self) -> None:
        """Remove the artifacts of trials that are no longer among the best."""
        with self.study.storage.reading() as connection:
            gone = self._outdated(connection)
        if not gone:
            return
        remove_all(self.store, [artifact_id for _, _, artifact_id in gone if artifact_id])
        table = system_attributes
        with self.study.storage.writing() as connection:
            for trial_id, key, _ in gone:
                connection.execute(delete(table).where(table.c.trial_id == trial_id, table.c.key == key))

    def _outdated(self, connection: Connection) -> Sequence[tuple[int, str, str | None]]:
        """Return trial, attribute and id of each artifact whose trial is not among the best."""
        table, study_id = system_attributes, self.study.queue.study_id
        better = values.c.value.desc() if self.study.direction == StudyDirection.MAXIMIZE else values.c.value.asc()
        best = (
            select(trials.c.trial_id)
            .join(values, values.c.trial_id == trials.c.trial_id)
            .where(trials.c.study_id == study_id, trials.c.state == TrialState.COMPLETE)
            .order_by(better, trials.c.number)
            .limit(TOP)
        )
        kept = connection.scalars(best).all()
        found = (
            select(table.c.trial_id, table.c.key, table.c.value_json)
            .join(trials, trials.c.trial_id == table.c.trial_id)
            .where(trials.c.study_id == study_id, table.c.trial_id.not_in(kept))
            .where(table.c.key.startswith(ARTIFACT_KEY_PREFIX))
        )
        return [
            (trial_id, key, artifact_id_in(text))
            for trial_id, key, text in connection.execute(found)
            if not has_weights(text)
        ]

    def _files(self, validated: TrialValidated) -> Iterator[tuple[str, str, bytes]]:
        """Yield name, type and content of each artifact of a trial."""
        number, data = validated.number, validated.spec.data
        names, images = CLASS_NAMES[data.dataset], self.images.of(data)
        title = f"{self.study.name}, trial {number}"
        if data.val_share:  # a study needs images to validate with
            yield f"trial-{number}.toml", "application/toml", recipe(self.file.study, number, validated.spec).encode()
        yield f"curves-{number}.png", "image/png", curves_picture(validated.history, title)
        if validated.val_probabilities is None:
            return
        predictions = Predictions(
            images=images.val_images.numpy(),
            labels=images.val_labels.numpy(),
            probabilities=validated.val_probabilities,
        )
        yield f"confusion-{number}.png", "image/png", confusion_picture(predictions.confusion(), names, title)
        wrong = predictions.most_confidently_wrong(MAX_WRONG)
        yield f"wrong-{number}.png", "image/png", wrong_picture(wrong, names, f"{title}: most confidently wrong")
