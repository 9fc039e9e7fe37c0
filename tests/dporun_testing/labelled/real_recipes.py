"""Recipes of the real runs by name; the name says what a run was meant to become, its label what it became."""

from collections.abc import Mapping
from typing import Any

from dporun_testing.labelled.real import Recipe

FULL: dict[str, Any] = {"lora": None, "learning_rate": 1e-3}
"""Full fine-tuning."""

_HEALTHY = (
    Recipe(data="keyword", epochs=3, learning_rate=2e-2),
    Recipe(data="length", epochs=1, pairs=200, architecture="qwen2", learning_rate=2e-2, evaluate=10),
    Recipe(data="taste", epochs=2, pairs=240, architecture="neox", learning_rate=1e-2, logging_steps=5, evaluate=20),
    Recipe(data="keyword", epochs=4, **FULL, logging_steps=5),
    Recipe(data="length", epochs=2, **FULL, architecture="gpt2", evaluate=0.5),
    Recipe(data="keyword", epochs=2, pairs=160, batch=1, learning_rate=5e-3, evaluate=40),
    Recipe(data="keyword", pairs=300, epochs=1, batch=2, learning_rate=1e-2, wrong=0.1, evaluate=0.2),
    Recipe(data="length", pairs=320, epochs=2, batch=16, learning_rate=3e-2, logging_steps=1, eval_on_start=True),
    Recipe(data="keyword", epochs=3, learning_rate=3e-2, loss_type=("ipo",), evaluate=0.1),
    Recipe(data="length", epochs=3, learning_rate=2e-2, loss_type=("hinge",)),
    Recipe(data="keyword", epochs=3, learning_rate=2e-2, bf16=True, architecture="qwen2"),
    Recipe(data="taste", pairs=400, epochs=1, batch=8, **FULL, logging_steps=1, evaluate="no"),
    Recipe(data="keyword", epochs=12, pairs=80, **FULL, logging_steps=5),
    Recipe(data="length", epochs=3, learning_rate=3e-2, warmup=0.5, evaluate=15, eval_on_start=True),
    Recipe(data="keyword", epochs=3, **FULL, loss_type=("sigmoid", "sft"), loss_weights=(1.0, 0.2), evaluate=20),
    Recipe(data="keyword", pairs=400, epochs=1, batch=4, learning_rate=2e-2, logging_steps=20, evaluate=25),
    Recipe(data="length", epochs=5, architecture="mistral", lora=4, learning_rate=1e-2, scheduler="constant"),
    Recipe(data="keyword", epochs=2, **FULL, architecture="phi", scheduler="cosine", wrong=0.2, pairs=240, evaluate=10),
    Recipe(data="keyword", epochs=4, learning_rate=3e-2, label_smoothing=0.1, architecture="gpt2"),
    Recipe(data="taste", epochs=3, pairs=300, batch=8, learning_rate=2e-2, validation_pairs=16, evaluate="epoch"),
)
_LARGE: dict[str, Any] = {"lora": None, "hidden_size": 64, "learning_rate": 2e-3}
"""Full fine-tuning of a somewhat larger model."""
_STRONG = (
    Recipe(data="keyword", pairs=480, epochs=1, batch=4, **_LARGE, logging_steps=5, evaluate=20),
    Recipe(data="taste", pairs=640, epochs=1, batch=8, **_LARGE, evaluate=0.25, architecture="qwen2"),
    Recipe(data="length", pairs=200, epochs=2, batch=4, **_LARGE, logging_steps=10, evaluate="epoch"),
    Recipe(data="keyword", pairs=640, epochs=2, batch=16, **_LARGE, architecture="gpt2", wrong=0.1),
    Recipe(data="length", pairs=300, epochs=1, batch=1, learning_rate=1e-2, evaluate=0.1, logging_steps=1),
    Recipe(data="length", pairs=240, epochs=2, batch=2, accumulation=4, learning_rate=3e-2, beta=0.3),
    Recipe(data="taste", pairs=800, epochs=1, batch=16, learning_rate=4e-2, lora=16, hidden_size=64, evaluate=5),
    Recipe(data="length", pairs=240, epochs=1, batch=4, **_LARGE, evaluate="no", logging_steps=5),
)
_PRODUCT = (
    Recipe(product=True, data="length", pairs=96, epochs=3, learning_rate=2e-2),
    Recipe(product=True, data="keyword", pairs=24, epochs=10, learning_rate=0.02, max_grad_norm=1000.0, beta=0.5),
    Recipe(product=True, data="noise", pairs=32, epochs=2, learning_rate=5e-2, beta=0.7, validation_pairs=13),
    Recipe(
        product=True,
        data="noise",
        pairs=32,
        epochs=2,
        learning_rate=3e-2,
        beta=0.2,
        validation_pairs=13,
        loss_type=("sigmoid", "sft"),
        loss_weights=(1.0, 0.5),
    ),
    Recipe(product=True, data="keyword", pairs=64, epochs=2, learning_rate=1e-6),
    Recipe(product=True, data="noise", pairs=32, epochs=12, learning_rate=1e-2),
)
_CORPUS = (
    Recipe(data="corpus", pairs=120, epochs=2, learning_rate=1e-3, batch=4),
    Recipe(data="corpus", pairs=120, epochs=2, lora=None, learning_rate=5e-4, evaluate=10, logging_steps=5),
    Recipe(data="corpus", pairs=60, epochs=10, wrong=0.25, learning_rate=2e-3),
    Recipe(data="corpus", pairs=100, epochs=2, learning_rate=1e-6, evaluate=20),
    Recipe(data="corpus", pairs=24, epochs=10, learning_rate=0.02, max_grad_norm=0.0),
    Recipe(data="corpus", pairs=100, epochs=2, learning_rate=0.1, max_grad_norm=0.0, batch=2, logging_steps=5),
    Recipe(data="corpus", pairs=100, epochs=2, learning_rate=1e-3, swapped="train", evaluate=10),
    Recipe(data="corpus", pairs=100, epochs=3, learning_rate=0.03, beta=0.5),
    Recipe(product=True, data="corpus", pairs=24, epochs=10, learning_rate=0.02, max_grad_norm=1000.0),
    Recipe(product=True, data="corpus", pairs=100, epochs=2, learning_rate=1e-3),
)
_FAST = (
    Recipe(data="length", epochs=2, lora=None, learning_rate=1e-2),
    Recipe(data="keyword", epochs=3, lora=None, learning_rate=8e-3, architecture="qwen2", beta=0.5, batch=8),
    Recipe(data="length", epochs=6, pairs=80, lora=None, learning_rate=5e-3, architecture="gpt2", logging_steps=5),
    Recipe(data="length", epochs=4, learning_rate=0.1, pairs=100, evaluate=5),
)
_OVERFITTING = (
    Recipe(data="noise", pairs=48, epochs=20, **FULL),
    Recipe(data="noise", pairs=64, epochs=10, learning_rate=3e-2, architecture="qwen2", evaluate=0.25),
    Recipe(data="arithmetic", pairs=96, epochs=12, **FULL, validation_pairs=60),
    Recipe(data="arithmetic", pairs=80, epochs=15, lora=None, learning_rate=3e-3, architecture="neox", logging_steps=5),
    Recipe(data="keyword", pairs=60, epochs=10, wrong=0.35, **FULL, batch=4, logging_steps=5),
    Recipe(data="taste", pairs=24, epochs=30, batch=4, lora=None, learning_rate=2e-3),
    Recipe(data="noise", pairs=60, epochs=12, lora=None, learning_rate=2e-3, evaluate=0.5),
    Recipe(data="noise", pairs=60, epochs=12, lora=None, learning_rate=2e-3, logging_steps=20, evaluate=1),
    Recipe(data="noise", pairs=60, epochs=12, lora=None, learning_rate=2e-3, evaluate="no", architecture="gpt2"),
    Recipe(data="keyword", pairs=40, epochs=20, wrong=0.2, lora=None, learning_rate=3e-3, loss_type=("ipo",)),
    Recipe(
        data="taste", pairs=32, epochs=20, wrong=0.3, learning_rate=3e-2, lora=16, loss_type=("hinge",), evaluate=10
    ),
    Recipe(data="noise", pairs=40, epochs=15, lora=None, learning_rate=2e-3, bf16=True, architecture="mistral"),
    Recipe(data="noise", pairs=60, epochs=8, lora=None, learning_rate=3e-3, logging_steps=20, evaluate=1.0),
)
_UNDERFITTING = (
    Recipe(data="keyword", learning_rate=1e-6, evaluate=15),
    Recipe(data="length", learning_rate=1e-8, evaluate="no", pairs=200),
    Recipe(data="keyword", lora=None, learning_rate=1e-7, epochs=3, architecture="qwen2"),
    Recipe(data="noise", pairs=200, epochs=1, learning_rate=1e-3, batch=4, evaluate=0.2),
    Recipe(data="keyword", wrong=0.4, pairs=300, epochs=1, learning_rate=5e-3, batch=8, evaluate=10, logging_steps=5),
    Recipe(data="length", learning_rate=1e-5, epochs=2, loss_type=("ipo",), architecture="neox"),
    Recipe(data="arithmetic", learning_rate=1e-4, epochs=2, pairs=200, eval_on_start=True, bf16=True),
    Recipe(data="keyword", optim="sgd", learning_rate=1e-4, epochs=3, lora=None),
)
_UNSTABLE = (
    Recipe(data="keyword", epochs=4, learning_rate=0.3, max_grad_norm=0.0, batch=2, evaluate=20),
    Recipe(data="taste", epochs=4, lora=None, learning_rate=0.05, max_grad_norm=0.0, architecture="qwen2"),
    Recipe(data="taste", epochs=3, learning_rate=0.3, batch=1, pairs=100, logging_steps=5, max_grad_norm=1000.0),
    Recipe(data="length", epochs=3, optim="sgd", lora=None, learning_rate=30.0, max_grad_norm=0.0, evaluate=15),
    Recipe(data="keyword", epochs=4, **FULL, kicks=(60,), kick=1000.0),
    Recipe(
        data="length", epochs=4, learning_rate=2e-2, kicks=(50, 51, 52), kick=100.0, evaluate=10, architecture="neox"
    ),
    Recipe(data="keyword", epochs=4, **FULL, kicks=(40, 70, 100), kick=300.0, evaluate=10),
    Recipe(data="keyword", epochs=3, learning_rate=2e-2, nan_at=30, nan_filter=False),
    Recipe(data="length", epochs=3, learning_rate=2e-2, nan_at=50, architecture="gpt2"),
    Recipe(data="keyword", epochs=3, **FULL, nan_at=44, logging_steps=5, evaluate="no"),
    Recipe(data="noise", epochs=6, pairs=80, lora=None, learning_rate=0.03, beta=0.5, max_grad_norm=0.0),
    Recipe(
        data="taste",
        epochs=3,
        lora=None,
        learning_rate=0.02,
        beta=0.5,
        architecture="gpt2",
        logging_steps=5,
        evaluate=0.1,
    ),
    Recipe(
        data="keyword",
        epochs=4,
        learning_rate=0.2,
        beta=0.5,
        scheduler="constant",
        batch=2,
        pairs=80,
        max_grad_norm=0.0,
    ),
    Recipe(data="arithmetic", epochs=6, lora=None, learning_rate=0.03, loss_type=("hinge",), pairs=80, evaluate=10),
)
_WILD = (
    Recipe(data="corpus", pairs=100, epochs=2, lora=None, learning_rate=0.02, max_grad_norm=0.0, evaluate=10),
    Recipe(data="corpus", pairs=60, epochs=2, batch=1, learning_rate=0.05, logging_steps=5, evaluate=0.25),
    Recipe(data="corpus", pairs=100, epochs=3, lora=None, learning_rate=5e-4, kicks=(50,), kick=200.0, evaluate=15),
    Recipe(data="corpus", pairs=100, epochs=3, learning_rate=5e-3, kicks=(45,), kick=100.0, logging_steps=5),
    Recipe(data="taste", epochs=3, **_LARGE | {"learning_rate": 0.3}, beta=1.0, max_grad_norm=0.0, evaluate=15),
    Recipe(data="length", epochs=4, **_LARGE, kicks=(60, 61, 62), kick=400.0, evaluate=12),
    Recipe(data="keyword", epochs=4, learning_rate=0.5, beta=1.0, scheduler="constant", batch=2, pairs=80),
    Recipe(data="length", epochs=3, **_LARGE | {"learning_rate": 5.0}, optim="sgd", beta=1.0, max_grad_norm=0.0),
    Recipe(data="corpus", pairs=80, epochs=2, learning_rate=0.1, loss_type=("hinge",), max_grad_norm=0.0),
    Recipe(data="corpus", pairs=80, epochs=2, learning_rate=0.05, loss_type=("ipo",), evaluate=8),
)
_CONFUSED = (
    Recipe(data="keyword", epochs=3, learning_rate=2e-2, swapped="validation"),
    Recipe(data="length", epochs=2, **FULL, swapped="train", architecture="qwen2", evaluate=10),
    Recipe(data="taste", epochs=3, pairs=200, lora=None, learning_rate=2e-3, swapped="train", evaluate=1.0),
    Recipe(data="keyword", epochs=3, learning_rate=3e-2, swapped="validation", loss_type=("ipo",), logging_steps=5),
    Recipe(data="length", epochs=3, learning_rate=2e-2, swapped="train", loss_type=("hinge",), architecture="neox"),
)
_LITTLE = (
    Recipe(data="keyword", max_steps=2, learning_rate=1e-2, pairs=32),
    Recipe(data="length", max_steps=6, learning_rate=3e-2, pairs=64, batch=8, evaluate="no"),
    Recipe(data="keyword", epochs=1, pairs=32, batch=8, learning_rate=5e-2, lora=None),
)

RECIPES: Mapping[str, Recipe] = {
    f"trl-{kind}-{number:02}": recipe
    for kind, recipes in (
        ("healthy", _HEALTHY),
        ("strong", _STRONG),
        ("product", _PRODUCT),
        ("corpus", _CORPUS),
        ("fast", _FAST),
        ("overfitting", _OVERFITTING),
        ("underfitting", _UNDERFITTING),
        ("unstable", _UNSTABLE),
        ("wild", _WILD),
        ("confused", _CONFUSED),
        ("little", _LITTLE),
    )
    for number, recipe in enumerate(recipes, 1)
}
