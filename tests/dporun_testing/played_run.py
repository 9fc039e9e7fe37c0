"""A run whose pods are played: its manifest, what its pods say at their ends, and its way from one to the next."""

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dporun_api.memory import GIB, MemoryEstimate
from dporun_api.pod import ExitCode
from dporun_api.results import (
    ArchiveResult,
    BestCheckpoint,
    DatasetSummary,
    EvaluationSummary,
    Failure,
    GateOutcome,
    GateResult,
    Health,
    HealthState,
    Outcome,
    OutcomeState,
    Progress,
    Stage,
    Verdict,
    VerdictState,
)
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import playing_kubelet as kubelet
from dporun_testing.kubectl import apply, eventually, exists, get, kubectl, wait_condition

DONE = Outcome(state=OutcomeState.SUCCEEDED)
MEMORY = MemoryEstimate(
    weights=15 * GIB,
    adapter=GIB,
    activations=34 * GIB,
    checkpointed_activations=2 * GIB,
    overhead=2 * GIB,
    host=9 * GIB,
)
PREPARED = Outcome(
    state=OutcomeState.SUCCEEDED, dataset=DatasetSummary(train_rows=90, validation_rows=10), memory=MEMORY
)
TOO_LARGE = Outcome(
    state=OutcomeState.FAILED,
    failure=Failure(
        reason=Reason.GPU_OUT_OF_MEMORY,
        message="the weights alone take 131.4 GiB",
        exit_code=ExitCode.GPU_OUT_OF_MEMORY,
    ),
)
TRAINED = Outcome(
    state=OutcomeState.SUCCEEDED,
    message="Trained and evaluated.",
    step=100,
    best_checkpoint=BestCheckpoint(step=80, epoch=1.6, eval_loss=0.31, path="checkpoint-80"),
    health=Health(state=HealthState.ON_TRACK, evidence=("validation loss fell from 0.69 to 0.31",)),
    evaluation=EvaluationSummary(
        accuracy=0.9, avg_chosen_reward=1.5, avg_rejected_reward=-1.0, reward_margin=2.5, forgetting=0.0, examples=10
    ),
    verdict=Verdict(
        state=VerdictState.GOOD,
        passed=True,
        gates=(GateResult(name="accuracy", limit=0.8, measured=0.9, outcome=GateOutcome.PASSED, needed_to_decide=62),),
        reasons=("accuracy 0.9",),
    ),
)
ARCHIVED = Outcome(
    state=OutcomeState.SUCCEEDED,
    archive=ArchiveResult(uri="s3://bucket/runs/demo", manifest_sha256="1" * 64, files=9, bytes=12345),
)
DENIED = Outcome(
    state=OutcomeState.FAILED,
    failure=Failure(reason=Reason.ARCHIVE_FAILED, message="403 AccessDenied", exit_code=74),
)


def manifest(name: str = "demo", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "dporun.io/v1alpha1",
        "kind": "DPORun",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "s3://bucket/model"},
            "dataset": {"train": "s3://bucket/train.jsonl"},
            "resources": {"gpusPerNode": 1},
            "archive": {"uri": "s3://bucket/runs"},
            **spec,
        },
    }


def status(namespace: str, name: str = "demo") -> dict[str, Any]:
    return dict(get("dporun", name, namespace).get("status", {}))


def wait_phase(namespace: str, phase: str, name: str = "demo") -> dict[str, Any]:
    eventually(
        lambda: status(namespace, name).get("phase") == phase, seconds=30, what=f"{phase}: {status(namespace, name)}"
    )
    return status(namespace, name)


def train(namespace: str, name: str = "demo", **spec: Any) -> str:
    """Apply a run and bring it to where it trains; returns its training pod."""
    apply(manifest(name, **spec), namespace)
    kubelet.end(namespace, f"{name}-prepare", PREPARED)
    pod = kubelet.run(namespace, f"{name}-train-1")
    wait_phase(namespace, "Training", name)
    return pod


def finish(namespace: str, name: str = "demo") -> None:
    train(namespace, name)
    kubelet.end(namespace, f"{name}-train-1", TRAINED)
    kubelet.end(namespace, f"{name}-archive-1", ARCHIVED)
    wait_condition(name, "Finished", namespace, seconds=30)


def delete(namespace: str, name: str = "demo", cascade: str = "background") -> None:
    kubectl("delete", "dporun", name, "-n", namespace, "--wait=false", f"--cascade={cascade}")


def wait_gone(kind: str, name: str, namespace: str) -> None:
    eventually(lambda: not exists(kind, name, namespace), seconds=40, what=f"{kind} {name} is gone")


@contextmanager
def training_pod_server() -> Iterator[list[bytes]]:
    """The status port of every pod that is let run; serves the last of the list."""
    answers = [Progress(stage=Stage.LOADING, updated_at=time.time()).to_json().encode()]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/progress"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[-1])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((kubelet.ADDRESS, 8080), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
