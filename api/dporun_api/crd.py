"""The CustomResourceDefinition, made from the models.

``make generate`` writes it to ``crds/``.

Pydantic writes JSON Schema; the API server wants a *structural* schema, which is a subset with keywords of its own.
The rules of that translation are in ``_structural``, one line each.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from dporun_api.v1alpha1.formats import PATTERN_HELP
from dporun_api.v1alpha1.rules import NOT_FROM_ITSELF
from dporun_api.v1alpha1.spec import DPORunSpec
from dporun_api.v1alpha1.status import DPORunStatus

Schema = dict[str, Any]

COLUMNS = {
    "Phase": ".status.phase",
    "Progress": ".status.summary.progress",
    "ETA": ".status.summary.eta",
    "Eval-Loss": ".status.summary.evalLoss",
    "Acc": ".status.summary.accuracy",
    "Margin": ".status.summary.margin",
    "Health": ".status.health.state",
}
"""Columns of ``kubectl get``, and the fields that they show."""
WIDE_COLUMNS = {
    "Best": ".status.summary.best",
    "Model": ".status.summary.model",
    "GPUs": ".status.summary.gpus",
    "Forgetting": ".status.summary.forgetting",
    "Verdict": ".status.verdict.state",
    "Archive": ".status.archive.state",
    "Message": ".status.message",
}
"""Further ones of ``kubectl get -o wide``."""


def custom_resource_definition() -> Schema:
    """Build the CustomResourceDefinition of DPORun."""
    spec = structural(DPORunSpec)
    status = structural(DPORunStatus)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "dporuns.dporun.io"},
        "spec": {
            "group": "dporun.io",
            "scope": "Namespaced",
            "names": {
                "kind": "DPORun",
                "listKind": "DPORunList",
                "plural": "dporuns",
                "singular": "dporun",
                "shortNames": ["dpo"],
                "categories": ["ml"],
            },
            "versions": [
                {
                    "name": "v1alpha1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(status),
                    "schema": {
                        "openAPIV3Schema": {
                            "description": "A DPO (Direct Preference Optimization) fine-tuning run.",
                            "type": "object",
                            "required": ["spec"],
                            "x-kubernetes-validations": [
                                {"rule": NOT_FROM_ITSELF.cel, "message": NOT_FROM_ITSELF.message}
                            ],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status,
                            },
                        }
                    },
                }
            ],
        },
    }


def structural(model: type[BaseModel]) -> Schema:
    """JSON Schema of ``model`` as a Kubernetes structural schema."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(schema, schema.get("$defs", {}))


def _columns(status: Schema) -> list[Schema]:
    def column(name: str, path: str, **more: Any) -> Schema:
        node = status
        for field in path.split(".")[2:]:
            node = node["properties"][field]
        return {"name": name, "type": "string", "jsonPath": path, "description": node["description"], **more}

    age = {
        "name": "Age",
        "type": "date",
        "jsonPath": ".metadata.creationTimestamp",
        "description": "Time since the run was created.",
    }
    return [
        *(column(name, path) for name, path in COLUMNS.items()),
        age,
        *(column(name, path, priority=1) for name, path in WIDE_COLUMNS.items()),
    ]


_UNSUPPORTED = {"title", "$defs", "examples", "propertyNames"}
"""Keywords of JSON Schema that a structural schema does not have; examples go into the description."""

_BOUNDS = {
    "minimum": (">=", "at least"),
    "maximum": ("<=", "at most"),
    "exclusiveMinimum": (">", "more than"),
    "exclusiveMaximum": ("<", "less than"),
}


def _structural(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    node = _without_any_of(_inlined(node, definitions), definitions)
    out: Schema = {}
    rules = [*node.get("x-kubernetes-validations", ())]
    for key, value in node.items():
        match key:
            case "properties":
                out[key] = {name: _structural(field, definitions) for name, field in value.items()}
            case "items" | "additionalProperties" if isinstance(value, dict):
                out[key] = _structural(value, definitions)
            case "additionalProperties":
                pass  # false: the API server refuses unknown fields anyway
            case "const":
                out["enum"] = [value]
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" if value != int(value):
                # The API server cuts the bound to an integer when the value is one: 0 would not be below 0.5.
                symbol, meaning = _BOUNDS[key]
                rules.append({"rule": f"self {symbol} {value}", "message": f"must be {meaning} {value}"})
            case "exclusiveMinimum" | "exclusiveMaximum":
                out |= {key.removeprefix("exclusive").lower(): value, key: True}
            case "pattern" if value in PATTERN_HELP and "type" in node:
                rules.append({"rule": f"self.matches({_cel_text(value)})", "message": PATTERN_HELP[value]})
            case "default":
                out |= {} if value is None else {"default": {} if "properties" in node else value}
            case _ if key not in _UNSUPPORTED:
                out[key] = value
    if text := _description(node):
        out["description"] = text
    if rules:
        out["x-kubernetes-validations"] = rules
    return out


def _inlined(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """``node`` with its reference replaced by the definition; keywords beside the reference override it."""
    if "$ref" not in node:
        return node
    target = definitions[node["$ref"].removeprefix("#/$defs/")]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _without_any_of(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """``node`` without ``anyOf``: a structural schema has one type.

    ``X | None`` is X. It is nullable only where null differs from absent, that is where the default is a value: the API
    server drops other nulls. A union of several types, which only the status has, becomes a value of any type.
    """
    if "anyOf" not in node or "x-kubernetes-int-or-string" in node:
        return node
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    types = [variant for variant in node["anyOf"] if variant != {"type": "null"}]
    if len(types) > 1:
        return {**rest, "x-kubernetes-preserve-unknown-fields": True}
    nullable = {"nullable": True} if rest.get("default") is not None and types != node["anyOf"] else {}
    return {**_inlined(types[0], definitions), **rest, **nullable}


def _description(node: Schema) -> str:
    text = " ".join(str(node.get("description", "")).split())
    if node.get("default") is not None and "properties" not in node:
        text += f" Default: {_text(node['default'])}."
    if node.get("examples"):
        text += f" Example: {_text(node['examples'][0])}."
    return text


def _text(value: object) -> str:
    """``value`` as it would stand in a manifest."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}".replace("e-0", "e-").replace("e+0", "e+")
        case list() | tuple():
            return f"[{', '.join(_text(item) for item in value)}]"
        case dict():
            return f"{{{', '.join(f'{key}: {_text(item)}' for key, item in value.items())}}}"
        case str() if value == "" or value.isdigit():
            return f'"{value}"'
    return str(value)


def _cel_text(text: str) -> str:
    """``text`` as a raw string of CEL."""
    if "'" in text:
        raise ValueError(f"{text} has a quotation mark: write the pattern without one")
    return f"r'{text}'"
