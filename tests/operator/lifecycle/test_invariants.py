"""What must hold whatever is observed: nothing is let go of before it is safe, and the end is the end."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dporun_api.results import ArchiveResult, Outcome, OutcomeState
from dporun_operator.cache import slim
from dporun_operator.lifecycle.decide import decide
from dporun_operator.lifecycle.plan import Plan
from dporun_operator.observed import Observed
from dporun_operator.run import Run
from dporun_testing.builders import NOW, SETTINGS, job, pod, run_body
from dporun_testing.words import not_for_people

ARCHIVED = Outcome(
    state=OutcomeState.SUCCEEDED,
    archive=ArchiveResult(uri="s3://bucket/runs/demo", manifest_sha256="1" * 64, files=1, bytes=1),
).to_json(exclude_none=True)
WORDS = st.sampled_from([None, "", "nonsense", '{"state": "Succeeded"}', '{"state": "Preempted"}', ARCHIVED])
WRITTEN = {"message": "It was so.", "lastTransitionTime": "2026-01-05T09:00:00Z", "observedGeneration": 1}
FAILURE = {"reason": "TrainerError", "message": "it broke"}
COMPONENTS = st.sampled_from(["prepare", "train", "archive", "tensorboard"])
JOBS = st.builds(
    job,
    st.sampled_from(["prepare", "train", "archive"]),
    st.integers(1, 3),
    st.sampled_from(["active", "suspended", "complete", "failed"]),
    ago=st.integers(0, 1000),
)
PODS = st.builds(
    pod,
    COMPONENTS,
    st.integers(1, 3),
    st.sampled_from(["unschedulable", "waiting", "running", "succeeded", "failed"]),
    exit_code=st.sampled_from([None, 0, 1, 64, 65, 66, 67, 74, 75, 137]),
    message=WORDS,
    disruption=st.sampled_from([None, "EvictionByEvictionAPI", "DeletionByPodGC"]),
)
CHILDREN = st.lists(
    st.one_of(JOBS, PODS), max_size=6, unique_by=lambda child: (child["kind"], child["metadata"]["name"])
)
CONDITIONS = st.lists(
    st.tuples(
        st.sampled_from(["Accepted", "Prepared", "Running", "Archived", "Suspended", "Succeeded", "Finished"]),
        st.sampled_from(["True", "False", "Unknown"]),
        st.sampled_from(["Pending", "Completed", "Archiving", "Skipped", "ArchiveFailed", "Retrying"]),
    ),
    unique_by=lambda entry: entry[0],
)
STATUS = st.builds(
    lambda attempt, trained, tries, conditions: {
        "attempt": attempt,
        **({"trainingCompletionTime": "2026-01-05T09:30:00Z"} if trained and attempt else {}),
        **({"failure": FAILURE} if any((t, s) == ("Succeeded", "False") for t, s, _ in conditions) else {}),
        **({"archive": {"state": "Running", "attempts": tries, "jobUid": f"job-archive-{tries}"}} if tries else {}),
        "conditions": [{**WRITTEN, "type": t, "status": s, "reason": r} for t, s, r in conditions],
    },
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 3),
    CONDITIONS,
)
ARCHIVE = {"archive": {"uri": "s3://bucket/runs"}}


def plan(
    spec: dict[str, Any], status: dict[str, Any], children: list[dict[str, Any]], *, deleting: bool, **namespace: Any
) -> Plan:
    run = Run.parse(run_body(spec, status=status, deleting=deleting))
    return decide(run, Observed.of(map(slim, children), run, **namespace), SETTINGS, NOW)


def holds(plan: Plan, condition: str) -> bool:
    return any(c.type == condition and c.status == "True" for c in plan.status.conditions)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(STATUS, CHILDREN)
def test_a_trained_run_is_released_only_with_its_archive(
    status: dict[str, Any], children: list[dict[str, Any]]
) -> None:
    decided = plan(ARCHIVE, status, children, deleting=True)
    if decided.release:
        assert holds(decided, "Archived") or not status["attempt"]
        assert not [c for c in children if c["metadata"]["labels"]["app.kubernetes.io/component"] != "archive"]
        assert not decided.create
    else:
        assert not [target for target in decided.delete if target.kind == "PersistentVolumeClaim"]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(STATUS, CHILDREN, st.sampled_from([ARCHIVE, {}, {**ARCHIVE, "deletionPolicy": "Retain"}]))
def test_a_deleted_namespace_never_takes_the_only_copy(
    status: dict[str, Any], children: list[dict[str, Any]], spec: dict[str, Any]
) -> None:
    decided = plan(spec, status, children, deleting=True, namespace_terminates=True, volume="pv-1")
    if decided.release and not decided.retain:
        assert "deletionPolicy" not in spec or not status["attempt"]
        assert ("archive" in spec and holds(decided, "Archived")) or not status["attempt"]
    if not decided.release:
        assert not decided.unprotect


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(STATUS, CHILDREN)
def test_the_only_copy_is_never_deleted(status: dict[str, Any], children: list[dict[str, Any]]) -> None:
    decided = plan({}, status, children, deleting=True)
    if status["attempt"]:
        assert not [target for target in decided.delete if target.kind == "PersistentVolumeClaim"]


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(STATUS, CHILDREN)
def test_the_end_is_the_end(status: dict[str, Any], children: list[dict[str, Any]]) -> None:
    finished = {"type": "Finished", "status": "True", "reason": "Succeeded", "observedGeneration": 1}
    rest = [c for c in status["conditions"] if c["type"] != "Finished"]
    status = {**status, "conditions": [*rest, {**finished, "lastTransitionTime": "2026-01-05T09:00:00Z"}]}
    decided = plan(ARCHIVE, status, children, deleting=False)
    assert not decided.create
    assert not [target for target in decided.delete if target.kind == "Job"]
    assert holds(decided, "Finished")


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(STATUS, CHILDREN, st.booleans())
def test_there_is_always_a_decision_and_it_can_be_written(
    status: dict[str, Any], children: list[dict[str, Any]], suspend: bool
) -> None:
    decided = plan({**ARCHIVE, "suspend": suspend}, status, children, deleting=False)
    names = [o["metadata"]["name"] for o in decided.create]
    assert len(names) <= 1
    assert not decided.release
    assert not_for_people(decided) == []
    written = decided.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert Run.parse(run_body(ARCHIVE, status=written)).status == decided.status


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(STATUS, CHILDREN)
def test_two_attempts_never_train_at_the_same_time(status: dict[str, Any], children: list[dict[str, Any]]) -> None:
    decided = plan(ARCHIVE, status, children, deleting=False)
    started = [o for o in decided.create if o["metadata"]["labels"]["app.kubernetes.io/component"] == "train"]
    attempt = max(status["attempt"], 1)
    current = [c for c in children if c["kind"] == "Job" and c["metadata"]["name"] == f"demo-train-{attempt}"]
    if started and current:
        ended = {c["type"] for c in current[-1]["status"]["conditions"]}
        assert ended & {"Failed", "Complete"}


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(STATUS, CHILDREN, st.sampled_from(["Archive", "Retain"]), st.sampled_from(["Delete", "Retain"]))
def test_what_is_to_be_retained_is_never_deleted(
    status: dict[str, Any], children: list[dict[str, Any]], policy: str, when_deleted: str
) -> None:
    spec = {**ARCHIVE, "deletionPolicy": policy, "storage": {"whenDeleted": when_deleted}}
    decided = plan(spec, status, children, deleting=True)
    if "Retain" in {policy, when_deleted}:
        assert not [target for target in decided.delete if target.kind == "PersistentVolumeClaim"]


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(STATUS, CHILDREN)
def test_a_training_job_is_proof_of_training(status: dict[str, Any], children: list[dict[str, Any]]) -> None:
    lost = {key: value for key, value in status.items() if key not in {"attempt", "trainingCompletionTime"}}
    decided = plan(ARCHIVE, lost, [*children, job("train", 1, "complete")], deleting=True)
    assert not decided.release
    assert decided.status.attempt
