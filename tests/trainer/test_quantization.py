"""A run on weights of 4 bits, by the real bitsandbytes on the CPU: loaded, trained, resumed, evaluated and merged."""

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dporun_api.results import Outcome, OutcomeState
from dporun_api.run_config import RunConfig
from dporun_testing import tiny_model, training
from dporun_testing.training import a_config, attempt
from dporun_trainer.commands.finish import finish
from dporun_trainer.commands.train import TRAIN_PROCESS, arguments_of
from dporun_trainer.evaluation.assess import recorded_quantization
from dporun_trainer.memory import Shape, estimate
from dporun_trainer.quantization import quantized_layers
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.checkpoints import Checkpoints
from dporun_trainer.training import launch

pytestmark = pytest.mark.slow(30)


def config(name: str, **sections: Any) -> RunConfig:
    """One epoch of eight steps, so that a checkpoint of its middle can be resumed from."""
    return a_config(
        name,
        model={"uri": "pvc://models/tiny", "quantization": "nf4"},
        lora={"dropout": 0.0},
        training={"epochs": 1, "gradient_accumulation_steps": 1, "learning_rate": 2e-2},
        evaluation={"enabled": True, "max_examples": 2, "max_new_tokens": 4, "general": {"enabled": False}},
        **sections,
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Linear layers of several blocks of 64 weights."""
    return tiny_model.save_tiny_model(tmp_path_factory.mktemp("base"), hidden_size=64)


@pytest.fixture(scope="module")
def runs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Trainers of a run with references computed before training, and of one without; that one is stopped halfway."""
    from dporun_trainer.training.trainer import Preempted

    root = tmp_path_factory.mktemp("runs")
    with training.single_process():
        always = config("always", dpo={"precompute_ref_log_probs": "always"})
        never = config("never", dpo={"precompute_ref_log_probs": "never"})
        found = {"always": attempt(always, training.prepare(always, root, base))}
        directory = training.prepare(never, root, base)
        with pytest.raises(Preempted):
            attempt(never, directory, on_trainer=training.stop_at_step(4))
        assert Checkpoints(directory).newest().step == 4
        found["never"] = attempt(never, directory)
        yield found


@pytest.fixture(scope="module")
def finished(runs: dict[str, Any]) -> tuple[RunFolder, Outcome]:
    """The run that was never stopped, evaluated, merged and reported."""
    folder = runs["always"].run.folder
    return folder, finish(runs["always"].run.config, folder)


def test_the_linear_layers_have_four_bits_and_nothing_else(runs: dict[str, Any]) -> None:
    import torch

    model = runs["always"].model.get_base_model()
    layers = quantized_layers(model)
    assert len(layers) == 2 * 7
    assert {type(layer.weight.data).__name__ for layer in layers.values()} == {"Tensor"}
    assert {layer.weight.dtype for layer in layers.values()} == {torch.uint8}
    assert all(layer.weight.numel() * 2 == layer.in_features * layer.out_features for layer in layers.values())
    assert model.get_output_embeddings().weight.dtype == model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert {weight.dtype for weight in runs["always"].model.parameters() if weight.requires_grad} == {torch.bfloat16}


def test_the_memory_of_the_weights_is_as_estimated(runs: dict[str, Any]) -> None:
    """Counted without the tables of each layer, a kilobyte that tells on layers as small as these."""
    model = runs["always"].model.get_base_model()
    states = [layer.weight.quant_state for layer in quantized_layers(model).values()]
    weights = [weight for name, weight in model.named_parameters() if "lora_" not in name]
    scales = [tensor for state in states for tensor in (state.absmax, state.state2.absmax)]
    shape = Shape(
        parameters=sum(weight.numel() for weight in weights) + sum(state.shape.numel() // 2 for state in states),
        quantized=sum(state.shape.numel() for state in states),
        **dict.fromkeys(("trainable", "hidden", "intermediate", "layers", "vocabulary", "sequences", "length"), 0),
        lora_dropout=False,
    )
    estimated = estimate(config("memory"), shape, arithmetic="bf16", cuda=False).weights
    counted = sum(tensor.numel() * tensor.element_size() for tensor in (*weights, *scales))
    assert counted == pytest.approx(estimated, rel=5e-3)


def test_references_are_those_of_the_quantized_base(runs: dict[str, Any]) -> None:
    """Computed before training or in it, after a stop as well: the first loss is that of a coin, all are the same."""
    always, never = (training.history(runs[name].run.folder.path) for name in ("always", "never"))
    assert always[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)
    names = ("loss", "rewards/margins", "grad_norm", "eval_loss", "eval_rewards/margins")
    for before, within in zip(always, never, strict=True):
        expected = {name: within[name] for name in names if name in within}
        # Sums of float32 over batches that are padded otherwise.
        assert {name: before[name] for name in expected} == pytest.approx(expected, abs=2e-6, rel=1e-6)
    assert always[-2]["eval_loss"] < 0.67


def test_every_adapter_learns_after_a_validation(runs: dict[str, Any]) -> None:
    """On a CPU with AVX512-BF16, bitsandbytes would compute no gradients any more below the last layers."""
    from safetensors.torch import load_file

    weights = load_file(runs["never"].run.folder.path / "final/adapter_model.safetensors")
    assert len(weights) == 2 * 2 * 7
    assert [name for name, weight in weights.items() if not weight.abs().max() > 0] == []


def test_a_checkpoint_holds_the_adapter_alone(runs: dict[str, Any]) -> None:
    import torch

    (best,) = Checkpoints(runs["always"].run.folder.path).complete()
    (state,) = best.path.glob("global_step*/mp_rank_00_model_states.pt")
    module = torch.load(state, weights_only=False)["module"]
    assert len(module) == 2 * 2 * 7
    assert all("lora_" in name for name in module)


def test_the_evaluation_scores_what_was_trained(finished: tuple[RunFolder, Outcome]) -> None:
    """The reward margin is the last validation's, which a base of 16 bits would change more than padding does."""
    folder, outcome = finished
    (validated,) = (entry for entry in training.history(folder.path) if "eval_loss" in entry)
    assert outcome.evaluation is not None
    assert recorded_quantization(folder.final) == "nf4", "the command evaluate loads the base so, too"
    assert outcome.evaluation.reward_margin == pytest.approx(validated["eval_rewards/margins"], abs=2e-3)


def test_the_merged_model_is_the_base_as_stored_with_the_adapter(
    finished: tuple[RunFolder, Outcome], base: Path
) -> None:
    """And what it is not, the model of 4 bits that was trained and evaluated, is measured and told."""
    from safetensors.torch import load_file

    folder, _ = finished
    record = json.loads((folder.merged / "merge.json").read_text())
    assert record["dtype"] == "float32"
    assert record["difference"] < 1e-5 < record["effect"]
    assert 0.02 < record["quantized_difference"] < 0.5
    stored, merged = (load_file(path / "model.safetensors") for path in (base, folder.merged))
    assert stored.keys() == merged.keys()
    changed = {name for name in merged if not merged[name].equal(stored[name])}
    assert changed == {name for name in merged if "proj" in name}
    said = f"{record['quantized_difference']:.1%}"
    assert said in folder.model_card.read_text()
    assert said in folder.report_html.read_text()


def test_the_other_stage_and_an_offloaded_optimizer(base: Path, tmp_path: Path) -> None:
    asked = config("stage", topology={"deepspeed": {"zero_stage": 1, "offload_optimizer": True}})
    directory = training.prepare(asked, tmp_path, base)
    with training.single_process():
        attempt(asked, directory)
    history = training.history(directory)
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert history[-2]["eval_loss"] < 0.67


def test_two_processes_train_the_same(runs: dict[str, Any], base: Path, tmp_path: Path) -> None:
    asked = config("two", topology={"processes_per_node": 2})
    asked = asked.model_copy(update={"training": asked.training.model_copy(update={"per_device_batch_size": 1})})
    directory = training.prepare(asked, tmp_path, base)
    folder, path = RunFolder(directory), training.config_path(asked, tmp_path)
    outcome = launch.train(asked, folder, arguments_of(TRAIN_PROCESS, path, folder), node=0, stop=threading.Event())
    assert outcome.state is OutcomeState.SUCCEEDED, outcome.message
    one, two = (training.history(path) for path in (runs["always"].run.folder.path, directory))
    assert two[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)
    losses = [[entry["loss"] for entry in entries if "loss" in entry] for entries in (one, two)]
    assert losses[1] == pytest.approx(losses[0], abs=5e-3)
