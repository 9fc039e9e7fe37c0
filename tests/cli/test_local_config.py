"""The cluster's manifest, on this computer."""

import json
from pathlib import Path
from typing import Any

import pytest

from dporun_cli.local_config import LocalConfigError, local_config
from dporun_cli.manifest import Manifest, read
from dporun_testing.manifests import dporun


def manifest(folder: Path, **spec: Any) -> Manifest:
    path = folder / "run.json"
    path.write_text(json.dumps(dporun("local", spec)))
    (found,) = read(path)
    return found


def test_a_uri_becomes_the_folder_of_its_longest_prefix(tmp_path: Path) -> None:
    run = manifest(tmp_path, dataset={"train": "s3://bucket/data/v2/train.jsonl"}, archive={"uri": "s3://bucket/runs"})
    folders = {"s3://bucket": tmp_path / "all", "s3://bucket/data": tmp_path / "data"}
    config = local_config(run, tmp_path, folders)
    assert config.dataset.train == str(tmp_path / "data/v2/train.jsonl")
    assert config.archive is not None
    assert config.archive.uri == str(tmp_path / "all/runs")
    assert not config.checkpoints.upload, "the archive gets what is finished, and nothing before"
    assert config.model.uri == "hf://Qwen/Qwen2.5-0.5B-Instruct"


def test_a_prefix_ends_where_a_step_of_the_path_does(tmp_path: Path) -> None:
    run = manifest(tmp_path, dataset={"train": "s3://bucket/data-v2/train.jsonl"})
    with pytest.raises(LocalConfigError, match=r"--map s3://bucket/data=\.\.\.: matches no URI in the manifest"):
        local_config(run, tmp_path, {"s3://bucket/data": tmp_path})


def test_a_claim_of_the_cluster_needs_a_folder(tmp_path: Path) -> None:
    run = manifest(tmp_path, model={"uri": "pvc://models/qwen"})
    with pytest.raises(LocalConfigError, match=r"spec\.model\.uri: pvc://models/qwen exists only in a cluster"):
        local_config(run, tmp_path, {})
    assert local_config(run, tmp_path, {"pvc://models": tmp_path}).model.uri == str(tmp_path / "qwen")


def test_all_processes_run_here(tmp_path: Path) -> None:
    run = manifest(
        tmp_path, distributed={"nodes": 2}, storage={"accessModes": ["ReadWriteMany"]}, resources={"gpusPerNode": 4}
    )
    topology = local_config(run, tmp_path, {}).topology
    assert (topology.nodes, topology.processes_per_node) == (1, 8)


def test_fewer_processes_keep_the_effective_batch(tmp_path: Path) -> None:
    run = manifest(tmp_path, resources={"gpusPerNode": 8})
    whole, single = (local_config(run, tmp_path, {}, processes=count) for count in (None, 1))
    assert single.topology.world_size == 1
    assert single.training.gradient_accumulation_steps == 32
    assert single.effective_batch_size == whole.effective_batch_size == 64
    with pytest.raises(LocalConfigError, match="32 forward passes, which is not divisible by 5; use a divisor of 32"):
        local_config(run, tmp_path, {}, processes=5)


def test_a_run_to_resume_is_looked_for_beside_this_one(tmp_path: Path) -> None:
    run = manifest(tmp_path, checkpoints={"resumeFrom": {"run": "first"}})
    with pytest.raises(LocalConfigError, match=r"resumeFrom\.run: there is no folder .*first"):
        local_config(run, tmp_path, {})
    (tmp_path / "first").mkdir()
    assert local_config(run, tmp_path, {}).checkpoints.resume_from == str(tmp_path / "first")


def test_the_run_has_no_uid_and_remembers_its_manifest(tmp_path: Path) -> None:
    run = manifest(tmp_path)
    config = local_config(run, tmp_path, {})
    assert config.run.directory == "local"
    assert config.manifest == run.document
