"""Servers and a model that the trainer's tests share."""

import dataclasses
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.loaders import create_loader
from botocore.retries.standard import ExponentialBackoff

from dporun_testing import hub_server, s3_proxy, s3_server
from dporun_testing.tiny_model import save_tiny_model
from dporun_trainer.stores import s3_client
from dporun_trainer.stores.sources import ARCHIVE, Credentials


@pytest.fixture(scope="module", autouse=True)
def _no_account() -> Iterator[None]:
    """The shell's account in a cloud is nobody's here, nor is that of the dev cluster, which `devcluster env` sets."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_loader() -> Iterator[None]:
    """botocore reads its descriptions of Amazon's services once, not for every client: 0.2 s of CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", functools.cache(create_loader))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Llama; copy it to change it."""
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with 1.5 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(disk)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.Hub]:
    """An empty Hub, which HF_ENDPOINT names."""
    with hub_server.serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_server.S3Server]:
    """One S3 server for all tests."""
    with s3_server.serve(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_process: s3_server.S3Server, monkeypatch: pytest.MonkeyPatch) -> s3_server.S3Server:
    """The S3 server, with the environment of a pod that may use it."""
    for key, value in s3_process.environment.items():
        monkeypatch.setenv(key, value)
    return s3_process


@pytest.fixture
def bucket(s3: s3_server.S3Server, request: pytest.FixtureRequest) -> str:
    """A new bucket, named after the test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")[:50].strip("-")
    return s3.bucket(f"b-{name}-{abs(hash(request.node.nodeid)) % 10**6}")


@pytest.fixture
def proxy(s3: s3_server.S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3_proxy.Proxy]:
    """What the environment names instead of the S3 server: a way there that can be broken. Nobody waits on it long."""
    with s3_proxy.serve(s3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setattr(s3_client, "TRIES", 3)
        monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)
        yield proxy


@pytest.fixture
def archiver(s3: s3_server.S3Server) -> Credentials:
    """The archive's credentials, apart from the process' environment."""
    return dataclasses.replace(ARCHIVE, environment=s3.environment)
