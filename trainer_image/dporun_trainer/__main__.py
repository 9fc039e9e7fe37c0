"""``dporun-trainer``: the commands of the trainer image. Heavy imports happen inside the command that needs them."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

from pydantic import ValidationError

from dporun_api import logs
from dporun_api import run_folder as layout
from dporun_api.pod import CLAIMS_MOUNT, CONFIG_PATH, LOG_LEVEL_VARIABLE, RESULTS_MOUNT, STATUS_PORT, ExitCode
from dporun_api.results import Outcome
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.outcome import conclude, exit_code, explain, failed, publish


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    logs.configure(os.environ.get(LOG_LEVEL_VARIABLE, "INFO"))
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dporun-trainer", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def of_run(name: str, run: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, default=Path(CONFIG_PATH), help="RunConfig, as JSON")
        command.add_argument("--root", type=Path, default=Path(RESULTS_MOUNT), help="folder of all runs")
        command.set_defaults(run=run)
        return command

    prepare = of_run("prepare", _prepare, "fetch and check model and data, before a GPU is held")
    prepare.add_argument("--claims", type=Path, default=Path(CLAIMS_MOUNT), help="where pvc:// is mounted")
    train = of_run("train", _train, "train, evaluate, judge and report (PID 1 of the training pod)")
    train.add_argument("--port", type=int, default=STATUS_PORT, help="port of the status server; 0 for none")
    archive = of_run("archive", _archive, "prune, upload, verify")
    archive.add_argument("--prune-only", action="store_true", help="delete intermediate checkpoints, upload nothing")

    _add_restore(commands)

    _add_evaluate(commands)
    _add_merge(commands)

    text = "say how healthy a training run is, of DPORun or of TRL, and what to change"
    diagnose = commands.add_parser("diagnose", help=text, description=text, epilog=_DIAGNOSE_EXIT_CODES)
    diagnose.add_argument("directory", type=Path, metavar="DIR", help="output folder of the run")
    form = diagnose.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="print the diagnosis as JSON")
    form.add_argument(
        "--patch", dest="form", action="store_const", const="patch", help="print the changes as a patch of the manifest"
    )
    diagnose.set_defaults(run=_diagnose, form="text")

    text = "write report.html, report.png and the model card (README.md) of a run"
    report = commands.add_parser("report", help=text, description=text)
    report.add_argument("directory", type=Path, metavar="DIR", help="directory of the run")
    report.set_defaults(run=_report)
    return parser


def _add_restore(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "bring an archived run back, and check every file against its manifest"
    restore = commands.add_parser("restore", help=text, description=text)
    restore.add_argument("--from", dest="uri", required=True, help="folder of the run: s3://BUCKET/PATH or a path")
    restore.add_argument("--to", type=Path, required=True, help="folder to make or to complete")
    restore.add_argument("--endpoint", help="address of an S3-compatible server (default: $AWS_ENDPOINT_URL)")
    restore.add_argument("--region", help="region of the bucket (default: $AWS_REGION)")
    restore.add_argument("--only", default="", metavar="PREFIX", help="restore only paths that begin so, e.g. final/")
    restore.set_defaults(run=_restore)


def _conclude(arguments: argparse.Namespace, file: PurePath, command: Callable[[RunConfig, Path], Outcome]) -> ExitCode:
    """Read the RunConfig, run ``command`` on it and tell how that ended in ``file`` of the run's directory."""
    try:
        config = RunConfig.model_validate_json(arguments.config.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        message = f"cannot read the run's configuration from {arguments.config}: {error}"
        outcome = failed(RunError(Reason.INVALID_SPEC, message))
        publish(outcome, arguments.root / file)
        return exit_code(outcome)
    directory = arguments.root / config.run.directory
    return conclude(lambda: command(config, directory), directory / file)


def _prepare(arguments: argparse.Namespace) -> ExitCode:
    from dporun_trainer.inputs.prepare import prepare  # noqa: PLC0415

    return _conclude(
        arguments,
        layout.PREPARE_OUTCOME,
        lambda config, directory: prepare(config, directory, claims=arguments.claims),
    )


def _train(arguments: argparse.Namespace) -> ExitCode:
    from dporun_trainer.training.launch import launch, outcome_file  # noqa: PLC0415

    return _conclude(
        arguments,
        outcome_file(os.environ),
        lambda config, directory: launch(config, arguments.config, directory, port=arguments.port),
    )


def _archive(arguments: argparse.Namespace) -> ExitCode:
    from dporun_trainer.archiving.archive import archive  # noqa: PLC0415

    return _conclude(
        arguments,
        layout.ARCHIVE_OUTCOME,
        lambda config, directory: archive(config, directory, prune_only=arguments.prune_only),
    )


def _restore(arguments: argparse.Namespace) -> int:
    from dporun_trainer.stores.restore import restore  # noqa: PLC0415

    def run() -> int:
        manifest = restore(
            arguments.uri, arguments.to, endpoint=arguments.endpoint, region=arguments.region, only=arguments.only
        )
        print(f"{arguments.to}: the run {manifest.run.name}, every file as its manifest says")
        return ExitCode.OK

    return _explained(run)


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "compare an adapter or merged model with its base on preference pairs and general questions"
    evaluate = commands.add_parser("evaluate", help=text, description=text)
    evaluate.add_argument("--model", type=Path, required=True, help="folder of a LoRA adapter or of a merged model")
    evaluate.add_argument("--test", type=Path, required=True, help="preference pairs, JSONL or Parquet")
    evaluate.add_argument("--output", type=Path, required=True, help="folder for the results")
    evaluate.add_argument("--base", help="base model; by default the one that the model's own files name")
    evaluate.add_argument(
        "--beta", type=_positive(float), help="dpo.beta (default: that of the run around the model, else 0.1)"
    )
    evaluate.add_argument(
        "--max-length",
        type=_positive(int),
        help="longest prompt plus response, in tokens (default: that of the run around the model, else 1024)",
    )
    evaluate.add_argument(
        "--max-examples", type=int, default=200, help="pairs that get generated answers (default: %(default)s)"
    )
    evaluate.add_argument(
        "--max-new-tokens", type=_positive(int), default=128, help="longest answer, in tokens (default: %(default)s)"
    )
    evaluate.add_argument("--batch-size", type=_positive(int), default=8, help="pairs at a time (default: %(default)s)")
    evaluate.add_argument("--precision", choices=("auto", "bf16", "fp16", "fp32"), default="auto")
    general = evaluate.add_mutually_exclusive_group()
    general.add_argument("--general", type=Path, help="general questions, JSONL (default: a built-in set of 60)")
    general.add_argument("--no-general", action="store_true", help="ask no general questions")
    evaluate.set_defaults(run=_evaluate)


def _add_merge(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "merge an adapter into its base model, and verify the result"
    merge = commands.add_parser("merge", help=text, description=text)
    merge.add_argument("--adapter", type=Path, required=True, help="folder of a LoRA adapter")
    merge.add_argument("--base", help="base model; by default the one that the adapter's own files name")
    merge.add_argument("--output", type=Path, required=True, help="folder for the merged model")
    merge.set_defaults(run=_merge)


def _evaluate(arguments: argparse.Namespace) -> int:
    from dporun_trainer.data.questions import load_questions  # noqa: PLC0415
    from dporun_trainer.evaluation import assess  # noqa: PLC0415
    from dporun_trainer.evaluation.evaluate import Options  # noqa: PLC0415
    from dporun_trainer.evaluation.policy import load_policy  # noqa: PLC0415

    def run() -> int:
        run_of_model = assess.recorded_dpo(arguments.model)
        options = Options(
            beta=arguments.beta or run_of_model.beta,
            max_length=arguments.max_length or run_of_model.max_length,
            max_examples=max(arguments.max_examples, 0),
            max_new_tokens=arguments.max_new_tokens,
            batch_size=arguments.batch_size,
        )
        pairs = assess.read_pairs(arguments.test)
        questions = [] if arguments.no_general else load_questions(arguments.general)
        policy = load_policy(arguments.model, base=arguments.base, precision=arguments.precision)
        told = assess.logged()
        numbers = assess.evaluate_into(arguments.output, policy, pairs, options, told)
        if questions:
            numbers = assess.measure_forgetting_into(arguments.output, policy, questions, options, told)
        print(assess.table(numbers))
        return ExitCode.OK

    return _explained(run)


def _merge(arguments: argparse.Namespace) -> int:
    from dporun_trainer.data.questions import load_questions  # noqa: PLC0415
    from dporun_trainer.evaluation.merge import merge  # noqa: PLC0415

    def run() -> int:
        prompts = [question.question for question in load_questions()]
        result = merge(arguments.adapter, arguments.output, base=arguments.base, prompts=prompts)
        print(f"{arguments.output}: {result.dtype}, logits within {result.max_abs_difference:.2g} of the adapter's")
        return ExitCode.OK

    return _explained(run)


def _positive(number: type[int] | type[float]) -> Callable[[str], float]:
    """Argument type: a number above 0."""

    def parse(text: str) -> float:
        value = number(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    parse.__name__ = number.__name__
    return parse


_DIAGNOSE_EXIT_CODES = (
    "Exit code: 0 OnTrack, 3 Unknown (too little history), 10 Overfitting, 11 Underfitting, 12 Unstable, 13 Confused, "
    "1 nothing to diagnose in DIR."
)


def _diagnose(arguments: argparse.Namespace) -> int:
    from dporun_trainer.diagnosis.diagnose import diagnose  # noqa: PLC0415

    return _explained(lambda: diagnose(arguments.directory, form=arguments.form))


def _report(arguments: argparse.Namespace) -> int:
    from dporun_trainer.reporting.report import write_report  # noqa: PLC0415

    def run() -> int:
        write_report(arguments.directory)
        print(arguments.directory / layout.REPORT_HTML)
        return ExitCode.OK

    return _explained(run)


def _explained(command: Callable[[], int]) -> int:
    """Run a command that people call by hand; tell its error on standard error."""
    try:
        return command()
    except (RunError, OSError) as error:
        failure = explain(error)
        print(f"dporun-trainer: {failure.message}", *filter(None, [failure.hint]), sep="\n", file=sys.stderr)
        return failure.exit_code or ExitCode.ERROR


if __name__ == "__main__":
    sys.exit(main())
