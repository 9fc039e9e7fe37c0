"""What a file is, by its content."""

import pytest

from dporun_trainer.data.kinds import Kind, kind_of
from dporun_trainer.errors import RunError


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (b"PAR1\x15\x04", "a.jsonl", Kind.PARQUET),
        (b'\xef\xbb\xbf\n{"a": 1}', "a", Kind.LINES),
        (b'{"a": 1}', "a.csv", Kind.LINES),
        (b' [{"a": 1}]', "a.jsonl", Kind.ARRAY),
        (b"prompt,chosen\nx,y", "a.jsonl", Kind.TABLE),
        (b"prompt,chosen\nx,y", "a.csv.gz", Kind.TABLE),
        (b"oops, no JSON\n{}", "a.jsonl", Kind.LINES),
        (b'"one, two"\n', "a.jsonl", Kind.LINES),
        (b"", "a.jsonl", Kind.LINES),
    ],
)
def test_kind(head: bytes, name: str, kind: Kind) -> None:
    assert kind_of(head, name) is kind


@pytest.mark.parametrize(
    ("head", "name", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "a.parquet", "a.parquet is the pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>", "a.jsonl", "a.jsonl is an HTML page"),
        (b"\n <div>Not found</div>", "a.jsonl", "a.jsonl is an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "a.csv", "is an XML document"),
        (b"PK\x03\x04\x14", "a.csv", "is a ZIP archive"),
        (b"\xff\xfea\x00", "a.csv", "is text in UTF-16"),
        (b"ARROW1\x00\x00", "data.arrow", "is an Arrow file"),
        (b"# Notes, and more", "README.md", "README.md is of an unknown format"),
    ],
)
def test_what_holds_no_rows(head: bytes, name: str, words: str) -> None:
    with pytest.raises(RunError) as raised:
        kind_of(head, name)
    assert words in raised.value.message
    assert raised.value.hint
