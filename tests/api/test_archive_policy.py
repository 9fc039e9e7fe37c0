"""Every combination of what is asked for and how a run went."""

import itertools

import pytest

from dporun_api.archive_policy import skip_reason
from dporun_api.run_config import ArchiveTarget, ArchiveWhen

NO_ARCHIVE, NOT_STARTED = "spec.archive is not set", "training never started"
NO_SUCCESS, NO_PASS = "the run did not succeed", "the run did not pass its gates"

EITHER, WHEN, PASSED = (True, False), tuple(ArchiveWhen), (True, False, None)

# archive.when, started, succeeded, passed; words of the reason, None where the run is archived
TABLE = [
    ((None,), EITHER, EITHER, PASSED, NO_ARCHIVE),
    (WHEN, (False,), EITHER, PASSED, NOT_STARTED),
    ((ArchiveWhen.FINISHED,), (True,), EITHER, PASSED, None),
    ((ArchiveWhen.SUCCEEDED,), (True,), (True,), PASSED, None),
    ((ArchiveWhen.SUCCEEDED,), (True,), (False,), PASSED, NO_SUCCESS),
    ((ArchiveWhen.PASSED,), (True,), (False,), PASSED, NO_SUCCESS),
    ((ArchiveWhen.PASSED,), (True,), (True,), (True, None), None),
    ((ArchiveWhen.PASSED,), (True,), (True,), (False,), NO_PASS),
]
RUNS = [(*run, words) for *columns, words in TABLE for run in itertools.product(*columns)]


def test_the_table_has_every_combination_once() -> None:
    expected = list(itertools.product((None, *WHEN), EITHER, EITHER, PASSED))
    assert len(RUNS) == len(expected)
    assert {run[:-1] for run in RUNS} == set(expected)


@pytest.mark.parametrize(("when", "started", "succeeded", "passed", "words"), RUNS)
def test_archived_or_not(
    when: ArchiveWhen | None, started: bool, succeeded: bool, passed: bool | None, words: str | None
) -> None:
    archive = None if when is None else ArchiveTarget(uri="s3://bucket/runs", when=when)
    reason = skip_reason(archive, started=started, succeeded=succeeded, passed=passed)
    assert reason is None if words is None else words in (reason or "")
