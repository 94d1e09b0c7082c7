"""Commands as containers would run them: host names of their own, a file system that is read-only, and no root.

There is no engine and no image: the programs are this machine's. What a container may see and write, as whom, and what
it calls others by are as the engine would have it, by the same means: namespaces and mounts. It takes root.
"""

import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest

from tests.support.command import CHECKOUT, COMMAND
from tests.support.postgres import binaries

DOCKERFILE = (CHECKOUT / "docker" / "Dockerfile").read_text()
#: What the image has for its user to write to.
IMAGE_FOLDERS = ("/srv/data", "/srv/checkpoints")
NAMESPACES = Path("/etc/netns")
#: What programs need of this machine's folders.
PROGRAMS = tuple(dict.fromkeys((Path(sys.prefix), Path(sys.base_prefix), CHECKOUT)))
NEEDED = ("ip", "unshare", "nsenter", "setpriv", "taskset", "mount")


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder or a file of this machine as a container sees it."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a container is to be.

    Attributes:
        host: its own name.
        user_id: who it runs as.
        read_only: its file system, but for /tmp and what is mounted.
        cores: numbers of those that it may use; none named are all.
    """

    host: str
    command: Sequence[str]
    environment: Mapping[str, str]
    mounts: Sequence[Mount] = ()
    user_id: int = 1000
    read_only: bool = True
    cores: Sequence[int] = ()


class Container:
    """A running container, its output in a file."""

    def __init__(self, spec: Spec, network: str, log: Path) -> None:
        self.spec, self.network, self.log = spec, network, log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", network),
                    *("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("sh", "-c", _set_up(spec), "sh", *spec.command),
                ],
                env=dict(spec.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        """Send SIGTERM to its first process, as engines do."""
        self._first().send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it by its first process, which takes all others with it; whoever started that takes none."""
        with suppress(psutil.NoSuchProcess):
            for first in psutil.Process(self.process.pid).children():
                first.kill()
        self.process.kill()
        self.process.wait()

    def ended(self, *, seconds: float = 180) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.spec.host} still runs after {seconds} s:\n{self.output}") from None

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it to the end, as its user, as health checks are run."""
        who = str(self.spec.user_id)
        return subprocess.run(
            [
                *("nsenter", f"--target={self._first().pid}", "--mount", "--uts", "--pid", "--net", "--wd=/srv"),
                *("setpriv", f"--reuid={who}", f"--regid={who}", "--clear-groups", "--", *command),
            ],
            env=dict(self.spec.environment),
            capture_output=True,
            text=True,
            timeout=240,
        )

    def _first(self) -> psutil.Process:
        (first,) = psutil.Process(self.process.pid).children()
        return first


@dataclass
class Containers:
    """Starts containers that share one network, in which all names are this machine, and knows all it has started.

    Attributes:
        folder: for logs and data.
        sockets: for Unix sockets, whose paths may have a hundred letters and no more.
    """

    network: str
    folder: Path
    sockets: Path
    started: list[Container] = field(default_factory=list)

    def start(self, spec: Spec) -> Container:
        container = Container(spec, self.network, self.folder / f"{spec.host}-{time.monotonic_ns()}.log")
        self.started.append(container)
        return container

    def start_postgres(
        self, *, host: str, user: str, password: str, database: str, arguments: Sequence[str]
    ) -> tuple[Container, str]:
        """Start a server on port 5432 as its image would, which asks for the password.

        Returns:
            the container, and the URL of the database as it is reached from outside of the network.
        """
        folder = self.folder / host
        account = pwd.getpwnam("postgres" if _exists("postgres") else "nobody")  # one that the machine knows
        folder.mkdir()
        for part in (folder, self.sockets):
            os.chown(part, account.pw_uid, account.pw_gid)
        (folder / "password").write_text(password)
        authentication = "-A scram-sha-256 --pwfile=/srv/db/password"
        setting_up = (  # as the image does: nobody is let in before the database is there
            f"{binaries()}/initdb -D /srv/db/data -U {user} {authentication} --no-sync -E UTF8 && "
            f"echo 'CREATE DATABASE \"{database}\"' | {binaries()}/postgres --single -D /srv/db/data postgres"
        )
        socket = "-c unix_socket_directories=/srv/socket -c listen_addresses=127.0.0.1"
        serving = f"exec {binaries()}/postgres -D /srv/db/data {socket} {shlex.join(arguments)}"
        server = self.start(
            Spec(
                host=host,
                command=["sh", "-c", f"{setting_up} && {serving}"],
                environment={"PATH": os.environ["PATH"]},
                mounts=[Mount(source=folder, target="/srv/db"), Mount(source=self.sockets, target="/srv/socket")],
                user_id=account.pw_uid,
            )
        )
        url = f"postgresql://{user}:{quote(password, safe='')}@/{quote(database)}?host={quote(str(self.sockets))}"
        wait_until(lambda: _answers(url), server)
        return server, url


@contextmanager
def containers(folder: Path, *hosts: str) -> Iterator[Containers]:
    """Lend something that starts containers, which reach each other by these names; skip the test where that cannot be.

    At the end all that is left of them is killed.
    """
    _skip_unless_possible()
    network = f"kmnist-search-{os.getpid()}"
    files = NAMESPACES / network
    files.mkdir(parents=True)
    (files / "hosts").write_text(f"127.0.0.1 localhost {' '.join(hosts)}\n")
    subprocess.run(["ip", "netns", "add", network], check=True)
    sockets = Path(tempfile.mkdtemp(prefix="kmnist-search-"))
    lent = Containers(network, folder, sockets)
    try:
        subprocess.run(["ip", "-n", network, "link", "set", "lo", "up"], check=True)
        yield lent
    finally:
        for container in lent.started:
            container.kill()
        subprocess.run(["ip", "netns", "delete", network], check=True)
        for folder in (files, sockets):
            shutil.rmtree(folder)


def wait_until(ready: Callable[[], bool], *alive: Container, seconds: float = 240, every: float = 0.05) -> None:
    """Wait until `ready()`; fail if one of the containers ends or time runs out before."""
    deadline = time.monotonic() + seconds
    while not ready():
        for container in alive:
            assert container.exit_code is None, f"ended with {container.exit_code}:\n{container.output}"
        shown = "\n".join(container.output for container in alive)
        assert time.monotonic() < deadline, f"waited {seconds} s in vain:\n{shown}"
        time.sleep(every)


def image_environment() -> dict[str, str]:
    """Return the variables that the last stage of the Dockerfile sets, with the programs under test on the path."""
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    assert " ".join(IMAGE_FOLDERS) in last_stage
    joined = "\n".join(re.findall(r"^ENV (.+)$", last_stage.replace("\\\n", " "), re.MULTILINE))
    found = dict(re.findall(r"(\w+)=(\S+)", joined))
    assert found.pop("PATH") == "/opt/venv/bin:$PATH"
    of_the_tests = {name: os.environ[name] for name in ("PYTHONPATH", "TRITON_INTERPRET") if name in os.environ}
    return {**found, "PATH": f"{COMMAND.parent}:/usr/local/bin:/usr/bin:/bin", **of_the_tests}


def _set_up(spec: Spec) -> str:
    """Return the script that makes the container's view of the machine, from within, and becomes its command."""
    uncovered = [Mount(source=folder, target=str(folder), read_only=True) for folder in PROGRAMS]
    mounts = [*uncovered, *spec.mounts]
    closed = {top for mount in uncovered if (top := _closed_above(mount.source)) is not None}
    lines = ["set -eu", f"hostname {shlex.quote(spec.host)}", "mount -t tmpfs -o mode=755 tmpfs /srv"]
    for number, mount in enumerate(mounts):  # before they are out of sight
        make = "touch" if mount.source.is_file() else "mkdir -p"
        lines += [f"{make} /srv/.{number}", f"mount --bind {shlex.quote(str(mount.source))} /srv/.{number}"]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(top))}" for top in sorted(closed - {Path("/tmp")})]
    lines += ["mount -t tmpfs -o mode=1777,exec tmpfs /tmp"]
    owner = f"--owner={spec.user_id} --group={spec.user_id}"
    lines += [f"install --directory {owner} {shlex.quote(folder)}" for folder in IMAGE_FOLDERS]
    for number, mount in enumerate(mounts):
        target, is_file = shlex.quote(mount.target), mount.source.is_file()
        lines += [f"mkdir -p $(dirname {target}) && touch {target}" if is_file else f"mkdir -p {target}"]
        lines += [f"mount --bind /srv/.{number} {target}"]
        lines += [f"mount -o remount,bind,ro {target}"] if mount.read_only else []
        lines += [f"umount /srv/.{number}", f"rm -d /srv/.{number}"]
    lines += ["mount -o remount,bind,ro /", "mount -o remount,ro /srv"] if spec.read_only else []
    rights = f"--reuid={spec.user_id} --regid={spec.user_id} --clear-groups --no-new-privs --bounding-set=-all"
    confined = f"taskset --cpu-list {','.join(map(str, spec.cores))} " if spec.cores else ""
    return "\n".join([*lines, "cd /srv", f'exec {confined}setpriv {rights} -- "$@"'])


def _closed_above(folder: Path) -> Path | None:
    """Return the topmost folder on the way that only root may pass, or /tmp, which each container has for itself."""
    for above in reversed(folder.parents):
        if above == Path("/tmp") or not above.stat().st_mode & 0o001:
            return above
    return None


def _skip_unless_possible() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make network namespaces and mounts")
    if missing := [program for program in NEEDED if shutil.which(program) is None]:
        pytest.skip(f"no {', '.join(missing)}: Debian's packages iproute2 and util-linux have them")
    trial = subprocess.run(
        ["unshare", "--net", "--uts", "--pid", "--fork", "--mount-proc", "mount", "-t", "tmpfs", "tmpfs", "/srv"],
        capture_output=True,
        text=True,
    )
    if trial.returncode:
        pytest.skip(f"this machine lets even root make no namespaces: {trial.stderr.strip()}")


def _exists(user: str) -> bool:
    return any(account.pw_name == user for account in pwd.getpwall())


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
