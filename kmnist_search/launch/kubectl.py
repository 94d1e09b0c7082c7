"""Calls of kubectl: check manifests and apply them."""

import shutil
import subprocess

from kmnist_search.errors import InputError, WorkError


def find() -> str:
    """Return the path of kubectl.

    Raises:
        InputError: there is none.
    """
    found = shutil.which("kubectl")
    if found is None:
        raise InputError(
            "there is no kubectl on the path, and --apply hands the manifests over with it. Install it, or leave "
            "--apply out, and hand over what is printed from where there is one: kubectl apply -f FILE"
        )
    return found


def check(kubectl: str, text: str) -> None:
    """Let the cluster say whether it would take the manifests; nothing is made.

    Raises:
        InputError: it would not, or there is no cluster; in kubectl's own words.
    """
    done = _run(kubectl, "apply", "--dry-run=server", "-f", "-", text=text)
    if done.returncode:
        raise InputError(f"the cluster does not take the job, and nothing was made: {_said(done)}")


def apply(kubectl: str, text: str) -> str:
    """Have the cluster make what the manifests say; what is there already stays. Return what kubectl says.

    Raises:
        WorkError: it could not; in kubectl's own words.
    """
    done = _run(kubectl, "apply", "-f", "-", text=text)
    if done.returncode:
        raise WorkError(
            f"kubectl apply failed: {_said(done)}\nWhat it had made before stays. The same command again goes on."
        )
    return done.stdout


def _run(kubectl: str, *arguments: str, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([kubectl, *arguments], input=text, capture_output=True, encoding="utf-8", check=False)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip() or f"exit code {done.returncode}, without a word"
