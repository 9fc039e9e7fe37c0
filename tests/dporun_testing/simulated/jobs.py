"""The Job controller, as far as the Jobs of this project use it: one look at every Job and its pods."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from dporun_testing.builders import stamp
from dporun_testing.simulated.answers import Refused
from dporun_testing.simulated.api_server import ApiServer, Body
from dporun_testing.simulated.controllers import drop_finalizer

TRACKING = "batch.kubernetes.io/job-tracking"
FAIL = "FailJob: "
ENDED = {"Succeeded", "Failed"}
INDEX = "batch.kubernetes.io/job-completion-index"


class JobController:
    """Makes the pods of Jobs and says how they ended.

    Args:
        server: with Jobs and pods.
        now: the time.

    """

    def __init__(self, server: ApiServer, now: Callable[[], datetime]):
        self._server = server
        self._now = now
        self._made = 0
        self._known: dict[str, dict[str, str]] = {}
        """Of each Job, by UID: how each of its pods ended, by UID, or Running."""

    def look(self) -> None:
        """Bring every Job a step further."""
        jobs = {job["metadata"]["uid"]: job for job in self._server.all("Job")}
        pods: dict[str, list[Body]] = {uid: [] for uid in jobs}
        for pod in self._server.all("Pod"):
            owner = next((o["uid"] for o in pod["metadata"].get("ownerReferences", ()) if o["kind"] == "Job"), None)
            if owner in jobs:
                pods[owner].append(pod)
            elif TRACKING in pod["metadata"].get("finalizers", ()):
                drop_finalizer(self._server, pod, TRACKING)
        for uid, job in jobs.items():
            if "deletionTimestamp" in job["metadata"]:
                self._let_go(pods[uid])
            elif not _finished(job):
                self._work(job, pods[uid])

    def _work(self, job: Body, pods: Sequence[Body]) -> None:
        ends = self._count(job, pods)
        running = [pod for pod in pods if pod["status"].get("phase") not in ENDED]
        verdict = next((end for end in ends if end.startswith(FAIL)), None)
        failed = sum(end in {"Count", "Gone"} for end in ends) > job["spec"].get("backoffLimit", 6)
        if verdict or failed:
            for pod in running:
                self._server.delete(pod)
            if not running:
                words = verdict.removeprefix(FAIL) if verdict else "Job has reached the specified backoff limit"
                self._end(job, pods, "Failed", "PodFailurePolicy" if verdict else "BackoffLimitExceeded", words)
        elif ends.count("Succeeded") >= job["spec"].get("completions", 1):
            self._end(job, pods, "Complete", "CompletionsReached", "")
        else:
            self._let_go([pod for pod in pods if pod not in running])
            self._make_missing_pods(job, pods, running)

    def _count(self, job: Body, pods: Sequence[Body]) -> list[str]:
        """How each pod ended that the Job ever had, or Running."""
        known = self._known.setdefault(job["metadata"]["uid"], {})
        for pod in pods:
            uid = pod["metadata"]["uid"]
            if known.setdefault(uid, "Running") == "Running" and pod["status"].get("phase") in ENDED:
                known[uid] = self._judge(job, pod)
            elif "deletionTimestamp" in pod["metadata"] and not pod["spec"].get("nodeName"):
                known[uid] = "Gone"
                self._let_go([pod])
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid in [uid for uid, end in known.items() if end == "Running" and uid not in present]:
            known[uid] = "Gone"
        return list(known.values())

    def _make_missing_pods(self, job: Body, pods: Sequence[Body], running: Sequence[Body]) -> None:
        if _plain(job):
            missing = [] if running else [0]
        else:
            here = [*running, *(pod for pod in pods if pod["status"].get("phase") == "Succeeded")]
            indices = {pod["metadata"]["labels"][INDEX] for pod in here}
            missing = [index for index in range(job["spec"]["completions"]) if str(index) not in indices]
        for index in missing:
            with suppress(Refused):  # its namespace is being deleted
                self._make_pod(job, index)

    def _judge(self, job: Body, pod: Body) -> str:
        """Succeeded, Ignore, Count, or FAIL and the words of the rule that matched."""
        if pod["status"]["phase"] == "Succeeded":
            return "Succeeded"
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for number, rule in enumerate(job["spec"].get("podFailurePolicy", {}).get("rules", ())):
            if words := _matches(rule, pod["status"], name):
                action: str = rule["action"]
                return f"{FAIL}{words} matching FailJob rule at index {number}" if action == "FailJob" else action
        return "Count"

    def _make_pod(self, job: Body, index: int) -> None:
        metadata, template = job["metadata"], job["spec"]["template"]
        self._made += 1
        place = "" if _plain(job) else f"-{index}"
        labels = {"batch.kubernetes.io/job-name": metadata["name"], **({} if _plain(job) else {INDEX: str(index)})}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        self._server.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{metadata['name']}{place}-{self._made:05d}",
                    "namespace": metadata["namespace"],
                    "labels": {**template["metadata"].get("labels", {}), **labels},
                    "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
                    "finalizers": [TRACKING],
                },
                "spec": template["spec"],
            }
        )

    def _end(self, job: Body, pods: Sequence[Body], kind: str, reason: str, message: str) -> None:
        self._let_go(pods)
        condition = {
            "type": kind, "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": stamp(self._now()),
        }  # fmt: skip
        self._server.change(job, {"status": {"conditions": [condition]}}, subresource="status")

    def _let_go(self, pods: Sequence[Body]) -> None:
        for pod in pods:
            if TRACKING in pod["metadata"].get("finalizers", ()):
                drop_finalizer(self._server, pod, TRACKING)


def _plain(job: Body) -> bool:
    return job["spec"].get("completionMode") != "Indexed"


def _finished(job: Body) -> bool:
    return any(condition["type"] in {"Complete", "Failed"} for condition in job["status"].get("conditions", ()))


def _matches(rule: Mapping[str, Any], status: Mapping[str, Any], name: str) -> str | None:
    if on := rule.get("onExitCodes"):
        for container in status.get("containerStatuses", ()):
            code = container["state"].get("terminated", {}).get("exitCode")
            if container["name"] == on["containerName"] and code in on["values"]:
                return f"Container {container['name']} for pod {name} failed with exit code {code}"
    targets = {condition["type"] for condition in status.get("conditions", ()) if condition["status"] == "True"}
    for pattern in rule.get("onPodConditions", ()):
        if pattern["type"] in targets:
            return f"Pod {name} has condition {pattern['type']}"
    return None
