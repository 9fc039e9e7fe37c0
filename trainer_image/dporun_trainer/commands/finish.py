"""What follows training in the same pod, in one fresh process: evaluate, merge, diagnose, judge, report.

    python -m dporun_trainer.commands.finish --config FILE --directory DIR

Every step leaves a file and is skipped when that file is there for the same adapter, so a pod that was preempted while
finishing goes on where it was.
"""

import argparse
import gc
import logging
import os
import signal
import sys
import time
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from dporun_api import logs
from dporun_api import run_folder as layout
from dporun_api.files import read_json, write_text
from dporun_api.pod import LOG_LEVEL_VARIABLE
from dporun_api.results import EvaluationSummary, Outcome, OutcomeState, Stage, Verdict
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.outcome import conclude
from dporun_trainer.progress import TRAINING_PERCENT, ProgressFile, heartbeat
from dporun_trainer.run_folder.prepared import Prepared

log = logging.getLogger(__name__)


_SHARES = {
    "loading": 1.0,
    "scoring": 2.0,
    "generating": 4.0,
    "asking general questions": 1.0,
    "scoring general answers": 0.5,
    "merging": 1.5,
    "reporting": 0.5,
}
"""Stages in their order, and the share of the time that each takes, roughly."""
_REPORT_SECONDS = 1.0


class Stopped(BaseException):
    """The pod is being stopped; not an Exception, so that nothing on the way takes it for an error."""


def finish(config: RunConfig, directory: Path) -> Outcome:
    """Do what is left to do after training.

    Args:
        config: of the run.
        directory: of the run, with inputs/, final/ and log_history.json.

    Returns:
        Succeeded with evaluation, health, verdict and metrics; Preempted when the process was told to stop.

    Raises:
        RunError: training has not finished, or a step failed.

    """
    progress = ProgressFile(directory / layout.PROGRESS)
    meter = _Meter(progress)
    try:
        return _finish(config, directory, meter)
    except Stopped:
        message = f"stopped while {meter.stage}; the next attempt goes on there"
        log.warning(message)
        return Outcome(state=OutcomeState.PREEMPTED, message=message, metrics=progress.read().metrics)


def _finish(config: RunConfig, directory: Path, meter: "_Meter") -> Outcome:
    adapter = directory / layout.FINAL
    if not (adapter / "adapter_model.safetensors").is_file():
        raise RunError(Reason.TRAINER_ERROR, f"there is no trained adapter in {adapter}: train first")
    prepared = Prepared.load(directory)
    evaluation = _evaluated(config, directory, prepared, meter) if config.evaluation.enabled else None
    _merged(directory, prepared, meter)
    meter("reporting", 0, 1)
    with heartbeat(meter.progress):
        health, verdict = _judged(config, directory, evaluation)
    meter("reporting", 1, 1)
    return Outcome(
        state=OutcomeState.SUCCEEDED,
        message=_message(evaluation, verdict),
        dataset=prepared.dataset,
        metrics=meter.progress.read().metrics,
        best_checkpoint=meter.progress.read().best_checkpoint,
        health=health,
        evaluation=evaluation,
        verdict=verdict,
    )


def _evaluated(config: RunConfig, directory: Path, prepared: Prepared, meter: "_Meter") -> EvaluationSummary:
    """Evaluate and measure forgetting, as far as their files are not there yet."""
    from dporun_trainer.data.questions import load_questions  # noqa: PLC0415
    from dporun_trainer.evaluation import assess  # noqa: PLC0415  torch
    from dporun_trainer.evaluation.evaluate import Options, summary  # noqa: PLC0415
    from dporun_trainer.evaluation.merge import adapter_sha256  # noqa: PLC0415
    from dporun_trainer.evaluation.policy import Policy, load_policy  # noqa: PLC0415

    adapter, output = directory / layout.FINAL, directory / layout.EVALUATION
    same = {"adapter_sha256": adapter_sha256(adapter)}
    on_stage = assess.logged(meter)
    options = Options(
        beta=config.dpo.beta,
        max_length=config.dpo.max_length,
        max_examples=config.evaluation.max_examples,
        max_new_tokens=config.evaluation.max_new_tokens,
    )

    @cache
    def policy() -> Policy:
        meter("loading", 0, 1)
        with heartbeat(meter.progress):
            return load_policy(adapter, base=prepared.model_path, precision=config.training.precision)

    numbers = _complete(directory / layout.EVALUATION_METRICS, same)
    if numbers is None:
        pairs = assess.read_pairs(Path(prepared.validation_path))
        numbers = assess.evaluate_into(output, policy(), pairs, options, on_stage, **same)
    if config.evaluation.general.enabled:
        found = _complete(directory / layout.FORGETTING, same)
        if found is None:
            questions = load_questions(Path(prepared.general_path) if prepared.general_path else None)
            numbers = assess.measure_forgetting_into(output, policy(), questions, options, on_stage, **same)
        elif numbers["forgetting"] != found["score"]:
            numbers = assess.enter_forgetting(output, found["score"])
    return summary(numbers)


