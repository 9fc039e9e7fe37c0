"""What a client sees of an API server and its controllers. The same script runs on the real one and on ours."""

from typing import Any

from dporun_testing.simulated.script import Cases, Script

OURS = "dporun.io/results"
case = Cases()


def config(name: str = "demo", data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": data or {}}


def claim(name: str = "demo", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, **metadata},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def run(name: str = "demo", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "dporun.io/v1alpha1",
        "kind": "DPORun",
        "metadata": {"name": name, **metadata},
        "spec": {"model": {"uri": "hf://acme/tiny"}, "dataset": {"train": "s3://bucket/train.jsonl"}},
    }


def pod(name: str = "demo", *, of_claim: str = "", **metadata: Any) -> dict[str, Any]:
    volumes = [{"name": "results", "persistentVolumeClaim": {"claimName": of_claim}}] if of_claim else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {
            "containers": [{"name": "trainer", "image": "example", "securityContext": _CONTAINER}],
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 30,
            "volumes": volumes,
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
        },
    }


_CONTAINER = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def owned_by(owner: dict[str, Any], *, blocks: bool = True) -> list[dict[str, Any]]:
    metadata = owner["metadata"]
    return [
        {
            "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": metadata["name"], "uid": metadata["uid"],
            "controller": True, "blockOwnerDeletion": blocks,
        }
    ]  # fmt: skip


async def made(api: Script, body: dict[str, Any]) -> dict[str, Any]:
    answer = await api.create(body)
    assert answer.words == "ok", answer.body
    found: dict[str, Any] = answer.body
    return found


@case
async def a_name_is_taken_once(api: Script) -> None:
    first = await made(api, config())
    again = await api.create(config())
    assert again.words == "409 AlreadyExists"
    assert again.body["message"] == 'configmaps "demo" already exists'
    assert first["metadata"]["uid"]


@case
async def what_is_not_there_is_not_found(api: Script) -> None:
    for answer in (
        await api.delete("ConfigMap", "demo"),
        await api.merge("ConfigMap", "demo", {}),
        await api.apply({**run(), "status": {"phase": "Training"}}, subresource="status"),
    ):
        assert answer.words == "404 NotFound"


@case
async def versions_grow_with_changes_only(api: Script) -> None:
    before = (await made(api, config(data={"a": "1"})))["metadata"]["resourceVersion"]
    same = await api.merge("ConfigMap", "demo", {"data": {"a": "1"}})
    assert same.body["metadata"]["resourceVersion"] == before
    changed = await api.merge("ConfigMap", "demo", {"data": {"a": "2"}})
    assert int(changed.body["metadata"]["resourceVersion"]) > int(before)


@case
async def applying_the_same_again_changes_nothing(api: Script) -> None:
    first = await api.apply(config(data={"a": "1"}))
    again = await api.apply(config(data={"a": "1"}))
    assert first.body["metadata"]["resourceVersion"] == again.body["metadata"]["resourceVersion"]


@case
async def what_is_no_longer_applied_goes(api: Script) -> None:
    await api.apply(config(data={"a": "1", "b": "1"}, labels={"x": "1"}))
    await api.merge("ConfigMap", "demo", {"data": {"c": "theirs"}})
    answer = await api.apply(config(data={"b": "2"}))
    assert answer.body["data"] == {"b": "2", "c": "theirs"}
    assert "labels" not in answer.body["metadata"]


@case
async def a_change_of_a_stale_version_is_a_conflict(api: Script) -> None:
    stale = await made(api, config())
    await api.merge("ConfigMap", "demo", {"data": {"a": "1"}})
    answer = await api.replace({**stale, "data": {"a": "2"}})
    assert answer.words == "409 Conflict", answer.body
    assert "the object has been modified" in answer.body["message"]


@case
async def a_status_of_a_stale_version_is_a_conflict(api: Script) -> None:
    stale = (await made(api, run()))["metadata"]
    await api.merge("DPORun", "demo", {"metadata": {"labels": {"a": "b"}}})
    named = {"name": "demo", "uid": stale["uid"], "resourceVersion": stale["resourceVersion"]}
    answer = await api.apply({**run(), "metadata": named, "status": {"phase": "Training"}}, subresource="status")
    assert answer.words == "409 Conflict", answer.body


