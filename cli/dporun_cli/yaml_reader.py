"""YAML as kubectl reads it, with the line of every field.

kubectl uses go-yaml v2, which is neither YAML 1.1 nor 1.2: ``on`` and ``y`` are true and ``017`` is 15, as in 1.1;
``0o17`` is 15 and ``5e-6`` a number, as in 1.2; ``1:30`` and ``2026-01-01`` are text, as in neither. No library for
Python does that (ruamel.yaml reads ``on`` as text and ``017`` as 17, or, told to follow 1.1, ``1:30`` as 90; a date in
both), so PyYAML parses and this module says what the scalars are. A key given twice is refused: kubectl would drop one.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode


@dataclass(frozen=True)
class Document:
    """One YAML document."""

    value: Any
    """What it is in JSON."""
    node: Node

    def line(self, path: Sequence[str | int]) -> int:
        """Line, from 1, of the deepest part of ``path`` that is in the document."""
        start = node = self.node
        for step in path:
            children = _children(node)
            if step not in children:
                break
            start, node = children[step]
        return int(start.start_mark.line) + 1


def documents(text: str) -> Iterator[Document]:
    """Read every document of ``text`` that is not empty.

    Raises:
        yaml.YAMLError: the text is not YAML, or gives a key twice.
        RecursionError: a value contains itself.

    """
    for node in yaml.compose_all(text, Loader=_Loader):
        value = _value(node)
        if value is not None:
            yield Document(value, node)


def _value(node: Node) -> Any:
    if isinstance(node, ScalarNode):
        return _scalar(node)
    values = {step: _value(child) for step, (_, child) in _children(node).items()}
    return values if isinstance(node, MappingNode) else list(values.values())


def _children(node: Node) -> dict[str | int, tuple[Node, Node]]:
    """Where each field or item of ``node`` begins, and its value; ``<<`` overrides what is above it, as in kubectl."""
    if isinstance(node, SequenceNode):
        return {index: (item, item) for index, item in enumerate(node.value)}
    found: dict[str | int, tuple[Node, Node]] = {}
    own = set()
    for key, value in node.value if isinstance(node, MappingNode) else ():
        if key.tag == f"{_TAG}merge":
            for source in reversed(value.value) if isinstance(value, SequenceNode) else [value]:
                if not isinstance(source, MappingNode):
                    raise _error("<< can only merge mappings", source)
                found |= _children(source)
            continue
        name = _scalar(key) if isinstance(key, ScalarNode) else None
        if name is None:
            raise _error("a key must be text", key)
        name = name if isinstance(name, str) else json.dumps(name)
        if name in own:
            raise _error(f"the key {name!r} is given twice", key)
        own.add(name)
        found[name] = key, value
    return found


def _scalar(node: ScalarNode) -> str | int | float | None:
    plain = node.value.replace("_", "").lower()
    try:
        match node.tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return plain[:1] in {"y", "t"} or plain == "on"
            case "int":
                return int(re.sub(r"^([-+]?)0(?=[0-7])", r"\g<1>0o", plain), 0)
            case "float":
                number = float(plain)  # refuses .inf and .nan, which JSON does not have
                return int(number) if number.is_integer() else number  # 1e3 is 1000 in Go's JSON
    except ValueError as error:
        raise _error(f"{node.value!r} is not a number", node) from error
    return str(node.value)


def _error(problem: str, node: Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


class _Loader(yaml.SafeLoader):
    """PyYAML with the plain scalars of go-yaml v2."""


_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    "null": r"(~|null|Null|NULL)?",
    "bool": r"y|Y|yes|Yes|YES|on|On|ON|true|True|TRUE|n|N|no|No|NO|off|Off|OFF|false|False|FALSE",
    "int": r"[-+]?(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|0[0-7_]*|[1-9][0-9_]*)",
    "float": r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9_]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "merge": "<<",
}
_Loader.yaml_implicit_resolvers = {
    None: [(f"{_TAG}{kind}", re.compile(rf"({pattern})\Z")) for kind, pattern in _SCALARS.items()]
}
