"""The diagnosis: readable cases, real ill runs, and healthy noise that must not be called ill."""

import itertools
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dporun_api.metrics import LOSS, Split
from dporun_api.results import Health, HealthState
from dporun_api.run_config import RunConfig
from dporun_testing.evidence import untrue
from dporun_testing.labelled.recipes import simulated_runs
from dporun_testing.labelled.recorded import recorded_runs
from dporun_testing.labelled.run import LabelledRun
from dporun_testing.paths import ROOT, UNHEALTHY
from dporun_trainer.diagnosis import enough, measurements, untrained
from dporun_trainer.diagnosis.health import RULES, diagnose, examine
from dporun_trainer.diagnosis.measurements import Measurements
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.diagnosis.run_reader import read_run
from dporun_trainer.diagnosis.signs import confused, overfitting, remarks, underfitting, unstable
from dporun_trainer.diagnosis.verdict import POOR_ACCURACY, POOR_MARGIN
from dporun_trainer.run_folder.curves import MAX_ENTRIES, Curves
from dporun_trainer.suggestions import describe

CASES = sorted((Path(__file__).parent / "cases" / "health").glob("*.yaml"))
Entry = dict[str, Any]


def values(column: list[object]) -> list[object]:
    """Expand a case's column: ``0.69..0.5 x10`` is ten values on a line, ``0.69 x10`` ten equal ones."""
    expanded: list[object] = []
    for item in column:
        pattern = re.fullmatch(r"([^ ]+?)(?:\.\.([^ ]+))? x(\d+)", str(item))
        if pattern is None:
            expanded.append(item)
            continue
        first, last, count = pattern[1], pattern[2] or pattern[1], int(pattern[3])
        if first in {"NaN", "Infinity"}:
            expanded += [first] * count
            continue
        step = (float(last) - float(first)) / max(count - 1, 1)
        expanded += [float(first) + index * step for index in range(count)]
    return expanded


def history(case: dict[str, Any]) -> list[Entry]:
    """Build the log history that a case describes: one training log every ``logEvery`` steps, 1 by default."""
    columns = {key: values(column) for key, column in case["train"].items()}
    entries: list[Entry] = []
    every = case.get("logEvery", 1)
    for index in range(max(map(len, columns.values()))):
        step = (index + 1) * every
        place = {"step": step, "epoch": step / case["stepsPerEpoch"]}
        entries.append(place | {key: column[index] for key, column in columns.items() if index < len(column)})
        if step in case.get("validation", {}):
            entries.append(place | {f"eval_{key}": value for key, value in case["validation"][step].items()})
    return [*entries, place | {"train_runtime": 60.0}] if case.get("ended") else entries


def run_config(**sections: Any) -> RunConfig:
    return RunConfig.model_validate(
        {"run": {"name": "case"}, "model": {"uri": "hf://a/b"}, "dataset": {"train": "train.jsonl"}, **sections}
    )


def health_of(case: dict[str, Any]) -> Health:
    """Diagnose a case: a run of ours, or one of another program, of which only ``foreign`` is known."""
    if "foreign" in case:
        return examine(Curves.of(history(case)), RunValues(**case["foreign"]))
    sections = {key: case[key] for key in ("dpo", "lora", "training") if key in case}
    return diagnose(history(case), run_config(**sections))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = yaml.safe_load(path.read_text(encoding="utf-8"))

    health = health_of(case)

    expected = case["expect"]
    assert health.state == expected["state"], health.evidence
    for words in expected.get("evidence", []):
        assert any(words in evidence for evidence in health.evidence), health.evidence
    for words in expected.get("notEvidence", []):
        assert not any(words in evidence for evidence in health.evidence), health.evidence
    if "changes" in expected:
        assert [describe(suggestion) for suggestion in health.suggestions] == expected["changes"]


def test_the_first_log_tells_of_no_change_and_no_preference() -> None:
    """Before the first step, policy and reference are the same."""
    first = {"step": 1, "loss": 0.693, "rewards/margins": 0.0, "rewards/accuracies": 0.0}
    assert diagnose([first]).evidence[1:3] == (
        "Training loss is 0.693 at step 1.",
        "Chosen and rejected responses have the same rewards on the training data: margin 0 at step 1, with accuracy 0 "
        "at step 1.",
    )