@case
async def a_status_does_not_ask_for_the_uid(api: Script) -> None:
    """So the version alone tells a run from another one of its name."""
    await made(api, run())
    named = {"name": "demo", "uid": "0a1b2c3d-1111-2222-3333-444455556666"}
    answer = await api.apply({**run(), "metadata": named, "status": {"phase": "Training"}}, subresource="status")
    assert answer.words == "ok"


@case
async def an_object_of_a_uid_is_not_made(api: Script) -> None:
    answer = await api.apply(config(uid="0a1b2c3d-1111-2222-3333-444455556666"))
    assert answer.words == "409 Conflict", answer.body
    assert await api.get("ConfigMap", "demo") is None


@case
async def status_and_spec_are_written_apart(api: Script) -> None:
    created = await made(api, {**run(), "status": {"phase": "Training"}})
    assert "status" not in created or created["status"] == {}
    metadata = {"name": "demo", "uid": created["metadata"]["uid"]}
    lie = {**run(), "metadata": metadata, "spec": {"suspend": True}, "status": {"phase": "Training", "attempt": 1}}
    assert (await api.apply(lie, subresource="status")).words == "ok"
    after = await api.get("DPORun", "demo")
    assert after is not None
    assert (after["status"]["attempt"], after["spec"].get("suspend", False)) == (1, False)
    assert (await api.apply({**lie, "status": {"phase": "Training"}}, subresource="status")).words == "ok"
    after = await api.get("DPORun", "demo")
    assert after is not None
    assert "attempt" not in after["status"]


@case
async def only_a_change_of_the_spec_is_a_generation(api: Script) -> None:
    created = await made(api, run())
    metadata = {"name": "demo", "uid": created["metadata"]["uid"]}
    written = await api.apply({**run(), "metadata": metadata, "status": {"phase": "Training"}}, subresource="status")
    labelled = await api.merge("DPORun", "demo", {"metadata": {"labels": {"a": "b"}}})
    suspended = await api.merge("DPORun", "demo", {"spec": {"suspend": True}})
    assert [answer.body["metadata"]["generation"] for answer in (written, labelled, suspended)] == [1, 1, 2]


@case
async def a_test_that_fails_changes_nothing(api: Script) -> None:
    await made(api, run())
    stale = {"op": "test", "path": "/metadata/resourceVersion", "value": "1"}
    add = {"op": "add", "path": "/metadata/finalizers", "value": ["dporun.io/archive"]}
    answer = await api.json_patch("DPORun", "demo", stale, add)
    assert answer.words == "422 Invalid"
    found = await api.get("DPORun", "demo")
    assert found is not None
    assert "finalizers" not in found["metadata"]


@case
async def a_finalizer_holds_what_is_deleted(api: Script) -> None:
    await made(api, run(finalizers=["dporun.io/archive"]))
    first = await api.delete("DPORun", "demo")
    deleting = await api.stays("DPORun", "demo")
    assert first.words == "ok"
    assert deleting["metadata"]["generation"] == 2
    again = await api.delete("DPORun", "demo")
    assert again.body["metadata"]["resourceVersion"] == deleting["metadata"]["resourceVersion"]
    more = [{"op": "add", "path": "/metadata/finalizers", "value": ["dporun.io/archive", "another.io/one"]}]
    assert (await api.json_patch("DPORun", "demo", *more)).words == "422 Invalid"
    none = {"op": "add", "path": "/metadata/finalizers", "value": []}
    assert (await api.json_patch("DPORun", "demo", none)).words == "ok"
    assert await api.get("DPORun", "demo") is None


@case
async def a_status_can_be_written_while_deleting(api: Script) -> None:
    created = await made(api, run(finalizers=["dporun.io/archive"]))
    await api.delete("DPORun", "demo")
    metadata = {"name": "demo", "uid": created["metadata"]["uid"]}
    answer = await api.apply({**run(), "metadata": metadata, "status": {"phase": "Deleting"}}, subresource="status")
    assert answer.words == "ok"
    await api.merge("DPORun", "demo", {"metadata": {"finalizers": None}})


