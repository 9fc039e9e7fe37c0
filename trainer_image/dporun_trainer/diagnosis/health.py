"""The diagnosis of a run from its log history: one row per warning sign of the specification. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dporun_api.results import Health, HealthState
from dporun_api.run_config import RunConfig
from dporun_api.text import shorten
from dporun_trainer.diagnosis import remedies
from dporun_trainer.diagnosis.enough import too_little
from dporun_trainer.diagnosis.measurements import Measurements
from dporun_trainer.diagnosis.remedies import Observations, Remedy, RunValues
from dporun_trainer.diagnosis.signs import Evidence, confused, overfitting, remarks, underfitting, unstable
from dporun_trainer.run_folder.curves import Curves


@dataclass(frozen=True)
class Rule:
    """One warning sign: how the curves show it, the state that it means and the remedies for it."""

    sign: str
    state: HealthState
    evidence: Callable[[Measurements], Evidence]
    remedies: tuple[Remedy, ...]


def diagnose(
    history: Sequence[Mapping[str, Any]], config: RunConfig | None = None, *, takes_dropout: bool = True
) -> Health:
    """Diagnose a run, live or finished.

    Args:
        history: log entries of transformers in order (``loss``, ``grad_norm``, ``rewards/margins``, ``eval_loss``, …),
            over all attempts. NaN may be a float or the string ``"NaN"``.
        config: the run's values, on which suggestions and progress depend. Without it the run counts as finished.
        takes_dropout: whether there can be dropout before the run's adapter.

    Returns:
        The most serious state, the evidence of every sign, and changes that help against that state. OnTrack when
        there is no sign; Unknown while there is too little history to say so.

    """
    return examine(
        Curves.of(history), RunValues() if config is None else RunValues.of(config, takes_dropout=takes_dropout)
    )


def examine(curves: Curves, settings: RunValues) -> Health:
    """Apply the rules to curves that have been read already; see ``diagnose``."""
    run = Measurements(curves, settings)
    findings = [(rule, evidence) for rule in RULES if (evidence := rule.evidence(run))]
    said = tuple(shorten(remark, 500) for remark_on in REMARKS if (remark := remark_on(run)))
    if not findings:
        missing = too_little(run)
        if missing:
            return Health(state=HealthState.UNKNOWN, evidence=(missing, *said))
        return Health(state=HealthState.ON_TRACK, evidence=said)
    state = findings[0][0].state
    leading = [rule for rule, _ in findings if rule.state is state]
    suggestions = remedies.prescribe((remedy for rule in leading for remedy in rule.remedies), settings, _observe(run))
    return Health(
        state=state,
        evidence=tuple(shorten(f"{rule.sign}: {evidence}.", 500) for rule, evidence in findings) + said,
        suggestions=suggestions[:10],
    )


def _observe(run: Measurements) -> Observations:
    best = run.validation.best()
    return Observations(
        best_epoch=run.curves.epochs.get(best[0]) if best else None,
        flat=bool(run.train) and run.level > underfitting.FLAT * run.untrained,
        onset=unstable.onset(run),
        learnt=best is None or not run.no_better(best[0]),
    )


_UNSTABLE = (
    remedies.much_gentler_learning_rate,
    remedies.clip_gradients,
    remedies.smaller_batch,
    remedies.check_rows,
)
_CONFUSED = (remedies.check_labels, remedies.smooth_labels, remedies.gentler_learning_rate)
_OVERFITTING = (remedies.fewer_epochs, remedies.gentler_learning_rate, remedies.more_dropout, remedies.more_data)
_UNDERFITTING = (
    remedies.bolder_learning_rate,
    remedies.more_epochs,
    remedies.higher_rank,
    remedies.alpha_of_higher_rank,
    remedies.check_quality,
)

RULES = (
    Rule("NaN values", HealthState.UNSTABLE, unstable.no_number, _UNSTABLE),
    Rule("Gradients exploding", HealthState.UNSTABLE, unstable.exploding, _UNSTABLE),
    Rule("Loss spiking", HealthState.UNSTABLE, unstable.spiking, _UNSTABLE),
    Rule("Loss climbing", HealthState.UNSTABLE, unstable.climbed, _UNSTABLE),
    Rule("Learning lost again", HealthState.UNSTABLE, unstable.collapsed, _UNSTABLE),
    Rule("Validation loss jumping", HealthState.UNSTABLE, unstable.thrown, _UNSTABLE),
    Rule("Loss oscillating", HealthState.UNSTABLE, unstable.oscillating, _UNSTABLE),
    Rule("Rewards: chosen < rejected", HealthState.CONFUSED, confused.confused, _CONFUSED),
    Rule("Validation loss increasing", HealthState.OVERFITTING, overfitting.eval_rising, _OVERFITTING),
    Rule("Training loss much lower than validation loss", HealthState.OVERFITTING, overfitting.far_below, _OVERFITTING),
    Rule("Gap between training and validation grows", HealthState.OVERFITTING, overfitting.gap_growing, _OVERFITTING),
    Rule("Validation loss back at untrained", HealthState.OVERFITTING, overfitting.back_at_untrained, _OVERFITTING),
    Rule("Gradients vanishing", HealthState.UNDERFITTING, underfitting.vanishing, _UNDERFITTING),
    Rule("Both losses stay high", HealthState.UNDERFITTING, underfitting.both_high, _UNDERFITTING),
    Rule("Validation loss no better than untrained", HealthState.UNDERFITTING, underfitting.no_better, _UNDERFITTING),
)
"""The warning signs, the most serious first."""


REMARKS = (
    remarks.losses,
    remarks.rewards,
    remarks.log_probability,
    remarks.few_spikes,
    remarks.passed_no_number,
    remarks.clipped_gradients,
    remarks.over_confident,
    remarks.unseen,
)
"""Remarks besides the signs; they do not change the state."""
