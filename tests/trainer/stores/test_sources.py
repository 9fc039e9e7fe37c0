"""URIs, what they may not reach, and which credentials count."""

from pathlib import Path

import pytest

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.stores.sources import (
    Credentials,
    HubSource,
    LocalSource,
    S3Source,
    Source,
    files_below,
    parse,
    require_inside,
    require_there,
)

REASON = Reason.DATASET_INVALID


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    (tmp_path / "claims" / "data" / "sub").mkdir(parents=True)
    (tmp_path / "claims" / "data" / "sub" / "train.jsonl").write_text("{}")
    (tmp_path / "claims" / "other").mkdir()
    (tmp_path / "claims" / "other" / "secret.jsonl").write_text("{}")
    return tmp_path / "claims"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("hf://owner/name", HubSource("owner/name")),
        ("hf://name", HubSource("name")),
        ("hf://datasets/name", HubSource("datasets/name")),
        ("hf://datasets/owner/name", HubSource("owner/name")),
        ("hf://datasets/owner/name/data/", HubSource("owner/name", "data")),
        ("hf://datasets/owner/name@v1.0/data/*.parquet", HubSource("owner/name", "data/*.parquet", "v1.0")),
        ("hf://owner/name@refs%2Fconvert%2Fparquet", HubSource("owner/name", "", "refs/convert/parquet")),
        ("s3://bucket/some/key#1?.jsonl", S3Source("bucket", "some/key#1?.jsonl")),
        ("s3://bucket", S3Source("bucket", "")),
        ("file:///some/a%20path", LocalSource(Path("/some/a path"))),
        ("/some/path", LocalSource(Path("/some/path"))),
    ],
)
def test_understood(uri: str, expected: Source, tmp_path: Path) -> None:
    assert parse(uri, claims=tmp_path, reason=REASON) == expected


def test_claims_are_used_where_they_are_mounted(claims: Path) -> None:
    found = parse("pvc://data/sub/train.jsonl", claims=claims, reason=REASON)
    assert found == LocalSource(claims / "data" / "sub" / "train.jsonl", claims / "data")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("hf://", "cannot understand"),
        ("hf:///a", "cannot understand"),
        ("hf://a/b?split=x", "cannot understand"),
        ("s3:///key", "no bucket"),
        ("gs://bucket/key", "cannot understand"),
        ("pvc://missing/file", "no claim named 'missing' is mounted"),
        ("pvc://../etc/passwd", "no claim named"),
        ("pvc://data/../other/secret.jsonl", "leads out of its claim"),
        ("pvc://data/sub/../../../../etc/passwd", "leads out of its claim"),
        ("pvc://data/link/secret.jsonl", "leads out of its claim"),
    ],
)
def test_refused(uri: str, words: str, claims: Path) -> None:
    (claims / "data" / "link").symlink_to(claims / "other")
    with pytest.raises(RunError, match=words) as raised:
        parse(uri, claims=claims, reason=REASON)
    assert raised.value.reason is REASON


def test_links_inside_a_claim_are_followed_and_others_refused(claims: Path) -> None:
    folder = claims / "data" / "sub"
    (folder / "again.jsonl").symlink_to(folder / "train.jsonl")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.jsonl").write_text("{}")
    source = parse("pvc://data/sub", claims=claims, reason=REASON)
    assert isinstance(source, LocalSource)
    assert list(files_below(claims / "data")) == ["sub/again.jsonl", "sub/train.jsonl"]
    require_inside(folder / "again.jsonl", source, "pvc://data/sub", REASON)
    (folder / "out.jsonl").symlink_to(claims / "other" / "secret.jsonl")
    with pytest.raises(RunError, match=r"out\.jsonl is a symbolic link that leads out of its claim"):
        require_inside(folder / "out.jsonl", source, "pvc://data/sub", REASON)


def test_missing_path(claims: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        require_there(LocalSource(claims / "nothing"), "pvc://data/nothing", REASON)


def test_prefixed_variables_come_first_and_stay_together() -> None:
    credentials = Credentials("spec.model.secretRef", "MODEL_", REASON, {"A": "1", "B": "2", "MODEL_A": "3"})
    assert credentials.get("A") == "3"
    assert credentials.get("B") == "2"
    assert credentials.together("A", "B") == ["3", None], "a key without its own secret must not get another's"
    assert credentials.together("B", "A") == ["2", "1"]
