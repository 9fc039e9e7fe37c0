"""A run with its label, and what the diagnosis says of it, whole or cut."""

import json
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dporun_api.results import Health, HealthState
from dporun_testing.labelled.criteria import Label
from dporun_trainer.diagnosis.health import examine
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.diagnosis.run_reader import RecordedRun, read_run
from dporun_trainer.run_folder.curves import Curves


@dataclass(frozen=True)
class LabelledRun:
    """A run with its label. What is known of it is what a reader of its folder would know."""

    name: str
    kind: str
    history: Sequence[Mapping[str, Any]]
    label: Label
    max_steps: int
    epochs: int
    batch: int
    settings: RunValues | None
    """Of a run of the product; None is a run of another program, of which there is a trainer_state.json alone."""

    @property
    def half(self) -> str:
        """Rules are tuned on one half of the runs and judged by the other; the name alone says which."""
        return "held-out" if zlib.crc32(f"half of {self.name}".encode()) % 2 else "tuning"

    def is_right(self, state: HealthState) -> bool:
        """Whether ``state`` is a right answer."""
        return state in self.label.accepted

    def diagnose(self, entries: int | None = None) -> Health:
        """Diagnose the run as it is after its first ``entries`` log entries; None is the whole run."""
        if self.settings is not None:
            return examine(Curves.of(self.history[:entries]), self.settings)
        read = self._read
        if read.objection is not None:  # as ``dporun-trainer diagnose`` does
            return Health(state=HealthState.UNKNOWN, evidence=(read.objection,))
        return examine(Curves.of(read.history if entries is None else self.history[:entries]), read.settings)

    @cached_property
    def _read(self) -> RecordedRun:
        """The run as it is read from what transformers would have left."""
        last = self.history[-1] if self.history else {"epoch": 0}
        state = {
            "epoch": last["epoch"],
            "global_step": self.max_steps,
            "max_steps": self.max_steps,
            "num_train_epochs": self.epochs,
            "train_batch_size": self.batch,
            "is_world_process_zero": True,
            "log_history": self.history,
        }
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
            return read_run(Path(name))
