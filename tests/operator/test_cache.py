"""The cache never goes back in time, keeps nothing of runs that are gone, and stays small."""

from dporun_operator.cache import WatchCache
from dporun_testing.builders import UID, job, pod, run_body, version


def test_an_older_version_does_not_replace_a_newer_one() -> None:
    cache = WatchCache()
    cache.put_child(version(job("train", state="complete"), 9))
    cache.put_child(version(job("train"), 8))
    (kept,) = cache.children_of(UID, "team-a")
    assert kept["status"]["conditions"]


def test_children_keep_only_what_decisions_need() -> None:
    cache = WatchCache()
    body = pod("train")
    body["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    body["spec"] = {"containers": [{"name": "trainer", "image": "x" * 1000}]}
    cache.put_child(body)
    (kept,) = cache.children_of(UID, "team-a")
    assert kept["spec"] == {}
    assert "managedFields" not in kept["metadata"]


def test_a_successor_outlives_its_predecessor_of_that_name() -> None:
    cache = WatchCache()
    old, new = version(job("train"), 1, uid="old"), version(job("train"), 5, uid="new")
    cache.put_child(old)
    cache.put_child(new)
    cache.remove_child(version(old, 6))
    assert [child["metadata"]["uid"] for child in cache.children_of(UID, "team-a")] == ["new"]


def test_a_relist_drops_what_went_away_unseen() -> None:
    """It keeps what came meanwhile."""
    cache = WatchCache()
    cache.put_child(version(job("train", 1), 3))
    cache.put_child(version(job("train", 2), 4))
    cache.put_child(version(pod("train", 1), 4))
    newest = cache.newest_child_version()
    cache.put_child(version(job("train", 3), 9))
    cache.replace_children("Job", [version(job("train", 2), 6)], before=newest)
    names = sorted(child["metadata"]["name"] for child in cache.children_of(UID, "team-a"))
    assert names == ["demo-train-1-0-abcde", "demo-train-2", "demo-train-3"]


def test_a_run_is_found_by_its_name() -> None:
    cache = WatchCache()
    cache.put_run(run_body(name="other"))
    assert cache.find_run("team-a", "other") is not None
    assert cache.find_run("team-b", "other") is None


def test_a_pod_of_another_namespace_is_no_child() -> None:
    """Whatever its labels say."""
    cache = WatchCache()
    cache.put_child(version(pod("train"), 1, namespace="intruder"))
    assert cache.children_of(UID, "team-a") == []


def test_nothing_is_kept_of_runs_that_are_gone() -> None:
    cache = WatchCache()
    cache.put_child(version(pod("train"), 1))
    cache.remove_child(version(pod("train"), 2))
    assert cache.newest_child_version() == 0


def test_runs_are_counted_by_phase() -> None:
    cache = WatchCache()
    for uid, status in (("a", None), ("b", {"phase": "Training"}), ("c", {"phase": "Training"})):
        cache.put_run(run_body(uid=uid, status=status))
    assert cache.count_by_phase() == {"Pending": 1, "Training": 2}


def test_a_run_that_waits_for_another_is_found_by_it() -> None:
    cache, other, second = WatchCache(), {"uid": "first-uid"}, {"uid": "second-uid"}
    first = run_body(name="first", **other)
    waiting = run_body({"checkpoints": {"resumeFrom": {"run": "first"}}})
    cache.put_run(waiting)
    assert cache.waiting_for(first) == [UID]
    assert cache.waiting_for(run_body(name="first", namespace="team-b", **other)) == []
    accepted = {"conditions": [{"type": "Accepted", "status": "True"}]}
    cache.put_run({**waiting, "status": accepted})
    assert cache.waiting_for(first) == []
    cache.put_run(run_body({"checkpoints": {"resumeFrom": {"run": "first"}}}, name="next", **second))
    assert cache.waiting_for(first) == ["second-uid"]
    cache.remove_run("second-uid")
    cache.remove_run(UID)
    assert cache.waiting_for(first) == []


def test_a_name_belongs_to_the_run_of_now() -> None:
    """The successor of a deleted run may be seen before the deletion is."""
    cache = WatchCache()
    cache.put_run(run_body(name="other"))
    cache.put_run(run_body(name="other", uid="successor"))
    cache.remove_run(UID)
    found = cache.find_run("team-a", "other")
    assert found is not None
    assert found["metadata"]["uid"] == "successor"
    cache.remove_run("successor")
    assert cache.find_run("team-a", "other") is None
