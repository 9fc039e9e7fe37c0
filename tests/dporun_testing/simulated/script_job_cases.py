"""What a client sees of the Job controller: cases like those of ``script_cases``."""

from typing import Any

from dporun_testing.simulated.script import Cases, Script
from dporun_testing.simulated.script_cases import made, owned_by, pod, run

case = Cases()
RULES = [
    {
        "action": "FailJob",
        "onExitCodes": {"containerName": "trainer", "operator": "In", "values": [65]},
    },
    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
]
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}


def job(*, retries: int = 0, indexed: bool = True, **metadata: Any) -> dict[str, Any]:
    mode = {"completionMode": "Indexed", "completions": 1, "parallelism": 1} if indexed else {}
    template = {"metadata": {"labels": {"dporun.io/run-uid": "1"}}, "spec": pod()["spec"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "demo", **metadata},
        "spec": {**mode, "backoffLimit": retries, "podFailurePolicy": {"rules": RULES}, "template": template},
    }


async def its_pod(api: Script, *, after: str = "") -> dict[str, Any]:
    """The pod of the Job, once it is there; another one than ``after``."""

    async def found() -> dict[str, Any] | None:
        pods = await api.list("Pod", "batch.kubernetes.io/job-name=demo")
        return next((body for body in pods if body["metadata"]["name"] != after), None)

    body: dict[str, Any] = await api.eventually(found)
    return body


async def ended(api: Script, name: str, code: int, *conditions: dict[str, Any]) -> None:
    """Let a pod end, as the kubelet says it."""
    stopped = {"terminated": {"exitCode": code, "startedAt": _TIME, "finishedAt": _TIME}}
    container = {
        "name": "trainer", "state": stopped, "ready": False, "restartCount": 0, "image": "x", "imageID": "sha256:0",
    }  # fmt: skip
    status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]}
    if conditions:
        status["conditions"] = list(conditions)
    answer = await api.merge("Pod", name, {"status": status}, subresource="status")
    assert answer.words == "ok", answer.body


_TIME = "2026-01-05T10:00:00Z"


async def condition(api: Script, kind: str) -> dict[str, Any]:
    """The condition of the Job, once it is True."""

    async def found() -> dict[str, Any] | None:
        body = await api.get("Job", "demo")
        conditions = (body or {}).get("status", {}).get("conditions", [])
        return next((entry for entry in conditions if entry["type"] == kind and entry["status"] == "True"), None)

    entry: dict[str, Any] = await api.eventually(found)
    return entry


@case
async def a_job_makes_a_pod(api: Script) -> None:
    created = await made(api, job())
    body = (await its_pod(api))["metadata"]
    assert body["name"].startswith("demo-0-")
    assert body["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    assert body["labels"]["dporun.io/run-uid"] == "1"
    assert body["labels"]["batch.kubernetes.io/job-completion-index"] == "0"
    (owner,) = body["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Job", created["metadata"]["uid"], True)


@case
async def a_jobs_template_cannot_be_changed(api: Script) -> None:
    await made(api, job())
    change = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 5}}}}
    assert (await api.merge("Job", "demo", change)).words == "422 Invalid"


@case
async def a_job_is_complete_with_its_pod(api: Script) -> None:
    await made(api, job())
    name = (await its_pod(api))["metadata"]["name"]
    await api.bind(name)
    await ended(api, name, 0)
    await condition(api, "Complete")
    await api.delete("Pod", name)
    await api.gone("Pod", name)
    await condition(api, "Complete")


@case
async def a_rule_on_an_exit_code_fails_a_job(api: Script) -> None:
    await made(api, job(retries=3))
    name = (await its_pod(api))["metadata"]["name"]
    await api.bind(name)
    await ended(api, name, 65)
    failed = await condition(api, "Failed")
    words = (
        f"Container trainer for pod {api.namespace}/{name} failed with exit code 65 matching FailJob rule at index 0"
    )
    assert (failed["reason"], failed["message"]) == ("PodFailurePolicy", words)


@case
async def a_rule_on_a_disruption_fails_a_job(api: Script) -> None:
    await made(api, job(retries=3))
    name = (await its_pod(api))["metadata"]["name"]
    await api.bind(name)
    await ended(api, name, 75, DISRUPTED)
    failed = await condition(api, "Failed")
    words = f"Pod {api.namespace}/{name} has condition DisruptionTarget matching FailJob rule at index 1"
    assert (failed["reason"], failed["message"]) == ("PodFailurePolicy", words)


@case
async def the_last_try_fails_a_job(api: Script) -> None:
    await made(api, job())
    name = (await its_pod(api))["metadata"]["name"]
    await api.bind(name)
    await ended(api, name, 1)
    failed = await condition(api, "Failed")
    words = "Job has reached the specified backoff limit"
    assert (failed["reason"], failed["message"]) == ("BackoffLimitExceeded", words)


@case
async def a_job_tries_again(api: Script) -> None:
    await made(api, job(retries=3, indexed=False))
    name = (await its_pod(api))["metadata"]["name"]
    await api.bind(name)
    await ended(api, name, 1)
    await its_pod(api, after=name)


@case
async def a_job_waits_for_a_pod_that_stops(api: Script) -> None:
    """With a podFailurePolicy a pod counts only once it has ended."""
    await made(api, job())
    name = (await its_pod(api))["metadata"]["name"]
    await api.bind(name)
    await api.delete("Pod", name)
    await api.stays("Pod", name)
    body = await api.get("Job", "demo")
    assert body is not None
    assert not body["status"].get("conditions")
    await ended(api, name, 1)
    await condition(api, "Failed")
    await api.delete("Pod", name, grace=0)
    await api.gone("Pod", name)


@case
async def a_pod_that_never_ran_counts_as_failed(api: Script) -> None:
    await made(api, job())
    name = (await its_pod(api))["metadata"]["name"]
    await api.delete("Pod", name)
    await api.gone("Pod", name)
    await condition(api, "Failed")


@case
async def the_pods_of_a_deleted_job_stop(api: Script) -> None:
    await made(api, job())
    name = (await its_pod(api))["metadata"]["name"]
    await api.bind(name)
    await api.delete("Job", "demo")
    await api.gone("Job", "demo")
    await api.being_deleted("Pod", name)
    await api.delete("Pod", name, grace=0)
    await api.gone("Pod", name)


@case
async def in_the_foreground_a_job_waits_for_its_pod(api: Script) -> None:
    owner = await made(api, run(finalizers=["dporun.io/archive"]))
    await made(api, job(ownerReferences=owned_by(owner)))
    name = (await its_pod(api))["metadata"]["name"]
    await api.bind(name)
    await api.delete("DPORun", "demo", "Foreground")
    await api.being_deleted("Pod", name)
    await api.being_deleted("Job", "demo")
    await api.delete("Pod", name, grace=0)
    await api.gone("Job", "demo")
    await api.merge("DPORun", "demo", {"metadata": {"finalizers": None}})
    await api.gone("DPORun", "demo")
