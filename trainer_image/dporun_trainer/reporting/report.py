"""The report of a run: report.html (one file, nothing loaded from elsewhere), report.png and the model card."""

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from markupsafe import Markup, escape

from dporun_api.files import write_text
from dporun_api.metrics import CHARTS, LOSS, REWARD_ACCURACY, REWARD_MARGIN, Split
from dporun_api.results import HealthState, Suggestion
from dporun_api.run_config import RunConfig
from dporun_api.text import apart
from dporun_trainer import suggestions
from dporun_trainer.reporting import charts, first_screen
from dporun_trainer.reporting.first_screen import Headline, Tile
from dporun_trainer.reporting.model_card import model_card
from dporun_trainer.reporting.numbers import DASH, number, percent
from dporun_trainer.reporting.pages import page
from dporun_trainer.reporting.poster import write_poster
from dporun_trainer.reporting.run_data import RunData
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.records import ComparedExample

SHOWN_EXAMPLES = 12
"""Examples that are shown; a click unfolds the others."""
ALIKE = 0.6
"""Share of words and gaps that two answers must have in common; below it, marked differences only confuse."""
MAX_EXAMPLES = 200
MAX_TEXT = 4000
"""Characters of one text; comparison_results.json contains all of it."""


def write_report(folder: RunFolder, record: RunData, longer: Suggestion | None = None) -> None:
    """Write report.html, report.png and README.md; the same record gives the same bytes.

    Args:
        folder: of the run.
        record: its files.
        longer: change of the run's epochs, where the diagnosis found that it was still learning.

    Raises:
        OSError: the report cannot be written.

    """
    head, tiles = first_screen.headline(record, longer), list(first_screen.tiles(record))
    write_text(folder.report_html, render(record, head, tiles))
    write_text(folder.model_card, model_card(record))
    write_poster(folder.report_png, record, head, tiles)


def render(record: RunData, head: Headline, tiles: Sequence[Tile]) -> str:
    """Render report.html."""
    examples = [_example(example) for example in record.regressions_first[:MAX_EXAMPLES]]
    return page(
        "report.html.j2",
        record=record,
        head=head,
        gates=list(_gates(record)),
        health=record.health,
        patch=suggestions.patch(record.health.suggestions) if record.health and record.health.suggestions else None,
        describe=suggestions.describe,
        health_titles=_HEALTH_TITLES,
        tiles=tiles,
        plots=[plot for chart in CHARTS if (plot := charts.plot(chart, record.curves, record.best_step))],
        examples=examples,
        shown=SHOWN_EXAMPLES,
        checkpoints=list(_checkpoints(record)),
        facts=list(_dataset_facts(record)),
        manifest=_manifest(record),
        run=list(_run_facts(record)),
        versions=record.training.packages if record.training else {},
    )


_HEALTH_TITLES = {
    HealthState.ON_TRACK: "Training was healthy",
    HealthState.OVERFITTING: "Training was overfitting",
    HealthState.UNDERFITTING: "Training was underfitting",
    HealthState.UNSTABLE: "Training was unstable",
    HealthState.CONFUSED: "The model got confused",
    HealthState.UNKNOWN: "The curves do not tell whether training was healthy",
}


def _example(example: ComparedExample) -> dict[str, Any]:
    base, tuned = example.base or "", example.tuned or ""
    marked_base, marked_tuned = differences(_cut(base), _cut(tuned))
    return {
        "better": example.better,
        "why": example.why or "",
        "prompt": _cut(example.prompt),
        "chosen": _cut(example.chosen),
        "base": marked_base,
        "tuned": marked_tuned,
        "lengths": {"base": len(base.split()), "tuned": len(tuned.split()), "chosen": len(example.chosen.split())},
        "margin": example.rewards.margin,
    }


def differences(base: str, tuned: str) -> tuple[Markup, Markup]:
    """Escape two texts for HTML and mark the words that only one of them has, unless they have little in common."""
    one, other = (re.findall(r"\s+|[^\s]+", text) for text in (base, tuned))
    matcher = difflib.SequenceMatcher(a=one, b=other, autojunk=False)
    if matcher.ratio() < ALIKE:
        return escape(base), escape(tuned)
    left, right = Markup(), Markup()
    for operation, a, b, c, d in matcher.get_opcodes():
        if operation == "equal":
            left += "".join(one[a:b])
            right += "".join(other[c:d])
            continue
        if a < b:
            left += Markup("<del>{}</del>").format("".join(one[a:b]))
        if c < d:
            right += Markup("<ins>{}</ins>").format("".join(other[c:d]))
    return left, right


