"""Which tests may run side by side, and one installed operator for all tests on the node."""

import os
import subprocess
from pathlib import Path

import pytest

from dporun_testing.paths import ROOT


@pytest.fixture(scope="session")
def installed_operator() -> None:
    """The operator, installed by helm from the chart and the images of this checkout; runs may use the stand-in."""
    allowed = f"trainerImage.allowed={{{os.environ['STAND_IN_IMAGE']}}}"
    subprocess.run([ROOT / "hack" / "install", "--set", allowed], check=True)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups when it is called
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``--dist loadgroup``: one test at a time on the node, and one on control planes, beside each other."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            own = here / "control_plane" in item.path.parents
            item.add_marker(pytest.mark.xdist_group("control plane" if own else "node"))
