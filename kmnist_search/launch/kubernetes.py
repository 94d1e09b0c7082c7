"""A search as an Indexed Job on Kubernetes: its workers, and an init container that creates the study and its queue.

It needs Kubernetes 1.29 or later, which counts failures per worker and can ignore some of them.
"""

import hashlib
import json
from dataclasses import dataclass

from kmnist_search.errors import ConfigError
from kmnist_search.launch import kubernetes_services as services
from kmnist_search.launch.kubernetes_parts import (
    APP,
    CHECKPOINTS,
    DATA,
    STUDY,
    USER_ID,
    Manifest,
    cache_environment,
    check_image,
    check_label,
    check_name,
    check_quantity,
    container_rights,
    database_environment,
    labels,
    literal,
    metadata,
    mount,
    pod_basis,
    safe_name,
    temporary,
)

#: Retries of a failing worker, after growing pauses; then it is given up, and the other workers continue.
RETRIES_OF_A_WORKER = 3
#: How long a pod waits for a database that it cannot reach. Without waiting, this would count as wrong input.
PATIENCE = "10m"
#: How long an ended job is kept, with its logs.
KEPT_SECONDS = 24 * 3600
#: Exit codes after SIGTERM: that of a worker that stopped, and that of a process killed before it handled the signal.
HANDED_BACK, TERMINATED = 130, 143
WRONG_INPUT = 2
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
        changes: options of `submit queue` that override the study file.
        trials: number of trials.
        image: image of this package.
        workers: number of pods, each with one worker.
        gpus: GPUs per worker.
        cpu: cores per worker, in Kubernetes' format.
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
    """

    study: str
    source: str
    is_builtin: bool
    changes: tuple[str, ...] = ()
    trials: int
    image: str
    workers: int
    gpus: int = 1
    cpu: str = "4"
    memory: str = "16Gi"
    per_gpu: int | None = None
    grace_seconds: int = 120
    namespace: str | None = None
    secret: str = APP
    data_claim: str | None = None
    checkpoints_claim: str | None = None
    artifacts: str | None = None
    postgres: bool = False
    dashboard: bool = False

    def __post_init__(self) -> None:
        if self.grace_seconds < SHORTEST_GRACE_SECONDS:
            raise ConfigError(f"--grace-period {self.grace_seconds}s: must be at least {SHORTEST_GRACE_SECONDS}s")
        check_image("--image", self.image)
        check_quantity("--cpu", self.cpu)
        check_quantity("--memory", self.memory)
        check_name("--secret", self.secret)
        if self.per_gpu is not None and not self.gpus:
            raise ConfigError(f"--per-gpu {self.per_gpu}: with --gpus 0 the pods have no GPU. Leave one of them out.")
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
        digest = hashlib.sha256(json.dumps([self._study_file(""), self._workers("")]).encode()).hexdigest()[:6]
        return f"{safe_name(self.study, at_most=JOB_NAME_LETTERS - len(digest) - 1)}-{digest}"

    def manifests(self) -> list[Manifest]:
        """Return all manifests in the order in which they must be created."""
        found: list[Manifest] = []
        if self.postgres:
            found += services.postgres(self.namespace, self.secret)
        if self.dashboard:
            found += services.dashboard(
                self.namespace,
                self.secret,
                self.image,
                own_postgres=self.postgres,
                artifacts=self._artifacts,
                shared=None if self.artifacts or self.checkpoints_claim is None else self._checkpoints,
            )
        if not self.is_builtin:
            found.append(self._study_file(self.name))
        return [*found, self._workers(self.name)]

    def _study_file(self, name: str) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(name, self.namespace, labels("study", name)),
            "immutable": True,
            "data": {"study.toml": self.source},
        }

    def _workers(self, name: str) -> Manifest:
        labelled = labels("worker", name)
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata(name, self.namespace, labelled, annotations={f"{APP}/study": self.study}),
            "spec": {
                "completionMode": "Indexed",
                "completions": self.workers,
                "parallelism": self.workers,
                # Not backoffLimit, which counts all pods' failures: one node with a broken GPU would end the search.
                "backoffLimitPerIndex": RETRIES_OF_A_WORKER,
                "podFailurePolicy": {"rules": _failure_rules()},
                "ttlSecondsAfterFinished": KEPT_SECONDS,
                "template": {
                    "metadata": {"labels": labelled, "annotations": {f"{APP}/study": self.study}},
                    "spec": self._pod(name),
                },
            },
        }

    def _pod(self, name: str) -> Manifest:
        tolerated = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        return {
            "restartPolicy": "Never",  # required by podFailurePolicy
            "terminationGracePeriodSeconds": self.grace_seconds,
            **pod_basis(USER_ID),
            **({"tolerations": tolerated} if self.gpus else {}),
            "initContainers": [self._queue_container()],
            "containers": [self._worker_container()],
            "volumes": self._volumes(name),
        }

    def _queue_container(self) -> Manifest:
        """Return the container that creates study and queue and loads the images, unless another pod has done so."""
        source = self.source if self.is_builtin else f"{STUDY}/study.toml"
        options = [f"--trials={self.trials}", f"--name={self.study}", *self.changes, f"--database-timeout={PATIENCE}"]
        study = [] if self.is_builtin else [mount("study", STUDY, read_only=True)]
        return {
            **self._container("queue", ["submit", "queue", source, *options]),
            "env": self._environment(),
            "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "2Gi"}},
            "volumeMounts": [mount("tmp", "/tmp"), mount("data", DATA, read_only=self.data_claim is not None), *study],
        }

    def _worker_container(self) -> Manifest:
        per_gpu = [] if self.per_gpu is None else [f"--per-gpu={self.per_gpu}"]
        return {
            **self._container("worker", ["worker", self.study, *per_gpu, f"--database-timeout={PATIENCE}"]),
            "env": [
                *self._environment(),
                {"name": "KMNIST_SEARCH_CHECKPOINTS", "value": CHECKPOINTS},
                {"name": "KMNIST_SEARCH_ARTIFACTS", "value": self._artifacts},
            ],
            "resources": self._resources(),
            "volumeMounts": [
                mount("tmp", "/tmp"),
                mount("data", DATA, read_only=True),
                mount("checkpoints", CHECKPOINTS),
            ],
        }

    def _container(self, name: str, arguments: list[str]) -> Manifest:
        return {
            "name": name,
            "image": self.image,
            "args": [literal(argument) for argument in arguments],
            "securityContext": container_rights(),
        }

    def _environment(self) -> list[Manifest]:
        return [
            *database_environment(self.secret, own_postgres=self.postgres),
            {"name": "KMNIST_SEARCH_DATA", "value": DATA},
            *cache_environment(),
        ]

    def _resources(self) -> Manifest:
        gpus = {"nvidia.com/gpu": self.gpus} if self.gpus else {}
        # A worker on CPUs starts as many processes as its limit has cores; a worker on a GPU must not be throttled.
        cpu_limit = {} if self.gpus else {"cpu": self.cpu}
        return {
            "requests": {"cpu": self.cpu, "memory": self.memory},
            "limits": {**cpu_limit, "memory": self.memory, **gpus},
        }

    @property
    def _artifacts(self) -> str:
        return self.artifacts or f"{CHECKPOINTS}/artifacts"

    @property
    def _checkpoints(self) -> Manifest:
        if self.checkpoints_claim is None:
            return temporary("checkpoints")
        return {"name": "checkpoints", "persistentVolumeClaim": {"claimName": self.checkpoints_claim}}

    def _volumes(self, name: str) -> list[Manifest]:
        data: Manifest = temporary("data")
        if self.data_claim is not None:
            data = {"name": "data", "persistentVolumeClaim": {"claimName": self.data_claim, "readOnly": True}}
        study = {"name": "study", "configMap": {"name": name}}
        return [temporary(), data, self._checkpoints, *([] if self.is_builtin else [study])]


def _failure_rules() -> list[Manifest]:
    """Return the meaning of each end of a pod. The first rule that fits applies; other ends count as failures."""
    return [
        # Preempted, drained, evicted, or the node is gone: no failure. Another pod resumes the trial.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        # Deleted by hand: SIGTERM stopped it, and its trials were handed back.
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [HANDED_BACK, TERMINATED]}},
        # A retry cannot help against wrong input. If it is wrong for all workers, the job fails at once; if only one
        # worker's download failed, the others continue.
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [WRONG_INPUT]}},
    ]
