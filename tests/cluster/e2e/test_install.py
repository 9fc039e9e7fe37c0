"""The chart, as a user installs it."""

import subprocess

import pytest

pytestmark = pytest.mark.cluster


@pytest.mark.usefixtures("installed_operator")
def test_the_installed_release_passes_its_own_test() -> None:
    subprocess.run(["helm", "test", "dporun-operator", "--namespace", "dporun-system", "--logs"], check=True)