def _gates(record: RunData) -> Iterator[tuple[str, ...]]:
    """Rows of the table of gates: name, limit, measured, outcome, and whether the examples decide."""
    for gate in record.verdict.gates if record.verdict else ():
        value = DASH if gate.measured is None else apart(gate.measured, gate.limit, write=number, digits=3)
        decided = DASH if gate.measured is None else "decided"
        if gate.needed_to_decide is not None:
            decided = f"not decided; {gate.needed_to_decide:,} examples would at this value"
        yield gate.name, number(gate.limit, 10), value, gate.outcome, decided


def _checkpoints(record: RunData) -> Iterator[dict[str, Any]]:
    curves = record.curves
    losses = curves.get(LOSS, Split.VALIDATION)
    for step, loss in zip(losses.steps, losses.values, strict=True):
        if step > 0:
            yield {
                "step": step,
                "epoch": curves.epochs.get(step),
                "loss": loss,
                "accuracy": _at(curves.get(REWARD_ACCURACY, Split.VALIDATION), step),
                "margin": _at(curves.get(REWARD_MARGIN, Split.VALIDATION), step),
                "best": record.best_step == step,
            }


def _at(series: Any, step: int) -> float | None:
    return dict(zip(series.steps, series.values, strict=True)).get(step)


def _dataset_facts(record: RunData) -> Iterator[tuple[str, str, str]]:
    """Rows of the table of dataset facts: name, value in training, value in validation."""
    if record.prepared is None:
        return
    summary, lint = record.prepared.dataset, record.prepared.lint
    train, held_out = lint.train, lint.validation

    def both(name: str, show: Any) -> tuple[str, str, str]:
        return name, str(show(train)), str(show(held_out)) if held_out else "split off from training"

    yield "Pairs used", f"{summary.train_rows:,}", f"{summary.validation_rows:,}"
    yield both("Source", lambda facts: facts.source)
    yield both("Read as", lambda facts: facts.format or DASH)
    yield both("Distinct prompts", lambda facts: f"{facts.prompts:,}")
    yield both("Left out", lambda facts: f"{sum(facts.dropped.values()):,}")
    yield both("Repeated rows", lambda facts: f"{facts.duplicates:,}")
    yield both("Truncated to maxLength", lambda facts: f"{facts.truncated:,}")
    if train.scores or (held_out and held_out.scores):
        yield both("Score margin (mean), ties, reversed", lambda facts: _scores(facts.scores))
    yield both("Chosen is longer", lambda facts: percent(facts.chosen_longer))
    for name in ("prompt", "chosen", "rejected"):
        yield both(
            f"Tokens per {name} (median, 90 %, longest)", lambda facts, name=name: _lengths(getattr(facts, name))
        )
    yield "Prompts in both splits", f"{lint.leaked_prompts:,}", ""


def _scores(scores: Any) -> str:
    if scores is None:
        return DASH
    return f"{scores.mean_margin:.2f}, {percent(scores.ties / scores.pairs)}, {percent(scores.reversed / scores.pairs)}"


def _lengths(lengths: Any) -> str:
    return DASH if lengths is None else f"{lengths.p50:,}, {lengths.p90:,}, {lengths.maximum:,}"


def _run_facts(record: RunData) -> Iterator[tuple[str, str]]:
    """Name and value of what a repetition of the run must have in common with it."""
    config, prepared = record.config, record.prepared
    if config:
        yield "Base model", config.model.uri
        if prepared and prepared.model_revision:
            yield "Model revision", prepared.model_revision
        if record.quantization:
            yield "Base while training and evaluating", record.quantization
        if record.merge and record.merge.quantized_difference is not None:
            yield "Merged model", f"{record.merge.dtype}; logits {record.merge.quantized_difference:.1%} from the above"
        yield "Image", config.image or "not recorded (local run)"
        yield "Seed", str(config.training.seed)
        world = config.topology
        yield "Processes", f"{world.world_size} on {world.nodes} node{'s' * (world.nodes > 1)}"
        yield "Effective batch", f"{config.effective_batch_size} pairs"
    if prepared:
        yield "Dataset fingerprint", prepared.dataset.fingerprint or DASH
    runtime = record.training_metrics.train_runtime if record.training_metrics else None
    if runtime is not None:
        yield "Training time", f"{runtime / 60:.1f} minutes over all attempts"


def _manifest(record: RunData) -> str | None:
    if record.config is None:
        return None
    if record.config.manifest:
        document: object = record.config.manifest
    else:
        document = _as_manifest(record.config)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _as_manifest(config: RunConfig) -> dict[str, object]:
    """Write a configuration as a DPORun, for a run whose manifest was not recorded."""
    sections = config.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_defaults=True,
        include={"model", "dataset", "dpo", "lora", "training", "checkpoints", "evaluation", "archive", "topology"},
    )  # fmt: skip
    if "topology" in sections:
        sections["distributed"] = sections.pop("topology")
    metadata = {"name": config.run.name}
    return {"apiVersion": "dporun.io/v1alpha1", "kind": "DPORun", "metadata": metadata, "spec": sections}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT:,} more characters)"
