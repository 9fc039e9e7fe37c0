"""What the scripts share: where they run, a run of the product, and what they found.

``python -m gpu.common`` says in one line when there is no GPU, and fails.
A script is a module with STEPS: functions of a Place that return what they measured, and assert what must hold.
tests/gpu runs the same steps on a GPU, tests/bench some of them on the CPU, with tiny shapes.
"""

import argparse
import dataclasses
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from dporun_api.document import Document
from dporun_api.results import Outcome
from dporun_api.run_config import Quantization
from dporun_testing import tiny_model, training
from dporun_testing.processes import PolledEvent, running
from dporun_trainer.commands.gpus import look
from dporun_trainer.commands.train import TRAIN_PROCESS, arguments_of
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.training import launch

TOLERANCES = {"fp32": 2e-5, "fp16": 2e-3, "bf16": 1.6e-2}
"""By arithmetic, of a number of the order of 1 that was rounded a few times: two steps of bf16 (2**-7), two of fp16
(2**-10) and, for sums in another order or TF32-free GEMMs, some dozens of fp32 (2**-23)."""

Found = dict[str, Any]
"""What a step measured, as JSON."""


class NotHere(Exception):  # noqa: N818  no error: a step that this machine cannot make
    """The step needs what this machine does not have."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """A Llama with random weights."""

    hidden: int = 32
    intermediate: int = 64
    layers: int = 2
    heads: int = 4
    key_value_heads: int = 2
    vocabulary: int = 384


@dataclasses.dataclass(frozen=True)
class Place:
    """Where steps run.

    Attributes:
        folder: empty, for models, data and runs.
        cuda: whether on the GPU; else on the CPU, with tiny shapes.

    """

    folder: Path
    cuda: bool

    @property
    def device(self) -> str:
        """In the words of torch."""
        return "cuda" if self.cuda else "cpu"

    def gpu_only(self, why: str) -> None:
        """Skip the step where there is no GPU."""
        if not self.cuda:
            raise NotHere(f"needs a GPU: {why}")

    def model(self, name: str, shape: Shape | None = None, *, nan: bool = False) -> Path:
        """Folder of a random Llama of some shape, made once; in bf16 on a GPU, in float32 on the CPU."""
        folder, shape = self.folder / "claims" / name, shape or Shape()
        if folder.exists():
            return folder
        tiny_model.save_tiny_model(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        config = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            max_position_embeddings=4096,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
        torch.manual_seed(0)
        dtype = torch.bfloat16 if self.cuda else torch.float32
        with torch.device(self.device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if nan:
            with torch.no_grad():
                model.model.layers[-1].mlp.down_proj.weight[0, 0] = torch.nan
        model.save_pretrained(folder, max_shard_size="5GB")
        del model
        _free()
        return folder


class Run:
    """A run of the product on this machine: its commands as processes, its files."""

    def __init__(
        self,
        place: Place,
        name: str,
        *,
        model: Path | None = None,
        quantization: Quantization | None = None,
        pairs: int = 16,
        words: int = 0,
        **sections: Any,
    ):
        """Write its RunConfig and data.

        Args:
            place: where.
            name: of the run.
            model: folder of the base; a tiny one when absent.
            quantization: of its weights.
            pairs: of training.
            words: that lengthen every response.
            sections: fields of the RunConfig, as of ``training.a_config``.

        """
        self._place = place
        claims = place.folder / "claims"
        model = model or place.model("tiny")
        for kind, count, seed in (("train", pairs, 0), ("validation", 6, 1)):
            rows = tiny_model.chat_pairs(count, seed=seed)
            for row in rows:
                for side in ("chosen", "rejected"):
                    row[side][0]["content"] += " yes" * words
            tiny_model.write_rows(claims / name / f"{kind}.jsonl", rows)
        data = {kind: f"pvc://{name}/{kind}.jsonl" for kind in ("train", "validation")}
        gpus = {"gpus_per_node": 1} if place.cuda else {}
        self.config = training.a_config(
            name,
            **{
                "model": {"uri": f"pvc://{model.name}", "quantization": quantization},
                "dataset": data,
                "topology": gpus | sections.pop("topology", {}),
                "lora": {"dropout": 0.0} | sections.pop("lora", {}),
                **sections,
            },
        )
        self.folder = RunFolder(place.folder / "runs" / self.config.run.directory)
        self.config_path = place.folder / f"{name}.json"
        self.config_path.write_text(self.config.to_json(), encoding="utf-8")

    def command(self, name: str) -> list[str]:
        """Command line of one of the product's commands for this run."""
        words = [sys.executable, "-m", "dporun_trainer", name, "--config", str(self.config_path)]
        words += ["--root", str(self._place.folder / "runs")]
        return words + (["--claims", str(self._place.folder / "claims")] if name == "prepare" else ["--port", "0"])

    def prepare(self) -> Outcome | None:
        """Prepare it; how that ended, if not well."""
        ended = subprocess.run(self.command("prepare"), check=False, capture_output=True, text=True)
        return None if ended.returncode == 0 else self.folder.prepare_outcome.load()

    @contextmanager
    def training(self) -> "Iterator[subprocess.Popen[bytes]]":
        """The process that trains, evaluates and reports, as the pod runs it; its output is in train.log."""
        with (
            (self.folder.path / "train.log").open("ab") as log,
            running(self.command("train"), stdout=log, stderr=log) as process,
        ):
            yield process

    def train(self) -> Outcome:
        """Train until it ends, and say how."""
        with self.training() as process:
            process.wait()
        return self.folder.outcome.load()

    def whole(self) -> Outcome:
        """Prepare and train it, which must succeed."""
        refused = self.prepare()
        assert refused is None, refused
        outcome = self.train()
        assert outcome.state == "Succeeded", outcome
        return outcome

    def trained(self) -> None:
        """Prepare and train it, without what follows: merging a large model takes minutes, and its size of disk."""
        refused = self.prepare()
        assert refused is None, refused
        arguments = arguments_of(TRAIN_PROCESS, self.config_path, self.folder)
        outcome = launch.train(self.config, self.folder, arguments, node=0, stop=PolledEvent())
        assert outcome.state == "Succeeded", outcome

    def losses(self) -> list[float]:
        """Training's losses, step by step."""
        return [entry["loss"] for entry in training.history(self.folder.path) if "loss" in entry]


