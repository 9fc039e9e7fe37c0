"""The model card of a run's adapter, as the Hugging Face Hub reads it: README.md with metadata. Pure."""

import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from huggingface_hub import EvalResult, ModelCardData

from dporun_api.run_config import RunConfig
from dporun_trainer.reporting.run_data import RunData

_METRICS = (
    ("accuracy", "accuracy", "Share of pairs whose chosen response gets the higher reward"),
    ("reward_margin", "reward_margin", "Mean of chosen minus rejected reward"),
    ("avg_chosen_reward", "avg_chosen_reward", "Mean reward of chosen responses"),
    ("avg_rejected_reward", "avg_rejected_reward", "Mean reward of rejected responses"),
    ("forgetting", "forgetting", "Share of general knowledge lost against the base model"),
)
"""Key in evaluation_metrics.json, type in the card's metadata, and name for people."""


def model_card(record: RunData) -> str:
    """Write the card: metadata, how to use the adapter, measured results, data facts, settings and limits."""
    sections = [
        f"---\n{_metadata(record).to_yaml()}\n---",
        f"# {record.name}",
        "\n".join(_introduction(record)),
        "## Use\n\n" + _usage(record),
        _section("Results", _results(record)),
        _section("Training data", _data(record)),
        _section("Training", _training(record)),
        _section("Limits", _limits(record)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _metadata(record: RunData) -> ModelCardData:
    config = record.config
    base = _hub_id(config.model.uri) if config else None
    datasets = sorted({name for uri in _dataset_uris(config) if (name := _hub_id(uri))}) if config else []
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Direct preference optimization",
            dataset_type=datasets[0] if datasets else "preference-pairs",
            dataset_name="validation pairs" if key != "forgetting" else "general questions",
            metric_type=kind,
            metric_name=name,
            metric_value=round(value, 6),
        )
        for key, kind, name in _METRICS
        if (value := _measured(record, key)) is not None
    ]
    return ModelCardData(
        base_model=base,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["trl", "dpo", "lora", "dporun"],
        datasets=datasets or None,
        model_name=record.name,
        eval_results=results or None,
    )


def _introduction(record: RunData) -> Iterator[str]:
    base = _plain(record.config.model.uri) if record.config else "its base model"
    yield f"LoRA adapter for {base}, tuned on preference pairs with direct preference optimization (DPO)."
    if record.verdict:
        yield ""
        yield f"**{record.verdict.state}** ({record.verdict.gates_in_words})"
        yield ""
        yield from (f"- {_plain(reason)}" for reason in record.verdict.reasons)


def _usage(record: RunData) -> str:
    base = (_hub_id(record.config.model.uri) if record.config else None) or "PATH/OF/THE/BASE/MODEL"
    auto_class = "AutoModelForMultimodalLM" if _reads(record) else "AutoModelForCausalLM"
    return f"""The adapter is in `final/`; `merged/` is the whole model, for servers that do not load adapters.

```python
from peft import PeftModel
from transformers import {auto_class}, AutoTokenizer

base = {auto_class}.from_pretrained({json.dumps(base)}, dtype="auto")
model = PeftModel.from_pretrained(base, "final")
tokenizer = AutoTokenizer.from_pretrained({json.dumps(base)})
```"""


def _results(record: RunData) -> Iterator[str]:
    rows = [(name, value) for key, _, name in _METRICS if (value := _measured(record, key)) is not None]
    if record.metrics is None:
        yield "The model was not evaluated."
        return
    yield "| metric | value |"
    yield "|---|---|"
    yield from (f"| {name} | {value:.4g} |" for name, value in rows)
    if record.metrics.beta is not None:
        yield ""
        yield f"Rewards are at beta {record.metrics.beta:g}, to which they are proportional."
    m = record.metrics
    if m.compared:
        yield ""
        yield (
            f"Generated answers against the base model's on {m.compared} validation prompts: "
            f"better {m.better}, worse {m.worse}, equal {m.equal} (sign test p = {m.better_p_value:.2g}); "
            "`report.html` shows them side by side."
        )


def _measured(record: RunData, key: str) -> float | None:
    """Value of a metric; None where it was not measured."""
    return getattr(record.metrics, key) if record.metrics else None


def _data(record: RunData) -> Iterator[str]:
    if record.config:
        yield from (f"- {_plain(uri)}" for uri in _dataset_uris(record.config))
    if record.prepared:
        summary = record.prepared.dataset
        yield f"- {summary.train_rows} pairs for training, {summary.validation_rows} held out"
        if summary.fingerprint:
            yield f"- fingerprint (SHA-256) `{summary.fingerprint}`"
        yield from (f"- warning: {_plain(warning)}" for warning in summary.warnings)


def _training(record: RunData) -> Iterator[str]:
    if record.training is None:
        return
    config = record.training.requested
    dpo, lora, training = config.dpo, config.lora, config.training
    if record.quantization:
        yield f"- on the base in {record.quantization}, computed in {record.training.training.precision}"
    router = f", router loss {dpo.router_aux_loss_coef:g}" if dpo.router_aux_loss_coef else ""
    yield f"- loss {', '.join(dpo.loss)}, beta {dpo.beta:g}, label smoothing {dpo.label_smoothing:g}{router}"
    dropout = record.training.lora.lora_dropout
    yield f"- LoRA rank {lora.rank}, alpha {lora.alpha}, dropout {dropout:g}, on {', '.join(lora.target_modules)}"
    yield (
        f"- {training.epochs:g} epochs, learning rate {training.learning_rate:g} ({training.lr_scheduler}), effective "
        f"batch {config.effective_batch_size}, seed {training.seed}"
    )
    best = record.best
    if best and best.eval_loss is not None:
        yield f"- the checkpoint of step {best.step} had the lowest validation loss, {best.eval_loss:.4g}"


def _limits(record: RunData) -> Iterator[str]:
    yield "- The results were measured on held-out pairs from the source of the training data; other uses are untested."
    yield "- The model learnt the preferences of the data, with its errors and biases; its safety was not evaluated."
    if what := _reads(record):
        yield f"- Only the language model was trained, on text; what the model makes of {what} was not evaluated."
    if record.quantization:
        yield f"- The results are those of the adapter on the base in {record.quantization}, on which it was trained."
    if record.merge and record.merge.quantized_difference is not None:
        yield (
            f"- `merged/` is the adapter in the base as it was stored ({record.merge.dtype}): its logits differ from "
            f"those by {record.merge.quantized_difference:.1%} of their size, so its results may, too."
        )
    if _measured(record, "forgetting") is None:
        yield "- Forgetting of general knowledge was not measured."


def _reads(record: RunData) -> str:
    """What the model reads besides text; empty when nothing."""
    return record.prepared.model.reads if record.prepared else ""


def _section(title: str, lines: Iterator[str]) -> str:
    text = "\n".join(lines)
    return f"## {title}\n\n{text}" if text else ""


def _dataset_uris(config: RunConfig) -> list[str]:
    return [uri for uri in (config.dataset.train, config.dataset.validation) if uri]


def _hub_id(uri: str) -> str | None:
    """OWNER/NAME of a model or data set on the Hub."""
    parts = urlsplit(uri)
    return f"{parts.netloc}{parts.path}".rstrip("/") if parts.scheme == "hf" else None


def _plain(text: str) -> str:
    """Write untrusted text, from data and file names, as one line of Markdown that contains no markup."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))
