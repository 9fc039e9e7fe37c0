"""Real runs with labels: tiny models trained with plain TRL, recorded in recorded/.

    PYTHONPATH=tests python -m dporun_testing.labelled.real [NAME ...]

makes them anew, some ten seconds each on one CPU thread. While a run trains, a probe measures its true course: the loss
on many held-out pairs and on training pairs, which the run's own log does not show. Labels are given when a run is
read, by the criteria of criteria.py, from that course; how a run was meant to come out is in its name and no more.
"""

import copy
import dataclasses
import functools
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dporun_testing.labelled import pairs
from dporun_testing.labelled.criteria import Course, Events, Visible, label
from dporun_testing.labelled.run import LabelledRun
from dporun_trainer.run_folder.curves import number

RECORDED = Path(__file__).parent / "recorded"
PROBED = 96
"""Pairs of either side by which the true course is measured."""
PROBES = 20
KEPT = ("loss", "grad_norm", "learning_rate", "rewards/", "logps/")
"""Keys of the log that are recorded, besides step and epoch; eval_ in front as well."""


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
    """``epoch``, ``no``, every so many steps, or every such share of the run."""
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


@functools.cache
def recorded_runs() -> tuple[LabelledRun, ...]:
    """All real runs that are recorded."""
    return tuple(_read(path) for path in sorted(RECORDED.glob("*.json")))


def _read(path: Path) -> LabelledRun:
    kept = json.loads(path.read_text(encoding="utf-8"))
    course, seen, validated = (
        Course(tuple(one["validation"]), tuple(one["training"]), one["accuracy"], one["margin"])
        for one in (kept["course"], kept["seen"], kept["validated"])
    )
    history = [*_entries(kept["train"]), *_entries(kept["validation"])]
    history.sort(key=lambda entry: (entry["step"], "eval_loss" in entry))
    return LabelledRun(
        name=path.stem,
        kind=path.stem.rpartition("-")[0],
        history=history,
        label=label(course, seen, validated, Events(**kept["events"]), Visible(**kept["visible"])),
        max_steps=kept["visible"]["steps"],
        epochs=math.ceil(kept["recipe"]["epochs"]),
        batch=kept["recipe"]["batch"],
        settings=None,
    )


def _entries(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for row in zip(*columns.values(), strict=True):
        yield {
            key: value if key == "step" else number(value)
            for key, value in zip(columns, row, strict=True)
            if value is not None
        }


def make(name: str, recipe: Recipe) -> None:
    """Train a run and record it."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    torch.set_num_threads(1)
    swapped = recipe.swapped

    def rows(count: int, *, held_out: bool, wrong: float, seed: int = recipe.seed) -> Any:
        exchange = swapped == ("validation" if held_out else "train")
        return Dataset.from_list(
            pairs.pairs(recipe.data, count, seed=seed, held_out=held_out, wrong=wrong, swapped=exchange)
        )

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = pairs.save_tokenizer(Path(folder) / "tokenizer")
        _model(recipe, len(tokenizer)).save_pretrained(Path(folder) / "model")  # TRL finds the reference by its path
        trainer = DPOTrainer(
            f"{folder}/model",
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
                eval_steps=None if isinstance(recipe.evaluate, str) else recipe.evaluate,
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
        population = rows(PROBED, held_out=True, wrong=recipe.wrong, seed=recipe.seed + 1000)
        probe = _probe(trainer, recipe, trainer._prepare_dataset(population, tokenizer, trainer.args, "probe"))
        trainer.train()
    _record(name, recipe, trainer, probe)


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


def _probe(trainer: Any, recipe: Recipe, population: Any) -> Any:
    """Measure the true course while ``trainer`` trains, and do to the run what its recipe asks for."""
    import torch
    from transformers import PrinterCallback, TrainerCallback

    sides = {
        "population": list(population),
        "own": list(trainer.eval_dataset),
        "training": list(trainer.train_dataset)[:PROBED],
    }
    reference = trainer.model if recipe.lora is not None else copy.deepcopy(trainer.model)
    references = {side: _log_probabilities(reference, rows) for side, rows in sides.items()}
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]

    class Probe(TrainerCallback):
        def __init__(self) -> None:
            self.points: dict[int, dict[str, Any]] = {}

        def measure(self, step: int) -> None:
            if step not in self.points:
                self.points[step] = {
                    side: _measured(recipe, _log_probabilities(trainer.model, rows), references[side])
                    for side, rows in sides.items()
                }

        def on_train_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
            self.measure(0)

        def on_step_begin(self, _args: Any, state: Any, _control: Any, *, optimizer: Any, **_: Any) -> None:
            if state.global_step + 1 == recipe.nan_at:
                with torch.no_grad():
                    weights[0].view(-1)[0] = math.nan
            if state.global_step + 1 in recipe.kicks:
                for group in getattr(optimizer, "optimizer", optimizer).param_groups:
                    group["lr"] = recipe.learning_rate * recipe.kick

        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            step, last = state.global_step, state.max_steps
            if control.should_evaluate or step * PROBES // last > (step - 1) * PROBES // last:
                self.measure(step)

        def on_evaluate(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            self.measure(state.global_step)

    probe = Probe()
    trainer.add_callback(probe)
    trainer.remove_callback(PrinterCallback)
    return probe


def _log_probabilities(model: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Log-probability and tokens of chosen (0) and rejected (1) responses: float64, shape (2, 2, rows)."""
    import torch

    training = model.training
    model.eval()
    sides = []
    for side in ("chosen_ids", "rejected_ids"):
        sequences = [row["prompt_ids"] + row[side] for row in rows]
        width = max(map(len, sequences))
        ids = torch.tensor([sequence + [0] * (width - len(sequence)) for sequence in sequences])
        mask = torch.tensor([[1] * len(sequence) + [0] * (width - len(sequence)) for sequence in sequences])
        begins = torch.tensor([len(row["prompt_ids"]) for row in rows])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].double()
        scores = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        response = mask[:, 1:].bool() & (torch.arange(1, width)[None] >= begins[:, None])
        sides.append(torch.stack([(scores * response).sum(1), response.sum(1).double()]))
    model.train(training)
    return torch.stack(sides)