Step = Callable[[Place], Found]


def main(name: str, steps: Sequence[Step]) -> int:
    """Run the steps of a script, write ``OUT/NAME.json``, and return 0 when all held."""
    parser = argparse.ArgumentParser(prog=f"python -m gpu.{name}")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder of the results")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, with tiny shapes")
    arguments = parser.parse_args()
    if not arguments.cpu and (problem := no_gpu()):
        print(problem, file=sys.stderr)
        return 1
    if arguments.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dporun-gpu-") as folder:
        results = [measured(step, Place(Path(folder), cuda=not arguments.cpu)) for step in steps]
    report = {"machine": look(), "results": results}
    path = arguments.out / f"{name}.json"
    path.write_text(json.dumps(report, indent=2, default=_plain), encoding="utf-8")
    print(f"{path}: {sum(one['state'] == 'failed' for one in results)} of {len(results)} failed")
    return int(any(one["state"] == "failed" for one in results))


def made(step: Step, place: Place) -> Found:
    """Make a step, and give back the GPU's memory that it took in this process: the next one measures its own."""
    try:
        return step(place)
    finally:
        _free()


def _free() -> None:
    """Give back the memory that nothing uses any more."""
    gc.collect()
    torch.cuda.empty_cache()


def measured(step: Step, place: Place) -> Found:
    """Run a step; what it found, or how it failed."""
    began = time.monotonic()
    result: Found = {"step": step.__name__, "proves": (step.__doc__ or "").partition("\n")[0]}
    try:
        result |= {"state": "held", "found": made(step, place)}
    except NotHere as missing:
        result |= {"state": "skipped", "why": str(missing)}
    except Exception as error:  # noqa: BLE001  the next step tells something of its own
        result |= {"state": "failed", "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    result["seconds"] = round(time.monotonic() - began, 1)
    print(f"{result['state']:8} {result['step']} ({result['seconds']} s) {result.get('error', '')}", flush=True)
    return result


def no_gpu() -> str | None:
    """Why no run can train on a GPU here, in one line; None where one can."""
    report = look()
    return None if report.usable else f"no GPU: {report.why}"


def _plain(value: object) -> object:
    if isinstance(value, Document):
        return json.loads(value.to_json(exclude_none=True))
    return dict(value) if isinstance(value, Mapping) else str(value)


if __name__ == "__main__":
    problem = no_gpu()
    if problem:
        sys.exit(problem)
