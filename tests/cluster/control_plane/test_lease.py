"""Two operators on one API server: one acts, the other takes over, and nothing happens twice."""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from dporun_testing import playing_kubelet as kubelet
from dporun_testing.kubectl import apply, eventually, get, kubectl, wait_condition
from dporun_testing.operator_process import ERRORS, HELD, OperatorProcess
from dporun_testing.played_run import ARCHIVED, TRAINED, manifest, train

pytestmark = pytest.mark.cluster

ENDLESS = "3600"
"""A lease that does not expire in a test."""

Start = Callable[..., OperatorProcess]


def wait_held(operator: OperatorProcess) -> None:
    eventually(lambda: operator.metric(HELD) == 1, seconds=60, what="the operator holds the lease")


def two_operators(start: Start, namespace: str, **settings: str) -> tuple[OperatorProcess, OperatorProcess]:
    """The one that acts, and the one that stands by."""
    acts = start(DPORUN_NAMESPACES=namespace, **settings)
    wait_held(acts)
    stands_by = start(DPORUN_NAMESPACES=namespace, **settings)
    eventually(
        lambda: "standing by for lease kube-system/dporun-operator" in stands_by.ask("/healthz"),
        seconds=30,
        what="the other one stands by",
    )
    assert stands_by.metric(HELD) == 0
    return acts, stands_by


def finish_what_the_other_began(namespace: str) -> None:
    """Bring a run that trains to its end, and see that nothing happened twice."""
    kubelet.end(namespace, "demo-train-1", TRAINED)
    kubelet.end(namespace, "demo-archive-1", ARCHIVED)
    wait_condition("demo", "Finished", namespace, seconds=60)
    jobs = kubectl("get", "jobs", "-n", namespace, "-o", "name").split()
    assert sorted(jobs) == [f"job.batch/demo-{name}" for name in ("archive-1", "prepare", "train-1")]
    events = json.loads(kubectl("get", "events", "-n", namespace, "-o", "json"))["items"]
    told = Counter(event["reason"] for event in events if event["involvedObject"]["kind"] == "DPORun")
    assert told["Training"] == told["Archived"] == told["Succeeded"] == 1
    assert [reason for reason, count in told.items() if count > 1 and reason != "TensorBoardReady"] == []


def test_a_rollout_hands_over_at_once(start_operator: Start, namespace: str) -> None:
    acts, stands_by = two_operators(start_operator, namespace, DPORUN_LEASE_SECONDS=ENDLESS)
    train(namespace)
    assert stands_by.metric("dporun_operator_api_requests_total") == 0
    acts.stop()
    wait_held(stands_by)
    finish_what_the_other_began(namespace)


def test_the_lease_of_a_killed_operator_expires(start_operator: Start, namespace: str) -> None:
    acts, stands_by = two_operators(start_operator, namespace)
    train(namespace)
    acts.kill()
    wait_held(stands_by)
    finish_what_the_other_began(namespace)


def test_a_holder_that_slept_past_its_lease_ends(start_operator: Start, namespace: str) -> None:
    """It writes nothing, although nobody else acts; the one that took the lease goes on after a sleep of its own."""
    first, second = two_operators(start_operator, namespace)
    first.pause()
    wait_held(second)
    second.pause()
    apply(manifest(), namespace)
    first.resume()
    assert first.wait() == 1
    assert "another operator has taken lease kube-system/dporun-operator" in first.log()
    assert "finalizers" not in get("dporun", "demo", namespace)["metadata"]
    second.resume()
    kubelet.pod_of(namespace, "demo-prepare")


@contextlib.contextmanager
def lease_not_usable() -> Iterator[None]:
    """Take the operator's rights on the Lease away, and give them back."""
    name = ("role", "dporun-operator-lease", "-n", "kube-system", "--type=merge", "-p")
    rules = get("role", "dporun-operator-lease", "kube-system")["rules"]
    kubectl("patch", *name, json.dumps({"rules": []}))
    try:
        yield
    finally:
        kubectl("patch", *name, json.dumps({"rules": rules}))


def test_a_holder_that_cannot_renew_does_not_write(start_operator: Start, namespace: str) -> None:
    """It goes on when it can: nobody has held the lease meanwhile."""
    operator = start_operator(DPORUN_NAMESPACES=namespace)
    wait_held(operator)
    with lease_not_usable():
        eventually(lambda: operator.metric(HELD) == 0, seconds=60, what="the lease is not to be relied on")
        apply(manifest(), namespace)
        eventually(lambda: operator.metric(ERRORS) >= 1, seconds=60, what="a write is refused")
        assert "finalizers" not in get("dporun", "demo", namespace)["metadata"]
        assert "does not hold the lease" in operator.log()
    kubelet.pod_of(namespace, "demo-prepare")
