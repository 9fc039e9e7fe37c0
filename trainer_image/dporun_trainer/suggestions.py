"""Suggested changes of a manifest as text: one line each, or all as a patch."""

from collections.abc import Iterable
from typing import Any

import yaml

from dporun_api.results import Suggestion


def patch(suggestions: Iterable[Suggestion]) -> str:
    """Write the suggested values as a merge patch of the manifest, in YAML, with the reasons as comments.

    Suggestions without a value (about the data) become comments only.
    """
    tree: dict[str, Any] = {}
    comments = []
    for suggestion in suggestions:
        comments.append(f"# {describe(suggestion)}\n#   {suggestion.reason}")
        if suggestion.proposed is None or not suggestion.path.startswith("spec."):
            continue
        *parents, leaf = suggestion.path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = suggestion.proposed
    return "\n".join([*comments, yaml.safe_dump(tree, sort_keys=False) if tree else "{}\n"])


def describe(suggestion: Suggestion) -> str:
    """Write a suggestion on one line: ``learningRate 5e-05 → 2e-05``, ``epochs to 2`` where the value is unknown."""
    name = suggestion.path.removeprefix("spec.")
    if suggestion.proposed is None:
        return name
    if suggestion.current is None:
        return f"{name} to {_show(suggestion.proposed)}"
    return f"{name} {_show(suggestion.current)} → {_show(suggestion.proposed)}"


def _show(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
