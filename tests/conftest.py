"""What holds for every test: their order, and that they leave nothing running, however they were started."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from dporun_testing.processes import nothing_left

_OF_THE_SHELL = ("FORCE_COLOR", "CLICOLOR_FORCE", "RANK", "LOCAL_RANK", "WORLD_SIZE")
"""Variables that would change what is tested."""


GPU_SUITE = "gpu"
"""The expression of -m that selects the tests of a GPU, and nothing else."""


def pytest_configure(config: pytest.Config) -> None:
    """Bring the process to what tests expect, whatever it inherited."""
    _end_on_signals()
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")
    for name in _OF_THE_SHELL:
        os.environ.pop(name, None)
    if config.option.markexpr != GPU_SUITE:  # what is expected of the CPU is expected on every machine
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for name in ("NO_PROXY", "no_proxy"):  # servers of the tests are on this machine
        os.environ[name] = ",".join([*filter(None, [os.environ.get(name)]), "localhost", "127.0.0.1"])


def _end_on_signals() -> None:
    """SIGINT and SIGTERM end the tests and run their finalizers, also where a shell had SIGINT ignored (``pytest &``).

    Programs under test then find SIGINT as they would at a terminal.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest start first, so that no worker is left alone with one of them at the end."""
    items.sort(key=_seconds, reverse=True)


def _seconds(item: pytest.Item) -> float:
    marker = item.get_closest_marker("slow")
    return marker.args[0] if marker and marker.args else 0


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail a test that leaves a process behind, and end that."""
    if request.node.get_closest_marker("slow") is None:
        yield
        return
    with nothing_left(tmp_path_factory.getbasetemp()):
        yield
