"""Files of data from every kind of place: one, a folder, a glob, a split, a slice of one."""

import json
from pathlib import Path

import pytest

from dporun_testing import hub_server
from dporun_testing.hub_server import Repository
from dporun_testing.s3_server import S3Server
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.fetch import Fetcher
from dporun_trainer.stores.sources import DATASET

FILES: dict[str, int | str] = {
    "README.md": "---\nlicense: mit\n---\n",
    "more/train-0.jsonl": 4,
    "more/train-1.jsonl": 6,
    "more/test.jsonl": 5,
    "notes.txt": "no rows",
    ".hidden/train.jsonl": 1,
}
"""Names, and how many rows are in each."""

FOUND = {
    "": {"more/test.jsonl": 5, "more/train-0.jsonl": 4, "more/train-1.jsonl": 6},
    "?split=train": {"more/train-0.jsonl": 4, "more/train-1.jsonl": 6},
    "?split=train[30%:]": {"more/train-0.jsonl": 1, "more/train-1.jsonl": 6},
    "?split=test%2Btrain[:5]": {"more/test.jsonl": 5, "more/train-0.jsonl": 4, "more/train-1.jsonl": 1},
    "/more/train-*.jsonl": {"more/train-0.jsonl": 4, "more/train-1.jsonl": 6},
    "/more/train-[1-9].jsonl?split=train[-2:]": {"more/train-1.jsonl": 2},
    "/more/test.jsonl": {"more/test.jsonl": 5},
    "/more/test.jsonl?split=train[:2]": {"more/test.jsonl": 2},
    "/**/test.jsonl": {"more/test.jsonl": 5},
}
"""What addresses mean that continue the one of the folder: rows by file."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, rows in FILES.items():
        path = tmp_path / "claims" / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = rows if isinstance(rows, str) else "".join(json.dumps({"prompt": n}) + "\n" for n in range(rows))
        path.write_text(text)
    return tmp_path / "claims" / "data"


def found(uri: str, folder: Path) -> dict[str, int]:
    """Names of the files that a URI means, and how many rows of each."""
    files = Fetcher(folder / "claims").data(uri, folder / "raw", DATASET)
    return {file.name: sum(1 for _ in file.rows()) for file in files}


def by_file(expected: dict[str, int]) -> dict[str, int]:
    return {Path(name).name: rows for name, rows in expected.items()}


@pytest.mark.parametrize("rest", FOUND)
def test_local(data: Path, tmp_path: Path, rest: str) -> None:
    for uri in (f"{data}{rest}", f"pvc://data{rest or '/'}"):
        assert by_file(found(uri, tmp_path)) == by_file(FOUND[rest])


@pytest.mark.parametrize("rest", FOUND)
def test_s3(s3: S3Server, bucket: str, data: Path, tmp_path: Path, rest: str) -> None:
    for name in FILES:
        s3.client().upload_file(str(data / name), bucket, f"sets/tone/{name}")
    expected = by_file(FOUND[rest])
    assert by_file(found(f"s3://{bucket}/sets/tone{rest}", tmp_path)) == expected
    kept = {path.name for path in (tmp_path / "raw").rglob("*.jsonl")}
    assert kept == expected.keys(), "nothing else is downloaded"


@pytest.mark.parametrize("rest", FOUND)
def test_hub(hub: hub_server.Hub, data: Path, tmp_path: Path, rest: str) -> None:
    hub.datasets["owner/tone"] = Repository(data)
    expected = FOUND[rest or "?split=train"]
    assert found(f"hf://datasets/owner/tone{rest}", tmp_path) == expected
    if not rest.startswith("/"):
        assert found(f"hf://owner/tone{rest}", tmp_path / "again") == expected


def test_readme_decides_everywhere(data: Path, tmp_path: Path) -> None:
    (data / "README.md").write_text("---\nconfigs:\n- {config_name: a, data_files: more/test.jsonl}\n---\n")
    assert found(f"{data}?config=a", tmp_path) == {"more/test.jsonl": 5}
    with pytest.raises(RunError, match="no config 'b'"):
        found(f"{data}?config=b", tmp_path)


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("/nothing.jsonl", "does not exist"),
        ("/*.parquet", "nothing there that holds rows"),
        ("?split=dev", "no files of rows for split 'dev'"),
        ("?spilt=dev", "unknown parameter spilt"),
    ],
)
def test_nothing_there(data: Path, tmp_path: Path, rest: str, words: str) -> None:
    with pytest.raises(RunError, match=words):
        found(f"{data}{rest}", tmp_path)


def test_glob_finds_no_way_out_of_a_claim(data: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text("{}")
    (data / "more" / "train-9.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(RunError, match=r"train-9\.jsonl is a symbolic link that leads out of its claim"):
        found("pvc://data/more/train-*.jsonl", tmp_path)


def test_model_is_a_whole_repository(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="a model is a whole repository"):
        Fetcher(tmp_path).model("hf://owner/name/file", None, tmp_path, DATASET)


def test_folder_of_save_to_disk_is_named(tmp_path: Path) -> None:
    """Its JSON files are about the rows, and hold none."""
    for name in ("data-00000-of-00001.arrow", "dataset_info.json", "state.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(RunError, match=r"Arrow files, as Dataset\.save_to_disk writes them") as raised:
        found(str(tmp_path), tmp_path)
    assert "Dataset.to_parquet" in (raised.value.hint or "")
