"""The pods that are planned: restricted, without credentials, where the GPUs are."""

import json
from typing import Any

import pytest

from dporun_api.memory import GIB, MemoryEstimate
from dporun_api.run_config import RunConfig
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.provide import provide
from dporun_operator.objects.archive_job import archive_job
from dporun_operator.objects.config_map import config_map
from dporun_operator.objects.prepare_job import prepare_job
from dporun_operator.objects.tensorboard import tensorboard_deployment
from dporun_operator.objects.train_job import train_job
from dporun_operator.observed import Observed
from dporun_operator.run import Run
from dporun_operator.settings import Settings
from dporun_testing.builders import NOW, SETTINGS, a_run, run_body

PLACED = {
    "resources": {
        "gpusPerNode": 8,
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "runtimeClassName": "nvidia",
        "priorityClassName": "low",
    },
    "archive": {"uri": "s3://bucket/runs", "serviceAccountName": "archiver"},
}


def workloads(run: Run, settings: Settings = SETTINGS) -> dict[str, dict[str, Any]]:
    return {
        "prepare": prepare_job(run, settings, 1),
        "train": train_job(run, settings, 1),
        "archive": archive_job(run, settings, 1),
        "tensorboard": tensorboard_deployment(run, settings),
    }


def provided(run: Run, source_uri: str | None = None) -> tuple[dict[str, Any], ...]:
    archived = {"archive": {"state": "Succeeded", "uri": source_uri}}
    source = run_body(name="old", status=archived) if source_uri else None
    draft = Draft(run, Observed.of([], run, source=source), SETTINGS, NOW)
    provide(draft)
    return draft.plan().apply


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def violations(pod: dict[str, Any]) -> list[str]:
    """What of the Pod Security Standard *restricted* a pod breaks (kubernetes.io/docs/concepts/security)."""
    found = [field for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    security = pod.get("securityContext", {})
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [f"volume {v['name']}" for v in pod.get("volumes", ()) if not set(v) - {"name"} <= allowed]
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        own = container.get("securityContext", {})
        effective = {**security, **own}
        checks = {
            "privileged": not own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": own.get("capabilities", {}).get("drop") == ["ALL"] and "add" not in own["capabilities"],
            "runAsNonRoot": effective.get("runAsNonRoot") is True,
            "runAsUser": effective.get("runAsUser") != 0,
            "seccompProfile": effective.get("seccompProfile", {}).get("type") in {"RuntimeDefault", "Localhost"},
            "hostPort": not any("hostPort" in port for port in container.get("ports", ())),
        }
        found += [f"{container['name']}: {name}" for name, holds in checks.items() if not holds]
    return found


@pytest.mark.parametrize("name", ["prepare", "train", "archive", "tensorboard"])
def test_every_pod_is_restricted_and_has_no_credentials(name: str) -> None:
    """Those of the cluster, that is."""
    spec = pod(workloads(a_run(PLACED))[name])
    assert violations(spec) == []
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["image"] == SETTINGS.trainer_image


def test_the_check_for_restricted_finds_what_is_not() -> None:
    spec = pod(workloads(a_run())["train"])
    spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    spec["containers"][0] = {**spec["containers"][0], "securityContext": {"privileged": True}}
    assert {"volume host", "trainer: privileged", "trainer: capabilities"} <= set(violations(spec))


@pytest.mark.parametrize("name", ["prepare", "train", "archive", "tensorboard"])
def test_every_pod_goes_where_the_gpus_are(name: str) -> None:
    spec = pod(workloads(a_run(PLACED))[name])
    assert spec["nodeSelector"] == {"gpu": "h100"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert spec["runtimeClassName"] == "nvidia"


def test_only_training_asks_for_gpus_and_has_the_priority() -> None:
    pods = {name: pod(workload) for name, workload in workloads(a_run(PLACED)).items()}
    asking = [name for name, spec in pods.items() if "nvidia.com/gpu" in json.dumps(spec["containers"])]
    assert asking == ["train"]
    assert pods["train"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert [name for name, spec in pods.items() if "priorityClassName" in spec] == ["train"]


def test_without_gpus_none_are_asked_for_and_one_process_trains() -> None:
    run = a_run({"resources": {"gpusPerNode": 0, "requests": {"cpu": "2"}, "limits": {}}})
    container = pod(workloads(run)["train"])["containers"][0]
    assert container["resources"] == {"requests": {"cpu": "2"}}
    assert run.spec.processes_per_node == 1


def test_a_default_never_contradicts_what_the_run_asks_for() -> None:
    resources = {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"cpu": "2"}}
    settings = SETTINGS.model_copy(update={"train_resources": resources})
    asked = {"gpusPerNode": 0, "limits": {"memory": "2Gi"}}
    job = train_job(a_run({"resources": asked}), settings, 1)
    assert pod(job)["containers"][0]["resources"] == {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}
    asked = {"gpusPerNode": 0, "requests": {"cpu": "8"}}
    job = train_job(a_run({"resources": asked}), settings, 1)
    assert pod(job)["containers"][0]["resources"] == {"requests": {"cpu": "8"}}


@pytest.mark.parametrize(
    ("asked", "default", "requests"),
    [
        ({}, {"requests": {"cpu": "1", "memory": "4Gi"}}, {"cpu": "1", "memory": "20Gi"}),
        ({}, {"requests": {"memory": "32Gi"}}, {"memory": "32Gi"}),
        ({}, {}, {"memory": "20Gi"}),
        ({}, {"requests": {"memory": "4Gi"}, "limits": {"memory": "16Gi"}}, {"memory": "16Gi"}),
        ({"requests": {"cpu": "8"}}, {"requests": {"memory": "4Gi"}}, {"cpu": "8", "memory": "20Gi"}),
        ({"requests": {"memory": "2Gi"}}, {"requests": {"memory": "4Gi"}}, {"memory": "2Gi"}),
        ({"limits": {"memory": "16Gi"}}, {"requests": {"cpu": "1", "memory": "4Gi"}}, {"cpu": "1"}),
    ],
)
def test_the_memory_request_follows_the_estimate(
    asked: dict[str, Any], default: dict[str, Any], requests: dict[str, str]
) -> None:
    """Where the run says nothing of memory; never below the default, nor above a limit."""
    need = {"weights": 0, "adapter": 0, "activations": 0, "checkpointed_activations": 0, "overhead": 0}
    memory = MemoryEstimate(**need, host=19 * GIB + 1)
    settings = SETTINGS.model_copy(update={"train_resources": default})
    job = train_job(a_run({"resources": {"gpusPerNode": 0, **asked}}), settings, 1, memory=memory)
    assert pod(job)["containers"][0]["resources"]["requests"] == requests


def test_the_administrator_sets_variables_of_training_alone() -> None:
    settings = SETTINGS.model_copy(update={"train_environment": {"NCCL_SOCKET_IFNAME": "eth0"}})
    wanted = {"name": "NCCL_SOCKET_IFNAME", "value": "eth0"}
    pods = {name: pod(workload) for name, workload in workloads(a_run(PLACED), settings).items()}
    assert [name for name, spec in pods.items() if wanted in spec["containers"][0]["env"]] == ["train"]


def test_training_knows_its_node() -> None:
    """To name it when a GPU fails."""
    wanted = {"name": "DPORUN_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    pods = {name: pod(workload) for name, workload in workloads(a_run(PLACED)).items()}
    assert [name for name, spec in pods.items() if wanted in spec["containers"][0]["env"]] == ["train"]


@pytest.mark.parametrize(("requests", "cpus"), [(None, None), ({"memory": "8Gi"}, None), ({"cpu": "1500m"}, "2")])
def test_training_is_told_the_cpus_that_its_run_asks_for(requests: dict[str, str] | None, cpus: str | None) -> None:
    job = train_job(a_run({"resources": {"requests": requests}}), SETTINGS, 1)
    variables = {variable["name"]: variable.get("value") for variable in pod(job)["containers"][0]["env"]}
    assert variables.get("DPORUN_CPU_REQUEST") == cpus


def test_one_process_per_gpu() -> None:
    assert a_run(PLACED).spec.processes_per_node == 8


def test_only_the_pod_that_needs_a_secret_has_it() -> None:
    run = a_run(
        {
            "model": {"secretRef": {"name": "hub"}},
            "dataset": {"secretRef": {"name": "data"}},
            "archive": {"uri": "s3://bucket/runs", "secretRef": {"name": "vault"}},
        }
    )
    secrets = {
        name: [
            source["prefix"] + source["secretRef"]["name"]
            for container in pod(w)["containers"]
            for source in container.get("envFrom", ())
        ]
        for name, w in workloads(run).items()
    }
    assert secrets == {
        "prepare": ["MODEL_hub", "DATASET_data"],
        "train": ["ARCHIVE_vault"],
        "archive": ["ARCHIVE_vault"],
        "tensorboard": [],
    }


def test_training_starts_without_the_secret_of_the_archive() -> None:
    archive = {"uri": "s3://bucket/runs", "secretRef": {"name": "vault"}}
    (container,) = pod(train_job(a_run({"archive": archive}), SETTINGS, 1))["containers"]
    assert container["envFrom"] == [{"prefix": "ARCHIVE_", "secretRef": {"name": "vault", "optional": True}}]


@pytest.mark.parametrize(
    "spec",
    [
        {"archive": {"uri": "s3://bucket/runs", "secretRef": {"name": "vault"}}, "checkpoints": {"upload": False}},
        {"archive": {"uri": "s3://bucket/runs", "serviceAccountName": "archiver"}},
        {},
    ],
)
def test_training_gets_no_key_where_nothing_is_uploaded(spec: dict[str, Any]) -> None:
    run = a_run(spec)
    template = pod(train_job(run, SETTINGS, 1))
    assert "envFrom" not in template["containers"][0]
    assert "serviceAccountName" not in template
    config = RunConfig.model_validate_json(config_map(run, SETTINGS)["data"]["run.json"])
    assert not config.checkpoints.upload


def test_an_attempt_knows_what_was_uploaded() -> None:
    (container,) = pod(train_job(a_run(), SETTINGS, 2, uploaded=40))["containers"]
    assert {"name": "DPORUN_UPLOADED_STEP", "value": "40"} in container["env"]


def test_the_archive_pod_may_have_an_identity_of_its_own() -> None:
    pods = {name: pod(workload) for name, workload in workloads(a_run(PLACED)).items()}
    assert [name for name, spec in pods.items() if "serviceAccountName" in spec] == ["archive"]


def test_claims_of_inputs_are_mounted_read_only_once() -> None:
    run = a_run(
        {
            "model": {"uri": "pvc://models/a/b"},
            "dataset": {"train": "pvc://data/t.jsonl", "validation": "pvc://data/v.jsonl"},
        }
    )
    spec = pod(workloads(run)["prepare"])
    mounts = {m["mountPath"]: m for m in spec["containers"][0]["volumeMounts"]}
    assert [path for path in mounts if path.startswith("/claims")] == ["/claims/models", "/claims/data"]
    assert mounts["/claims/data"]["readOnly"] is True
    claims = [v["persistentVolumeClaim"] for v in spec["volumes"] if v["name"].startswith("claim-")]
    assert claims == [{"claimName": "models", "readOnly": True}, {"claimName": "data", "readOnly": True}]


def test_inputs_on_the_claim_of_the_results_are_mounted_once() -> None:
    """From the volume that is there for the results."""
    run = a_run({"model": {"uri": "pvc://shared/base"}, "storage": {"claimName": "shared"}})
    spec = pod(workloads(run)["prepare"])
    mounts = {m["mountPath"]: m for m in spec["containers"][0]["volumeMounts"]}
    assert mounts["/claims/shared"] == {"name": "results", "mountPath": "/claims/shared", "readOnly": True}
    claims = [v["persistentVolumeClaim"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [{"claimName": "shared"}]


def test_tensorboard_is_a_native_sidecar_that_may_only_read() -> None:
    run = a_run()
    sidecar = pod(workloads(run)["train"])["initContainers"][0]
    assert sidecar["restartPolicy"] == "Always"
    assert "startupProbe" not in sidecar
    assert sidecar["command"][:2] == ["tensorboard", f"--logdir=/results/{run.directory}/runs"]
    (results,) = [mount for mount in sidecar["volumeMounts"] if mount["name"] == "results"]
    assert results["readOnly"] is True
    assert "initContainers" not in pod(workloads(a_run({"tensorboard": {"enabled": False}}))["train"])


def test_shared_memory_has_the_size_asked_for() -> None:
    spec = pod(workloads(a_run({"resources": {"shmSize": "16Gi"}}))["train"])
    (volume,) = [v for v in spec["volumes"] if v["name"] == "shm"]
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert {"name": "shm", "mountPath": "/dev/shm"} in spec["containers"][0]["volumeMounts"]


def test_the_pods_of_an_attempt_find_the_first_of_them() -> None:
    job = train_job(a_run({"distributed": {"nodes": 2}, "storage": {"claimName": "shared"}}), SETTINGS, 3)
    spec = pod(job)
    assert spec["subdomain"] == "demo-train"
    assert {"name": "DPORUN_MAIN_ADDRESS", "value": "demo-train-3-0.demo-train.team-a.svc"} in spec["containers"][0][
        "env"
    ]


def test_run_json_is_what_the_trainer_reads() -> None:
    run = a_run(
        {
            "model": {"uri": "s3://bucket/model", "secretRef": {"name": "s3"}},
            "archive": {"uri": "s3://bucket/runs", "secretRef": {"name": "s3"}, "when": "Passed"},
            "evaluation": {"gates": {"accuracy": None}},
            "checkpoints": {"everySteps": 50, "resumeFrom": {"uri": "s3://bucket/runs/old-11111111"}},
            "runPolicy": {"gracePeriodSeconds": 300, "stallSeconds": 600},
        },
        annotations={"kubectl.kubernetes.io/last-applied-configuration": "{}", "why": "tone"},
        managedFields=[{"manager": "kubectl"}],
    )
    manifest = config_map(run, SETTINGS)
    config = RunConfig.model_validate_json(manifest["data"]["run.json"])
    assert config.run.directory == "demo-0a1b2c3d"
    assert config.archive is not None
    assert config.archive.when == "Passed"
    assert config.evaluation.gates.accuracy is None
    assert config.evaluation.gates.reward_margin == 2.0
    assert config.checkpoints.resume_from == "s3://bucket/runs/old-11111111"
    assert (config.grace_period_seconds, config.stall_seconds) == (300, 600)
    assert config.image == SETTINGS.trainer_image
    assert config.manifest is not None
    assert set(config.manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert config.manifest["metadata"] == {"name": "demo", "namespace": "team-a", "annotations": {"why": "tone"}}
    assert "ownerReferences" not in manifest["metadata"]


def test_no_kubelet_judges_whether_training_is_alive() -> None:
    """It could only end the pod as if it were preempted; the operator does it, or the pod itself (launch.py)."""
    (container,) = pod(workloads(a_run())["train"])["containers"]
    assert not {"livenessProbe", "readinessProbe", "startupProbe"} & container.keys()


def test_a_run_starts_from_the_archive_of_another() -> None:
    run = a_run({"checkpoints": {"resumeFrom": {"run": "old"}}})
    assert not [manifest for manifest in provided(run) if manifest["kind"] == "ConfigMap"]
    (manifest,) = [m for m in provided(run, "s3://bucket/runs/old-22222222") if m["kind"] == "ConfigMap"]
    config = RunConfig.model_validate_json(manifest["data"]["run.json"])
    assert config.checkpoints.resume_from == "s3://bucket/runs/old-22222222"


def test_starting_from_another_run_takes_the_key_of_the_archive() -> None:
    run = a_run(
        {
            "checkpoints": {"resumeFrom": {"uri": "s3://bucket/runs/old-11111111"}},
            "archive": {"uri": "s3://bucket/runs", "secretRef": {"name": "vault"}},
        }
    )
    (container,) = pod(workloads(run)["prepare"])["containers"]
    assert container["envFrom"] == [{"prefix": "ARCHIVE_", "secretRef": {"name": "vault"}}]
