"""Bringing archived runs back, and adapters to start from."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dporun_api.dataset_report import DataFacts
from dporun_api.files import sha256
from dporun_api.pod import ExitCode
from dporun_api.results import DatasetSummary
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.run_folders import a_run, results
from dporun_testing.s3_proxy import Proxy
from dporun_trainer.__main__ import main
from dporun_trainer.archiving.archive import archive
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.adapter import fetch_adapter
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.prepared import LintReport, ModelFacts, Prepared, Tokens
from dporun_trainer.stores.restore import restore

MODEL = ModelFacts(
    architecture="LlamaForCausalLM", parameters=9, dtype="float32", bytes=36, hidden_size=4, layers=1, vocabulary=8,
    lora_modules=2, lora_parameters=3, fingerprint=hashlib.sha256(b"base").hexdigest(),
)  # fmt: skip


@pytest.fixture
def archived(tmp_path: Path) -> Path:
    """Folder of an archived run, with the base model's fingerprint in its manifest."""
    directory = results(tmp_path / "run")
    (directory / "final" / "adapter_config.json").write_text(
        json.dumps({"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]})
    )
    prepared = Prepared(
        key="k",
        model_path="m",
        model=MODEL,
        train_path="t",
        validation_path="v",
        tokens=Tokens(train_path="t", validation_path="v", tokenizer="e" * 64),
        dataset=DatasetSummary(train_rows=1, validation_rows=1),
        lint=LintReport(train=DataFacts(source="s")),
    )
    (directory / "inputs" / "prepared.json").write_text(prepared.to_json())
    result = archive(a_run(str(tmp_path / "archive")), RunFolder(directory)).archive
    assert result
    return Path(result.uri)


def test_everything_comes_back(archived: Path, tmp_path: Path) -> None:
    manifest = restore(str(archived), tmp_path / "back")
    assert manifest.files
    for file in manifest.files:
        assert sha256(tmp_path / "back" / file.path) == file.sha256
    restore(str(archived), tmp_path / "back")  # once more: all there


def test_from_s3_and_only_a_part(bucket: str, tmp_path: Path) -> None:
    result = archive(a_run(f"s3://{bucket}/runs"), RunFolder(results(tmp_path / "run"))).archive
    assert result
    restore(result.uri, tmp_path / "back", only="final/")
    assert sorted(path.name for path in (tmp_path / "back").rglob("*") if path.is_file()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_damage_in_the_archive_is_found(archived: Path, tmp_path: Path) -> None:
    (archived / "final" / "adapter_model.safetensors").write_bytes(b"b" * 1000)
    with pytest.raises(RunError, match=r"adapter_model.safetensors is damaged: its SHA-256 is"):
        restore(str(archived), tmp_path / "back")
    assert not (tmp_path / "back" / "final" / "adapter_model.safetensors").exists()


def test_damage_on_the_way_is_never_put_in_place(proxy: Proxy, bucket: str, tmp_path: Path) -> None:
    result = archive(a_run(f"s3://{bucket}/runs"), RunFolder(results(tmp_path / "run"))).archive
    assert result
    proxy.break_with({"of": "GetObject", "path": "adapter_model.safetensors", "flip": {"answer": 7}})
    with pytest.raises(RunError, match=r"adapter_model.safetensors is damaged: its SHA-256 is"):
        restore(result.uri, tmp_path / "back", only="final/")
    assert not list((tmp_path / "back").rglob("adapter_model*"))
    proxy.break_with({"of": "GetObject", "path": "adapter_model.safetensors", "times": 2, "flip": {"answer": 7}})
    restore(result.uri, tmp_path / "back", only="final/")
    proxy.assert_met()
    assert (tmp_path / "back" / "final" / "adapter_model.safetensors").read_bytes() == b"a" * 1000


def test_nothing_is_overwritten(archived: Path, tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "training_config.json").write_text("mine")
    with pytest.raises(RunError, match="already exists with different content"):
        restore(str(archived), tmp_path / "back")
    assert (tmp_path / "back" / "training_config.json").read_text() == "mine"


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "a/../../b", "a\\b"])
def test_manifest_that_leads_elsewhere_is_refused(archived: Path, tmp_path: Path, path: str) -> None:
    manifest = json.loads((archived / "manifest.json").read_text())
    manifest["files"][0]["path"] = path
    (archived / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="leads out of the archive"):
        restore(str(archived), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_unfinished_archive_is_no_archive(archived: Path, tmp_path: Path) -> None:
    (archived / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"has no manifest\.json"):
        restore(str(archived), tmp_path / "back")


def test_command(archived: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", "--from", str(archived), "--to", str(tmp_path / "back")]) == ExitCode.OK
    assert "the run tone, all files verified" in capsys.readouterr().out
    shutil.rmtree(archived / "final")
    code = main(["restore", "--from", str(archived), "--to", str(tmp_path / "other")])
    assert code == ExitCode.ARCHIVE_FAILED
    error = capsys.readouterr().err
    assert "final" in error
    assert "Traceback" not in error


def resumed(uri: Path, **lora: Any) -> RunConfig:
    fields = a_run(None).model_dump()
    return RunConfig.model_validate(
        fields | {"checkpoints": {"resumeFrom": str(uri)}, "lora": {"targetModules": ["q_proj", "v_proj"]} | lora}
    )


def test_adapter_to_start_from(archived: Path, tmp_path: Path) -> None:
    fetch_adapter(resumed(archived), MODEL, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == b"a" * 1000


def test_adapter_of_another_base_is_refused(archived: Path, tmp_path: Path) -> None:
    other = MODEL.model_copy(update={"fingerprint": hashlib.sha256(b"other").hexdigest()})
    with pytest.raises(RunError, match="trained on another base model: hf://owner/name") as raised:
        fetch_adapter(resumed(archived), other, tmp_path / "adapter")
    assert raised.value.reason is Reason.MODEL_INVALID


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"rank": 8}, "lora.rank is 8, but the adapter in .* has 16"),
        ({"alpha": 16}, "lora.alpha is 16, but the adapter in .* has 32"),
        ({"targetModules": ["k_proj"]}, "lora.targetModules is k_proj, but the adapter in .* has q_proj, v_proj"),
    ],
)
def test_adapter_of_another_shape_is_refused(archived: Path, tmp_path: Path, lora: dict[str, Any], words: str) -> None:
    with pytest.raises(RunError, match=words) as raised:
        fetch_adapter(resumed(archived, **lora), MODEL, tmp_path / "adapter")
    assert raised.value.exit_code is ExitCode.CONFIG_INVALID


def test_run_without_adapter_is_refused(tmp_path: Path) -> None:
    result = archive(a_run(str(tmp_path / "archive")), RunFolder(results(tmp_path / "run", final=False))).archive
    assert result
    with pytest.raises(RunError, match="has no adapter"):
        fetch_adapter(resumed(Path(result.uri)), MODEL, tmp_path / "adapter")
