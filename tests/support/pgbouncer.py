"""A PgBouncer of the tests' own, in front of a server of theirs."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from tests.support.postgres import PostgresServer, free_port

PoolMode = Literal["session", "transaction"]


def program() -> str | None:
    """Return the machine's own `pgbouncer`, wherever that is."""
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


class PgBouncer:
    """Shares a few connections to all databases of a server among any number of clients.

    Attributes:
        mode: for how long a client keeps a connection to the server: until it leaves, or for a transaction.
        pool_size: how many connections to the server there are at most for one database.
    """

    def __init__(self, server: PostgresServer, mode: PoolMode, *, pool_size: int) -> None:
        self.server, self.mode, self.pool_size = server, mode, pool_size
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="kmnist-search-pgbouncer-"))
        (self.folder / "pgbouncer.ini").write_text(self._settings())
        if server.user:
            shutil.chown(self.folder, server.user)
        self.start()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def url(self, database: str) -> str:
        return f"postgresql://tester@127.0.0.1:{self.port}/{quote(database)}"

    def start(self) -> None:
        found = program()
        assert found is not None
        command = [found, str(self.folder / "pgbouncer.ini")]
        with (self.folder / "log").open("ab") as log:  # it, too, refuses to run as root
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, user=self.server.user)
        deadline = time.monotonic() + 240
        while not self._listens():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a machine that fails would: connections on both sides break."""
        self._process.kill()
        self._process.wait(30)

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def _settings(self) -> str:
        return (
            f"[databases]\n* = host={self.server.address} port={self.server.port} user=tester\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = {self.mode}\ndefault_pool_size = {self.pool_size}\nmax_client_conn = 500\n"
        )

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
