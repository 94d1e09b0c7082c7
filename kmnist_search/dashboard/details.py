"""The answer that the page asks for again and again: a study with all its trials. Knows nothing of who may see it.

optuna-dashboard makes it anew each time: 1 s for 5,000 trials, and each trial's notes are looked for among those of all
others. Here a trial is written once, as long as it does not change, and an answer is kept until something does. What is
written of a trial is optuna-dashboard's own.
"""

import json
import re
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._serializer import serialize_frozen_trial, serialize_study_detail
from optuna_dashboard.preferential._study import _SYSTEM_ATTR_PREFERENTIAL_STUDY
from werkzeug import Request, Response

from kmnist_search.dashboard.compression import compressed, takes_gzip
from kmnist_search.dashboard.hyperparameters import Hyperparameters
from kmnist_search.dashboard.picture import Picture
from kmnist_search.dashboard.shown_storage import MAX_PICTURES, ShownStorage

PATH = re.compile(r"/api/studies/(\d+)/*")
#: Attributes of a study that say something of one of its trials.
OF_A_TRIAL = re.compile(r"dashboard:(?:artifacts:)?(\d+):")
#: Compressed answers kept for each study: browsers that began at different times ask for different trials.
MAX_KEPT = 8
#: Trials that are sent in one piece.
BATCH = 200

Attributes = dict[str, Any]


class Details:
    """A WSGI application around that of optuna-dashboard, which answers whatever else is asked."""

    def __init__(self, app: WSGIApplication, storage: ShownStorage) -> None:
        self._app, self._storage = app, storage
        self._lock = threading.Lock()
        self._writers: OrderedDict[int, DetailWriter] = OrderedDict()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        response = self._response(Request(environ))
        return (response or self._app)(environ, start_response)

    def _response(self, request: Request) -> Response | None:
        """Return the answer; None if it is not for this to give."""
        match = PATH.fullmatch(request.path)
        after = request.args.get("after", "0")
        if match is None or request.method != "GET" or not after.isdecimal():
            return None
        study_id = int(match[1])
        try:
            picture = self._storage.picture(study_id)
        except KeyError:
            return None
        if len(picture.study.directions) > 1 or picture.study.system_attrs.get(_SYSTEM_ATTR_PREFERENTIAL_STUDY):
            return None
        return self._written(request, picture, int(after))

    def _written(self, request: Request, picture: Picture, after: int) -> Response:
        response = Response(mimetype="application/json")
        response.vary.add("Accept-Encoding")
        with self._lock:
            writer = self._writer(picture)
            response.set_etag(f"{writer.edition}-{after}", weak=True)
            if request.if_none_match.contains_weak(response.get_etag()[0] or ""):
                return Response(status=304, headers=response.headers)
            if takes_gzip(request):
                response.data = writer.compressed(after)
                response.headers["Content-Encoding"] = "gzip"
            else:
                response.data = b"".join(writer.pieces(after))
        return response

    def _writer(self, picture: Picture) -> "DetailWriter":
        study_id = picture.study._study_id
        writer = self._writers.setdefault(study_id, DetailWriter())
        writer.update(picture)
        self._writers.move_to_end(study_id)
        while len(self._writers) > MAX_PICTURES:
            self._writers.popitem(last=False)
        return writer


@dataclass(frozen=True)
class _Written:
    """A trial as JSON, and what it was made from."""

    trial: FrozenTrial
    attributes: Attributes
    text: bytes


class DetailWriter:
    """Writes one study as JSON.

    Attributes:
        edition: of the picture that is written.
    """

    def __init__(self) -> None:
        self.edition = ""
        self._name = ""
        self._written: dict[int, _Written] = {}
        self._trials: list[FrozenTrial] = []
        self._hyperparameters = Hyperparameters()
        self._head = b""
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def update(self, picture: Picture) -> None:
        """Write what has changed since the last time."""
        edition, name, study, trials = picture.edition, picture.name, picture.study, picture.trials
        if edition == self.edition:
            return
        if name != self._name:
            self._written, self._hyperparameters = {}, Hyperparameters()
        own: dict[int, Attributes] = defaultdict(dict)
        for key, value in study.system_attrs.items():
            if match := OF_A_TRIAL.match(key):
                own[int(match[1])][key] = value
        for trial in trials:
            written, attributes = self._written.get(trial._trial_id), own.get(trial._trial_id, {})
            if written is None or written.trial is not trial or written.attributes != attributes:
                self._write(study._study_id, trial, attributes)
        self._trials = trials
        self._head = self._written_head(study, trials)
        self._kept.clear()
        self.edition, self._name = edition, name

    def _write(self, study_id: int, trial: FrozenTrial, own: Attributes) -> None:
        text = json.dumps(serialize_frozen_trial(study_id, trial, own)).encode()
        self._written[trial._trial_id] = _Written(trial, own, text)
        self._hyperparameters.add(trial)

    def _written_head(self, study: Any, trials: list[FrozenTrial]) -> bytes:
        """Return all but the trials, without the brace that it begins with."""
        hyperparameters = self._hyperparameters
        head = serialize_study_detail(
            study,
            _best(study.directions[0], trials),
            [],
            hyperparameters.common,
            hyperparameters.all,
            hyperparameters.attributes,
            hyperparameters.has_reports,
            get_plotly_graph_objects(study.system_attrs),
            [],
        )
        del head["trials"]
        return json.dumps(head).encode()[1:]

    def pieces(self, after: int) -> Iterator[bytes]:
        """Yield the study with its trials but for the first `after`."""
        yield b'{"trials": ['
        for first in range(after, len(self._trials), BATCH):
            batch = b", ".join(self._written[each._trial_id].text for each in self._trials[first : first + BATCH])
            yield batch if first == after else b", " + batch
        yield b"], " + self._head

    def compressed(self, after: int) -> bytes:
        """Return the same in gzip's format."""
        kept = self._kept.get(after)
        if kept is None:
            kept = self._kept[after] = b"".join(compressed(self.pieces(after)))
        self._kept.move_to_end(after)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return kept


def _best(direction: StudyDirection, trials: list[FrozenTrial]) -> list[FrozenTrial]:
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.values]
    if not complete:
        return []
    choose = max if direction == StudyDirection.MAXIMIZE else min
    return [choose(complete, key=lambda trial: trial.values[0])]
