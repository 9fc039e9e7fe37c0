"""Settings of runs that plain TRL wrote, from whichever of its files are there."""

import dataclasses
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from dporun_testing.tiny_model import chat_pairs
from dporun_trainer.diagnosis.measurements import Measurements
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.diagnosis.run_reader import RecordedRun, read_run
from dporun_trainer.run_folder.curves import Curves

VALUES = RunValues(
    learning_rate=3e-4,
    epochs=2,
    total_steps=8,
    per_device_batch_size=2,
    gradient_accumulation_steps=2,
    processes=1,
    max_grad_norm=0.7,
    lora_rank=4,
    lora_alpha=8,
    lora_dropout=0.1,
    label_smoothing=0.0,
    beta=0.2,
    loss=("sigmoid", "sft"),
    loss_weights=(1.0, 0.5),
)


def train(output: Path, model: Path, **arguments: Any) -> Path:
    """Train with plain TRL on 16 pairs, 4 steps per epoch."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    DPOTrainer(
        model=str(model),
        args=DPOConfig(
            output_dir=str(output),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            learning_rate=3e-4,
            warmup_steps=2,
            max_grad_norm=0.7,
            beta=0.2,
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, 0.5],
            save_steps=2,
            logging_steps=1,
            max_length=64,
            bf16=False,
            use_cpu=True,
            report_to="tensorboard",
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=Dataset.from_list(chat_pairs(16)),
        peft_config=LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"),
    ).train()
    return output


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("trl") / "run", tiny_model, num_train_epochs=2)


def progress(run: RecordedRun) -> float:
    return Measurements(Curves.of(run.history), run.settings).progress


def test_everything_that_trl_saved_is_found(trained: Path) -> None:
    run = read_run(trained)
    assert run.settings == VALUES
    assert (progress(run), run.notes, run.objection) == (1, (), None)


def test_a_checkpoint_alone_knows_the_rest_of_the_plan(trained: Path) -> None:
    run = read_run(trained / "checkpoint-2")
    assert run.settings == VALUES
    assert progress(run) == 0.25


def test_without_saved_arguments_state_and_log_tell(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "checkpoint-8", tmp_path / "run")
    (tmp_path / "run/training_args.bin").unlink()
    assert read_run(tmp_path / "run").settings == RunValues(
        learning_rate=3e-4,  # the peak of the schedule
        epochs=2,
        total_steps=8,
        per_device_batch_size=2,
        processes=1,
        lora_rank=4,
        lora_alpha=8,
        lora_dropout=0.1,
    )


def test_tensorboard_alone_has_the_arguments(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    run = read_run(tmp_path)
    assert run.settings == dataclasses.replace(
        VALUES, total_steps=None, processes=None, lora_rank=None, lora_alpha=None, lora_dropout=None
    )
    assert progress(run) == 1


def test_a_number_of_steps_overrides_the_epochs(tiny_model: Path, tmp_path: Path) -> None:
    run = read_run(train(tmp_path, tiny_model, num_train_epochs=5, max_steps=6))
    assert (run.settings.total_steps, run.settings.epochs) == (6, 1.5)
    assert progress(run) == 1


def test_a_model_card_has_settings(tmp_path: Path) -> None:
    """As transformers writes it, for a run on eight GPUs that was uploaded without its arguments."""
    (tmp_path / "README.md").write_text(
        "---\nlicense: mit\n---\n# zephyr\n### Training hyperparameters\n\n"
        "The following hyperparameters were used during training:\n- learning_rate: 5e-07\n- train_batch_size: 4\n"
        "- eval_batch_size: 8\n- seed: 42\n- distributed_type: multi-GPU\n- num_devices: 8\n"
        "- gradient_accumulation_steps: 2\n- total_train_batch_size: 64\n- lr_scheduler_type: cosine\n"
        "- lr_scheduler_warmup_ratio: 0.1\n- num_epochs: 3\n"
    )
    write_state(tmp_path, {"log_history": [{"step": 1, "loss": 0.69, "rewards/margins": 0.0}]})
    assert read_run(tmp_path).settings == RunValues(
        learning_rate=5e-7, per_device_batch_size=4, processes=8, gradient_accumulation_steps=2, epochs=3
    )


def test_a_script_of_ones_own_may_leave_a_configuration(tmp_path: Path) -> None:
    config = {
        "training": {"learning_rate": 1e-4, "num_epochs": 3, "train_batch_size": 2},
        "lora": {"r": 16},
        "beta": 0.1,
    }
    (tmp_path / "training_config.json").write_text(json.dumps(config))
    write_state(tmp_path, {"log_history": [{"step": 1, "loss": 0.69, "rewards/margins": 0.0}]})
    assert read_run(tmp_path).settings == RunValues(
        learning_rate=1e-4, epochs=3, per_device_batch_size=2, lora_rank=16, beta=0.1
    )


def test_every_process_leaves_its_random_state(tmp_path: Path) -> None:
    for rank in range(4):
        (tmp_path / f"rng_state_{rank}.pth").touch()
    write_state(tmp_path, {"log_history": [{"step": 1, "loss": 0.69, "rewards/margins": 0.0}]})
    assert read_run(tmp_path).settings.processes == 4


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 torn", b"\x80\x02" + bytes(3 << 20)])
def test_arguments_that_cannot_be_read_are_a_note(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "training_args.bin").write_bytes(content)
    (tmp_path / "adapter_config.json").write_text("{torn")
    write_state(tmp_path, {"log_history": [{"step": 1, "loss": 0.69, "rewards/margins": 0.0}]})
    first, second = read_run(tmp_path).notes
    assert first.startswith("training_args.bin tells nothing: ")
    assert second.startswith("adapter_config.json tells nothing: ")


def test_a_pickle_that_holds_itself_is_searched_once(tmp_path: Path) -> None:
    (tmp_path / "training_args.bin").write_bytes(
        b"\x80\x02cmod\nDPOConfig\n)\x81}q\x00("
        + b"".join(b"X\x05\x00\x00\x00%05dh\x00" % number for number in range(3000))
        + b"X\x04\x00\x00\x00beta}X\x04\x00\x00\x00betaG?\xc9\x99\x99\x99\x99\x99\x9as"
        + b"ub."
    )
    write_state(tmp_path, {"log_history": [{"step": 1, "loss": 0.69, "rewards/margins": 0.0}]})
    assert read_run(tmp_path).settings.beta == 0.2


def test_numbers_without_a_meaning_are_unknown(tmp_path: Path) -> None:
    """transformers writes sys.maxsize for the epochs of an endless dataset; "auto" leaves the choice to DeepSpeed."""
    arguments = {"learning_rate": "auto", "gradient_accumulation_steps": -1, "per_device_train_batch_size": math.nan}
    (tmp_path / "training_args.json").write_text(json.dumps(arguments))
    history = [{"step": 1, "loss": 0.69, "rewards/margins": 0.0}]
    write_state(tmp_path, {"num_train_epochs": sys.maxsize, "max_steps": 10, "log_history": history})
    assert read_run(tmp_path).settings == RunValues(total_steps=10)


def write_state(folder: Path, state: dict[str, object]) -> None:
    (folder / "trainer_state.json").write_text(json.dumps(state))
