"""A small server that speaks the part of the Hugging Face Hub's API that downloads need.

Folders become repositories with one commit. Weights are served as the Hub serves large files: from another address, by
a redirect, with the checksum and size of the target in the headers of the first answer.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LARGE = (".safetensors", ".parquet", ".bin")


@dataclass
class Repository:
    """A folder as a repository."""

    folder: Path
    token: str | None = None
    gated: bool = False

    def files(self) -> dict[str, Path]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in paths}

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for name, path in self.files().items():
            digest.update(name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()


@dataclass
class Hub:
    """The server's state, which tests may change: repositories, and the faults that it has."""

    endpoint: str = ""
    models: dict[str, Repository] = field(default_factory=dict)
    datasets: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(method, path) of every request."""
    ranges: list[str] = field(default_factory=list)
    """Range headers of requests for files."""
    cut: dict[str, int] = field(default_factory=dict)
    """Names of files whose next download ends after so many bytes."""
    fail_with: int | None = None
    """Status of every answer, when set."""

    def downloads(self, name: str) -> int:
        """How often the content of a file was asked for."""
        return sum(method == "GET" and path.endswith("/" + name) and "/cdn/" in path for method, path in self.requests)


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """Run a Hub on a free port of this machine until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:  # noqa: PLR0911  a route each
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append((self.command, path))
        if self.state.fail_with is not None:
            return self._error(self.state.fail_with, "")
        parts = path.strip("/").split("/")
        if parts[0] == "cdn" or parts[0] == "api":
            kind, parts = parts[1], parts[2:]
        elif parts[0] == "datasets":
            kind, parts = "datasets", parts[1:]
        else:
            kind = "models"
        name, rest = "/".join(parts[:2]), parts[2:]
        repository = getattr(self.state, kind).get(name)
        if repository is None or (repository.token and self.headers["Authorization"] != f"Bearer {repository.token}"):
            return self._error(401 if repository else 404, "RepoNotFound")
        if repository.gated and not path.startswith("/api"):
            return self._error(403, "GatedRepo")
        if len(rest) < 2 or rest[1] not in {"main", repository.commit}:
            return self._error(404, "RevisionNotFound")
        if rest[0] == "revision":
            return self._info(name, repository)
        file = repository.files().get("/".join(rest[2:]))
        if file is None:
            return self._error(404, "EntryNotFound")
        content = file.read_bytes()
        headers = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if file.suffix in _LARGE and not path.startswith("/cdn"):
            headers |= {
                "Location": f"/cdn/{kind}/{name}/resolve/{rest[1]}/{'/'.join(rest[2:])}",
                "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
            }
            return self._send(302, b"", headers, body=body)
        headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
        return self._file(file, content, headers, body=body)

    def _info(self, name: str, repository: Repository) -> None:
        siblings = [{"rfilename": path, "size": file.stat().st_size} for path, file in repository.files().items()]
        info = {"id": name, "sha": repository.commit, "private": False, "tags": [], "siblings": siblings}
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, body=True)

    def _file(self, file: Path, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        status, start = 200, 0
        if asked := self.headers["Range"]:
            self.state.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = self.state.cut.pop(file.name, None) if body else None
        self._send(status, content[start:], headers, body=body, cut=cut)

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code}, body=True)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], *, body: bool, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
        if cut is not None:
            self.close_connection = True
