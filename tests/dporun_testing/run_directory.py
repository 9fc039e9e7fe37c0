"""The directory of a finished run, without having trained."""

from pathlib import Path
from typing import Any

from dporun_api.files import write_text
from dporun_api.results import Outcome, OutcomeState
from dporun_api.run_config import RunConfig
from dporun_trainer.run_folder.checkpoints import Marker, mark_complete

ODD_NAME = "events.out.ünï çødé 日本.1"


def a_run(uri: str | None, **archive_fields: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "run": {"name": "tone", "namespace": "team", "uid": "1a2b3c4d-0000-4000-8000-000000000000"},
        "model": {"uri": "hf://owner/name"},
        "dataset": {"train": "s3://bucket/train.jsonl"},
    }
    if uri is not None:
        fields["archive"] = {"uri": uri, **archive_fields}
    return RunConfig.model_validate(fields)


def results(directory: Path, *, state: OutcomeState = OutcomeState.SUCCEEDED, final: bool = True) -> Path:
    """Files as a finished run leaves them; the second of three checkpoints is the best, the fourth is torn."""
    files = {
        "merged/model.safetensors": b"m" * 3000,
        f"runs/{ODD_NAME}": b"scalars",
        "evaluation/evaluation_metrics.json": b"{}",
        "evaluation/empty.json": b"",
        "training_config.json": b"{}",
        "training_metrics.json": b"{}",
        "log_history.json": b"[]",
        "report.html": b"<html>",
        "progress.json": b"{}",
        "inputs/model/model.safetensors": b"base",
        ".final.tmp123/x": b"half",
    }
    if final:
        files |= {"final/adapter_model.safetensors": b"a" * 1000, "final/adapter_config.json": b"{}"}
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for step, loss in ((10, 0.6), (20, 0.4), (30, 0.5)):
        a_checkpoint(directory, step, loss)
    (directory / "checkpoint-40").mkdir()
    (directory / "checkpoint-40" / "optimizer.pt").write_bytes(b"torn")
    write_text(directory / "outcome.json", Outcome(state=state).to_json(exclude_none=True))
    return directory


def a_checkpoint(directory: Path, step: int, loss: float | None) -> None:
    path = directory / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "adapter_model.safetensors").write_bytes(b"adapter %d" % step)
    (path / "optimizer.pt").write_bytes(b"optimizer")
    mark_complete(path, Marker(step=step, eval_loss=loss))
