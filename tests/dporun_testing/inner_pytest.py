"""Tests about tests: a pytest of their own that is to fail, or to be stopped."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from dporun_testing.paths import TESTS

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TESTS)}


def inner_command(folder: Path, program: str) -> list[str]:
    """Write a test file and return the command that runs it with what tests/conftest.py does for every test."""
    file = folder / "test_inner.py"
    file.write_text(textwrap.dedent(program))
    options = ["-c", os.devnull, "--rootdir", str(folder), "--basetemp", str(folder / "basetemp"), "-p", "conftest"]
    return [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", *options, str(file)]


def inner_pytest(folder: Path, program: str) -> "subprocess.CompletedProcess[str]":
    """Run a test file to its end."""
    return subprocess.run(
        inner_command(folder, program), env=ENVIRONMENT, capture_output=True, text=True, check=False, cwd=folder
    )
