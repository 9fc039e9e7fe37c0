"""What a training process waits for in each batch: the other processes, and the device.

``python -m dporun_testing.waiting CONFIG DIRECTORY`` is one of several training processes of a prepared run: it trains
as the product does, and then once more with every number gathered where TRL gathers it. Its first process leaves what
it found as JSON.
"""

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trl import DPOTrainer

from dporun_api.run_config import RunConfig
from dporun_testing import training
from dporun_trainer.training.trl_internals import FencedTrainer


class Waits(TorchDispatchMode):
    """Counts what the CPU would wait for on a GPU: values that it reads, elements that it counts, other processes."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket._qualified_op_name
        masks = args[1] if name == "aten::index" else []
        if name == "aten::_local_scalar_dense":
            self.counts["values read"] += args[0].device.type != "meta"
        elif any(mask is not None and mask.dtype is torch.bool for mask in masks):
            self.counts["selections by mask"] += 1
        elif name.startswith("c10d::"):
            self.counts["collectives"] += 1
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def counted(owner: type, name: str, counts: list[dict[str, int]]) -> Iterator[None]:
    """Count what each call of a method waits for."""
    method = getattr(owner, name)

    def counting(*arguments: Any, **named: Any) -> Any:
        with Waits() as waits:
            result = method(*arguments, **named)
        counts.append(dict(waits.counts))
        return result

    setattr(owner, name, counting)
    try:
        yield
    finally:
        setattr(owner, name, method)


def main() -> None:
    """Be one process of a run."""
    config_path, directory = sys.argv[1], Path(sys.argv[2])
    config, rank = RunConfig.model_validate_json(Path(config_path).read_bytes()), int(os.environ["RANK"])
    found = {}
    for arm in ("ours", "plain"):
        batches: list[dict[str, int]] = []
        place = directory if arm == "ours" else Path(f"{directory}-plain")
        own = FencedTrainer._compute_loss
        if arm == "plain":
            FencedTrainer._compute_loss = DPOTrainer._compute_loss  # type: ignore[method-assign]
        with counted(DPOTrainer, "compute_loss", batches):
            training.attempt(config, place, rank=rank)
        FencedTrainer._compute_loss = own  # type: ignore[method-assign]
        found[arm] = {"batches": batches, "history": training.history(place)}
    if rank == 0:
        (directory / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
