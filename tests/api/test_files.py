"""Files are whole or not there."""

import json
import math
import os
from pathlib import Path

import pytest

from dporun_api.files import read_json, sha256, write_json, write_text


def test_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    for value in ({"é": 1}, {"é": 2}):
        write_json(path, value)
        assert read_json(path) == value
    assert [file.name for file in path.parent.iterdir()] == ["file.json"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_is_no_json(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", {"loss": value})
    assert not list(tmp_path.iterdir())


def test_read_json_of_a_torn_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"a": ')
    with pytest.raises(json.JSONDecodeError):
        read_json(tmp_path / "file")


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
