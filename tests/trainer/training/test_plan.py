import math
from typing import Any

import pytest

from dporun_api.memory import GIB
from dporun_api.run_config import Dpo, RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.run_folders import a_prepared
from dporun_testing.training import a_config
from dporun_trainer.errors import RunError
from dporun_trainer.machine import Machine
from dporun_trainer.memory import Shape
from dporun_trainer.progress import TotalWork
from dporun_trainer.training.arguments import deepspeed_config, trainer_arguments
from dporun_trainer.training.plan import (
    Schedule,
    TrainingPlan,
    decide_losses,
    decide_plan,
    decide_precision,
    decide_schedule,
)
from dporun_trainer.training.resume import run_identity

CPU = Machine(cuda=False, bf16=True, memory=16 * GIB, name="the CPU")
H100 = Machine(cuda=True, bf16=True, memory=80 * GIB, name="H100")
T4 = Machine(cuda=True, bf16=False, memory=15 * GIB, name="T4")
SMALL = Shape(
    parameters=500_000_000,
    trainable=8_000_000,
    hidden=896,
    intermediate=4864,
    layers=24,
    vocabulary=151_936,
    sequences=4,
    length=1024,
    lora_dropout=True,
)


def plan(config: RunConfig, machine: Machine = H100, rows: tuple[int, int] = (72, 16)) -> TrainingPlan:
    return decide_plan(config, machine, SMALL, train_rows=rows[0], validation_rows=rows[1])


@pytest.mark.parametrize(
    ("requested", "machine", "expected"),
    [
        ("auto", CPU, "fp32"),
        ("auto", H100, "bf16"),
        ("auto", T4, "fp16"),
        ("fp32", H100, "fp32"),
        ("fp16", H100, "fp16"),
        ("bf16", CPU, "bf16"),
    ],
)
def test_precision(requested: str, machine: Machine, expected: str) -> None:
    assert decide_precision(requested, machine) == expected


@pytest.mark.parametrize(("requested", "machine"), [("fp16", CPU), ("bf16", T4)])
def test_a_precision_that_the_machine_lacks_is_refused(requested: str, machine: Machine) -> None:
    with pytest.raises(RunError, match=requested) as raised:
        decide_precision(requested, machine)
    assert raised.value.exit_code == 64
    assert raised.value.hint


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


