"""Makes the real runs with labels: tiny models trained with plain TRL, or with the product, recorded in recorded/.

    PYTHONPATH=tests python -m dporun_testing.labelled.real [NAME ...]

makes them anew, some ten seconds each on one CPU thread. While a run trains, a probe measures its true course: the loss
on many held-out pairs and on training pairs, which the run's own log does not show. Labels are given when a run is
read, by the criteria of criteria.py, from that course; how a run was meant to come out is in its name and no more.
"""

import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dporun_testing.labelled import pairs, probe, recorded
from dporun_testing.paths import TINY


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a real run is made; the names of TRL's arguments where there is one."""

    data: str = "keyword"
    pairs: int = 120
    validation_pairs: int = 60
    wrong: float = 0.0
    swapped: str | None = None
    """``train`` or ``validation``: chosen and rejected are exchanged there."""
    architecture: str = "llama"
    hidden_size: int = 32
    layers: int = 2
    lora: int | None = 8
    """Rank; None is full fine-tuning."""
    learning_rate: float = 1e-3
    epochs: float = 2
    max_steps: int = -1
    batch: int = 4
    accumulation: int = 1
    loss_type: tuple[str, ...] = ("sigmoid",)
    loss_weights: tuple[float, ...] | None = None
    beta: float = 0.1
    label_smoothing: float = 0.0
    logging_steps: int = 1
    evaluate: str | int | float = "epoch"
    """``epoch``, ``no``, every so many steps, or (a float) every such share of the run."""
    eval_on_start: bool = False
    scheduler: str = "linear"
    warmup: float = 0.0
    optim: str = "adamw_torch"
    max_grad_norm: float = 1.0
    bf16: bool = False
    nan_filter: bool = True
    nan_at: int | None = None
    """Step at which a weight becomes NaN."""
    kicks: tuple[int, ...] = ()
    """Steps at which the learning rate is ``kick`` times as high."""
    kick: float = 1000.0
    seed: int = 0
    product: bool = False
    """Trained by the product instead of plain TRL: with LoRA, on chats, validated once per epoch."""


def make(name: str, recipe: Recipe) -> None:
    """Train a run with plain TRL and record it."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    torch.set_num_threads(1)
    swapped = recipe.swapped

    def rows(count: int, *, held_out: bool, wrong: float, seed: int = recipe.seed) -> Any:
        exchange = swapped == ("validation" if held_out else "train")
        return Dataset.from_list(
            pairs.pairs(recipe.data, count, seed=seed, held_out=held_out, wrong=wrong, swapped=exchange)
        )

    with tempfile.TemporaryDirectory() as folder:
        if recipe.data == "corpus":
            model, tokenizer = TINY / "model", AutoTokenizer.from_pretrained(TINY / "model")
        else:
            model, tokenizer = Path(folder) / "model", pairs.save_tokenizer(Path(folder) / "tokenizer")
            _model(recipe, len(tokenizer)).save_pretrained(model)
        trainer = DPOTrainer(
            str(model),  # not the model itself: TRL finds the reference by its path
            args=DPOConfig(
                output_dir=folder,
                use_cpu=True,
                model_init_kwargs={"dtype": "float32"},
                bf16=recipe.bf16,
                gradient_checkpointing=False,
                learning_rate=recipe.learning_rate,
                num_train_epochs=recipe.epochs,
                max_steps=recipe.max_steps,
                per_device_train_batch_size=recipe.batch,
                per_device_eval_batch_size=20,
                gradient_accumulation_steps=recipe.accumulation,
                loss_type=list(recipe.loss_type),
                loss_weights=None if recipe.loss_weights is None else list(recipe.loss_weights),
                beta=recipe.beta,
                label_smoothing=recipe.label_smoothing,
                logging_steps=recipe.logging_steps,
                logging_nan_inf_filter=recipe.nan_filter,
                eval_strategy=recipe.evaluate if isinstance(recipe.evaluate, str) else "steps",
                eval_steps=_eval_steps(recipe),
                eval_on_start=recipe.eval_on_start,
                lr_scheduler_type=recipe.scheduler,
                warmup_steps=recipe.warmup,
                optim=recipe.optim,
                max_grad_norm=recipe.max_grad_norm,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=recipe.seed,
            ),
            train_dataset=rows(recipe.pairs, held_out=False, wrong=recipe.wrong),
            eval_dataset=rows(recipe.validation_pairs, held_out=True, wrong=recipe.wrong),
            processing_class=tokenizer,
            peft_config=None
            if recipe.lora is None
            else LoraConfig(
                r=recipe.lora, lora_alpha=2 * recipe.lora, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        population = rows(probe.PROBED, held_out=True, wrong=recipe.wrong, seed=recipe.seed + 1000)
        points = probe.attach(trainer, recipe, trainer._prepare_dataset(population, tokenizer, trainer.args, "probe"))
        trainer.train()
    recorded.record(name, recipe, trainer.state.log_history, points)


def make_by_product(name: str, recipe: Recipe) -> None:
    """Train a run with the product's own trainer, on one process, and record it."""
    from dporun_testing import tiny_model, training
    from dporun_trainer.diagnosis.remedies import RunValues
    from dporun_trainer.run_folder import RunFolder

    points: dict[int, dict[str, Any]] = {}

    def on_trainer(trainer: Any, _stop: Any) -> None:
        points.update(step=probe.attach(trainer, recipe, trainer.eval_dataset))

    with tempfile.TemporaryDirectory() as folder, training.single_process():
        root = Path(folder)
        if recipe.data == "corpus":
            model = Path(shutil.copytree(TINY / "model", root / "model"))
        else:
            model = tiny_model.save_tiny_model(root / "model", hidden_size=recipe.hidden_size, layers=recipe.layers)
        config = training.a_config(
            name,
            dpo={
                "beta": recipe.beta,
                "loss": recipe.loss_type,
                "loss_weights": recipe.loss_weights,
                "label_smoothing": recipe.label_smoothing,
            },
            lora={"rank": recipe.lora, "alpha": 2 * (recipe.lora or 0), "dropout": 0.0},
            training={
                "learning_rate": recipe.learning_rate,
                "epochs": recipe.epochs,
                "per_device_batch_size": recipe.batch,
                "gradient_accumulation_steps": recipe.accumulation,
                "logging_steps": recipe.logging_steps,
                "max_grad_norm": recipe.max_grad_norm,
            },
        )
        directory = training.prepare(config, root, model, train=recipe.pairs, validation=recipe.validation_pairs)
        made = RunFolder(directory)
        sides = []
        for held_out in (False, True):
            count = recipe.validation_pairs if held_out else recipe.pairs
            exchange = recipe.swapped == ("validation" if held_out else "train")
            sides.append(
                pairs.pairs(
                    recipe.data, count, seed=recipe.seed, held_out=held_out, wrong=recipe.wrong, swapped=exchange
                )
            )
        training.write_pairs(made, model, *sides)
        training.attempt(config, directory, on_trainer=on_trainer)
        recorded.record(name, recipe, training.history(directory), points["step"], RunValues.of(config))


