"""``merge``: merge an adapter into its base model, and verify the result."""

import argparse
from pathlib import Path

from dporun_api.pod import ExitCode
from dporun_trainer.commands.shared import explained
from dporun_trainer.data.questions import load_questions
from dporun_trainer.evaluation.assess import recorded_quantization
from dporun_trainer.evaluation.merge import merge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--adapter", type=Path, required=True, help="folder of a LoRA adapter")
    parser.add_argument("--base", help="base model; by default the one that the adapter's own files name")
    parser.add_argument("--output", type=Path, required=True, help="folder for the merged model")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""

    def body() -> int:
        prompts = [question.question for question in load_questions()]
        quantization = recorded_quantization(arguments.adapter)
        result = merge(
            arguments.adapter, arguments.output, base=arguments.base, prompts=prompts, quantization=quantization
        )
        print(f"{arguments.output}: {result.dtype}, logits within {result.max_abs_difference:.2g} of the adapter's")
        return ExitCode.OK

    return explained(body)
