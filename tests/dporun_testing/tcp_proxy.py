"""A proxy of TCP connections that can fall silent, as a firewall does that forgets its connections."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator


class TcpProxy:
    """Passes connections on to a port of this machine, until the end of ``forward``."""

    def __init__(self, target: int):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._silence = threading.Event()
        self._closed = False
        self.accepted = 0

    def silence(self) -> None:
        """From now on nothing passes through the connections that there are, and nobody is told; new ones work."""
        self._silence.set()
        self._silence = threading.Event()

    def run(self) -> None:
        """Accept connections until ``close``."""
        with contextlib.suppress(OSError):
            while not self._closed:
                client, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._pass, args=(client, self._silence), daemon=True).start()

    def close(self) -> None:
        """End."""
        self._closed = True
        self._silence.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pass(self, client: socket.socket, silence: threading.Event) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            other = {client: server, server: client}
            while not self._closed:
                ready, _, _ = select.select([] if silence.is_set() else list(other), [], [], 0.2)
                for source in ready:
                    with contextlib.suppress(OSError):
                        if data := source.recv(65536):
                            other[source].sendall(data)
                            continue
                    return


@contextlib.contextmanager
def forward(target: int) -> Iterator[TcpProxy]:
    """Run a proxy to a port of this machine until the block ends."""
    proxy = TcpProxy(target)
    thread = threading.Thread(target=proxy.run)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