def _eval_steps(recipe: Recipe) -> float | None:
    if isinstance(recipe.evaluate, float):
        return min(recipe.evaluate, 0.999)  # TRL takes a share of 1 for one step
    return None if isinstance(recipe.evaluate, str) else recipe.evaluate


def _model(recipe: Recipe, vocabulary: int) -> Any:
    """A random model."""
    import torch
    import transformers

    torch.manual_seed(recipe.seed)
    size = recipe.hidden_size
    kinds = {
        "llama": (transformers.LlamaConfig, {"num_key_value_heads": 2}),
        "qwen2": (transformers.Qwen2Config, {"num_key_value_heads": 2}),
        "mistral": (transformers.MistralConfig, {"num_key_value_heads": 2}),
        "neox": (transformers.GPTNeoXConfig, {}),
        "gpt2": (transformers.GPT2Config, {}),
        "phi": (transformers.PhiConfig, {}),
        "qwen3": (transformers.Qwen3Config, {"num_key_value_heads": 2, "head_dim": size // 4}),
        "gemma": (transformers.GemmaConfig, {"num_key_value_heads": 1, "head_dim": size // 4}),
        "stablelm": (transformers.StableLmConfig, {"num_key_value_heads": 4, "partial_rotary_factor": 0.5}),
        "olmo2": (transformers.Olmo2Config, {"num_key_value_heads": 4}),
        "starcoder2": (transformers.Starcoder2Config, {"num_key_value_heads": 2}),
    }
    config, more = kinds[recipe.architecture]
    names = {"n_inner": 2 * size} if recipe.architecture == "gpt2" else {"intermediate_size": 2 * size}
    return transformers.AutoModelForCausalLM.from_config(
        config(
            vocab_size=vocabulary,
            hidden_size=size,
            num_hidden_layers=recipe.layers,
            num_attention_heads=4,
            max_position_embeddings=64,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
            initializer_range=0.2,  # with the usual 0.02 so small a model hardly learns
            **names,
            **more,
        )
    )


def main(names: Sequence[str]) -> None:
    """Make the runs of these names, or those that are not recorded yet."""
    from dporun_testing.labelled import real_recipes, second_recipes

    recipes = {**real_recipes.RECIPES, **second_recipes.RECIPES}
    made = [path.stem for path in recorded.RECORDED.glob("*.json")]
    for name in names or [name for name in real_recipes.RECIPES if name not in made]:
        (make_by_product if recipes[name].product else make)(name, recipes[name])
        path = recorded.RECORDED / f"{name}.json"
        run, course = recorded.read(path), recorded.course(path)
        losses = " ".join(f"{loss:.2f}" for loss in course.validation[::3])
        print(
            name,
            run.label.expected,
            *sorted(run.label.accepted - {run.label.expected}),
            "|",
            losses,
            "| training",
            course.training[-1],
            "accuracy",
            course.accuracy,
            "margin",
            course.margin,
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
