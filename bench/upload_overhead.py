"""What uploading checkpoints costs the steps of a training: none, with uploads, and with a store that does not answer.

    PYTHONPATH=tests python bench/upload_overhead.py --repeats 3

A checkpoint is saved after every 8 steps, far more often than in a real run, and goes to a real S3 server on the same
machine, which makes its part of the work, too. Arms alternate. Prints one JSON document: the median step of each arm
and its ratio to the arm without uploads, and the CPU seconds of the process that uploads, its start included.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from dporun_api.run_config import RunConfig
from dporun_testing import s3_server, tiny_model, training
from dporun_testing.ports import free_port
from dporun_trainer.commands.uploads import uploading
from dporun_trainer.run_folder import RunFolder

ARMS = ("none", "uploads", "outage")
EVERY_STEPS = 8
WARM_UP = 3


def main() -> None:
    """Measure all arms and print their medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=128)
    arguments = parser.parse_args()
    wall: dict[str, list[float]] = {arm: [] for arm in ARMS}
    others: dict[str, list[float]] = {arm: [] for arm in ARMS}
    uploaded = 0
    with tempfile.TemporaryDirectory() as name, training.single_process(), s3_server.serve(Path(name) / "s3") as server:
        root = Path(name)
        server.bucket("bucket")
        model = tiny_model.save_tiny_model(root / "model", hidden_size=arguments.hidden_size, layers=arguments.layers)
        for repeat in range(arguments.repeats):
            for arm in ARMS:
                config = a_config(arm, repeat)
                folder = RunFolder(training.prepare(config, root, model, train=arguments.pairs, validation=4))
                with secret(server, reachable=arm == "uploads"):
                    steps, cpu = measure(config, folder)
                wall[arm] += steps
                others[arm].append(cpu)
                upload = folder.checkpoint_upload.read()
                uploaded += bool(arm == "uploads" and upload and upload.step)
    medians = {arm: statistics.median(values) for arm, values in wall.items()}
    ratios = {arm: round(medians[arm] / medians["none"], 4) for arm in ARMS}
    shares = {arm: round(statistics.median(values), 4) for arm, values in others.items()}
    found = {
        "runs_uploaded": uploaded,
        "median_step_seconds": medians,
        "ratio": ratios,
        "upload_cpu_seconds_per_run": shares,
    }
    print(json.dumps({**vars(arguments), "steps": {arm: len(wall[arm]) for arm in ARMS}, **found}, indent=2))


def a_config(arm: str, repeat: int) -> RunConfig:
    """A run of one epoch that saves often."""
    sections: dict[str, Any] = {"archive": {"uri": "s3://bucket/runs"}, "checkpoints": {"every_steps": EVERY_STEPS}}
    if arm == "none":
        sections["checkpoints"]["upload"] = False
    return training.a_config(f"{arm}-{repeat}", training={"epochs": 1, "logging_steps": 10}, **sections)


@contextlib.contextmanager
def secret(server: s3_server.S3Server, *, reachable: bool) -> Iterator[None]:
    """The environment of a pod with the archive's Secret."""
    closed = f"http://127.0.0.1:{free_port()}"
    variables = {f"ARCHIVE_{key}": value for key, value in server.environment.items()}
    if not reachable:
        variables["ARCHIVE_AWS_ENDPOINT_URL"] = closed
    os.environ.update(variables)
    try:
        yield
    finally:
        for key in variables:
            del os.environ[key]


def measure(config: RunConfig, folder: RunFolder) -> tuple[list[float], float]:
    """Train; seconds of each step, and CPU seconds of the process that uploads, its start included."""
    steps: list[float] = []

    class Clock(TrainerCallback):
        began = 0.0

        def on_step_begin(self, *_: Any, **_named: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **_named: Any) -> None:
            steps.append(time.perf_counter() - self.began)

    def begin(trainer: Any, _: threading.Event) -> None:
        while config.checkpoints.upload and folder.checkpoint_upload.read() is None:
            time.sleep(0.1)  # the process starts while a real run loads its model
        trainer.add_callback(Clock())

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with uploading(config, training.config_path(config, folder.path.parent), folder):
        training.attempt(config, folder.path, on_trainer=begin)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return steps[WARM_UP:], after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