def test_every_warning_sign_has_a_case() -> None:
    seen = {
        evidence.split(":")[0]
        for path in CASES
        for evidence in yaml.safe_load(path.read_text(encoding="utf-8"))["expect"].get("evidence", [])
    }
    assert {rule.sign.split(":")[0] for rule in RULES} <= seen


EXAMPLES = {
    "healthy": (HealthState.ON_TRACK, []),
    "overfit": (
        HealthState.OVERFITTING,
        ["training.learningRate 0.001 → 0.0005", "lora.dropout 0 → 0.05", "dataset"],
    ),
    "underfit": (
        HealthState.UNDERFITTING,
        [
            "training.learningRate 1e-06 → 1e-05",
            "training.epochs 2 → 4",
            "lora.rank 16 → 32",
            "lora.alpha 32 → 64",
            "dataset",
        ],
    ),
    "diverge": (
        HealthState.UNSTABLE,
        [
            "training.learningRate 0.1 → 0.0005",
            "training.maxGradNorm 1000 → 1",
            "training.perDeviceBatchSize 4 → 2",
            "dataset",
        ],
    ),
    "confuse": (
        HealthState.CONFUSED,
        ["dataset", "dpo.labelSmoothing 0 → 0.1", "training.learningRate 0.002 → 0.001"],
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_run_that_was_really_trained_gets_the_right_state(name: str) -> None:
    run = read_run(UNHEALTHY / name)
    health = examine(Curves.of(run.history), run.settings)
    state, changes = EXAMPLES[name]
    assert health.state is state
    assert [describe(suggestion) for suggestion in health.suggestions] == changes


@pytest.mark.parametrize("name", EXAMPLES)
def test_asked_at_every_log_the_diagnosis_does_not_flicker(name: str) -> None:
    run = read_run(UNHEALTHY / name)
    live = [examine(Curves.of(run.history[:end]), run.settings).state for end in range(len(run.history) + 1)]
    transitions = [state for state, _ in itertools.groupby(live)]
    assert transitions[0] is HealthState.UNKNOWN
    assert transitions[-1] is EXAMPLES[name][0]
    assert len(transitions) == len(set(transitions)) <= 3


@st.composite
def healthy_runs(draw: st.DrawFn) -> list[Entry]:
    """Log histories of healthy DPO runs: losses of real pairs, averaged over small batches."""
    seed = draw(st.integers(0, 2**32))
    batch = draw(st.sampled_from([2, 4, 8, 32]))
    epochs = draw(st.integers(1, 4))
    per_epoch = draw(st.integers(20, 80))
    final_margin = draw(st.floats(1.5, 6))
    wrong_labels = draw(st.floats(0, 0.15))
    memorised = draw(st.floats(1, 1.3))
    noise = random.Random(seed)
    entries: list[Entry] = []
    for step in range(1, epochs * per_epoch + 1):
        epoch = step / per_epoch
        learnt = final_margin * (1 - math.exp(-2.5 * step / (epochs * per_epoch)))
        seen = memorised ** int((step - 1) / per_epoch)
        # A model that memorises is surer of the labels that it is given, never of their opposite.
        margins = [
            -0.4 * noise.gauss(learnt, 0.6 * learnt)
            if noise.random() < wrong_labels
            else noise.gauss(learnt * seen, 0.6 * learnt)
            for _ in range(batch)
        ]
        losses = [math.log1p(math.exp(-margin)) for margin in margins]
        scale = sum(1 / (1 + math.exp(margin)) for margin in margins) / batch
        entries.append(
            {
                "step": step,
                "epoch": epoch,
                "batch": batch,
                "loss": sum(losses) / batch,
                "grad_norm": scale * noise.lognormvariate(0, 0.4),
                "rewards/margins": sum(margins) / batch,
            }
        )
        if step % per_epoch == 0:
            held_out = 0.9 * learnt
            entries.append(
                {
                    "step": step,
                    "epoch": epoch,
                    "eval_loss": (math.log1p(math.exp(-held_out)) + 0.06) * noise.uniform(0.99, 1.01),
                    "eval_rewards/margins": held_out,
                    "eval_rewards/accuracies": 0.8,
                }
            )
    return entries


@settings(max_examples=60, deadline=None)
@given(healthy_runs())
def test_healthy_noise_is_not_called_ill(entries: list[Entry]) -> None:
    config = run_config(
        training={
            "epochs": entries[-1]["epoch"],
            "perDeviceBatchSize": entries[0]["batch"],
            "gradientAccumulationSteps": 1,
        }
    )
    for end in range(0, len(entries) + 1, 40):
        health = diagnose(entries[:end], config)
        assert health.state in {HealthState.ON_TRACK, HealthState.UNKNOWN}, health.evidence
    assert diagnose(entries, config).state is HealthState.ON_TRACK


@settings(max_examples=25, deadline=None)
@given(healthy_runs(), st.data())
def test_any_new_loss_that_is_not_a_number_is_unstable(entries: list[Entry], data: st.DataObject) -> None:
    """One that training has left behind for ten logs is only said; the cases ``nan_*`` tell the two apart."""
    broken = data.draw(st.sampled_from([entry for entry in entries if "loss" in entry][-10:]))
    broken["loss"] = data.draw(st.sampled_from([math.nan, math.inf, "NaN", "Infinity"]))
    health = diagnose(entries)
    assert health.state is HealthState.UNSTABLE
    assert f"step {broken['step']} " in health.evidence[0]


KEYS = st.sampled_from(["step", "epoch", "loss", "eval_loss", "grad_norm", "rewards/margins", "eval_rewards/margins"])
ANYTHING = st.one_of(st.none(), st.floats(), st.integers(-5, 1000), st.booleans(), st.text(max_size=4))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(KEYS, ANYTHING), max_size=40))
def test_no_history_whatever_breaks_it(entries: list[Entry]) -> None:
    diagnose(entries)