@case
async def a_deletion_of_another_uid_is_a_conflict(api: Script) -> None:
    await made(api, config())
    answer = await api.delete("ConfigMap", "demo", uid="0a1b2c3d-1111-2222-3333-444455556666")
    assert answer.words == "409 Conflict", answer.body
    assert await api.get("ConfigMap", "demo") is not None


@case
async def what_is_owned_goes_with_its_owner(api: Script) -> None:
    owner = await made(api, run())
    await made(api, config("child", ownerReferences=owned_by(owner)))
    await made(api, config("other"))
    await api.delete("DPORun", "demo")
    await api.gone("ConfigMap", "child")
    await api.stays("ConfigMap", "other")


@case
async def what_is_owned_stays_while_its_owner_is_held(api: Script) -> None:
    owner = await made(api, run(finalizers=["dporun.io/archive"]))
    await made(api, config("child", ownerReferences=owned_by(owner)))
    await api.delete("DPORun", "demo")
    await api.stays("ConfigMap", "child")
    await api.merge("DPORun", "demo", {"metadata": {"finalizers": None}})
    await api.gone("ConfigMap", "child")


@case
async def in_the_foreground_what_is_owned_goes_first(api: Script) -> None:
    owner = await made(api, run(finalizers=["dporun.io/archive"]))
    await made(api, config("child", ownerReferences=owned_by(owner)))
    await made(api, config("held", ownerReferences=owned_by(owner), finalizers=["another.io/one"]))
    await api.delete("DPORun", "demo", "Foreground")
    await api.gone("ConfigMap", "child")
    await api.being_deleted("ConfigMap", "held")
    waiting = await api.stays("DPORun", "demo")
    assert set(waiting["metadata"]["finalizers"]) == {"dporun.io/archive", "foregroundDeletion"}
    await api.merge("ConfigMap", "held", {"metadata": {"finalizers": None}})

    async def only_ours() -> bool:
        found = await api.get("DPORun", "demo")
        return found is not None and found["metadata"]["finalizers"] == ["dporun.io/archive"]

    await api.eventually(only_ours)
    await api.merge("DPORun", "demo", {"metadata": {"finalizers": None}})
    await api.gone("DPORun", "demo")


@case
async def an_orphan_loses_its_owner(api: Script) -> None:
    owner = await made(api, run(finalizers=["dporun.io/archive"]))
    await made(api, config("child", ownerReferences=owned_by(owner)))
    await api.delete("DPORun", "demo", "Orphan")

    async def only_ours() -> bool:
        found = await api.get("DPORun", "demo")
        return found is not None and found["metadata"]["finalizers"] == ["dporun.io/archive"]

    await api.eventually(only_ours)
    child = await api.stays("ConfigMap", "child")
    assert "ownerReferences" not in child["metadata"]
    await api.merge("DPORun", "demo", {"metadata": {"finalizers": None}})
    await api.gone("DPORun", "demo")
    await api.stays("ConfigMap", "child")


@case
async def a_later_deletion_changes_the_way(api: Script) -> None:
    owner = await made(api, run(finalizers=["dporun.io/archive"]))
    await made(api, config("child", ownerReferences=owned_by(owner)))
    await api.delete("DPORun", "demo")
    await api.stays("ConfigMap", "child")
    await api.delete("DPORun", "demo", "Foreground")
    await api.gone("ConfigMap", "child")
    await api.merge("DPORun", "demo", {"metadata": {"finalizers": None}})


@case
async def a_child_of_nobody_is_collected(api: Script) -> None:
    owner = await made(api, run())
    await api.delete("DPORun", "demo")
    await made(api, config("late", ownerReferences=owned_by(owner)))
    await api.gone("ConfigMap", "late")


