"""The adapter of a run in PEFT's words, and whether an earlier run's fits: for prepare and for training. No torch."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from dporun_api.run_config import Lora
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError

ALL_LINEAR = ("all-linear",)
"""lora.targetModules that means every linear layer but the output head."""


def lora_arguments(lora: Lora, part: str | None = None, *, dropout: float) -> dict[str, Any]:
    """Build the arguments of PEFT's LoraConfig.

    Args:
        lora: the adapter that the run asks for.
        part: module of the model to which the adapter is restricted; None for the whole model.
        dropout: the one in effect.

    """
    arguments = {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": dropout,
        # PEFT knows all-linear as a word of its own; in a list it would be the name of a layer.
        "target_modules": "all-linear" if lora.target_modules == ALL_LINEAR else list(lora.target_modules),
        "task_type": "CAUSAL_LM",
    }
    return arguments if part is None else arguments | {"exclude_modules": rf"(?!{re.escape(part)}\.).*"}


def used_targets(targets: Iterable[str], layers: Collection[str]) -> set[str]:
    """Those of an adapter's ``target_modules`` that name a layer with an adapter.

    Of all-linear, PEFT keeps the names of the layers that it excludes, too.
    """
    return {target for target in targets if any(f".{layer}".endswith(f".{target}") for layer in layers)}


def require_same_shape(lora: Lora, adapter: Mapping[str, object], source: str) -> None:
    """Refuse an adapter whose rank, alpha or layers are not those that the run asks for: training cannot change them.

    Args:
        lora: of the run.
        adapter: content of the adapter's adapter_config.json.
        source: where the adapter comes from, for people.

    Raises:
        RunError: they differ.

    """
    for name, field, wanted in (("r", "lora.rank", lora.rank), ("lora_alpha", "lora.alpha", lora.alpha)):
        if adapter.get(name) != wanted:
            raise RunError(
                Reason.INVALID_SPEC,
                f"{field} is {wanted}, but the adapter in {source} has {adapter.get(name)}",
                hint=f"Set {field} to {adapter.get(name)}: an adapter that is trained further keeps its shape.",
            )
    targets, adapted = lora.target_modules, adapter.get("target_modules")
    experts = adapter.get("target_parameters")  # whose layers have other names there than in lora.targetModules
    if targets != ALL_LINEAR and not experts and isinstance(adapted, list) and set(adapted) != set(targets):
        raise RunError(
            Reason.INVALID_SPEC,
            f"lora.targetModules is {', '.join(targets)}, but the adapter in {source} has {', '.join(sorted(adapted))}",
            hint=f"Set lora.targetModules to [{', '.join(sorted(adapted))}].",
        )


def require_same_layers(missing: Sequence[str], unexpected: Sequence[str], source: str) -> None:
    """Refuse an adapter whose weights do not match the run's layers; all-linear names no layers to compare before.

    Args:
        missing: the run's weights that the adapter lacks.
        unexpected: the adapter's weights for which the run has no place.
        source: where the adapter comes from, for people.

    Raises:
        RunError: there are any.

    """
    if missing or unexpected:
        raise RunError(
            Reason.INVALID_SPEC,
            f"the adapter in {source} adapts other layers: it lacks {len(missing)} of the weights that this run "
            f"trains, and has {len(unexpected)} that this run does not",
            hint="Set lora.targetModules to those of the earlier run.",
        )
