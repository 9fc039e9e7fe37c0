"""The commands as programs: what they import, and what their help says."""

import json
import subprocess
import sys

import pytest

from dporun_trainer.__main__ import main

LIGHT = ("prepare", "train", "archive", "restore", "diagnose", "report", "data")
HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "datasets")


def test_light_commands_need_no_training_stack() -> None:
    """Importing torch takes seconds, and memory that the pods of prepare and archive do not request."""
    program = f"""if True:
        import contextlib, io, json, sys
        from dporun_trainer.__main__ import main
        for command in {LIGHT!r}:
            with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
                main([command, "--help"])
            print(json.dumps([command, [name for name in {HEAVY!r} if name in sys.modules]]))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[command, []] for command in LIGHT]


@pytest.mark.parametrize("command", LIGHT)
def test_a_command_explains_its_arguments(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: dporun-trainer {command}" in text
    assert ("DIR" in text) is (command in {"diagnose", "report", "data"})


def test_all_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for command in ("prepare", "train", "archive", "restore", "evaluate", "merge", "diagnose", "report", "data"):
        assert f"\n    {command} " in text


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fly"])
    assert ended.value.code == 2
    assert "'fly'" in capsys.readouterr().err
