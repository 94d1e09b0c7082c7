"""Checks of Slurm and Kubernetes, as far as this machine can submit to them."""

import os
import shutil
import subprocess
from collections.abc import Iterator

from kmnist_search.doctor.finding import Finding
from kmnist_search.host.environment import scheduler_job

#: A cluster that does not answer for so long is taken to be away.
TIMEOUT_SECONDS = 20


def slurm() -> Iterator[Finding]:
    """Check whether jobs can be submitted to Slurm, and name the partitions with their GPUs."""
    if job := scheduler_job():
        yield Finding(name="Slurm job", state="ok", text=f"{job}, on {os.environ.get('SLURMD_NODENAME', 'this node')}")
    if shutil.which("sbatch") is None:
        yield Finding(name="Slurm", state="absent", text="there is no sbatch on the PATH")
        return
    partitions, problem = _answer("sinfo", "--noheader", "--format=%P %a %G")
    if "configuration source" in problem:
        yield Finding(name="Slurm", state="absent", text="sbatch is here, but no cluster is configured for it")
        return
    if problem:
        advice = "Run this on a login node, or ask those who run the cluster."
        yield Finding(name="Slurm", state="bad", text=f"sinfo failed: {problem}", advice=advice)
        return
    yield Finding(name="Slurm", state="ok", text="partitions: " + ", ".join(partitions.splitlines()))


def kubernetes() -> Iterator[Finding]:
    """Check whether jobs may be created in the Kubernetes cluster that kubectl uses."""
    if shutil.which("kubectl") is None:
        yield Finding(name="Kubernetes", state="absent", text="there is no kubectl on the PATH")
        return
    context, _ = _answer("kubectl", "config", "current-context")
    if not context:
        yield Finding(name="Kubernetes", state="absent", text="kubectl is here, but no cluster is chosen in its config")
        return
    allowed, problem = _answer(
        "kubectl", "auth", "can-i", "create", "jobs.batch", f"--request-timeout={TIMEOUT_SECONDS}s"
    )
    if allowed.startswith("yes"):
        yield Finding(name="Kubernetes", state="ok", text=f"jobs may be created in {context}")
        return
    yield Finding(
        name="Kubernetes",
        state="bad",
        text=f"jobs cannot be created in {context}: {problem or allowed or 'no'}",
        advice="Choose a cluster and namespace with kubectl config, or ask for the right to create jobs.",
    )


def _answer(*command: str) -> tuple[str, str]:
    """Return what a command prints, and the last line of its error if it fails."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    printed = done.stdout.strip()
    if done.returncode == 0:
        return printed, ""
    return printed, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
