"""A proxy between a client and the real S3 server that breaks what a network, or another maker's store, may break."""

import contextlib
import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dporun_testing.s3_server import S3Server

_OF_CONNECTION = frozenset({"connection", "expect", "content-length", "transfer-encoding", "authorization", "date"})
"""Headers of one connection, not of the message."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and with which requests.

    Attributes:
        of: S3's name of the operation, such as UploadPart; every operation when absent.
        path: only where the address contains it: a name, or ``partNumber=2``.
        header: only where the request has this header.
        after: this many requests pass before.
        times: how many requests it hits; all when absent.
        answer: [status, code] that the proxy answers by itself.
        html: body that it answers by itself, with status 200.
        cut: ``{request: N}`` or ``{answer: N}``: the connection ends after N bytes of that body.
        stall: ``{request: N}`` or ``{answer: N}``: after N bytes of that body nothing more comes.
        flip: ``{request: N}`` or ``{answer: N}``: one bit of byte N of that body is turned.
        swallow: the server does what is asked, and its answer is lost.
        delay: seconds before the request goes on.
        drop: headers that are taken from requests and answers, as if the server did not know them.

    """

    of: str | None = None
    path: str = ""
    header: str | None = None
    after: int = 0
    times: int | None = None
    answer: tuple[int, str] | None = None
    html: str | None = None
    cut: dict[str, int] = field(default_factory=dict)
    stall: dict[str, int] = field(default_factory=dict)
    flip: dict[str, int] = field(default_factory=dict)
    swallow: bool = False
    delay: float = 0
    drop: tuple[str, ...] = ()


class Proxy:
    """A proxy that runs until the end of ``serve``; ``faults`` may be changed at any time.

    It signs what it passes on as a client does over TLS, without the body: what damage the server then finds, it finds
    by checksums.
    """

    def __init__(self, server: S3Server):
        self.server = server
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        """Operations that reached the proxy."""
        self.hits: Counter[int] = Counter()
        """How often each fault, by its place in ``faults``, was met."""
        self._seen: Counter[int] = Counter()
        self._lock = threading.Lock()
        self.endpoint = ""
        self.closing = threading.Event()

    def break_with(self, *faults: dict[str, Any]) -> None:
        """Have these faults from now on."""
        with self._lock:
            self.faults, self.hits, self._seen = [Fault(**fault) for fault in faults], Counter(), Counter()
            self.requests.clear()

    def assert_met(self) -> None:
        """Fail where a fault was never met: a test of it would show nothing."""
        missed = [fault for number, fault in enumerate(self.faults) if not self.hits[number]]
        assert not missed, f"never met: {missed}"

    def met(self, operation: str, path: str, headers: http.client.HTTPMessage) -> list[Fault]:
        """Faults that a request meets."""
        found = []
        with self._lock:
            self.requests.append(operation)
            for number, fault in enumerate(self.faults):
                if fault.of not in {None, operation} or fault.path not in path:
                    continue
                if fault.header is not None and fault.header not in headers:
                    continue
                self._seen[number] += 1
                if fault.after < self._seen[number] <= fault.after + (fault.times or 10**9):
                    self.hits[number] += 1
                    found.append(fault)
        return found


@contextlib.contextmanager
def serve(server: S3Server) -> Iterator[Proxy]:
    """Run a proxy before ``server`` on a free port of this machine until the block ends."""
    proxy = Proxy(server)

    class Handler(_Handler):
        state = proxy

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    proxy.endpoint = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        listener.shutdown()
        listener.server_close()
        thread.join()


def operation_of(method: str, target: str) -> str:
    """S3's name of a request."""
    query = parse_qs(urlsplit(target).query, keep_blank_values=True)
    match method:
        case "PUT":
            return "UploadPart" if "partNumber" in query else "PutObject"
        case "POST":
            return "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"
        case "DELETE":
            return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
        case "HEAD":
            return "HeadObject"
    names = {"uploads": "ListMultipartUploads", "uploadId": "ListParts", "list-type": "ListObjectsV2"}
    return next((name for word, name in names.items() if word in query), "GetObject")


class _CutError(Exception):
    """The connection ends here."""


class _Handler(BaseHTTPRequestHandler):
    state: Proxy
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        self.close_connection = True
        with contextlib.suppress(_CutError, ConnectionError):
            operation = operation_of(self.command, self.path)
            faults = self.state.met(operation, self.path, self.headers)
            for fault in faults:
                self.state.closing.wait(fault.delay)
            length = int(self.headers.get("Content-Length", 0))
            body, whole = self._shorten(faults, "request", self.rfile.read(length))
            for fault in faults:
                if fault.answer is not None:
                    self._answer_alone(fault.answer[0], [], _error(fault.answer[1]))
                    return
                if fault.html is not None:
                    self._answer_alone(200, [("Content-Type", "text/html")], fault.html.encode())
                    return
            if not length and any("request" in fault.stall for fault in faults):
                self._stall()
                return
            answer = self._ask(faults, body, length)
            if answer is None or not whole:
                return
            content = b"" if self.command == "HEAD" else answer.read()
            if not any(fault.swallow for fault in faults):
                kept, _ = self._shorten(faults, "answer", content)
                dropped = {name.lower() for fault in faults for name in fault.drop}
                headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _OF_CONNECTION | dropped]
                size = int(answer.getheader("Content-Length") or 0) if self.command == "HEAD" else len(content)
                self._answer(answer.status, headers, kept, size)
                if len(kept) == size or self.command == "HEAD":
                    self.close_connection = False
                elif any("answer" in fault.stall for fault in faults):
                    self._stall()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass  # noqa: N815  the library's names

    def _shorten(self, faults: list[Fault], way: str, body: bytes) -> tuple[bytes, bool]:
        """What the faults leave of a body, and whether it is still as long as it was."""
        before = len(body)
        for fault in faults:
            if way in fault.flip:
                at = fault.flip[way]
                body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
            for limits in (fault.cut, fault.stall):
                body = body[: limits.get(way, before)]
        return body, len(body) == before

    def _ask(self, faults: list[Fault], body: bytes, length: int) -> http.client.HTTPResponse | None:
        """Ask the server; None when it got less than it was promised."""
        dropped = {name.lower() for fault in faults for name in fault.drop}
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_CONNECTION | dropped}
        address = urlsplit(self.state.server.endpoint)
        headers["Host"] = address.netloc
        connection = http.client.HTTPConnection(address.netloc, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            signed = _sign(self.command, self.state.server, self.path, headers)
            for name, value in (signed | {"Content-Length": str(length)}).items():
                connection.putheader(name, value)
            connection.endheaders()
            connection.send(body)
            if len(body) < length:
                if any("request" in fault.stall for fault in faults):
                    self._stall()
                connection.close()
                return None
            return connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, size: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer_alone(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer for the server, and keep the connection: closed unannounced, it breaks the client's next request."""
        self._answer(status, headers, body)
        self.close_connection = False

    def _stall(self) -> None:
        """Wait until the client has had enough."""
        self.connection.settimeout(None)
        self.connection.recv(1)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>Played by the proxy.</Message></Error>'.encode()


def _sign(method: str, server: S3Server, target: str, headers: dict[str, str]) -> dict[str, str]:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    class WithoutBody(S3SigV4Auth):
        def _should_sha256_sign_payload(self, _: Any) -> bool:
            return False

    request = AWSRequest(method, server.endpoint + target, headers=headers)
    WithoutBody(Credentials(server.access_key, server.secret_key), "s3", "us-east-1").add_auth(request)
    return dict(request.headers.items())
