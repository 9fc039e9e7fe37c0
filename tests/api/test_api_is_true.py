"""Every word of the API is true: each field is read, each condition, phase and reason is produced, by code.

The code is read, not run: an attribute ``stall_seconds`` counts as read where it follows its section
(``spec.run_policy.stall_seconds``), a name that was assigned from the section, or a parameter of the section's type.
"""

import ast
from collections.abc import Iterator
from functools import cache
from typing import get_args

import pytest
from pydantic import BaseModel

from dporun_api.results import HealthState
from dporun_api.v1alpha1.reasons import Phase, Reason
from dporun_api.v1alpha1.spec import DPORunSpec
from dporun_api.v1alpha1.status import ConditionType, DPORunStatus
from dporun_testing.paths import ROOT

_MODELS = {"reasons.py", "status.py", "results.py", "run_config.py"}
_REPORTS = {"set_condition", "transition", "Waiting", "Traits"}
"""Calls in which a reason explains a condition; elsewhere it is why a run fails."""


@cache
def sources() -> tuple[ast.Module, ...]:
    folders = ("operator/dporun_operator", "trainer_image/dporun_trainer", "cli/dporun_cli", "api/dporun_api")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if path.name not in _MODELS]
    return tuple(ast.parse(path.read_text(encoding="utf-8")) for path in files)


def models(annotation: object) -> list[type[BaseModel]]:
    kinds = (annotation, *get_args(annotation))
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        sections = models(field.annotation)
        if sections:
            yield from leaves(sections[0], (*path, name))
        else:
            yield (*path, name)


def sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of ``model`` by its name, its parents' class included: the trainer has those."""
    for name, field in model.model_fields.items():
        for kind in models(field.annotation):
            for parent in kind.__mro__:
                if issubclass(parent, BaseModel):
                    yield name, parent
            yield from sections(kind)


@cache
def read_fields() -> frozenset[tuple[str, str]]:
    """Pairs of a section's name and a field that is read of it somewhere."""
    by_class: dict[str, set[str]] = {}
    for name, kind in (("spec", DPORunSpec), *sections(DPORunSpec)):
        by_class.setdefault(kind.__name__, set()).add(name)
    found = set()
    for module in sources():
        names = _aliases(module, by_class)
        for node in _outside_lambdas(module):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found |= {(section, node.attr) for section in _last(node.value, names)}
    return frozenset(found)


def _outside_lambdas(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those of lambdas: the rules of the API are lambdas, and to check a field is not to read it."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Lambda):
            yield from _outside_lambdas(child)


def _aliases(module: ast.Module, by_class: dict[str, set[str]]) -> dict[str, set[str]]:
    """Sections that a name of this module may stand for."""
    names: dict[str, set[str]] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.arg) and node.annotation is not None:
            classes = {n.attr if isinstance(n, ast.Attribute) else n.id for n in ast.walk(node.annotation)
                       if isinstance(n, ast.Attribute | ast.Name)}  # fmt: skip
            for kind in classes & set(by_class):
                names.setdefault(node.arg, set()).update(by_class[kind])
        if isinstance(node, ast.Assign):
            for target, value in _pairs(node.targets[0], node.value):
                names.setdefault(target, set()).update(_last(value, {}))
    return names


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its in zip(target.elts, value.elts, strict=True):
            yield from _pairs(one, its)


def _last(node: ast.expr, names: dict[str, set[str]]) -> set[str]:
    """The last word of a chain: ``resources`` of ``run.spec.resources``, and what a name stands for."""
    if isinstance(node, ast.Attribute):
        return {node.attr.lstrip("_")}
    return {node.id, *names.get(node.id, ())} if isinstance(node, ast.Name) else set()


def test_every_field_is_read() -> None:
    unread = {path for path in leaves(DPORunSpec) if ("spec", *path)[-2:] not in read_fields()}
    assert {".".join(path) for path in unread} == set()


@cache
def mentions(enum: str) -> frozenset[tuple[str, str | None]]:
    """Members of ``enum`` that the code names outside comparisons, each with the call that it is an argument of."""
    found = set()

    def visit(node: ast.AST, call: str | None) -> None:
        if isinstance(node, ast.Compare | ast.Lambda):
            return
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == enum:
            found.add((node.attr, call))
        if isinstance(node, ast.Call):
            function = node.func
            call = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
        for child in ast.iter_child_nodes(node):
            visit(child, call)

    for module in sources():
        visit(module, None)
    return frozenset(found)


def test_every_condition_can_become_true() -> None:
    calls = [node for module in sources() for node in ast.walk(module) if isinstance(node, ast.Call) and node.args]
    sets = [call.args for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "set_condition"]
    made_true = {
        kind.attr
        for kind, value, *_ in sets
        if isinstance(kind, ast.Attribute) and not (isinstance(value, ast.Constant) and value.value in {False, None})
    }
    assert {kind for kind in ConditionType if kind.name not in made_true} == set()


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_is_produced(phase: Phase) -> None:
    of_reasons = {reason.traits.phase for reason in Reason}
    assert phase in of_reasons or phase.name in {name for name, _ in mentions("Phase")}


def test_every_reason_is_produced() -> None:
    named = {name for name, _ in mentions("Reason")} | {Reason(state.value).name for state in HealthState}
    assert {reason for reason in Reason if reason.name not in named} == set()


def test_every_failure_is_raised() -> None:
    raised = {name for name, call in mentions("Reason") if call not in _REPORTS}
    assert {reason for reason in Reason if reason.traits.failure and reason.name not in raised} == set()


def test_every_field_of_the_status_is_written() -> None:
    written = set()
    for module in sources():
        for node in ast.walk(module):
            if isinstance(node, ast.keyword):
                written.add(node.arg)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                written.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                written.add(node.value)
    assert {".".join(path) for path in leaves(DPORunStatus) if path[-1] not in written} == set()
