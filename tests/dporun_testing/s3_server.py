"""A real S3 server, versitygw over a folder, on a free port of this machine."""

import contextlib
import fcntl
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dporun_testing.paths import DEVCLUSTER
from dporun_testing.ports import free_port
from dporun_testing.processes import running

_PACKAGE = "github.com/versity/versitygw"


@dataclass(frozen=True)
class S3Server:
    """Where it is, and how to get in; ``folder/BUCKET/KEY`` is the object's file."""

    endpoint: str
    access_key: str
    secret_key: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a Secret that opens it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, **config: Any) -> Any:
        """A client of boto3 with all rights."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(**config),
        )

    def bucket(self, name: str) -> str:
        """Make a bucket."""
        self.client().create_bucket(Bucket=name)
        return name


def program() -> Path:
    """The server's program: the dev cluster's, where that was built, else built here once, at the same version."""
    cache = cache_folder()
    if found := sorted(cache.glob("bin-*/versitygw")):
        return found[0]
    module = DEVCLUSTER / "go"
    version = re.search(rf"{_PACKAGE} (v\S+)", (module / "go.mod").read_text())
    assert version, "hack/devcluster/go/go.mod does not name versitygw"
    path = cache / f"versitygw-{version[1]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "versitygw.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            partial = path.with_suffix(".partial")
            # Not optimised, which nothing here needs: that takes a quarter less time to build.
            flags = ["-gcflags=all=-N -l", "-ldflags=-s -w"]
            subprocess.run(
                [go_tool(), "build", *flags, "-o", str(partial), f"{_PACKAGE}/cmd/versitygw"],
                cwd=module,
                env={**os.environ, "CGO_ENABLED": "0"},
                check=True,
            )
            partial.rename(path)
    return path


def cache_folder() -> Path:
    """Where Go programs are kept that were built once."""
    return Path(os.environ.get("DPORUN_CACHE") or Path.home() / ".cache" / "dporun") / "devcluster"


def go_tool() -> str:
    """The Go command, installed where there is none."""
    sys.path.insert(0, str(DEVCLUSTER))
    try:
        from node import tools
    finally:
        sys.path.remove(str(DEVCLUSTER))
    return str(tools.go_tool())


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[S3Server]:
    """Run the server over ``folder`` until the block ends."""
    root, metadata = folder / "buckets", folder / "metadata"
    root.mkdir(parents=True, exist_ok=True)
    metadata.mkdir(exist_ok=True)
    port = free_port()
    server = S3Server(f"http://127.0.0.1:{port}", "test-key", "test-secret", root)
    log = folder / "versitygw.log"
    with log.open("wb") as output:
        command = [program(), "--port", f"127.0.0.1:{port}", "posix", "--sidecar", metadata, root]
        environment = {**os.environ, "ROOT_ACCESS_KEY": server.access_key, "ROOT_SECRET_KEY": server.secret_key}
        with running(command, env=environment, stdout=output, stderr=output) as process:
            _await(port, process, log)
            yield server


def _await(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, f"versitygw ended: {log.read_text()}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < deadline, f"versitygw does not listen: {log.read_text()}"
        time.sleep(0.05)


if __name__ == "__main__":
    print(program())
