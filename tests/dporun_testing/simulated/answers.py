"""The API server's refusals, in its own words."""

from collections.abc import Mapping
from typing import Any


class Refused(Exception):  # noqa: N818  it is an answer
    """A request is not carried out; ``body`` is the Status object that says why."""

    def __init__(self, code: int, reason: str, message: str, **details: Any):
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.body: Mapping[str, Any] = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": reason, "details": details, "code": code,
        }  # fmt: skip


def not_found(resource: str, name: str) -> Refused:
    return Refused(404, "NotFound", f'{resource} "{name}" not found', name=name)


def already_exists(resource: str, name: str) -> Refused:
    return Refused(409, "AlreadyExists", f'{resource} "{name}" already exists', name=name)


def conflict(resource: str, name: str, why: str) -> Refused:
    return Refused(409, "Conflict", f'Operation cannot be fulfilled on {resource} "{name}": {why}', name=name)


def modified(resource: str, name: str) -> Refused:
    words = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(resource, name, words)


def other_uid(resource: str, name: str, wanted: str, found: str) -> Refused:
    words = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
    return conflict(resource, name, words)


def no_object_of_uid(resource: str, name: str, wanted: str) -> Refused:
    words = f"uid mismatch: the provided object specified uid {wanted}, and no existing object was found"
    return conflict(resource, name, words)


def terminating(resource: str, name: str, namespace: str) -> Refused:
    words = f"unable to create new content in namespace {namespace} because it is being terminated"
    cause = {
        "reason": "NamespaceTerminating",
        "message": f"namespace {namespace} is being terminated",
        "field": "metadata.namespace",
    }
    return Refused(403, "Forbidden", f'{resource} "{name}" is forbidden: {words}', name=name, causes=[cause])


def invalid(kind: str, name: str, field: str, why: str) -> Refused:
    return Refused(422, "Invalid", f'{kind} "{name}" is invalid: {field}: {why}', name=name)


def test_failed(path: str) -> Refused:
    """A ``test`` of a JSON patch does not hold."""
    words = f"the server rejected our request due to an error in our request: testing value {path} failed"
    return Refused(422, "Invalid", words)
