"""``restore``: bring an archived run back, and check every file against its manifest."""

import argparse
from pathlib import Path

from dporun_api.pod import ExitCode
from dporun_trainer.commands.shared import explained
from dporun_trainer.stores.restore import restore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--from", dest="uri", required=True, help="folder of the run: s3://BUCKET/PATH or a path")
    parser.add_argument("--to", type=Path, required=True, help="folder to make or to complete")
    parser.add_argument("--endpoint", help="address of an S3-compatible server (default: $AWS_ENDPOINT_URL)")
    parser.add_argument("--region", help="region of the bucket (default: $AWS_REGION)")
    parser.add_argument("--only", default="", metavar="PREFIX", help="restore only paths with this prefix, e.g. final/")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""

    def body() -> int:
        manifest = restore(
            arguments.uri, arguments.to, endpoint=arguments.endpoint, region=arguments.region, only=arguments.only
        )
        print(f"{arguments.to}: the run {manifest.run.name}, all files verified")
        return ExitCode.OK

    return explained(body)
