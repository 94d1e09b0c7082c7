"""A proxy between workers and their server that breaks connections as networks do."""

import random
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType

#: Close with a reset, whatever is still under way.
AT_ONCE = struct.pack("ii", 1, 0)
#: How late a late commit is: the worker has asked again by then.
LATE_SECONDS = 0.5


class Proxy:
    """Passes TCP connections on to a port of this machine, until told otherwise. To be entered and left.

    Attributes:
        port: where it listens.
        answers: False lets it accept connections, take what is sent and never answer.
        lost_commits: the share of the commits that reach the server and whose connection breaks before it can say so.
        late_commits: the share of those that reach it only some time after the connection broke.
        losses: how many commits have been lost or late.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.answers = True
        self.lost_commits = self.late_commits = 0.0
        self.losses = 0
        self._chance = random.Random(0)
        self._resets = 0
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def reset(self) -> None:
        """Break all connections that stand now."""
        self._resets += 1

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client, self._resets), daemon=True).start()

    def _pass_on(self, client: socket.socket, resets: int) -> None:
        with client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            # Where the server is away, or the client is gone, this connection is over: no more is expected of it.
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.server_port)) as server:
                while self._resets == resets and not self._closed.is_set() and self._passed(client, server):
                    continue

    def _passed(self, client: socket.socket, server: socket.socket) -> bool:
        """Pass on what has come from both sides; return False once one of them has closed."""
        for source in select.select([client, server], [], [], 0.02)[0]:
            data = source.recv(1 << 16)
            if not data:
                return False
            if source is client:
                if b"COMMIT" in data and self._loses_commit(client, server, data):
                    return False
                server.sendall(data)
            elif self.answers:
                client.sendall(data)
        return True

    def _loses_commit(self, client: socket.socket, server: socket.socket, data: bytes) -> bool:
        """Commit without an answer, if it is the turn of this commit."""
        chance = self._chance.random()
        if chance > self.lost_commits + self.late_commits:
            return False
        self.losses += 1
        if chance > self.lost_commits:
            client.close()
            time.sleep(LATE_SECONDS)
        server.sendall(data)
        server.recv(1 << 16)
        return True
