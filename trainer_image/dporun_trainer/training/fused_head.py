"""Whether what the trainer optimises is the model's own: its log-probabilities against the model's logits.

TRL never asks a model for its logits. It takes the backbone's last hidden state, multiplies it with the output
embeddings and applies the scales and caps that it knows (trl/trainer/utils.py, ``add_fused_lm_head``). What else a
model does in between is left out: the loss then falls, and the model does not learn what its data says.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch.nn.functional import cross_entropy

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError

if TYPE_CHECKING:
    from dporun_trainer.training.trainer import RunTrainer

ROUNDINGS = {torch.float32: 64, torch.float16: 1, torch.bfloat16: 1}
"""Difference allowed per token, by the type that the model computes in: in steps of that type at the largest logit.

Both sides round the same product of hidden state and weights, by half a step each; caps and scales round again. In
float32 the sums over thousands of hidden numbers round as well, in another order. Among tiny models of 143 types, with
logits up to 30, no difference was above 0.3 steps; with a head that TRL does not know, none was below 14.
"""
_PROMPT_TOKENS, _RESPONSE_TOKENS = 48, 16
"""What of a row is looked at: few enough that the logits of a large vocabulary need no memory to speak of (64 MiB of
float32 for the two sequences and 128k words)."""


@dataclass(frozen=True)
class Agreement:
    """How near the trainer's log-probabilities are to those of the model's own logits.

    Attributes:
        difference: mean over the responses' tokens of the absolute difference, in nats.
        tolerance: largest difference that rounding explains.
        tokens: compared.
        finite: whether the model's own log-probabilities are numbers.

    """

    difference: float
    tolerance: float
    tokens: int
    finite: bool

    @property
    def holds(self) -> bool:
        """Whether rounding explains the difference, where there are numbers at all (see ``finite``)."""
        return not self.difference > self.tolerance


def short_row(row: dict[str, Any]) -> dict[str, list[int]]:
    """The first tokens of a tokenized row's prompt, and of both responses."""
    limits = {"prompt_ids": _PROMPT_TOKENS, "chosen_ids": _RESPONSE_TOKENS, "rejected_ids": _RESPONSE_TOKENS}
    return {name: list(row[name])[:limit] for name, limit in limits.items()}


@torch.no_grad()
def agreement(model: Any, batch: dict[str, torch.Tensor]) -> Agreement:
    """Compare the log-probabilities of a batch as TRL computes them with those of the model's own logits.

    Args:
        model: with TRL's fused head.
        batch: ``input_ids``, ``attention_mask`` and ``completion_mask`` of shape (sequences, length), as TRL's collator
            makes them, on the model's device.

    """
    inputs = {name: value for name, value in batch.items() if name != "completion_mask"} | {"use_cache": False}
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    predicts = labels[:, 1:] != -100
    training = model.training
    model.eval()  # no dropout, no recomputation
    try:
        fused = model(**inputs, labels=labels, fused_lm_head=True).log_probs[predicts]
        logits = model(**inputs).logits[:, :-1][predicts]
    finally:
        model.train(training)
    own = -cross_entropy(logits.float(), labels[:, 1:][predicts], reduction="none")
    # Some models return logits of a wider type than they compute in, or have a head of a wider one, which TRL narrows.
    types = {logits.dtype, model.get_input_embeddings().weight.dtype}
    largest = max(float(logits.abs().max()), 1.0)
    return Agreement(
        difference=float((fused.float() - own).abs().mean()),
        tolerance=largest * max(ROUNDINGS[dtype] * torch.finfo(dtype).eps for dtype in types),
        tokens=int(predicts.sum()),
        finite=bool(own.isfinite().all()),
    )


def require_own_logits(trainer: "RunTrainer") -> None:
    """Stop a run whose log-probabilities are not those of its model. Collective.

    Raises:
        RunError: they differ by more than rounding explains, in any process, or are no numbers.

    """
    batch = trainer.data_collator([short_row(next(iter(trainer.train_dataset)))])
    batch = {name: value.to(trainer.accelerator.device) for name, value in batch.items()}
    everyone = gather_object([agreement(trainer.model, batch)])
    if not all(found.finite for found in everyone):
        raise RunError(
            Reason.NON_FINITE_LOSS,
            "the model's log-probabilities are not finite (NaN or infinity) before anything is trained",
            hint="Set training.precision: bf16 or fp32 if it is fp16, in which models trained in bf16 overflow; "
            "otherwise look for NaN among the model's weights.",
        )
    if wrong := next((found for found in everyone if not found.holds), None):
        raise RunError(
            Reason.MODEL_INVALID,
            f"the trainer would not train what {type(trainer.model.get_base_model()).__name__} computes: over "
            f"{wrong.tokens} tokens its log-probabilities differ from the model's own by {wrong.difference:.2g} nats "
            f"per token, where rounding explains {wrong.tolerance:.1g}",
            hint="TRL does not know what this architecture does after its last layer. Use a model of another one; "
            "docs/models.md of DPORun lists those that work.",
        )
