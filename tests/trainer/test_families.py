"""Whole runs of families that differ in kind: what is trained, evaluated and merged is one and the same model."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoProcessor, AutoTokenizer

from dporun_api.results import OutcomeState
from dporun_api.run_config import RunConfig
from dporun_testing import families, tiny_model, training
from dporun_testing.multimodal import save_tiny_multimodal
from dporun_trainer import architectures
from dporun_trainer.commands.finish import finish
from dporun_trainer.inputs.prepare import prepare
from dporun_trainer.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("single_process")

KINDS = {
    "gpt2": "Conv1D instead of Linear, weights shared with the head, no padding token",
    "gemma2": "caps its logits, alternates two kinds of attention",
    "qwen3_moe": "a mixture of experts, at default settings",
    "granitemoehybrid": "Granite 4: names of a mixture of experts, and dense",
    "gemma3n_text": "layers of different widths",
    "lfm2": "convolutions",
    "gemma3": "reads images, too",
    "qwen3_5": "reads images, too, and transformers would build it without",
}
BETA = 0.1
MAX_LENGTH = 128


@pytest.fixture(scope="module")
def single_process() -> Iterator[None]:
    with training.single_process():
        yield


@dataclass(frozen=True)
class Run:
    """A finished run, and what is needed to look at it with plain transformers and PEFT."""

    family: str
    base: Path
    folder: RunFolder

    def load(self, source: Path) -> Any:
        return architectures.load_model(str(source), dtype=torch.float32).eval()

    def adapted(self) -> Any:
        return PeftModel.from_pretrained(self.load(self.base), str(self.folder.final)).eval()

    def history(self) -> list[dict[str, Any]]:
        return self.folder.history.load()


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp(request.param)
    base = save_base(request.param, root / "base", tiny_model)
    folder = RunFolder(root / "run")
    config = a_config(base, root)
    assert prepare(config, folder, claims=root).state is OutcomeState.SUCCEEDED
    training.attempt(config, folder.path)
    assert finish(config, folder).state is OutcomeState.SUCCEEDED
    return Run(request.param, base, folder)


def save_base(family: str, folder: Path, tokenizer: Path) -> Path:
    if family in ("gemma3", "qwen3_5"):
        return save_tiny_multimodal(folder, family)
    changes = {"num_local_experts": 0} if family == "granitemoehybrid" else {}
    families.save(families.tiny_model(family, **changes), folder, tokenizer)
    if family == "gpt2":
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        del settings["pad_token"]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def a_config(base: Path, root: Path, **dpo: float) -> RunConfig:
    """Default settings but for size and speed."""
    return RunConfig.model_validate(
        {
            "run": {"name": "family"},
            "model": {"uri": str(base)},
            "dataset": {
                "train": str(tiny_model.write_rows(root / "train.jsonl", tiny_model.chat_pairs(16))),
                "validation": str(tiny_model.write_rows(root / "validation.jsonl", tiny_model.chat_pairs(6, seed=1))),
            },
            "dpo": {"max_length": MAX_LENGTH} | dpo,
            "training": {"learning_rate": 5e-3, "epochs": 1, "gradient_accumulation_steps": 2, "logging_steps": 1},
            "evaluation": {"max_examples": 2, "max_new_tokens": 4, "general": {"enabled": False}},
        }
    )


def plain_margin(run: Run) -> float:
    """Mean reward margin of the validation rows: one sequence at a time, from logits, by the formula."""
    base, tuned = run.load(run.base), run.adapted()
    tokenizer = AutoTokenizer.from_pretrained(run.base)
    rows = [json.loads(line) for line in run.folder.input_validation.read_text(encoding="utf-8").splitlines()]

    def log_ratio(prompt: list[Any], response: list[Any]) -> float:
        start = len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"])
        ids = torch.tensor([tokenizer.apply_chat_template(prompt + response, return_dict=True)["input_ids"]])
        assert ids.shape[1] <= MAX_LENGTH
        sums = []
        for model in (tuned, base):
            with torch.inference_mode():
                logits = model(input_ids=ids, use_cache=False).logits[0, :-1].double()
            of_tokens = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[start - 1 :]
            sums.append(float(of_tokens.sum()))
        return sums[0] - sums[1]

    margins = [BETA * (log_ratio(r["prompt"], r["chosen"]) - log_ratio(r["prompt"], r["rejected"])) for r in rows]
    return math.fsum(margins) / len(margins)


@pytest.mark.slow(8)
def test_a_run_of_this_family_is_right(run: Run) -> None:
    history, evaluation = run.history(), run.folder.evaluation.metrics.load()

    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[0] == pytest.approx(math.log(2), abs=2e-4), "no other loss than that of preferences"

    experts, lora = run.family == "qwen3_moe", run.folder.training_config.load().lora
    assert (lora.lora_dropout, bool(lora.target_parameters)) == (0 if experts else 0.05, experts)
    assert any(w.startswith("lora.dropout is 0") for w in run.folder.load_prepared().dataset.warnings) is experts

    best = run.folder.training_metrics.load().best_step
    trl = next(entry["eval_rewards/margins"] for entry in history if "eval_loss" in entry and entry["step"] == best)
    plain = plain_margin(run)
    assert abs(plain) > 1e-3, "training did something"
    assert evaluation.reward_margin == pytest.approx(plain, rel=1e-3, abs=1e-5)
    assert trl == pytest.approx(plain, rel=1e-3, abs=1e-5)

    ids = torch.randint(4, 380, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        adapted = run.adapted()(input_ids=ids, use_cache=False).logits
        merged = run.load(run.folder.merged)(input_ids=ids, use_cache=False).logits
        base = run.load(run.base)(input_ids=ids, use_cache=False).logits
    assert relative(merged, adapted) < 1e-5
    assert relative(base, adapted) > 1e-3

    loader = AutoProcessor if run.family == "gemma3" else AutoTokenizer
    assert type(loader.from_pretrained(run.folder.merged)) is type(loader.from_pretrained(run.base))
    shutil.rmtree(run.folder.path)


@pytest.mark.slow(6)
def test_a_routers_loss_is_added_where_it_is_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    """It is trained, and the losses in the log are those of preferences alone."""
    base = save_base("qwen3_moe", tmp_path / "base", tiny_model)
    config, folder = a_config(base, tmp_path, router_aux_loss_coef=0.05), RunFolder(tmp_path / "run")
    prepare(config, folder, claims=tmp_path)
    training.attempt(config, folder.path)
    logged = [entry for entry in folder.history.load() if "loss" in entry]
    loss, router = ([entry[name] for entry in logged] for name in ("loss", "aux_loss"))
    assert loss[0] == pytest.approx(math.log(2), abs=2e-4)
    assert router[0] > 0.5
    total = folder.training_metrics.load().train_loss
    assert total == pytest.approx(sum(loss) / len(loss) + 0.05 * sum(router) / len(router), abs=1e-3)


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())
