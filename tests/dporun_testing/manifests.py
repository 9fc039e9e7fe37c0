"""Manifests of DPORuns for tests."""

from collections.abc import Mapping
from typing import Any

MINIMAL: dict[str, Any] = {
    "model": {"uri": "hf://Qwen/Qwen2.5-0.5B-Instruct"},
    "dataset": {"train": "s3://bucket/train.jsonl"},
}
"""The shortest spec there is."""


def dporun(name: str, spec: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A DPORun: the minimal one, with ``spec`` merged over it; null takes a field away."""
    return {
        "apiVersion": "dporun.io/v1alpha1",
        "kind": "DPORun",
        "metadata": {"name": name},
        "spec": merged(MINIMAL, spec or {}),
    }


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7396)."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = merged(result[key] if isinstance(result.get(key), dict) else {}, value)
        else:
            result[key] = value
    return result