@pytest.mark.parametrize("smoothing", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("x", [-3.0, 0.0, 0.7, 5.0])
def test_label_smoothing_is_conservative_dpo(smoothing: float, x: float) -> None:
    """The losses that TRL adds up are those of conservative DPO, (1-e) l(x) + e l(-x)."""
    types, weights = decide_losses(Dpo(label_smoothing=smoothing))
    losses = {
        "sigmoid": -log_sigmoid(x),
        "robust": (-(1 - smoothing) * log_sigmoid(x) + smoothing * log_sigmoid(-x)) / (1 - 2 * smoothing),
    }
    computed = sum(losses[name] * weight for name, weight in zip(types, weights, strict=True))
    assert computed == pytest.approx(-(1 - smoothing) * log_sigmoid(x) - smoothing * log_sigmoid(-x), abs=1e-12)


def test_losses_and_weights_stay_as_asked() -> None:
    assert decide_losses(Dpo(loss=("sigmoid", "sft"), loss_weights=(1.0, 0.5))) == (("sigmoid", "sft"), (1.0, 0.5))


@pytest.mark.parametrize("dpo", [{"loss": ("hinge",), "label_smoothing": 0.1}, {"loss": ("exo_pair",)}])
def test_a_loss_that_does_not_fit_label_smoothing_is_refused(dpo: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="labelSmoothing"):
        decide_losses(Dpo(**dpo))


@pytest.mark.parametrize(
    ("rows", "epochs", "world", "steps", "per_epoch"),
    [(72, 2, 1, 18, 9), (73, 2, 1, 20, 10), (72, 1.5, 1, 14, 9), (72, 2, 2, 10, 5), (3, 1, 4, 1, 1)],
)
def test_steps(rows: int, epochs: float, world: int, steps: int, per_epoch: int) -> None:
    config = a_config(
        training={"epochs": epochs, "gradient_accumulation_steps": 4}, topology={"processes_per_node": world}
    )
    schedule = decide_schedule(config, rows)
    assert (schedule.steps, schedule.steps_per_epoch) == (steps, per_epoch)


def test_checkpoints_are_due_by_epoch_and_by_steps() -> None:
    """And at the end."""
    assert [step for step in range(19) if Schedule(18, 9).is_due(step)] == [9, 18]
    assert [step for step in range(15) if Schedule(14, 9, every_steps=4).is_due(step)] == [4, 8, 9, 12, 14]


def test_the_plan_counts_the_work_of_the_whole_run() -> None:
    decided = plan(a_config(training={"gradient_accumulation_steps": 4}, checkpoints={"every_steps": 4}))
    assert decided.schedule == Schedule(steps=18, steps_per_epoch=9, every_steps=4)
    assert decided.schedule.validations == 6
    assert decided.work == TotalWork(steps=18, evaluations=6, evaluation_size=2)


@pytest.mark.parametrize(
    ("dpo", "checkpoints", "validates"),
    [
        ({}, {}, False),
        ({"loss": ["ipo", "hinge"], "loss_weights": [1, 0.5]}, {}, False),
        ({"loss": ["sigmoid"], "label_smoothing": 0.1}, {}, False),
        ({"loss": ["sigmoid", "sft"]}, {}, True),
        ({"loss": ["sigmoid", "sft"], "loss_weights": [1, 0]}, {}, False),
        ({"router_aux_loss_coef": 0.01}, {}, False),
        ({}, {"resume_from": "s3://bucket/dporuns/before-1a2b3c4d"}, True),
    ],
)
def test_the_start_is_validated_where_it_is_not_known(
    dpo: dict[str, Any], checkpoints: dict[str, Any], validates: bool
) -> None:
    decided = plan(a_config(dpo=dpo, checkpoints=checkpoints))
    assert decided.schedule.validates_start is validates
    assert not decided.schedule.is_due(0), "there is nothing to save"
    assert decided.work.evaluations == 2 + validates


@pytest.mark.parametrize(
    ("epochs", "every", "validation", "pays"),
    [(2, None, 16, True), (1, None, 16, False), (1, 2, 16, True), (1.5, None, 0, True)],
)
def test_references_are_precomputed_when_used_again(
    epochs: float, every: int | None, validation: int, pays: bool
) -> None:
    config = a_config(training={"epochs": epochs}, checkpoints={"every_steps": every})
    assert plan(config, rows=(72, validation)).precompute_ref_log_probs is pays


@pytest.mark.parametrize(("switch", "expected"), [("always", True), ("never", False)])
def test_switches_are_obeyed(switch: str, expected: bool) -> None:
    config = a_config(dpo={"precompute_ref_log_probs": switch}, training={"gradient_checkpointing": switch})
    decided = plan(config)
    assert (decided.precompute_ref_log_probs, decided.gradient_checkpointing) == (expected, expected)


def test_activations_are_recomputed_only_where_memory_is_short() -> None:
    assert not plan(a_config(), H100).gradient_checkpointing
    tight = Machine(cuda=True, bf16=True, memory=6 * GIB, name="small")
    assert plan(a_config(), tight).gradient_checkpointing


def test_a_model_that_can_never_fit_is_refused_with_the_numbers() -> None:
    """Even where nobody else holds any of the GPU; before anything is loaded."""
    held = Machine(cuda=True, bf16=True, memory=GIB // 2, name="held by others", total=80 * GIB)
    assert plan(a_config(), held).gradient_checkpointing
    small = Machine(cuda=True, bf16=True, memory=GIB // 2, name="small", total=GIB // 2)
    with pytest.raises(
        RunError, match=r"does not fit on small: the weights alone take 0.9 GiB .* 0.5 GiB are"
    ) as raised:
        plan(a_config(), small)
    assert raised.value.reason is Reason.GPU_OUT_OF_MEMORY
    assert "Checkpointing" not in str(raised.value.hint)
    with pytest.raises(RunError, match="does not fit on the CPU") as raised:
        plan(a_config(), Machine(cuda=False, bf16=True, memory=GIB, name="the CPU"))
    assert raised.value.reason is Reason.HOST_OUT_OF_MEMORY


def test_about_a_hundred_log_entries_by_default() -> None:
    config = a_config(training={"logging_steps": None})
    assert plan(config, rows=(72, 16)).logging_steps == 1
    assert plan(config, rows=(40_000, 16)).logging_steps == 200


def test_every_training_field_reaches_the_trainer() -> None:
    config = a_config(
        dpo={"beta": 0.3, "loss": ["ipo"], "max_length": 77},
        training={
            "epochs": 3,
            "learning_rate": 1e-4,
            "per_device_batch_size": 8,
            "gradient_accumulation_steps": 5,
            "max_grad_norm": 0.7,
            "warmup_ratio": 0.5,
            "lr_scheduler": "linear",
            "weight_decay": 0.02,
            "seed": 9,
            "logging_steps": 7,
            "gradient_checkpointing": "always",
        },
    )
    decided = plan(config)
    arguments = trainer_arguments(config, decided, output_dir="x", cuda=True)
    assert (
        arguments
        | {
            "beta": 0.3,
            "loss_type": ["ipo"],
            "loss_weights": [1.0],
            "max_length": 77,
            "num_train_epochs": 3,
            "learning_rate": 1e-4,
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 8,
            "gradient_accumulation_steps": 5,
            "max_grad_norm": 0.7,
            "warmup_steps": 0.5,
            "lr_scheduler_type": "linear",
            "weight_decay": 0.02,
            "seed": 9,
            "logging_steps": 7,
            "activation_checkpointing": True,
            "bf16": True,
            "fp16": False,
            "logging_nan_inf_filter": False,
            "disable_dropout": False,
        }
        == arguments
    )


@pytest.mark.parametrize("stage", [1, 2])
def test_deepspeed(stage: int) -> None:
    config = a_config(topology={"deepspeed": {"zero_stage": stage, "offload_optimizer": True}})
    zero = deepspeed_config(config, plan(config, T4))
    assert zero["zero_optimization"]["stage"] == stage
    assert zero["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert zero["fp16"]["enabled"]
    assert not zero["bf16"]["enabled"]
    assert zero.get("data_types") == ({"grad_accum_dtype": "fp32"} if stage == 2 else None)


def test_checkpoints_from_before_there_was_a_router_loss_go_on() -> None:
    """They do not name its coefficient, and a field that only one of two names is a difference."""
    without, with_it = (a_config(dpo={"router_aux_loss_coef": value}) for value in (0, 0.01))
    named = [run_identity(config, a_prepared(), plan(config)) for config in (without, with_it)]
    assert [one.get("router_aux_loss_coef") for one in named] == [None, 0.01]
    assert named[1] == named[0] | {"router_aux_loss_coef": 0.01}
