"""One installed operator and one finished run, shared by the end-to-end tests."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from dporun_testing.kubectl import KubectlError, apply, describe, eventually, get, kubectl, temporary_namespace
from dporun_testing.paths import ROOT
from dporun_testing.runs import FinishedRun, Seen, Workspace, tensorboard_tags

sys.path.insert(0, str(ROOT / "hack"))


@pytest.fixture(scope="session")
def s3() -> Any:
    return boto3.client("s3")


@pytest.fixture(scope="session")
def workspace(installed_operator: None) -> Iterator[Workspace]:  # noqa: ARG001  wanted for what it does
    import upload_example

    name = f"dporun-e2e-{secrets.token_hex(3)}"
    try:
        upload_example.upload(name)
        with temporary_namespace(name):
            upload_example.create_secret(name, "dporun-demo-s3")
            yield Workspace(namespace=name, bucket=name)
            if not os.environ.get("KEEP_NAMESPACE"):  # while their bucket is there, so that they are let go
                kubectl("delete", "dporuns", "--all", "--namespace", name, "--timeout=300s")
    finally:
        bucket = boto3.resource("s3").Bucket(name)
        if not os.environ.get("KEEP_NAMESPACE") and bucket.creation_date:
            bucket.objects.all().delete()
            bucket.delete()


@pytest.fixture(scope="session")
def finished(workspace: Workspace) -> FinishedRun:
    """The example, applied and watched until it finished."""
    name = "polite"
    apply(workspace.manifest(name), workspace.namespace)
    seen = Seen()

    def watch() -> bool:
        status = get("dporun", name, workspace.namespace).get("status", {})
        for values, value in (
            (seen.phases, status.get("phase")),
            (seen.messages, status.get("message")),
            (seen.steps, status.get("progress", {}).get("step")),
        ):
            if value is not None and value not in values[-1:]:
                values.append(value)
        conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
        if conditions.get("TensorBoardReady") == "True" and status.get("phase") in {"Training", "Evaluating"}:
            with contextlib.suppress(KubectlError):  # the pod may end while it is asked
                seen.scalars |= tensorboard_tags(name, workspace.namespace)
        return conditions.get("Finished") == "True"

    try:
        eventually(watch, seconds=900, what="the run finishes")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{describe(name, workspace.namespace)}") from None
    return FinishedRun(name, workspace, seen)
