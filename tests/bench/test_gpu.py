"""The scripts for a GPU run on the CPU, with tiny shapes: the same code, so that it is right when a GPU is lent."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from gpu.common import NotHere, Place, Step, main, measured

from dporun_testing.paths import ROOT
from gpu import evaluation, failures, memory, speed, start

SCRIPTS = {"start": start, "failures": failures, "memory": memory, "speed": speed, "evaluation": evaluation}
ON_THE_CPU = [start.driver, start.deepspeed_without_a_compiler, start.kernels, start.head]
"""Quick ones; a whole run is below."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("bench"), cuda=False)


@pytest.mark.slow(10)
@pytest.mark.parametrize("step", ON_THE_CPU, ids=lambda step: step.__name__)
def test_a_step_holds_on_the_cpu(place: Place, step: Step) -> None:
    assert json.loads(json.dumps(step(place), default=str))


@pytest.mark.slow(40)
def test_a_run_of_the_product_holds_on_the_cpu(place: Place) -> None:
    """Prepare, train and finish as processes; what the meter measured is what speed and memory read."""
    found = memory.STEPS[1](place)
    assert found["estimate"] > 0
    assert found["usage"].tokens_per_second > 0
    assert found["usage"].peak_memory_bytes > 0


def test_what_fails_or_is_missing_is_told(tmp_path: Path) -> None:
    def wrong(_: Place) -> dict[str, int]:
        """Two is one.

        And more.
        """
        assert 2 == 1, "two"  # noqa: PLR0133
        return {}

    def missing(_: Place) -> dict[str, int]:
        raise NotHere("no GPU")

    place = Place(tmp_path, cuda=False)
    failed = measured(wrong, place)
    assert (failed["state"], failed["proves"]) == ("failed", "Two is one.")
    assert failed["error"].startswith("AssertionError: two")
    assert measured(missing, place)["state"] == "skipped"


def test_a_report_has_the_machine_and_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["start", "--cpu", "--out", str(tmp_path / "out")])
    assert main("start", [start.driver, start.kernels]) == 0
    report = json.loads((tmp_path / "out/start.json").read_text())
    assert report["machine"]["usable"] is False
    assert [one["step"] for one in report["results"]] == ["driver", "kernels"]
    assert all(one["state"] == "held" and one["proves"] for one in report["results"])


def test_without_a_gpu_one_line_says_so() -> None:
    """And it fails: a suite that is skipped proves nothing."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}/tests:{ROOT}/bench", "CUDA_VISIBLE_DEVICES": ""}
    for command in (["-m", "gpu.common"], ["-m", "gpu.start"]):
        ended = subprocess.run([sys.executable, *command], env=environment, check=False, capture_output=True, text=True)
        assert ended.returncode == 1
        (line,) = [line for line in ended.stderr.splitlines() if "WARNING" not in line]
        assert line.startswith("no GPU: ")


def test_every_step_says_what_it_proves() -> None:
    steps = [step for script in SCRIPTS.values() for step in script.STEPS]
    assert len({step.__name__ for step in steps}) == len(steps)
    readme = (ROOT / "bench/gpu/README.md").read_text()
    for name, script in SCRIPTS.items():
        assert f"## {name}" in readme, name
        for step in script.STEPS:
            assert step.__doc__, step
            assert f"`{step.__name__}`" in readme, step.__name__
