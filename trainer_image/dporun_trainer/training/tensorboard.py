"""TensorBoard: training and validation as two runs, so that every chart shows both curves side by side."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback

from dporun_api.metrics import CHARTS, METRICS
from dporun_api.results import Usage
from dporun_trainer.run_folder.curves import as_measured

if TYPE_CHECKING:
    from dporun_trainer.training.reporter import Reporter
    from dporun_trainer.training.trainer import RunTrainer
    from dporun_trainer.training.usage import UsageMeter

log = logging.getLogger(__name__)

SAMPLES = 3
"""Validation prompts that are answered after each validation."""
SAMPLE_TOKENS = 64

_PAIRS_PER_SECOND, _TOKENS_PER_SECOND = "system/pairs_per_second", "system/tokens_per_second"
_PEAK_MEMORY, _RESERVED_MEMORY = "system/peak_memory_gib", "system/reserved_memory_gib"
_GPU_UTILIZATION, _MFU = "system/gpu_utilization", "system/model_flops_utilization"


def _multiline(*tags: str) -> list[Any]:
    return ["Multiline", [f"^{tag}$" for tag in tags]]


LAYOUT = {
    "DPO": {
        **{chart.title: _multiline(*(metric.tag for metric in chart.metrics)) for chart in CHARTS},
        "Preference pairs per second": _multiline(_PAIRS_PER_SECOND),
        "Tokens per second": _multiline(_TOKENS_PER_SECOND),
        "Memory of one device (GiB)": _multiline(_PEAK_MEMORY, _RESERVED_MEMORY),
        "Utilization": _multiline(_GPU_UTILIZATION, _MFU),
    }
}
"""Charts of the Custom Scalars page, in the order in which a person looks at them."""


class Charts(TrainerCallback):
    """Write the charts; on rank 0 only."""

    def __init__(self, trainer: "RunTrainer", reporter: "Reporter", usage: "UsageMeter"):
        self._trainer = trainer
        self._reporter = reporter
        self._usage = usage
        self._answers: Answers | None = None
        root, resumed = trainer.run.folder.tensorboard, trainer.run.resumed
        # What an attempt wrote after the checkpoint it was resumed from never happened.
        purge = None if resumed is None else resumed.step + 1
        self._lost = resumed is not None and not root.is_dir()
        self._train = SummaryWriter(str(root / "train"), purge_step=purge)
        self._validation = SummaryWriter(str(root / "validation"), purge_step=purge)
        self._train.add_custom_scalars(LAYOUT)

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Draw the curves anew up to the checkpoint, where a volume was lost and they with it."""
        if self._lost:
            for entry in state.log_history:
                self._add(entry, entry["step"])

    def _add(self, logs: Mapping[str, Any], step: int) -> SummaryWriter:
        writer = self._validation if "eval_loss" in logs else self._train
        for tag, value in scalars(logs).items():
            writer.add_scalar(tag, value, step)
        return writer

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        """Add a log entry's metrics to their charts."""
        if "train_runtime" in logs:
            return
        writer = self._add(logs, state.global_step)
        if writer is self._train:
            for tag, value in system(self._reporter.samples_per_second, self._usage.newest).items():
                writer.add_scalar(tag, value, state.global_step)
        writer.flush()

    def on_evaluate(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Show how base and tuned model answer some validation prompts."""
        if self._answers is None:
            self._answers = Answers(self._trainer)
        started = time.monotonic()
        for number, text in enumerate(self._answers.compare(), start=1):
            self._validation.add_text(f"samples/{number}", text, state.global_step)
        self._validation.flush()
        self._reporter.record_answers(time.monotonic() - started, self._answers.tokens)

    def on_train_end(self, *_: Any, **_named: Any) -> None:
        """Close the files."""
        self._train.close()
        self._validation.close()


def scalars(logs: Mapping[str, Any]) -> dict[str, float]:
    """Values of a log entry by the tags of their charts; one that is not a number makes a gap."""
    found, logs = {}, as_measured(logs)
    for metric in METRICS:
        value = next((logs[key] for split in metric.splits if (key := metric.log_key(split)) in logs), None)
        if isinstance(value, int | float) and math.isfinite(value):
            found[metric.tag] = float(value)
    return found


def system(samples_per_second: float | None, usage: Usage) -> dict[str, float]:
    """Speed and usage by the tags of their charts; what is not known is absent."""
    peak, reserved = usage.peak_memory_bytes, usage.reserved_memory_bytes
    found = {
        _PAIRS_PER_SECOND: samples_per_second,
        _TOKENS_PER_SECOND: usage.tokens_per_second,
        _PEAK_MEMORY: None if peak is None else peak / 2**30,
        _RESERVED_MEMORY: None if reserved is None else reserved / 2**30,
        _GPU_UTILIZATION: usage.gpu_utilization,
        _MFU: usage.model_flops_utilization,
    }
    return {tag: value for tag, value in found.items() if value is not None}


class Answers:
    """Greedy answers of base and tuned model to the first validation prompts."""

    def __init__(self, trainer: "RunTrainer"):
        self._tokenizer = trainer.processing_class
        self._trainer = trainer
        rows = trainer.eval_dataset.select(range(min(SAMPLES, len(trainer.eval_dataset))))
        self._prompts = [row["prompt_ids"] for row in rows]
        self._chosen = [self._tokenizer.decode(row["chosen_ids"], skip_special_tokens=True) for row in rows]
        self._base: list[str] | None = None
        self.tokens = 0
        """Tokens generated by the newest comparison."""

    def compare(self) -> list[str]:
        """Answer each prompt; Markdown with prompt, base, tuned and chosen answer."""
        self.tokens = 0
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        was_training = model.training
        model.eval()
        if self._base is None:
            with model.disable_adapter():
                self._base = [self._answer(model, prompt) for prompt in self._prompts]
        tuned = [self._answer(model, prompt) for prompt in self._prompts]
        model.train(was_training)
        prompts = [self._tokenizer.decode(prompt, skip_special_tokens=True) for prompt in self._prompts]
        return [
            sample(prompt, base, answer, chosen)
            for prompt, base, answer, chosen in zip(prompts, self._base, tuned, self._chosen, strict=True)
        ]

    def _answer(self, model: Any, prompt: Sequence[int]) -> str:
        ids = torch.tensor([list(prompt)], device=self._trainer.accelerator.device)
        with torch.no_grad():
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=min(SAMPLE_TOKENS, self._trainer.run.config.evaluation.max_new_tokens),
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        new = output[0, ids.shape[1] :]
        self.tokens += len(new)
        return str(self._tokenizer.decode(new, skip_special_tokens=True))


def sample(prompt: str, base: str, tuned: str, chosen: str) -> str:
    """One comparison as Markdown."""
    parts = {"Prompt": prompt, "Base": base, "Tuned": tuned, "Chosen": chosen}
    return "\n\n".join(f"**{name}**\n\n{_quote(text)}" for name, text in parts.items())


def _quote(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()) or "    (empty)"
