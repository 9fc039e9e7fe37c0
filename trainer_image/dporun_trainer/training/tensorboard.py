"""TensorBoard: training and validation as two runs, so that every chart shows both curves side by side."""

import logging
import math
import resource
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback

from dporun_api import run_folder as layout
from dporun_trainer.run_folder.checkpoints import Checkpoint

if TYPE_CHECKING:
    from dporun_trainer.training.reporter import Reporter
    from dporun_trainer.training.trainer import RunTrainer

log = logging.getLogger(__name__)

SAMPLES = 3
"""Validation prompts that are answered after each validation."""
SAMPLE_TOKENS = 64

CHARTS = {
    "loss": "loss",
    "learning_rate": "optimizer/learning_rate",
    "grad_norm": "optimizer/gradient_norm",
    "rewards/chosen": "rewards/chosen",
    "rewards/rejected": "rewards/rejected",
    "rewards/margins": "rewards/margin",
    "rewards/accuracies": "rewards/accuracy",
    "logps/chosen": "tokens/log_probability_chosen",
    "logps/rejected": "tokens/log_probability_rejected",
    "entropy": "tokens/entropy",
    "mean_token_accuracy": "tokens/accuracy",
}
"""Tag of each metric of TRL that gets a chart. TensorBoard's first page sorts them by name: loss comes first."""

LAYOUT = {
    "DPO": {
        "Loss": ["Multiline", ["^loss$"]],
        "Rewards: chosen and rejected": ["Multiline", ["^rewards/chosen$", "^rewards/rejected$"]],
        "Reward margin": ["Multiline", ["^rewards/margin$"]],
        "Reward accuracy": ["Multiline", ["^rewards/accuracy$"]],
        "Learning rate": ["Multiline", ["^optimizer/learning_rate$"]],
        "Gradient norm": ["Multiline", ["^optimizer/gradient_norm$"]],
        "Preference pairs per second": ["Multiline", ["^system/pairs_per_second$"]],
        "Memory (GiB)": ["Multiline", ["^system/peak_memory_gib$"]],
    }
}
"""Charts of the Custom Scalars page, in the order in which a person looks at them."""


class Charts(TrainerCallback):
    """Write the charts; on rank 0 only."""

    def __init__(self, trainer: "RunTrainer", reporter: "Reporter", resumed: Checkpoint | None):
        self._trainer = trainer
        self._reporter = reporter
        self._answers: Answers | None = None
        root = trainer.run.directory / layout.RUNS
        # What an attempt wrote after the checkpoint it was resumed from never happened.
        purge = None if resumed is None else resumed.step + 1
        self._train = SummaryWriter(str(root / "train"), purge_step=purge)
        self._validation = SummaryWriter(str(root / "validation"), purge_step=purge)
        self._train.add_custom_scalars(LAYOUT)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        """Add a log entry's metrics to their charts."""
        if "train_runtime" in logs:
            return
        validation = "eval_loss" in logs
        writer = self._validation if validation else self._train
        for tag, value in scalars(logs).items():
            writer.add_scalar(tag, value, state.global_step)
        if not validation:
            if self._reporter.samples_per_second is not None:
                writer.add_scalar("system/pairs_per_second", self._reporter.samples_per_second, state.global_step)
            writer.add_scalar("system/peak_memory_gib", peak_memory() / 2**30, state.global_step)
        writer.flush()

    def on_evaluate(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Show how base and tuned model answer some validation prompts."""
        if self._answers is None:
            self._answers = Answers(self._trainer)
        started = time.monotonic()
        for number, text in enumerate(self._answers.compare(), start=1):
            self._validation.add_text(f"samples/{number}", text, state.global_step)
        self._validation.flush()
        self._reporter.answered(time.monotonic() - started, self._answers.tokens)

    def on_train_end(self, *_: Any, **_named: Any) -> None:
        """Close the files."""
        self._train.close()
        self._validation.close()


def scalars(logs: Mapping[str, Any]) -> dict[str, float]:
    """Values of a log entry by the tags of their charts; one that is not a number makes a gap."""
    found = {}
    for name, tag in CHARTS.items():
        value = logs.get(name, logs.get(f"eval_{name}"))
        if isinstance(value, int | float) and math.isfinite(value):
            found[tag] = float(value)
    return found


def peak_memory() -> int:
    """Bytes of device memory used at most so far; of the process on CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
