"""One installed operator for all tests on the node."""

import os
import subprocess

import pytest

from dporun_testing.paths import ROOT


@pytest.fixture(scope="session")
def installed_operator() -> None:
    """The operator, installed by helm from the chart and the images of this checkout; runs may use the stand-in."""
    allowed = f"trainerImage.allowed={{{os.environ['STAND_IN_IMAGE']}}}"
    subprocess.run([ROOT / "hack" / "install", "--set", allowed], check=True)
