"""The life of a run, from apply to an archived result, on a real cluster with the real images."""

import hashlib
import json
from typing import Any

import pytest

from dporun_testing.kubectl import KubectlError, apply, eventually, exists, get, kubectl
from dporun_testing.runs import FinishedRun, archived, exists_of_run, inspection_pod, tensorboard_tags

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def archive(finished: FinishedRun, s3: Any) -> dict[str, bytes]:
    """Every object of the run's archive, by path."""
    return archived(finished, s3)


def test_apply_leads_to_success(finished: FinishedRun) -> None:
    assert finished.status["phase"] == "Succeeded", finished.status["message"]


def test_the_conditions_say_that_every_step_was_done(finished: FinishedRun) -> None:
    assert {c["type"]: c["status"] for c in finished.status["conditions"]}.items() >= {
        "Accepted": "True",
        "Prepared": "True",
        "Scheduled": "True",
        "Evaluated": "True",
        "Archived": "True",
        "Succeeded": "True",
        "Finished": "True",
    }.items()


def test_the_phases_follow_one_another(finished: FinishedRun) -> None:
    assert [phase for phase in ("Preparing", "Training", "Archiving") if phase in finished.seen.phases] == [
        "Preparing",
        "Training",
        "Archiving",
    ], finished.seen.phases


def test_progress_moves_while_it_trains(finished: FinishedRun) -> None:
    steps = finished.seen.steps
    assert steps == sorted(steps)
    assert any(0 < step < steps[-1] for step in steps), steps


def test_the_verdict_is_good(finished: FinishedRun) -> None:
    verdict = finished.status["verdict"]
    assert (verdict["state"], verdict["passed"]) == ("Good", True), verdict
    assert {gate["name"]: gate["outcome"] for gate in verdict["gates"]} == {
        "accuracy": "Passed",
        "rewardMargin": "Passed",
        "betterThanBase": "Passed",
        "forgetting": "Passed",
    }


def test_training_and_evaluation_show_a_better_model(finished: FinishedRun) -> None:
    assert finished.status["evaluation"]["accuracy"] > 0.8
    assert finished.status["evaluation"]["rewardMargin"] > 2.0
    assert finished.status["bestCheckpoint"]["evalLoss"] < 0.5


def test_training_ran_with_two_processes_under_zero_2(archive: dict[str, bytes]) -> None:
    config = json.loads(archive["training_config.json"])
    text = json.dumps(config)
    assert '"world_size": 2' in text or '"worldSize": 2' in text
    assert '"zero_stage": 2' in text or '"zeroStage": 2' in text


def test_the_archive_matches_its_checksums(finished: FinishedRun, archive: dict[str, bytes]) -> None:
    manifest = archive["manifest.json"]
    files = {path: content for path, content in archive.items() if path != "manifest.json"}
    assert hashlib.sha256(manifest).hexdigest() == finished.status["archive"]["manifestSha256"]
    listed = {entry["path"]: entry for entry in json.loads(manifest)["files"]}
    assert listed.keys() == files.keys()
    for path, content in files.items():
        assert listed[path]["sha256"] == hashlib.sha256(content).hexdigest(), path
        assert listed[path]["bytes"] == len(content), path


def test_the_archive_has_model_numbers_and_report(archive: dict[str, bytes]) -> None:
    assert {
        "final/adapter_model.safetensors",
        "final/adapter_config.json",
        "merged/model.safetensors",
        "training_config.json",
        "training_metrics.json",
        "evaluation/comparison_results.json",
        "evaluation/evaluation_metrics.json",
        "report.html",
        "report.png",
        "README.md",
    } <= archive.keys()


def test_the_archive_has_no_checkpoints_and_inputs(archive: dict[str, bytes]) -> None:
    assert not [path for path in archive if path.startswith(("checkpoint-", "inputs/"))]


def test_the_training_metrics_are_those_asked_for(archive: dict[str, bytes]) -> None:
    training = json.loads(archive["training_metrics.json"])
    assert training.keys() >= {"train_loss", "eval_loss", "train_runtime", "train_samples_per_second", "epoch"}


def test_the_evaluation_metrics_are_those_asked_for(finished: FinishedRun, archive: dict[str, bytes]) -> None:
    evaluation = json.loads(archive["evaluation/evaluation_metrics.json"])
    assert evaluation.keys() >= {"accuracy", "avg_chosen_reward", "avg_rejected_reward", "reward_margin"}
    assert evaluation["accuracy"] == pytest.approx(finished.status["evaluation"]["accuracy"])


def test_the_comparison_has_both_models(archive: dict[str, bytes]) -> None:
    comparison = archive["evaluation/comparison_results.json"].decode()
    assert '"base"' in comparison
    assert '"tuned"' in comparison


