"""What follows training in the same pod, in one fresh process: evaluate, merge, diagnose, judge, report.

    python -m dporun_trainer.commands.finish --config FILE --directory DIR

Every step leaves a file and is skipped when that file is there for the same adapter, so a pod that was preempted while
finishing goes on where it was.
"""

import argparse
import gc
import logging
import sys
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from dporun_api import logs
from dporun_api.results import EvaluationSummary, Health, Outcome, OutcomeState, Stage, Verdict
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.commands.report import report
from dporun_trainer.commands.shared import (
    add_process_arguments,
    begin_evaluation_process,
    positive,
    quiet_libraries,
    read_config,
)
from dporun_trainer.data.formats import read_pairs
from dporun_trainer.data.questions import load_questions
from dporun_trainer.diagnosis.health import diagnose
from dporun_trainer.diagnosis.verdict import judge
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation import assess
from dporun_trainer.evaluation.batching import Models
from dporun_trainer.evaluation.evaluate import Options, as_text, spread
from dporun_trainer.evaluation.merge import UnfaithfulMergeError, adapter_sha256, is_merged, merge
from dporun_trainer.evaluation.workers import Source, open_models
from dporun_trainer.outcome import conclude
from dporun_trainer.progress import TRAINING_PERCENT, ProgressFile, heartbeat
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.prepared import Prepared
from dporun_trainer.signals import Stopped, on_stop, raise_stopped

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


def finish(config: RunConfig, folder: RunFolder, *, processes: int | None = None) -> Outcome:
    """Do what is left to do after training.

    Args:
        config: of the run.
        folder: of the run, with inputs/, final/ and the log history.
        processes: that evaluate; by default one for each GPU.

    Returns:
        Succeeded with evaluation, health, verdict and metrics; Preempted when the process was asked to stop.

    Raises:
        RunError: training has not finished, or a step failed.

    """
    progress = folder.progress
    meter = _Meter(progress)
    try:
        return _finish(config, folder, meter, processes)
    except Stopped:
        message = f"stopped while {meter.stage}; the next attempt goes on there"
        log.warning(message)
        return Outcome(state=OutcomeState.PREEMPTED, message=message, metrics=progress.read().metrics)


def _finish(config: RunConfig, folder: RunFolder, meter: "_Meter", processes: int | None) -> Outcome:
    if not folder.has_adapter:
        raise RunError(Reason.TRAINER_ERROR, f"there is no trained adapter in {folder.final}: train first")
    prepared = folder.load_prepared()
    evaluation = _evaluated(config, folder, prepared, meter, processes) if config.evaluation.enabled else None
    unmerged = _merge(config, folder, prepared, meter)
    meter("reporting", 0, 1)
    with heartbeat(meter.progress):
        health, verdict = _judged(config, folder, evaluation, unmerged)
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


def _evaluated(
    config: RunConfig, folder: RunFolder, prepared: Prepared, meter: "_Meter", processes: int | None
) -> EvaluationSummary:
    """Evaluate and measure forgetting, as far as their files are not there yet for this very adapter."""
    output, adapter = folder.evaluation, adapter_sha256(folder.final)
    on_stage = assess.logged(meter)
    options = Options(
        beta=config.dpo.beta,
        max_length=config.dpo.max_length,
        max_examples=config.evaluation.max_examples,
        max_new_tokens=config.evaluation.max_new_tokens,
    )

    source = Source(
        folder.final,
        prepared.model_path,
        config.training.precision,
        config.model.quantization,
        config.topology.gpus_per_node,
    )
    pairs = read_pairs(Path(prepared.validation_path))

    with ExitStack() as opened:

        @cache
        def models() -> Models:
            meter("loading", 0, 1)
            batches = assess.batches(pairs, options)
            loading = open_models(source, batches=batches, processes=processes, begin=begin_evaluation_process)
            with heartbeat(meter.progress):
                return opened.enter_context(loading)

        numbers = output.metrics.read()
        if numbers is None or numbers.adapter_sha256 != adapter:
            numbers = assess.evaluate_into(output, models(), pairs, options, on_stage, adapter_sha256=adapter)
        if config.evaluation.general.enabled:
            found = output.forgetting.read()
            if found is None or found.adapter_sha256 != adapter:
                questions = load_questions(Path(prepared.general_path) if prepared.general_path else None)
                numbers = assess.measure_forgetting_into(
                    output, models(), questions, numbers, batch_size=options.batch_size, on_stage=on_stage
                )
            else:
                numbers = assess.enter_forgetting(output, numbers, found)
    return numbers.summary()


def _merge(config: RunConfig, folder: RunFolder, prepared: Prepared, meter: "_Meter") -> str | None:
    """Merge the adapter, unless merged/ is just that; returns why there is no merged model."""
    if is_merged(folder.merged, folder.final):
        return None
    meter("merging", 0, 1)
    pairs = read_pairs(Path(prepared.validation_path))
    gc.collect()  # the models of the evaluation, so that two copies of the base are never in memory
    with heartbeat(meter.progress):
        prompts = [as_text(pairs[position].prompt) for position in spread(len(pairs), 8)]
        try:
            merge(
                folder.final,
                folder.merged,
                prompts=prompts,
                base=prepared.model_path,
                quantization=config.model.quantization,
            )
        except UnfaithfulMergeError as error:  # no reason to lose a good adapter, and its evaluation
            log.warning("%s", error.message)
            return f"merged/ is not there: {error.message}. {error.hint}"
    meter("merging", 1, 1)
    return None


def _judged(
    config: RunConfig, folder: RunFolder, evaluation: EvaluationSummary | None, unmerged: str | None
) -> tuple[Health, Verdict]:
    """Diagnose the curves, judge the result and write the report; quick, so always done anew."""
    health = diagnose(folder.history.load(), config, takes_dropout=folder.load_prepared().model.takes_dropout)
    verdict = judge(evaluation, config.evaluation, health)
    if unmerged:
        verdict = verdict.model_copy(update={"reasons": (*verdict.reasons, unmerged)})
    folder.health.write(health)
    folder.verdict.write(verdict)
    report(folder)
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
        """Report that ``done`` of ``total`` items of ``stage`` are done."""
        now = time.monotonic()
        if stage == self.stage and done < total and now - self._written < _REPORT_SECONDS:
            return
        self.stage, self._written = stage, now
        share = self._share(stage, done / total if total else 1.0)
        self._first = share if self._first is None else self._first
        advanced = share - self._first
        left = (now - self._started) * (1 - share) / advanced if advanced > 0.05 else None
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


def _message(evaluation: EvaluationSummary | None, verdict: Verdict) -> str:
    if evaluation is None:
        return "trained; not evaluated (evaluation.enabled is false)"
    numbers = f"accuracy {verdict.accuracy(evaluation)}, reward margin {verdict.reward_margin(evaluation)}"
    return f"{verdict.state} ({verdict.gates_in_words}): {numbers}"


def main() -> int:
    """Finish a run; the outcome goes to finish_outcome.json in its directory."""
    with on_stop(raise_stopped):
        parser = argparse.ArgumentParser(prog="python -m dporun_trainer.commands.finish", description=__doc__)
        add_process_arguments(parser)
        parser.add_argument("--processes", type=positive(int), help="that evaluate (default: one for each GPU)")
        arguments = parser.parse_args()
        logs.configure()
        quiet_libraries()
        folder = RunFolder(arguments.directory)
        return conclude(
            lambda: finish(read_config(arguments.config), folder, processes=arguments.processes),
            folder.finish_outcome.write,
            folder.path,
        )


if __name__ == "__main__":
    sys.exit(main())
