"""The status server of the training pod: /progress and /metrics, read from progress.json.

There is no /healthz, and the pod has no liveness probe: a kubelet that restarts nothing can only end the pod with
SIGTERM, which looks like a preemption, and it knows neither of saving nor of loading. The operator judges by the
heartbeat in /progress; when it is not there, the launcher does (launch.py).
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from dporun_api.pod import METRICS_PATH, PROGRESS_PATH
from dporun_api.results import Progress
from dporun_trainer.run_folder import RunFolder

log = logging.getLogger(__name__)


@contextmanager
def serve(directory: Path, port: int, *, host: str = "") -> Iterator[int]:
    """Serve the progress of the run in ``directory`` while the block runs.

    Args:
        directory: of the run.
        port: to listen on; 0 for no server, negative for any free one.
        host: address to listen on; every one when empty.

    Yields:
        The port.

    Raises:
        OSError: the port is taken.

    """
    if port == 0:
        yield 0
        return
    folder = RunFolder(directory)

    class Handler(_Handler):
        def answer(self) -> tuple[HTTPStatus, str, str]:
            upload = {"checkpoint_upload": folder.checkpoint_upload.read()}  # by a process of its own
            progress = folder.progress.read().model_copy(update=upload)
            return respond(self.path.partition("?")[0], progress)

    server = ThreadingHTTPServer((host, max(port, 0)), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="status server", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def respond(path: str, progress: Progress) -> tuple[HTTPStatus, str, str]:
    """Answer a request: status, content type and body."""
    if path == PROGRESS_PATH:
        return HTTPStatus.OK, "application/json", progress.to_json(exclude_none=True)
    if path == METRICS_PATH:
        return HTTPStatus.OK, "text/plain; version=0.0.4", prometheus(progress)
    return HTTPStatus.NOT_FOUND, "text/plain", f"there is {PROGRESS_PATH} and {METRICS_PATH}\n"


_GAUGES = {
    "percent": "Share of the stay in the pod that is done, from 0 to 100.",
    "step": "Optimizer steps made.",
    "total_steps": "Optimizer steps in all.",
    "epoch": "Passes over the training data made.",
    "eta_seconds": "Seconds left, evaluation included.",
    "samples_per_second": "Preference pairs per second.",
    "updated_at": "Unix time of the newest progress.",
}


def prometheus(progress: Progress) -> str:
    """Progress in the text format of Prometheus; an unknown value is absent."""
    registry = CollectorRegistry()

    def gauge(name: str, help_text: str, value: float | None) -> None:
        if value is not None:
            Gauge(f"dporun_{name}", help_text, registry=registry).set(value)

    for name, text in _GAUGES.items():
        gauge(name, text, getattr(progress, name))
    for document in (progress.metrics, progress.usage):
        for name, field in type(document).model_fields.items():
            gauge(name, (field.description or name).rstrip("."), getattr(document, name))
    Gauge("dporun_stage", "What the pod is doing.", ["stage"], registry=registry).labels(progress.stage).set(1)
    return generate_latest(registry).decode()


class _Handler(BaseHTTPRequestHandler):
    timeout = 10

    def answer(self) -> tuple[HTTPStatus, str, str]:
        raise NotImplementedError

    def do_GET(self) -> None:
        status, content_type, body = self.answer()
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{content_type}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name that http.server gives it
        log.debug(format, *args)
