"""LoRA adapters for tests of what comes after training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dporun_api.run_config import Lora


def save_random_adapter(base: Path, folder: Path, *, scale: float = 0.1, seed: int = 0) -> Path:
    """Write a LoRA adapter with random weights for the model in ``base`` to ``folder`` and return it.

    ``scale`` is the standard deviation of the matrices that training starts at zero; with 0 the adapter does nothing.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer

    from dporun_trainer.adapters import lora_arguments
    from dporun_trainer.architectures import language_model, load_model

    torch.manual_seed(seed)
    model = load_model(str(base))
    lora = LoraConfig(**lora_arguments(Lora(rank=4, alpha=8), language_model(model), dropout=0.0))
    model = get_peft_model(model, lora)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, scale) if scale else weight.zero_()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def save_trained_adapter(base: Path, rows: Sequence[dict[str, Any]], folder: Path, *, steps: int) -> Path:
    """Train a LoRA adapter on preference pairs with TRL, briefly and for real, and return its ``folder``."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    arguments = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        max_steps=steps,
        learning_rate=3e-3,
        max_length=128,
        seed=7,
        bf16=False,
        activation_checkpointing=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(str(folder))
    return folder