def _merged(directory: Path, prepared: Prepared, meter: "_Meter") -> None:
    """Merge the adapter, unless merged/ is just that."""
    from dporun_trainer.evaluation.assess import read_pairs  # noqa: PLC0415  torch
    from dporun_trainer.evaluation.evaluate import as_text, spread  # noqa: PLC0415
    from dporun_trainer.evaluation.merge import is_merged, merge  # noqa: PLC0415

    adapter, output = directory / layout.FINAL, directory / layout.MERGED
    if is_merged(output, adapter):
        return
    meter("merging", 0, 1)
    pairs = read_pairs(Path(prepared.validation_path))
    gc.collect()  # the models of the evaluation, so that two copies of the base are never in memory
    with heartbeat(meter.progress):
        prompts = [as_text(pairs[position].prompt) for position in spread(len(pairs), 8)]
        merge(adapter, output, prompts=prompts, base=prepared.model_path)
    meter("merging", 1, 1)


def _judged(config: RunConfig, directory: Path, evaluation: EvaluationSummary | None) -> tuple[Any, Verdict]:
    """Diagnose the curves, judge the result and write the report; quick, so always done anew."""
    from dporun_trainer.diagnosis.health import diagnose  # noqa: PLC0415  matplotlib, by the report
    from dporun_trainer.diagnosis.verdict import gates_in_force, judge  # noqa: PLC0415
    from dporun_trainer.reporting.report import write_report  # noqa: PLC0415

    health = diagnose(read_json(directory / layout.LOG_HISTORY), config)
    verdict = judge(evaluation, gates_in_force(config.evaluation), health)
    write_text(directory / layout.HEALTH, health.to_json(indent=2) + "\n")
    write_text(directory / layout.VERDICT, verdict.to_json(indent=2) + "\n")
    write_report(directory)
    return health, verdict


class _Meter:
    """Progress of finishing, as percent of the stay in the pod and time left."""

    def __init__(self, progress: ProgressFile):
        self.progress = progress
        self.stage = "starting"
        self._started = time.monotonic()
        self._first: float | None = None
        self._written = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Tell that ``done`` of ``total`` items of ``stage`` are done."""
        now = time.monotonic()
        if stage == self.stage and done < total and now - self._written < _REPORT_SECONDS:
            return
        self.stage, self._written = stage, now
        share = self._share(stage, done / total if total else 1.0)
        self._first = share if self._first is None else self._first
        gone = share - self._first
        left = (now - self._started) * (1 - share) / gone if gone > 0.05 else None
        self.progress.update(
            stage=Stage.REPORTING if stage == "reporting" else Stage.EVALUATING,
            detail=f"{stage} {done}/{total}" if total > 1 else stage,
            percent=TRAINING_PERCENT + (99 - TRAINING_PERCENT) * share,
            eta_seconds=left,
        )

    @staticmethod
    def _share(stage: str, within: float) -> float:
        stages = list(_SHARES)
        before = sum(_SHARES[name] for name in stages[: stages.index(stage)])
        return (before + _SHARES[stage] * within) / sum(_SHARES.values())


def _complete(path: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """Content of ``path`` when it was written for the same adapter, else None."""
    try:
        content: dict[str, Any] = read_json(path)
    except (OSError, ValueError):
        return None
    return content if record.items() <= content.items() else None


def _message(evaluation: EvaluationSummary | None, verdict: Verdict) -> str:
    if evaluation is None:
        return "trained; not evaluated (evaluation.enabled is false)"
    return f"{verdict.state}: accuracy {evaluation.accuracy:.1%}, reward margin {evaluation.reward_margin:.2f}"


def main() -> int:
    """Finish a run; the outcome goes to finish_outcome.json in its directory."""
    _stop_on_signals()
    parser = argparse.ArgumentParser(prog="python -m dporun_trainer.commands.finish", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="RunConfig, as JSON")
    parser.add_argument("--directory", type=Path, required=True, help="the run's directory")
    arguments = parser.parse_args()
    logs.configure(os.environ.get(LOG_LEVEL_VARIABLE, "INFO"))

    def command() -> Outcome:
        return finish(RunConfig.model_validate_json(arguments.config.read_text(encoding="utf-8")), arguments.directory)

    return conclude(command, arguments.directory / layout.FINISH_OUTCOME)


def _stop_on_signals() -> None:
    """Raise Stopped on the first SIGTERM or SIGINT, wherever the process is."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise Stopped

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


if __name__ == "__main__":
    sys.exit(main())
