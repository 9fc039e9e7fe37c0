"""LoRA adapters for tests of what comes after training."""

from pathlib import Path


def save_random_adapter(base: Path, folder: Path, *, scale: float = 0.1, seed: int = 0) -> Path:
    """Write a LoRA adapter with random weights for the model in ``base`` to ``folder`` and return it.

    ``scale`` is the standard deviation of the matrices that training starts at zero; with 0 the adapter does nothing.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, scale) if scale else weight.zero_()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder
