"""What the trainer's own state leaves out, so that metrics and logs go on across attempts: one file per process.

transformers starts its running sums anew on every resume; kept here, the log of an interrupted run is the log of an
uninterrupted one, entry by entry.
"""

from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from dporun_api.document import Document, Finite
from dporun_api.files import write_text


class RunningTotals(Document):
    """Running sums of one process at a checkpoint."""

    model_config = ConfigDict(ser_json_inf_nan="strings")  # a loss that is not a number stays one in the sums

    loss_since_log: float = 0
    """Sum of this process's losses since the last log entry."""
    loss_total: float = 0
    """Sum of the logged losses, each times its steps."""
    last_logged: int = Field(0, ge=0)
    """Step of the last log entry."""
    metrics: dict[str, list[float]] = Field(default_factory=dict)
    """Values of TRL's metrics since the last log entry, one per forward pass."""
    tokens: int = Field(0, ge=0)
    """Tokens trained on, padding left out."""
    seconds: Finite = Field(0, ge=0)
    """Wall-clock time of training, validation included."""
    non_finite_steps: int = Field(0, ge=0)
    """Steps whose loss or gradient was not a number."""
    attempts: int = Field(1, ge=1)
    """Attempts until here."""


def path(checkpoint: Path, rank: int | str) -> Path:
    """File of a process in a checkpoint."""
    return checkpoint / f"ledger_{rank}.json"


def save(checkpoint: Path, rank: int, totals: RunningTotals) -> None:
    """Write the sums of one process into a checkpoint."""
    write_text(path(checkpoint, rank), totals.to_json())


def load(checkpoint: Path, rank: int, processes: int) -> RunningTotals:
    """Read the sums of one process; zeros when the checkpoint has none.

    Of a checkpoint of another number of ``processes``, each gets its share of what they had together: their losses are
    a mean over all of them, and the rest is the same in each.
    """
    saved = [_read(file) for file in sorted(checkpoint.glob(path(checkpoint, "*").name))]
    if len(saved) == processes or not saved:
        return _read(path(checkpoint, rank))
    return saved[0].model_copy(update={"loss_since_log": sum(one.loss_since_log for one in saved) / len(saved)})


def _read(file: Path) -> RunningTotals:
    try:
        return RunningTotals.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return RunningTotals()