SCALARS = {
    "train/loss",
    "validation/loss",
    "train/optimizer/learning_rate",
    "train/optimizer/gradient_norm",
    "train/rewards/chosen",
    "train/rewards/rejected",
    "train/rewards/margin",
    "train/rewards/accuracy",
}


def test_tensorboard_answers_while_training(finished: FinishedRun) -> None:
    assert finished.seen.scalars, "TensorBoard answered through its Service before the run finished"


def test_tensorboard_has_the_scalars_and_stays_after_the_end(finished: FinishedRun) -> None:
    def tags() -> set[str]:
        try:
            return tensorboard_tags(finished.name, finished.workspace.namespace)
        except KubectlError:
            return set()

    eventually(lambda: tags() >= SCALARS, seconds=120, what=f"TensorBoard has {sorted(SCALARS)}")


def test_the_columns_say_what_happened(finished: FinishedRun) -> None:
    head, row = kubectl("get", "dporuns", finished.name, "--namespace", finished.workspace.namespace).splitlines()
    assert head.split() == ["NAME", "PHASE", "PROGRESS", "ETA", "EVAL-LOSS", "ACC", "MARGIN", "HEALTH", "AGE"]
    assert row.split()[:2] == [finished.name, "Succeeded"]
    wide = kubectl("get", "dpo", "--namespace", finished.workspace.namespace, "--output", "wide").splitlines()[0]
    assert {"BEST", "MODEL", "GPUS", "FORGETTING", "VERDICT", "ARCHIVE", "MESSAGE"} <= set(wide.split())


def test_no_pod_of_a_run_holds_kubernetes_credentials(finished: FinishedRun) -> None:
    pods = json.loads(kubectl("get", "pods", "--namespace", finished.workspace.namespace, "--output", "json"))["items"]
    assert pods
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False, pod["metadata"]["name"]


def test_the_volume_keeps_no_intermediate_checkpoint(finished: FinishedRun) -> None:
    namespace = finished.workspace.namespace
    directory = finished.status["archive"]["uri"].rstrip("/").rpartition("/")[2]
    pod = inspection_pod(finished, f"cd /results/{directory} && ls -d checkpoint-* final merged")
    apply(pod, namespace)
    name = pod["metadata"]["name"]
    eventually(
        lambda: get("pod", name, namespace)["status"]["phase"] in {"Succeeded", "Failed"},
        seconds=120,
        what="the volume is listed",
    )
    listing = kubectl("logs", name, "--namespace", namespace).split()
    kubectl("delete", "pod", name, "--namespace", namespace)
    best = finished.status["bestCheckpoint"]["step"]
    assert {"final", "merged"} <= set(listing), listing
    assert {entry for entry in listing if entry.startswith("checkpoint-")} <= {f"checkpoint-{best}"}


def test_deletion_in_mid_training_saves_archives_and_releases(finished: FinishedRun, s3: Any) -> None:
    """Deleted while it trains: stops with a checkpoint, archives, prunes, and only then goes."""
    workspace, name = finished.workspace, "cut-short"
    apply(workspace.manifest(name, training={"epochs": 200}), workspace.namespace)

    def trained_an_epoch() -> bool:
        status = get("dporun", name, workspace.namespace).get("status", {})
        return status.get("phase") == "Training" and status.get("bestCheckpoint") is not None

    eventually(trained_an_epoch, seconds=600, what="a checkpoint has been saved")
    uid = get("dporun", name, workspace.namespace)["metadata"]["uid"]
    kubectl("delete", "dporun", name, "--namespace", workspace.namespace, "--wait=false")
    eventually(lambda: not exists("dporun", name, workspace.namespace), seconds=300, what="the deleted run is released")
    directory = f"archive/{name}-{uid[:8]}/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=workspace.bucket, Prefix=directory)
    paths = {item["Key"].removeprefix(directory) for page in pages for item in page.get("Contents", ())}
    assert "manifest.json" in paths, paths
    assert any(path.endswith("adapter_model.safetensors") for path in paths), paths
    assert not exists_of_run(uid, workspace.namespace)


def test_deleting_a_finished_run_leaves_only_its_archive(finished: FinishedRun, s3: Any) -> None:
    """Runs last: deletes the shared run."""
    before = archived(finished, s3)
    uid, namespace = finished.object()["metadata"]["uid"], finished.workspace.namespace
    kubectl("delete", "dporun", finished.name, "--namespace", namespace, "--timeout=300s")
    eventually(lambda: not exists_of_run(uid, namespace), seconds=120, what="nothing of the run is left")
    prefix = f"archive/{finished.name}-{uid[:8]}/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=finished.workspace.bucket, Prefix=prefix)
    after = {item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", ())}
    assert after == before.keys()
