"""Runs of the training part alone: what prepare would leave, and training inside this process or started by launch."""

import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dporun_api.dataset_report import DataFacts, Histogram, Lengths
from dporun_api.results import DatasetSummary, Health
from dporun_api.run_config import RunConfig
from dporun_testing import tiny_model
from dporun_testing.ports import free_port
from dporun_testing.processes import start, stop
from dporun_testing.run_folders import a_prepared
from dporun_trainer.data.pairs import Pair
from dporun_trainer.diagnosis import health
from dporun_trainer.inputs.encoding import Encoder, measure
from dporun_trainer.inputs.tokenizer import load_tokenizer
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.prepared import LintReport, ModelFacts, Tokens
from dporun_trainer.run_folder.tokens import token_writer, tokenizer_digest

PROCESS = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_MIXED_PRECISION": "no",
    "GLOO_SOCKET_IFNAME": "lo",
    "DS_ACCELERATOR": "cpu",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""What accelerate tells a single training process."""


def a_config(name: str = "run", **sections: Any) -> RunConfig:
    """A quick run: dropout on, two epochs of four steps on one process; ``sections`` change fields of the RunConfig."""
    training = {
        "learning_rate": 5e-3,
        "per_device_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "logging_steps": 1,
        "epochs": 2,
    }
    fields: dict[str, Any] = {
        "run": {"name": name},
        "model": {"uri": "pvc://models/tiny"},
        "dataset": {"train": "pvc://data/train.jsonl"},
        "dpo": {"max_length": 128} | sections.pop("dpo", {}),
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1} | sections.pop("lora", {}),
        "training": training | sections.pop("training", {}),
        "evaluation": {"enabled": False, "max_new_tokens": 4},
    }
    return RunConfig.model_validate(fields | sections)


def prepare(
    config: RunConfig, root: Path, model: Path, *, train: int = 16, validation: int = 6, adapter: Path | None = None
) -> Path:
    """Leave in the run's directory what prepare leaves, and return the directory."""
    folder = RunFolder(root / config.run.directory)
    write_pairs(folder, model, tiny_model.chat_pairs(train), tiny_model.chat_pairs(validation, seed=1))
    lengths = Lengths(mean=40, p50=40, p90=50, p99=60, maximum=60, histogram=Histogram(width=50, counts=(12, 4)))
    facts = DataFacts(source="train", rows=train, kept=train, prompts=train, conversational=True, total=lengths)
    prepared = a_prepared(
        model_path=str(model),
        model=ModelFacts(
            architecture="LlamaForCausalLM",
            fingerprint="a" * 64,
            parameters=50_000,
            dtype="float32",
            bytes=200_000,
            hidden_size=32,
            layers=2,
            vocabulary=384,
            lora_modules=14,
            lora_parameters=5_000,
        ),
        train_path=str(folder.input_train),
        validation_path=str(folder.input_validation),
        tokens=Tokens(
            train_path=str(folder.train_tokens),
            validation_path=str(folder.validation_tokens),
            tokenizer=tokenizer_digest(model),
        ),
        adapter_path=None if adapter is None else str(adapter),
        dataset=DatasetSummary(train_rows=train, validation_rows=validation, fingerprint="f" * 64),
        lint=LintReport(train=facts),
    )
    folder.prepared.write(prepared)
    config_path(config, root).write_text(config.to_json(), encoding="utf-8")
    return folder.path


def write_pairs(folder: RunFolder, model: Path, train: list[Any], validation: list[Any]) -> None:
    """Write pairs as prepare writes them: as rows, and in tokens."""
    encoder = Encoder(load_tokenizer(model))
    for rows, path, tokens in (
        (train, folder.input_train, folder.train_tokens),
        (validation, folder.input_validation, folder.validation_tokens),
    ):
        tiny_model.write_rows(path, rows)
        pairs = [Pair(row["prompt"], row["chosen"], row["rejected"]) for row in rows]
        encoded = encoder.encode([encoder.render(pair) for pair in pairs], conversational=pairs[0].conversational)
        with token_writer(tokens) as write:
            write(one.parts(measure(one, 1 << 20).prompt) for one in encoded)