def test_a_resumed_run_counts_what_the_later_attempt_saw() -> None:
    attempt = [{"step": step, "loss": 0.5} for step in range(1, 31)]
    crashed = [*attempt[:20], *({"step": step, "loss": math.nan} for step in range(21, 26)), *attempt[20:]]
    assert diagnose(crashed) == diagnose(attempt)


def test_validation_of_the_reloaded_best_is_not_the_last() -> None:
    """That of the best checkpoint, which is loaded at the end, does not hide the last one."""
    case = yaml.safe_load((CASES[0].parent / "overfitting.yaml").read_text(encoding="utf-8"))
    entries = history(case)
    entries.append({"step": 40, "epoch": 4.0, "eval_loss": 0.41})
    assert diagnose(entries, run_config(training={"epochs": 4})).state is HealthState.OVERFITTING


def test_a_thinned_history_keeps_what_matters() -> None:
    """Validations and losses that are no numbers."""
    entries: list[Entry] = [{"step": step, "loss": 0.5} for step in range(1, 20 * MAX_ENTRIES)]
    for index in (777, 888, 999):
        entries[index]["loss"] = "NaN"
    entries[1001] = {"step": 1002, "eval_loss": 0.6}
    curves = Curves.of(entries)
    assert len(curves.get(LOSS, Split.TRAINING)) <= 1.1 * MAX_ENTRIES
    assert curves.get(LOSS, Split.TRAINING).steps[-1] == entries[-1]["step"]
    assert curves.get(LOSS, Split.VALIDATION).steps == (1002,)
    assert diagnose(entries).state is HealthState.UNSTABLE


def test_values_unknown_of_a_foreign_run_are_put_in_words() -> None:
    health = diagnose([{"step": step, "epoch": step / 20, "loss": 0.693} for step in range(1, 41)])
    assert health.state is HealthState.UNDERFITTING
    rate = health.suggestions[0]
    assert (rate.path, rate.current, rate.proposed) == ("spec.training.learningRate", None, None)
    assert rate.reason


