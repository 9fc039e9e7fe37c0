"""The log history: appended, read by anybody, never torn."""

import json
import math
from pathlib import Path

import pytest

from dporun_trainer.run_folder.history import LogHistory

ENTRIES = [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.6}, {"step": 2, "eval_loss": 0.65}]


@pytest.fixture
def history(tmp_path: Path) -> LogHistory:
    history = LogHistory(tmp_path)
    history.replace(ENTRIES[:1])
    return history


def test_what_is_appended_comes_after_what_was_there(history: LogHistory) -> None:
    before = history.path.read_bytes()
    history.append(ENTRIES[1:])
    assert history.load() == ENTRIES
    assert history.path.read_bytes().startswith(before)
    assert len(history.path.read_text().splitlines()) == 3


def test_it_is_written_as_json_can_hold_it(history: LogHistory) -> None:
    history.append([{"loss": math.nan, "a": math.inf, "b": -math.inf, "c": 1.5, "d": 2}])
    assert history.load()[-1] == {"loss": "NaN", "a": "Infinity", "b": "-Infinity", "c": 1.5, "d": 2}


@pytest.mark.parametrize("torn", [b'{"step": 2, "lo', b"\x00\x00\x00\x00"])
def test_a_torn_last_line_is_ignored(history: LogHistory, torn: bytes) -> None:
    with history.path.open("ab") as file:
        file.write(torn)
    assert history.load() == ENTRIES[:1]


def test_a_broken_line_is_an_error(history: LogHistory) -> None:
    with history.path.open("ab") as file:
        file.write(b'{"step": 2, "lo\n')
    history.append(ENTRIES[2:])
    with pytest.raises(ValueError, match="Unterminated string"):
        history.load()


def test_an_attempt_that_begins_drops_what_never_happened(history: LogHistory) -> None:
    history.append(ENTRIES[1:])
    history.replace(ENTRIES[:2])
    assert history.load() == ENTRIES[:2]


def test_the_list_of_the_first_version_is_read(tmp_path: Path) -> None:
    """Until an attempt replaces it."""
    old = tmp_path / "log_history.json"
    old.write_text(json.dumps(ENTRIES), encoding="utf-8")
    history = LogHistory(tmp_path)
    assert history.path == old
    assert history.load() == ENTRIES
    history.replace(ENTRIES)
    history.append(ENTRIES[:1])
    assert not old.exists()
    assert history.load() == [*ENTRIES, ENTRIES[0]]


def test_nothing_was_logged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LogHistory(tmp_path).load()
