from pathlib import Path

import pytest

from dporun_api.results import Usage
from dporun_testing import training
from dporun_testing.training import a_config, attempt
from dporun_trainer.progress import ProgressFile

pytestmark = pytest.mark.slow  # imports torch


def test_lora_needs_four_operations_of_each_weight() -> None:
    """Two forward, two for the gradients of inputs: Llama 3 8B has 7.5e9 weights besides its input embeddings."""
    from transformers import LlamaConfig

    from dporun_trainer.training.usage import flops_per_token

    llama = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    short, long = flops_per_token(llama, 1), flops_per_token(llama, 1024)
    assert short == pytest.approx(4 * 7.5e9, rel=0.01)
    assert long is not None
    assert short is not None
    assert long - short == pytest.approx(32 * 8 * 4096 * 1023, rel=0.01), "attention: 8 operations for each pair"


def test_a_model_that_the_formula_does_not_fit_has_none() -> None:
    from transformers import MambaConfig

    from dporun_trainer.training.usage import flops_per_token

    assert flops_per_token(MambaConfig(), 1024) is None


@pytest.mark.usefixtures("single_process")
def test_the_usage_of_a_run(model: Path, tmp_path: Path) -> None:
    config = a_config("usage", training={"epochs": 1})
    directory = training.prepare(config, tmp_path, model)
    seen: list[Usage] = []

    def look(trainer: object, _stop: object) -> None:
        from transformers import TrainerCallback

        class Look(TrainerCallback):
            def on_step_begin(self, *_: object, **_named: object) -> None:
                seen.append(ProgressFile(directory / "progress.json").read().usage)

        trainer.add_callback(Look())  # type: ignore[attr-defined]

    trainer = attempt(config, directory, on_trainer=look)
    usage = seen[-1]
    tokens = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry and "loss" in entry]
    assert tokens == sorted(set(tokens)), "the log counts all tokens so far"
    assert usage.tokens_per_second is not None
    assert usage.tokens_per_second > 0
    assert usage.peak_memory_bytes is not None
    assert usage.peak_memory_bytes > 10 * 2**20
    unknown = usage.model_flops_utilization, usage.gpu_utilization, usage.reserved_memory_bytes
    assert unknown == (None, None, None), "a CPU has no peak that TRL knows, and no NVML"
