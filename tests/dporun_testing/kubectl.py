"""The cluster at hand, as a person at a terminal uses it: through kubectl."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


class KubectlError(AssertionError):
    """kubectl said no; the message is what it printed."""


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """Run kubectl and return what it prints."""
    result = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise KubectlError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def apply(manifest: Mapping[str, Any], namespace: str) -> None:
    """``kubectl apply`` one object."""
    kubectl("apply", "--namespace", namespace, "--filename", "-", stdin=yaml.safe_dump(dict(manifest)))


def get(kind: str, name: str, namespace: str) -> dict[str, Any]:
    """One object, as the API server has it."""
    document: dict[str, Any] = json.loads(kubectl("get", kind, name, "--namespace", namespace, "--output", "json"))
    return document


def exists(kind: str, name: str, namespace: str) -> bool:
    """Whether there is such an object."""
    return bool(kubectl("get", kind, name, "--namespace", namespace, "--ignore-not-found", "--output", "name"))


def wait_condition(run: str, condition: str, namespace: str, *, seconds: int) -> None:
    """``kubectl wait`` for a condition of a DPORun; a failure tells what the run says of itself."""
    try:
        kubectl(
            "wait", f"dporun/{run}", "--namespace", namespace, f"--for=condition={condition}", f"--timeout={seconds}s"
        )
    except KubectlError as error:
        raise KubectlError(f"{error}\n{describe(run, namespace)}") from None


def describe(run: str, namespace: str) -> str:
    """What a person would look at when a run does not do what it should."""
    parts = [
        ("get", "dporun", run, "--output", "yaml"),
        ("get", "jobs,pods,pvc,services", "--output", "wide"),
        ("get", "events", "--sort-by=.lastTimestamp"),
        ("logs", "--selector", f"dporun.io/run={run}", "--all-containers", "--prefix", "--tail=40"),
    ]
    texts = []
    for part in parts:
        try:
            texts.append(f"--- kubectl {' '.join(part)}\n{kubectl(*part, '--namespace', namespace)}")
        except KubectlError as error:
            texts.append(str(error))
    return "\n".join(texts)


def eventually(question: Callable[[], T], *, seconds: float, what: str) -> T:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.5)


@contextmanager
def temporary_namespace(name: str) -> Iterator[str]:
    """A namespace that enforces Pod Security *restricted*, removed at the end."""
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    kubectl("apply", "--filename", "-", stdin=json.dumps(manifest))
    try:
        yield name
    finally:
        if not os.environ.get("KEEP_NAMESPACE"):
            kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