def config_path(config: RunConfig, root: Path) -> Path:
    """File that holds the RunConfig of a prepared run."""
    return root / f"{config.run.name}.json"


@contextlib.contextmanager
def single_process() -> Iterator[None]:
    """Make this process the only training process of a run, as accelerate would."""
    import torch

    torch.set_num_threads(1)
    port = str(free_port())
    before = {name: os.environ.get(name) for name in (*PROCESS, "MASTER_PORT")}
    os.environ.update(PROCESS, MASTER_PORT=port)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def by_processes(module: str, config: RunConfig, directory: Path, *arguments: str) -> Any:
    """Run a program in each of the training processes of a prepared run, and return what it found.

    Args:
        module: the program. Its arguments are the file of the RunConfig, the run's directory and ``arguments``; its
            first process leaves ``found.json`` in the directory.
        config: of the run.
        directory: of the run.
        arguments: of the program.

    """
    count, port = config.topology.world_size, str(free_port())
    command = [sys.executable, "-m", module, str(config_path(config, directory.parent)), str(directory), *arguments]
    processes = []
    for rank in range(count):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        environment = os.environ | PROCESS | own | {"MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        with (directory / f"output-{rank}").open("w") as output:
            processes.append(start(command, env=environment, stdout=output, stderr=output))
    try:
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            stop(process)
    outputs = [(directory / f"output-{rank}").read_text() for rank in range(count)]
    assert codes == [0] * count, "\n".join(outputs)
    return json.loads((directory / "found.json").read_text())


def attempt(
    config: RunConfig,
    directory: Path,
    *,
    rank: int = 0,
    on_trainer: Callable[[Any, threading.Event], None] | None = None,
    diagnose: Callable[[Sequence[Mapping[str, Any]], ModelFacts], Health] | None = None,
) -> Any:
    """Make one attempt of a prepared run in this process and return its trainer.

    ``on_trainer`` gets the trainer before it starts, and the event that asks it to stop. What the attempt raises,
    Preempted as well, is raised here.
    """
    from dporun_trainer.training.attempt import Attempt

    stop = threading.Event()
    made = Attempt(
        config, RunFolder(directory), stop, rank, diagnose or (lambda history, _model: health.diagnose(history, config))
    )
    made.run(before=None if on_trainer is None else lambda trainer: on_trainer(trainer, stop))
    return made.trainer


def ranks_of(directory: Path) -> dict[int, int]:
    """Process ids of a run's training processes by rank."""
    from dporun_trainer.commands.train import TRAIN_PROCESS

    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            if TRAIN_PROCESS.encode() in command and b"--config" in command and b"accelerate" not in b"".join(command):
                environment = (process / "environ").read_bytes()
                rank = re.search(rb"(?:^|\0)RANK=(\d+)", environment)
                if str(directory).encode() in command and rank:
                    found[int(rank[1])] = int(process.name)
        except OSError:
            continue
    return found


def stop_at_step(step: int) -> Callable[[Any, threading.Event], None]:
    """Ask an attempt to stop while it computes optimizer step ``step``."""
    from transformers import TrainerCallback

    def prepare_trainer(trainer: Any, stop: threading.Event) -> None:
        class StopThere(TrainerCallback):
            def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
                if state.global_step == step - 1:
                    stop.set()

        trainer.add_callback(StopThere())

    return prepare_trainer


def history(directory: Path) -> list[dict[str, Any]]:
    """The run's log, without what depends on the clock."""
    entries = RunFolder(directory).history.load()
    return [
        {name: value for name, value in entry.items() if not name.endswith(("_runtime", "_per_second"))}
        for entry in entries
    ]


def adapter_difference(one: Path, other: Path) -> float:
    """Largest difference between the weights of two adapters."""
    from safetensors.torch import load_file

    left, right = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert left.keys() == right.keys()
    return max((left[name].double() - right[name].double()).abs().max().item() for name in left)
