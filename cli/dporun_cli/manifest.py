"""Manifests: read, and checked as the API server would check them, without one."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dporun_api.crd import structural
from dporun_api.v1alpha1 import API_VERSION, KIND
from dporun_api.v1alpha1.formats import OBJECT_NAME, PATTERN_HELP
from dporun_api.v1alpha1.rules import NOT_FROM_ITSELF
from dporun_api.v1alpha1.spec import DPORunSpec
from dporun_cli.yaml_reader import Document, documents

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a manifest."""

    line: int
    path: str
    """Field, such as ``spec.training.learningRate``; empty for the whole."""
    message: str


class ManifestError(Exception):
    """A manifest is wrong.

    Attributes:
        path: the file.
        problems: every problem, in the order of lines.

    """

    def __init__(self, path: Path, problems: Sequence[Problem]):
        self.path = path
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """One line per problem, in the form that editors and compilers share."""
        return [
            f"{self.path}:{problem.line}: {f'{problem.path}: ' if problem.path else ''}{problem.message}"
            for problem in self.problems
        ]


@dataclass(frozen=True)
class Manifest:
    """A valid DPORun."""

    name: str
    spec: DPORunSpec
    document: dict[str, Any]
    """As the user wrote it."""


def read(path: Path) -> list[Manifest]:
    """Read and check every DPORun of a file; objects of other kinds are passed over.

    Raises:
        ManifestError: something is wrong; every problem is named.

    """
    try:
        found = list(documents(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(path, [Problem(1, "", f"cannot be read: {error}")]) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ManifestError(path, [Problem(line, "", f"is not YAML: {error.problem}")]) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ManifestError(path, [Problem(1, "", f"is not YAML: {error}")]) from error
    runs = [item for item in found if not isinstance(item.value, dict) or item.value.get("kind") == KIND]
    if not runs:
        raise ManifestError(path, [Problem(1, "", f"contains no object of kind {KIND}")])
    manifests, problems = [], []
    for document in runs:
        manifest, found_problems = _check(document)
        manifests += [manifest] if manifest else []
        problems += found_problems
    if problems:
        raise ManifestError(path, problems)
    return manifests


def _check(document: Document) -> tuple[Manifest | None, list[Problem]]:
    body = document.value
    if not isinstance(body, dict):
        return None, [Problem(document.line(()), "", f"is not a Kubernetes object of kind {KIND}")]
    found = _problems_of_envelope(body)
    schema = structural(DPORunSpec)
    spec = _without_nulls(body.get("spec", {}), schema)
    try:
        # As JSON and strict: "5e-6" is no number for the API server either.
        parsed = DPORunSpec.model_validate_json(json.dumps(spec), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        found += [(("spec", *item["loc"]), _explain(item, schema)) for item in _essential(error)]
    if not found:
        manifest = Manifest(name=body["metadata"]["name"], spec=parsed, document=body)
        if NOT_FROM_ITSELF.holds(manifest):
            return manifest, []
        found.append((("spec", "checkpoints", "resumeFrom", "run"), NOT_FROM_ITSELF.message))
    return None, [Problem(document.line(path), dotted(path), text) for path, text in found]


def _essential(error: ValidationError) -> list[ErrorDetails]:
    """Every error, but not that a list is too short because its items are wrong."""
    errors = error.errors(include_url=False)
    parents = {item["loc"][:depth] for item in errors for depth in range(len(item["loc"]))}
    return [item for item in errors if item["type"] != "too_short" or item["loc"] not in parents]


def _problems_of_envelope(body: Mapping[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    found: list[tuple[tuple[str | int, ...], str]] = []
    if body.get("apiVersion") != API_VERSION:
        found.append((("apiVersion",), f"write {API_VERSION}"))
    metadata = body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not re.fullmatch(OBJECT_NAME, name) or len(name) > 253:
        found.append((("metadata", "name"), PATTERN_HELP[OBJECT_NAME]))
    found += [
        ((key,), f"unknown field{_similar(key, ('metadata', 'spec'))}")
        for key in body
        if key not in {"apiVersion", "kind", "metadata", "spec", "status"}
    ]
    return found


def _without_nulls(value: Any, schema: Schema) -> Any:
    """Drop nulls where null means absent, as the API server does."""
    if isinstance(value, list):
        return [_without_nulls(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    fields = schema.get("properties", {})
    return {
        key: _without_nulls(item, fields.get(key, {}))
        for key, item in value.items()
        if item is not None or key not in fields or fields[key].get("nullable")
    }


def _explain(error: ErrorDetails, schema: Schema) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return f"unknown field{_similar(str(error['loc'][-1]), _fields(schema, error['loc'][:-1]))}"
        case "missing":
            return "is required"
        case "string_pattern_mismatch":
            pattern = str(context["pattern"])
            return f"{PATTERN_HELP.get(pattern, f'must match {pattern}')}, not {json.dumps(error['input'])}"
        case "value_error":
            return str(context["error"])
        case "json_invalid":
            return "is not an object"
    text = error["msg"].replace("Input should be a valid integer", "must be a whole number")
    text = text.replace("Input should be a valid", "must be a").replace("Input should", "must")
    return text.replace("Tuple should", "must").replace("Dictionary should", "must") + _given(error)


def _given(error: ErrorDetails) -> str:
    value = error["input"]
    return f", not {json.dumps(value)}" if isinstance(value, str | int | float) else ""


def _fields(schema: Schema, path: Sequence[str | int]) -> Sequence[str]:
    for step in path:
        schema = schema.get("items", {}) if isinstance(step, int) else schema.get("properties", {}).get(step, {})
    return list(schema.get("properties", {}))


def _similar(word: str, known: Sequence[str]) -> str:
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.replace("_", "").lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


def dotted(path: Sequence[str | int]) -> str:
    """``path`` as in ``kubectl explain``: ``spec.resources.tolerations[0].key``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