def untruths(entries: list[Entry], values: RunValues) -> list[str]:
    """What the diagnosis says of a history that is not in it."""
    curves = Curves.of(entries)
    health, untrained = examine(curves, values), Measurements(curves, values).untrained
    return [wrong for sentence in health.evidence for wrong in untrue(sentence, entries, untrained)]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_number_of_a_case_is_in_its_log(path: Path) -> None:
    case = yaml.safe_load(path.read_text(encoding="utf-8"))
    for end in range(1, len(history(case)) + 1):
        assert untruths(history(case)[:end], RunValues(**case.get("foreign", {"loss": ("sigmoid",)}))) == []


@pytest.mark.parametrize("run", [*simulated_runs()[::7], *recorded_runs()], ids=lambda run: run.name)
def test_every_number_of_a_labelled_run_is_in_its_log(run: LabelledRun) -> None:
    entries = list(run.history)
    for end in {len(entries) // 3, 2 * len(entries) // 3, len(entries)} - {0}:
        assert untruths(entries[:end], run.settings or RunValues(total_steps=run.max_steps)) == []


METRICS = ("loss", "grad_norm", "rewards/margins", "rewards/chosen", "rewards/rejected", "rewards/accuracies")
NUMBERS = st.one_of(st.floats(-3, 3), st.floats(0, 1), st.sampled_from([0.0, 0.693, 5.0, 40.0, math.nan, math.inf]))


@st.composite
def any_histories(draw: st.DrawFn) -> list[Entry]:
    """Logs of every kind, in the order in which transformers writes them."""
    keys = draw(st.sets(st.sampled_from((*METRICS, "logps/chosen")), min_size=1))
    validated = draw(st.sampled_from((1, 2, 5, 50)))
    numbers = draw(st.sampled_from((NUMBERS, st.floats(0.01, 1.5), st.sampled_from([0.1, 0.9, 2.0]))))
    entries: list[Entry] = []
    for index in range(draw(st.integers(1, 60))):
        step = {"step": index + 1, "epoch": (index + 1) / 20}
        entries.append(step | {key: draw(numbers) for key in sorted(keys)})
        if (index + 1) % validated == 0:
            entries.append(step | {f"eval_{key}": draw(numbers) for key in sorted(keys - {"grad_norm"})})
    return entries


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(any_histories(), st.sampled_from((RunValues(), RunValues(loss=("sigmoid",)), RunValues(total_steps=100))))
def test_every_number_of_the_evidence_is_in_the_log(entries: list[Entry], values: RunValues) -> None:
    assert untruths(entries, values) == []


@settings(max_examples=60, deadline=None)
@given(healthy_runs(), st.integers(0, 30), st.sampled_from(("loss", "rewards/margins", "eval_loss", "logps/chosen")))
def test_nothing_good_is_said_of_what_broke(entries: list[Entry], good: int, key: str) -> None:
    """Once a loss or reward is no number, what was good before is history."""
    side = "eval_loss" if key.startswith("eval_") else "loss"
    for entry in [entry for entry in entries if side in entry][good:]:
        entry[key] = math.nan
    if any(isinstance(entry.get(key), float) and math.isnan(entry[key]) for entry in entries):
        evidence = diagnose(entries).evidence
        assert evidence[0].startswith("NaN values")
        assert not [said for said in evidence if said.startswith(("Chosen", "Training loss went", "For information"))]


def test_the_page_tells_every_threshold() -> None:
    """With the value that it has; names may occur in two modules, as ``LEFT`` does."""
    page = (ROOT / "docs" / "health.md").read_text(encoding="utf-8")
    told = {(name, float(value)) for name, value in re.findall(r"`([A-Z_0-9]+)` (-?[\d.e-]*\d)", page)}
    modules = (confused, enough, measurements, overfitting, remarks, underfitting, unstable, untrained)
    thresholds = {
        (name, float(value))
        for module in modules
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, (int, float)) and name not in {"END", "LN2"}
    }
    imported = {("POOR_ACCURACY", POOR_ACCURACY), ("POOR_MARGIN", POOR_MARGIN)}
    assert told == thresholds - imported
    assert [rule.sign for rule in RULES if f"| {rule.sign} |" not in page] == []
