"""Tests of doctor/clusters.py: what Slurm's and Kubernetes' own programs answer is passed on."""

from pathlib import Path

import pytest

from kmnist_search.doctor import clusters


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all programs there are."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def install(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_machine_without_a_cluster_lacks_nothing() -> None:
    assert [finding.state for finding in (*clusters.slurm(), *clusters.kubernetes())] == ["absent", "absent"]


def test_slurms_partitions_and_the_own_job_are_named(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(programs, "sbatch", "")
    install(programs, "sinfo", 'echo "main* up gpu:4"; echo "cpu up (null)"')
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURMD_NODENAME", "node-3")
    job, slurm = clusters.slurm()
    assert job.text == "17, on node-3"
    assert (slurm.state, slurm.text) == ("ok", "partitions: main* up gpu:4, cpu up (null)")


def test_a_slurm_that_does_not_answer_is_bad_in_its_own_words(programs: Path) -> None:
    install(programs, "sbatch", "")
    install(programs, "sinfo", 'echo "slurm_load_partitions: Unable to contact slurm controller" >&2; exit 1')
    (slurm,) = clusters.slurm()
    assert slurm.state == "bad"
    assert slurm.text == "sinfo failed: slurm_load_partitions: Unable to contact slurm controller"


def test_slurm_without_a_configuration_is_no_fault(programs: Path) -> None:
    install(programs, "sbatch", "")
    install(programs, "sinfo", 'echo "sinfo: fatal: Could not establish a configuration source" >&2; exit 1')
    (slurm,) = clusters.slurm()
    assert (slurm.state, slurm.text) == ("absent", "sbatch is here, but no cluster is configured for it")


def test_a_slurm_that_hangs_is_not_waited_for(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "TIMEOUT_SECONDS", 1)
    install(programs, "sbatch", "")
    install(programs, "sinfo", "exec /bin/sleep 1000")
    (slurm,) = clusters.slurm()
    assert "timed out after 1 seconds" in slurm.text


@pytest.mark.parametrize(
    ("answer", "state", "text"),
    [
        ("echo yes", "ok", "jobs may be created in home"),
        ("echo no; exit 1", "bad", "jobs cannot be created in home: exit code 1"),
        (
            'echo "E1 more" >&2; echo "The connection to the server was refused" >&2; exit 1',
            "bad",
            "jobs cannot be created in home: The connection to the server was refused",
        ),
    ],
)
def test_kubernetes_is_asked_whether_jobs_may_be_created(programs: Path, answer: str, state: str, text: str) -> None:
    install(programs, "kubectl", f'if [ "$1" = config ]; then echo home; exit 0; fi\n{answer}')
    (kubernetes,) = clusters.kubernetes()
    assert (kubernetes.state, kubernetes.text) == (state, text)


def test_a_kubectl_without_a_cluster_is_no_fault(programs: Path) -> None:
    install(programs, "kubectl", 'echo "error: current-context is not set" >&2; exit 1')
    (kubernetes,) = clusters.kubernetes()
    assert (kubernetes.state, kubernetes.advice) == ("absent", "")
