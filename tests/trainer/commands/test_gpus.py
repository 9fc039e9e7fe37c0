"""``dporun-trainer gpus`` where there is no GPU, and where there are some."""

import pytest

from dporun_trainer.__main__ import main
from dporun_trainer.commands.gpus import GpuReport, SeenGpu, describe


def test_a_pod_without_a_driver_is_told_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpus", "--json"]) == 1
    report = GpuReport.model_validate_json(capsys.readouterr().out)
    assert not report.usable
    assert report.gpus == ()
    assert report.why
    assert report.hint
    assert report.cuda
    assert report.architectures
    assert main(["gpus"]) == 1
    assert f"verdict  no run can train here: {report.why}" in capsys.readouterr().out


def test_what_is_seen_is_said_in_lines() -> None:
    gpu = SeenGpu(index=0, name="NVIDIA H100", capability="9.0", memory_bytes=80 * 2**30, free_bytes=79 * 2**30)
    report = GpuReport(
        torch="2.15.0+cu132",
        cuda="13.2",
        architectures=("sm_80", "sm_90"),
        driver="580.95.05",
        driver_cuda="13.0",
        gpus=(gpu,),
        usable=True,
    )
    assert list(describe(report)) == [
        "driver   580.95.05 supports CUDA up to 13.0",
        "torch    2.15.0+cu132, built for CUDA 13.2, with kernels for sm_80, sm_90",
        "GPU 0    NVIDIA H100, compute capability 9.0, 80.0 GiB, 79.0 of it free",
        "verdict  a run can train on this GPU",
    ]
