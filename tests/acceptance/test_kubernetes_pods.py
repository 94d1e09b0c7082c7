"""The pods that `submit kubernetes` renders, run with their very commands to the end of a search.

There is no cluster here, so they run as processes, each in the view of the machine that its manifest gives it; what a
cluster would do with a pod that ends is read off the rules in the manifest.
"""

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from tests.support.containers import Container, Containers, Mount, Spec, containers, image_environment, wait_until
from tests.support.exact import Look, assert_exact

Manifest = dict[str, Any]

pytestmark = pytest.mark.slow

PASSWORD = "s3cret/&%41@:"
SECRETS = {"kmnist-search": {"password": PASSWORD}}
CLAIMS = ("checkpoints",)


class Pod:
    """One pod of a job: its init containers one after another, then its worker."""

    def __init__(self, cluster: "Cluster", name: str, job: Manifest) -> None:
        self.cluster, self.name, self.job = cluster, name, job
        self.spec: Manifest = job["spec"]["template"]["spec"]
        self.worker: Container | None = None

    def run(self) -> int:
        """Run it to its end and return the exit code that counts: of the first container that fails, or the worker."""
        for container in self.spec["initContainers"]:
            preparing = self.cluster.start(self, container)
            if (exit_code := preparing.ended()) != 0:
                return exit_code
        (container,) = self.spec["containers"]
        self.worker = self.cluster.start(self, container)
        return self.worker.ended()

    def outcome(self, exit_code: int) -> str:
        """Return what the job's rules make of a failure: the action of the first that fits, or "Count"."""
        for rule in self.job["spec"]["podFailurePolicy"]["rules"]:
            codes = rule.get("onExitCodes")
            if codes is not None and codes["operator"] == "In" and exit_code in codes["values"]:
                return str(rule["action"])
        return "Count"


class Cluster:
    """Runs what manifests say, with volumes that are folders."""

    def __init__(self, started: Containers, folder: Path, manifests: list[Manifest]) -> None:
        self.started, self.folder = started, folder
        self.by_kind = {manifest["kind"]: manifest for manifest in manifests}

    def start_postgres(self) -> str:
        """Start the database and return its URL as it is reached from here."""
        server = self.by_kind["StatefulSet"]
        (container,) = server["spec"]["template"]["spec"]["containers"]
        variables = self._environment(container)
        _, url = self.started.start_postgres(
            host=self.by_kind["Service"]["metadata"]["name"],
            user=variables["POSTGRES_USER"],
            password=variables["POSTGRES_PASSWORD"],
            database=variables["POSTGRES_DB"],
            arguments=container["args"],
        )
        return url

    def pod(self, name: str) -> Pod:
        return Pod(self, name, self.by_kind["Job"])

    def start(self, pod: Pod, container: Manifest) -> Container:
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        mounts = [
            Mount(
                source=self._folder(pod, volumes[mount["name"]]),
                target=mount["mountPath"],
                read_only=mount.get("readOnly", False),
            )
            for mount in container["volumeMounts"]
            if mount["mountPath"] != "/tmp"  # which a container here always has of its own
        ]
        return self.started.start(
            Spec(
                host=pod.name,
                command=["kmnist-search", *(_unescaped(argument) for argument in container["args"])],
                environment={**image_environment(), **self._environment(container)},
                mounts=mounts,
                user_id=pod.spec["securityContext"]["runAsUser"],
                read_only=container["securityContext"]["readOnlyRootFilesystem"],
                cores=self._cores(pod, container),
            )
        )

    def _cores(self, pod: Pod, container: Manifest) -> list[int]:
        """Return as many cores as it is limited to, the next ones for the next pod; none if it is not limited."""
        limit = int(container["resources"]["limits"].get("cpu", 0))
        usable, number = sorted(os.sched_getaffinity(0)), int(pod.name.rpartition("-")[2])
        return [usable[(number * limit + each) % len(usable)] for each in range(limit)]

    def _environment(self, container: Manifest) -> dict[str, str]:
        found = {}
        for variable in container["env"]:
            if "value" in variable:
                found[variable["name"]] = _unescaped(variable["value"])
            else:
                reference = variable["valueFrom"]["secretKeyRef"]
                found[variable["name"]] = SECRETS[reference["name"]][reference["key"]]
        return found

    def _folder(self, pod: Pod, volume: Manifest) -> Path:
        if "configMap" in volume:
            study = self.by_kind["ConfigMap"]
            assert volume["configMap"]["name"] == study["metadata"]["name"]
            return self._filled("study", study["data"])
        if "persistentVolumeClaim" in volume:
            name = volume["persistentVolumeClaim"]["claimName"]
            assert name in CLAIMS
            return self._filled(name, {})
        assert volume["emptyDir"] == {}
        return self._filled(f"{pod.name}-{volume['name']}", {})

    def _filled(self, name: str, texts: dict[str, str]) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)  # a cluster gives it to the group of fsGroup
        for file, text in texts.items():
            (folder / file).write_text(text)
        return folder


def _unescaped(text: str) -> str:
    assert not re.search(r"(?<!\$)\$\(", text), f"{text!r} refers to a variable"
    return text.replace("$$", "$")


def _rendered(invoke: Callable[..., Result], *more: str) -> list[Manifest]:
    done = invoke(
        *("submit", "kubernetes", "tiny.toml", "--trials", "10", "--workers", "2", "--gpus", "0", "--postgres"),
        *("--cpus", "1", "--dry-run", "--image", "kmnist-search", "--checkpoints-claim", "checkpoints"),
        *("--set", "train.epochs=40", "--set", "study.pruner=none", *more),
    )
    assert done.exit_code == 0, done.output
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Containers]:
    with containers(tmp_path, "kmnist-search-postgres") as started:
        yield started


def test_the_pods_of_a_job_run_a_search_to_its_exact_end_though_one_is_drained(
    invoke: Callable[..., Result], started: Containers, tmp_path: Path
) -> None:
    cluster = Cluster(started, tmp_path, _rendered(invoke))
    pods = [cluster.pod(f"tiny-{number}") for number in range(2)]
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(pod.run) for pod in pods]  # all at once, as a cluster begins: some wait for others
        url = cluster.start_postgres()
        drained = pods[0]
        wait_until(lambda: drained.worker is not None and drained.worker.output.count(" complete ") >= 2)
        assert drained.worker is not None
        drained.worker.stop()
        exit_code = running[0].result()
        assert (exit_code, drained.outcome(exit_code)) == (130, "Ignore"), drained.worker.output
        replacement = cluster.pod("tiny-0")
        assert replacement.run() == 0, started.started[-1].output
        assert running[1].result() == 0
    workers = [pod.worker for pod in (*pods, replacement) if pod.worker is not None]
    assert_exact(Look(url), workers, trials=10, epochs=40)
    for container in started.started:
        assert PASSWORD not in container.output
    other = Cluster(started, tmp_path, _rendered(invoke, "--set", "space.dim={choices=[8,32]}")).pod("other-0")
    exit_code = other.run()
    assert (exit_code, other.outcome(exit_code)) == (2, "FailIndex"), started.started[-1].output