def _measured(recipe: Recipe, now: Any, before: Any) -> dict[str, float]:
    """Loss in units of the untrained model's, accuracy and margin; TRL's formulas, a mean over the pairs."""
    import torch
    from torch.nn.functional import logsigmoid

    chosen, rejected = now[0, 0] - before[0, 0], now[1, 0] - before[1, 0]
    margin = recipe.beta * (chosen - rejected)
    smoothing = recipe.label_smoothing
    half = torch.tensor(0.0, dtype=torch.float64)

    def losses(m: Any, c: Any, r: Any, nll: Any) -> Any:
        total = torch.zeros_like(nll)
        for kind, weight in zip(recipe.loss_type, recipe.loss_weights or (1.0,) * len(recipe.loss_type), strict=True):
            total = (
                total
                + weight
                * {
                    "sigmoid": lambda: -logsigmoid(m),
                    "hinge": lambda: (1 - m).clamp(min=0),
                    "ipo": lambda: (c / now[0, 1] - r / now[1, 1] - 1 / (2 * recipe.beta)) ** 2,
                    "robust": lambda: (
                        (smoothing * logsigmoid(-m) - (1 - smoothing) * logsigmoid(m)) / (1 - 2 * smoothing)
                    ),
                    "apo_zero": lambda: 1 - (recipe.beta * c).sigmoid() + (recipe.beta * r).sigmoid(),
                    "sft": lambda: nll,
                }[kind]()
            )
        return total.mean()

    loss = losses(margin, chosen, rejected, -now[0, 0] / now[0, 1])
    untrained = losses(half, half, half, -before[0, 0] / before[0, 1])
    return {
        "loss": (loss / untrained).item(),
        "accuracy": (margin > 0).double().mean().item(),
        "margin": margin.mean().item(),
    }


def _record(name: str, recipe: Recipe, trainer: Any, probe: Any) -> None:
    state = trainer.state
    history = [entry for entry in state.log_history if "loss" in entry or "eval_loss" in entry]
    training = [entry for entry in history if "loss" in entry]
    validation = [entry for entry in history if "eval_loss" in entry]
    moments = [0, *(entry["step"] for entry in validation if entry["step"] > 0)]
    last = state.global_step
    lost = not math.isfinite(probe.points[last]["training"]["loss"])
    known = {
        "recipe": {
            field.name: value
            for field in dataclasses.fields(Recipe)
            if (value := getattr(recipe, field.name)) != field.default or field.name in {"epochs", "batch"}
        },
        "course": _course(probe.points, sorted(probe.points), "population"),
        "seen": _course(probe.points, sorted(probe.points), "own"),
        "validated": _course(probe.points, moments, "own"),
        "events": {"weights_lost": lost, "isolated": 0},
        "visible": {
            "logs": len(training),
            "validations": len(moments) - 1,
            "epochs": training[-1]["epoch"] if training else state.epoch,
            "steps": last,
        },
        "train": _columns(training),
        "validation": _columns(validation),
    }
    RECORDED.mkdir(exist_ok=True)
    lines = ",\n".join(f'"{key}": {json.dumps(value, separators=(",", ":"))}' for key, value in known.items())
    (RECORDED / f"{name}.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def _course(points: Mapping[int, Mapping[str, Any]], steps: Sequence[int], side: str) -> dict[str, Any]:
    finite = [step for step in steps if math.isfinite(points[step]["training"]["loss"])]
    return {
        "validation": [_short(points[step][side]["loss"]) for step in finite],
        "training": [_short(points[step]["training"]["loss"]) for step in finite],
        "accuracy": _short(points[finite[-1]][side]["accuracy"]),
        "margin": _short(points[finite[-1]][side]["margin"]),
    }


def _columns(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    keys = {
        key: None
        for entry in entries
        for key in entry
        if key in {"step", "epoch"} or key.removeprefix("eval_").startswith(KEPT)
    }
    return {key: [_short(entry.get(key)) for entry in entries] for key in keys}


def _short(value: Any) -> Any:
    """Few digits; what is not finite as a word, as JSON has none for it."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)


def main(names: Sequence[str]) -> None:
    """Make the runs of these names, or those that are not recorded yet."""
    from dporun_testing.labelled.real_recipes import RECIPES

    made = [path.stem for path in RECORDED.glob("*.json")]
    for name in names or [name for name in RECIPES if name not in made]:
        make(name, RECIPES[name])
        run = _read(RECORDED / f"{name}.json")
        course = json.loads((RECORDED / f"{name}.json").read_text())["course"]
        losses = " ".join(f"{loss:.2f}" for loss in course["validation"][::3])
        print(
            name,
            run.label.expected,
            *sorted(run.label.accepted - {run.label.expected}),
            "|",
            losses,
            "| training",
            course["training"][-1],
            "accuracy",
            course["accuracy"],
            "margin",
            course["margin"],
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
