"""The recipes of CONTRIBUTING.md work as they are written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from dporun_testing.paths import ROOT, TESTS

PACKAGES = ("api", "operator", "trainer_image")

FOLLOWED = """
import tempfile
from pathlib import Path
import pytest
from dporun_api.crd import custom_resource_definition
from dporun_api.results import Outcome, OutcomeState
from dporun_api.v1alpha1.reasons import Reason
from dporun_operator.lifecycle.ending import judge_ending
from dporun_operator.observed import Job, Pod
from dporun_testing.builders import a_run, job, pod
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.tokenizer import load_tokenizer

assert "TokenizerInvalid" in str(custom_resource_definition())
with pytest.raises(RunError) as raised:
    load_tokenizer(Path(tempfile.mkdtemp()))
assert raised.value.exit_code == 65
failed = Outcome(state=OutcomeState.FAILED, failure=raised.value.failure())
ended = pod("prepare", state="failed", exit_code=65, message=failed.to_json(exclude_none=True))
end = judge_ending(Job.parse(job("prepare", state="failed")), [Pod.parse(ended)], a_run().spec)
assert end.failure.reason is Reason.TOKENIZER_INVALID
assert "tokenizer.json" in end.failure.hint
assert not end.failure.reason.traits.retried
assert end.failure.reason.traits.event == "Warning"
"""


def follow(recipe: str, root: Path) -> list[str]:
    """Apply a diff without line numbers below ``root``; returns the files that it changed."""
    changed = []
    for name, hunk in re.findall(r"^--- (\S+)\n((?:[ +-].*\n)+?)(?=---|\Z)", recipe, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        text = (root / name).read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{name} no longer has these lines:\n{before}"
        (root / name).write_text(text.replace(before, after), encoding="utf-8")
        changed.append(name)
    return changed


def test_a_failure_reason_takes_two_files(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"```diff\n(.*?)```", text, flags=re.DOTALL)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    assert len(follow(recipe, tmp_path)) == 2
    path = ":".join(str(folder) for folder in (*(tmp_path / package for package in PACKAGES), TESTS))
    done = subprocess.run(
        [sys.executable, "-c", FOLLOWED],
        env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
