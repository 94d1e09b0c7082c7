"""Calls of kubectl that check and apply manifests."""

import shutil
import subprocess

from kmnist_search.errors import InputError, WorkError

#: What kubectl says if no server answers it.
UNREACHABLE_WORDS = ("connection refused", "no such host", "i/o timeout", "Unable to connect", "no route to host")


def find() -> str:
    """Return the path of kubectl.

    Raises:
        InputError: kubectl is not installed.
    """
    found = shutil.which("kubectl")
    if found is None:
        raise InputError(
            "there is no kubectl on the PATH. Install it, or print the manifests with --dry-run and submit them where "
            "it is installed: kubectl apply -f FILE"
        )
    return found


def check(kubectl: str, text: str) -> None:
    """Ask the cluster whether it would accept the manifests; nothing is created.

    Raises:
        InputError: it would not, or there is no cluster (kubectl's message).
    """
    done = _run(kubectl, "apply", "--dry-run=server", "-f", "-", text=text)
    if done.returncode and any(words in done.stderr for words in UNREACHABLE_WORDS):
        raise InputError(
            f"kubectl reaches no cluster, and nothing was created: {done.stderr.strip().splitlines()[-1]}\n"
            "Choose one: kubectl config use-context NAME. Or print the manifests: --dry-run"
        )
    if done.returncode:
        raise InputError(f"the cluster does not accept the job, and nothing was created: {_said(done)}")


def apply(kubectl: str, text: str) -> str:
    """Create what the manifests describe, keep what exists, and return kubectl's output.

    Raises:
        WorkError: kubectl failed (kubectl's message).
    """
    done = _run(kubectl, "apply", "-f", "-", text=text)
    if done.returncode:
        raise WorkError(
            f"kubectl apply failed: {_said(done)}\nWhat it created stays. To continue, run the same command again."
        )
    return done.stdout


def _run(kubectl: str, *arguments: str, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([kubectl, *arguments], input=text, capture_output=True, encoding="utf-8", check=False)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip() or f"exit code {done.returncode} and no message"