@case
async def an_unused_claim_goes_at_once(api: Script) -> None:
    created = await made(api, claim())
    assert created["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    await api.delete("PersistentVolumeClaim", "demo")
    await api.gone("PersistentVolumeClaim", "demo")


@case
async def our_finalizer_keeps_a_claim(api: Script) -> None:
    await made(api, claim(finalizers=[OURS]))
    await api.delete("PersistentVolumeClaim", "demo")

    async def unprotected() -> bool:
        found = await api.get("PersistentVolumeClaim", "demo")
        return found is not None and found["metadata"]["finalizers"] == [OURS]

    await api.eventually(unprotected)
    await api.merge("PersistentVolumeClaim", "demo", {"metadata": {"finalizers": None}})
    await api.gone("PersistentVolumeClaim", "demo")


@case
async def a_claim_that_a_pod_uses_stays(api: Script) -> None:
    await made(api, claim())
    await made(api, pod(of_claim="demo"))
    await api.bind("demo")
    await api.delete("PersistentVolumeClaim", "demo")
    await api.stays("PersistentVolumeClaim", "demo")
    await api.merge("Pod", "demo", {"status": {"phase": "Succeeded"}}, subresource="status")
    await api.stays("PersistentVolumeClaim", "demo")
    await api.delete("Pod", "demo")
    await api.gone("PersistentVolumeClaim", "demo")


@case
async def a_pod_without_a_node_keeps_no_claim(api: Script) -> None:
    await made(api, claim())
    await made(api, pod(of_claim="demo"))
    await api.delete("PersistentVolumeClaim", "demo")
    await api.gone("PersistentVolumeClaim", "demo")


@case
async def a_pod_with_a_node_is_given_time(api: Script) -> None:
    await made(api, pod())
    await api.bind("demo")
    await api.delete("Pod", "demo")
    stopping = await api.stays("Pod", "demo")
    assert stopping["metadata"]["deletionGracePeriodSeconds"] == 30
    await api.delete("Pod", "demo", grace=0)
    await api.gone("Pod", "demo")


@case
async def a_pod_without_a_node_goes_at_once(api: Script) -> None:
    await made(api, pod())
    await api.delete("Pod", "demo")
    assert await api.get("Pod", "demo") is None


@case
async def a_pod_that_has_ended_goes_at_once(api: Script) -> None:
    await made(api, pod())
    await api.bind("demo")
    await api.merge("Pod", "demo", {"status": {"phase": "Failed"}}, subresource="status")
    await api.delete("Pod", "demo")
    assert await api.get("Pod", "demo") is None


@case
async def labels_select(api: Script) -> None:
    await made(api, config("one", labels={"dporun.io/run-uid": "1"}))
    await made(api, config("two", labels={"dporun.io/run-uid": "2"}))
    await made(api, config("three"))
    some = await api.list("ConfigMap", "dporun.io/run-uid")
    assert sorted(item["metadata"]["name"] for item in some) == ["one", "two"]
    assert [item["metadata"]["name"] for item in await api.list("ConfigMap", "dporun.io/run-uid=2")] == ["two"]


@case
async def nothing_is_made_in_a_namespace_that_terminates(api: Script) -> None:
    await made(api, run(finalizers=["dporun.io/archive"]))
    await made(api, config("there"))
    await made(api, claim(finalizers=[OURS]))
    await api.delete("Namespace", api.namespace)
    await api.gone("ConfigMap", "there")
    await api.being_deleted("DPORun", "demo")
    await api.being_deleted("PersistentVolumeClaim", "demo")
    for refused in (await api.create(config("late")), await api.apply(config("late"))):
        assert refused.words == "403 Forbidden"
        assert "because it is being terminated" in refused.body["message"]
        assert refused.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    uid = (await api.stays("DPORun", "demo"))["metadata"]["uid"]
    named = {"name": "demo", "uid": uid}
    status = await api.apply({**run(), "metadata": named, "status": {"phase": "Deleting"}}, subresource="status")
    assert status.words == "ok"
    await api.merge("DPORun", "demo", {"metadata": {"finalizers": None}})
    await api.merge("PersistentVolumeClaim", "demo", {"metadata": {"finalizers": None}})
    await api.gone("Namespace", api.namespace)
    assert (await api.create(config("late"))).words == "404 NotFound"


@case
async def pods_go_first_when_a_namespace_goes(api: Script) -> None:
    await made(api, config("there"))
    await made(api, pod())
    await api.bind("demo")
    await api.delete("Namespace", api.namespace)
    await api.being_deleted("Pod", "demo")
    await api.stays("ConfigMap", "there")
    await api.delete("Pod", "demo", grace=0)
    await api.gone("Namespace", api.namespace)
