"""``evaluate``: compare an adapter or merged model with its base on preference pairs and general questions."""

import argparse
from pathlib import Path
from typing import get_args

from dporun_api.pod import ExitCode
from dporun_api.run_config import Precision, Quantization
from dporun_trainer.commands.shared import begin_evaluation_process, explained, positive
from dporun_trainer.data import formats
from dporun_trainer.data.questions import load_questions
from dporun_trainer.evaluation import assess
from dporun_trainer.evaluation.evaluate import Options
from dporun_trainer.evaluation.workers import Source, open_models
from dporun_trainer.run_folder.folder import EvaluationFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a LoRA adapter or of a merged model")
    parser.add_argument("--test", type=Path, required=True, help="preference pairs, JSONL or Parquet")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--base", help="base model; by default the one that the model's own files name")
    parser.add_argument(
        "--beta", type=positive(float), help="dpo.beta (default: that of the run around the model, else 0.1)"
    )
    parser.add_argument(
        "--max-length",
        type=positive(int),
        help="longest prompt plus response, in tokens (default: that of the run around the model, else 1024)",
    )
    parser.add_argument(
        "--max-examples", type=int, default=200, help="pairs that get generated answers (default: %(default)s)"
    )
    parser.add_argument(
        "--max-new-tokens", type=positive(int), default=128, help="longest answer, in tokens (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=positive(int), help="pairs at a time (default: 8 that are scored, as many answers as fit)"
    )
    parser.add_argument(
        "--processes", type=positive(int), help="processes that evaluate side by side (default: one for each GPU)"
    )
    parser.add_argument("--precision", choices=get_args(Precision), default="auto")
    parser.add_argument(
        "--quantization",
        choices=[*get_args(Quantization), "none"],
        help="of the base below an adapter (default: that of the run around the model, else none)",
    )
    general = parser.add_mutually_exclusive_group()
    general.add_argument("--general", type=Path, help="general questions, JSONL (default: a built-in set of 60)")
    general.add_argument("--no-general", action="store_true", help="ask no general questions")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""

    def body() -> int:
        recorded = assess.recorded_dpo(arguments.model)
        options = Options(
            beta=arguments.beta or recorded.beta,
            max_length=arguments.max_length or recorded.max_length,
            max_examples=max(arguments.max_examples, 0),
            max_new_tokens=arguments.max_new_tokens,
            batch_size=arguments.batch_size,
        )
        pairs = formats.read_pairs(arguments.test, formats.Options())
        questions = [] if arguments.no_general else load_questions(arguments.general)
        output, on_stage = EvaluationFolder(arguments.output), assess.logged()
        quantization = arguments.quantization or assess.recorded_quantization(arguments.model)
        source = Source(
            arguments.model,
            arguments.base,
            arguments.precision,
            None if arguments.quantization == "none" else quantization,
        )
        with open_models(
            source,
            batches=assess.batches(pairs, options),
            processes=arguments.processes,
            begin=begin_evaluation_process,
        ) as models:
            template = models.tokenizer.chat_template or ""
            pairs = [formats.for_template(pair, template) for pair in pairs]
            numbers = assess.evaluate_into(output, models, pairs, options, on_stage)
            if questions:
                numbers = assess.measure_forgetting_into(
                    output, models, questions, numbers, batch_size=options.batch_size, on_stage=on_stage
                )
        print(assess.table(numbers))
        return ExitCode.OK

    return explained(body)
