"""A search as an Indexed Job on Kubernetes: its workers, and an init container that creates the study and its queue.

It needs Kubernetes 1.29 or later, which counts failures per worker and can ignore some of them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from kmnist_search.errors import ConfigError
from kmnist_search.launch.kubernetes_names import (
    check_image,
    check_label,
    check_name,
    check_quantity,
    literal,
    safe_name,
)

Manifest = dict[str, Any]

#: URL of the database that `--postgres` includes.
POSTGRES_URL = "postgresql://kmnist@kmnist-search-postgres:5432/kmnist"
#: Keys of the secrets.
URL_KEY, PASSWORD_KEY = "storage", "password"
#: Folders in the containers.
CHECKPOINTS, STUDY = "/srv/checkpoints", "/srv/study"
#: A pod waits this long for a database that it cannot reach. Without waiting, this would count as wrong input.
WAIT_FOR_DATABASE = "--database-timeout=10m"
#: Minimum time for a worker to save its checkpoints and hand its trials back.
SHORTEST_GRACE_SECONDS = 15
#: A pod's name is the job's name, the worker's index and five letters, cut at 63 letters.
JOB_NAME_LETTERS = 50


@dataclass(frozen=True, kw_only=True)
class KubernetesJob:
    """A search and the resources it runs on.

    Attributes:
        study: name of the study in the database.
        source: name of a built-in study, or the text of a study file.
        is_builtin: whether `source` is the name of a built-in study.
        changes: settings of the study file to change, each as `table.key=value`.
        trials: number of trials.
        image: image of this package.
        workers: number of pods, each with one worker.
        gpus: GPUs per worker.
        cpus: cores per worker, in Kubernetes' format.
        memory: memory per worker, in Kubernetes' format.
        per_gpu: trials at a time on a GPU; None for as many as raise the throughput.
        grace_seconds: seconds between the request to stop and the kill.
        namespace: namespace of the job; None for that of kubectl's context.
        secret: secret with the URL of the database, or with the password of the included Postgres.
        data_claim: volume with the images; without one each pod downloads them.
        checkpoints_claim: volume that all pods write to; without one checkpoints end with their pod.
        artifacts: bucket of the artifacts; None to store them with the checkpoints.
        postgres: whether a Postgres server is included.
        dashboard: whether a dashboard is included.
        retrains: whether the workers also retrain the winner; the result is written to the volume of checkpoints.
    """

    study: str
    source: str
    is_builtin: bool
    changes: Sequence[str] = ()
    trials: int
    image: str
    workers: int
    gpus: int = 1
    cpus: str = "4"
    memory: str = "16Gi"
    per_gpu: int | None = None
    grace_seconds: int = 120
    namespace: str | None = None
    secret: str = "kmnist-search"
    data_claim: str | None = None
    checkpoints_claim: str | None = None
    artifacts: str | None = None
    postgres: bool = False
    dashboard: bool = False
    retrains: bool = False

    def __post_init__(self) -> None:
        if self.grace_seconds < SHORTEST_GRACE_SECONDS:
            raise ConfigError(f"--grace-period {self.grace_seconds}s: must be at least {SHORTEST_GRACE_SECONDS}s")
        check_image("--image", self.image)
        check_quantity("--cpus", self.cpus)
        check_quantity("--memory", self.memory)
        check_name("--secret", self.secret)
        if self.per_gpu is not None and not self.gpus:
            raise ConfigError(f"--per-gpu {self.per_gpu}: with --gpus 0 the pods have no GPU. Leave one of them out.")
        if self.retrains and self.checkpoints_claim is None:
            raise ConfigError(
                "--retrain: model and report need a volume that outlives the pods. Name one with --checkpoints-claim."
            )
        if self.namespace is not None:
            check_label("--namespace", self.namespace)
        for option, claim in (("--data-claim", self.data_claim), ("--checkpoints-claim", self.checkpoints_claim)):
            if claim is not None:
                check_name(option, claim)

    @property
    def name(self) -> str:
        """The job's name: the study's name and a digest of the job.

        A Kubernetes job cannot be changed. The same command names the same job, and a changed command (more trials,
        say) names a new job on the same queue.
        """
        digest = hashlib.sha256(json.dumps(self._filled(("study", "workers"), name="")).encode()).hexdigest()[:6]
        return f"{safe_name(self.study, at_most=JOB_NAME_LETTERS - len(digest) - 1)}-{digest}"

    @property
    def result(self) -> str:
        """The folder of the retraining's result in the pods."""
        return f"{CHECKPOINTS}/{self.study}-best"

    def manifests(self) -> list[Manifest]:
        """Return all manifests in the order in which they must be created."""
        needed = {"postgres": self.postgres, "dashboard": self.dashboard, "study": not self.is_builtin, "workers": True}
        return self._filled([part for part, is_needed in needed.items() if is_needed], name=self.name)

    def _filled(self, parts: Sequence[str], *, name: str) -> list[Manifest]:
        templates = yaml.safe_load(files(__package__).joinpath("kubernetes.yaml").read_text(encoding="utf-8"))
        values = self._values(name)
        return [_replaced(manifest, values) for part in parts for manifest in templates[part]]

    def _values(self, name: str) -> dict[str, Any]:
        """Return what each $name in the manifests stands for."""
        claim = self.checkpoints_claim
        checkpoints = _volume("checkpoints", claim)
        cache = "/tmp/cache" if claim is None else f"{CHECKPOINTS}/cache"
        is_shared = claim is not None and self.artifacts is None  # with the dashboard, which shows the artifacts
        tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        return {
            **vars(self),
            "name": name,
            "gpus": self.gpus or None,
            "cpu_limit": None if self.gpus else self.cpus,
            "tolerations": tolerations if self.gpus else None,
            "cache_folder": cache,
            "triton_cache_folder": f"{cache}/triton",
            "database": self._database(),
            "artifacts": self.artifacts or f"{CHECKPOINTS}/artifacts",
            "queue_options": [literal(option) for option in self._queue_options()],
            "worker_options": [literal(option) for option in self._worker_options()],
            "has_images": self.data_claim is not None or None,
            "data_volume": _volume("data", self.data_claim, readOnly=True),
            "checkpoints_volume": checkpoints,
            "study_volume": None if self.is_builtin else {"name": "study", "configMap": {"name": name}},
            "study_mount": None if self.is_builtin else {"name": "study", "mountPath": STUDY, "readOnly": True},
            "shared_volume": checkpoints if is_shared else None,
            "shared_mount": {"name": "checkpoints", "mountPath": CHECKPOINTS, "readOnly": True} if is_shared else None,
        }

    def _queue_options(self) -> list[str]:
        source = self.source if self.is_builtin else f"{STUDY}/study.toml"
        changes = (f"--set={change}" for change in self.changes)
        return [source, f"--trials={self.trials}", f"--name={self.study}", *changes, WAIT_FOR_DATABASE]

    def _worker_options(self) -> list[str]:
        per_gpu = [] if self.per_gpu is None else [f"--per-gpu={self.per_gpu}"]
        retrain = ["--retrain", f"--out={self.result}"] if self.retrains else []
        return [self.study, *per_gpu, *retrain, WAIT_FOR_DATABASE]

    def _database(self) -> list[Manifest]:
        """Return the variables that hold the connection to the database; secrets come by reference."""
        if not self.postgres:
            return [_from_secret("KMNIST_SEARCH_STORAGE", self.secret, URL_KEY)]
        return [
            {"name": "KMNIST_SEARCH_STORAGE", "value": POSTGRES_URL},
            _from_secret("PGPASSWORD", self.secret, PASSWORD_KEY),
        ]


def _from_secret(variable: str, secret: str, key: str) -> Manifest:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _volume(name: str, claim: str | None, **options: bool) -> Manifest:
    """Return a volume of a claim; without one, a volume that is deleted with its pod."""
    if claim is None:
        return {"name": name, "emptyDir": {}}
    return {"name": name, "persistentVolumeClaim": {"claimName": claim, **options}}


def _replaced(node: Any, values: Mapping[str, Any]) -> Any:
    """Return a template with each $name replaced. None leaves an entry out, a list within a list is spliced in."""
    match node:
        case str() if node.startswith("$"):
            return values[node[1:]]
        case dict():
            filled = {key: _replaced(each, values) for key, each in node.items()}
            return {key: each for key, each in filled.items() if each is not None}
        case list():
            parts = [_replaced(each, values) for each in node]
            lists = (part if isinstance(part, list) else [part] for part in parts if part is not None)
            return [each for part in lists for each in part]
    return node
