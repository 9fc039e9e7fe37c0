"""The house: a test stands where its module stands, and modules and names are short enough to be read."""

import ast
from pathlib import Path

import pytest

from dporun_testing.paths import ROOT, TESTS

PARTS = {
    "api": ROOT / "api/dporun_api",
    "operator": ROOT / "operator/dporun_operator",
    "trainer": ROOT / "trainer_image/dporun_trainer",
    "cli": ROOT / "cli/dporun_cli",
}
ABOUT_MORE_THAN_ONE_MODULE = {
    "api/test_api.py": "models of spec and status",
    "api/test_api_is_true.py": "every word of the API, and who reads or produces it",
    "cli/test_data.py": "dporun data: the command line, and the trainer that it starts",
    "operator/lifecycle/test_cases.py": "whole runs, as files",
    "operator/lifecycle/test_invariants.py": "what holds for any run",
    "trainer/test_families.py": "whole runs of model families that differ in kind",
    "trainer/test_model_table.py": "which model types prepare accepts, and whether they are trained right",
    "trainer/inputs/test_examples.py": "examples/formats and the rows of docs/data.md, as prepare takes them",
    "trainer/archiving/test_faults.py": "the archive and its stores, on a bad way to S3",
}
LONGEST_MODULE = 400
LONGEST_NAME = 60


def stands_beside(test: Path, folder: Path, package: Path) -> bool:
    """Whether a test file is named after a module or package of the same place in the other tree, or that place."""
    place = package / test.relative_to(folder).parent
    name = test.stem.removeprefix("test_")
    if place.name == name:
        return True
    return any(
        found.name in {name, f"{name}.py"} for parent in (place, *place.glob("v1*")) for found in parent.iterdir()
    )


@pytest.mark.parametrize("part", PARTS)
def test_tests_mirror_the_modules(part: str) -> None:
    folder = TESTS / part
    others = {
        str(test.relative_to(TESTS))
        for test in folder.rglob("test_*.py")
        if not stands_beside(test, folder, PARTS[part])
    }
    assert others == {path for path in ABOUT_MORE_THAN_ONE_MODULE if path.startswith(f"{part}/")}


@pytest.mark.parametrize("part", PARTS)
def test_modules_can_be_read_in_one_sitting(part: str) -> None:
    lines = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in PARTS[part].rglob("*.py")}
    assert {path: count for path, count in lines.items() if count > LONGEST_MODULE} == {}


def test_names_of_tests_are_short() -> None:
    """What more there is to say stands in the docstring."""
    names = {
        f"{path.relative_to(TESTS)}: {node.name}"
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and len(node.name) > LONGEST_NAME
    }
    assert names == set()


def test_objects_are_complete_once_they_are_built() -> None:
    """What a class of the operator has, its constructor gives it; nobody asks whether it is there yet."""
    found = set()
    for path in PARTS["operator"].rglob("*.py"):
        module = ast.parse(path.read_text())
        for kind in (node for node in ast.walk(module) if isinstance(node, ast.ClassDef)):
            functions = [node for node in kind.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
            built = {name for function in functions if function.name == "__init__" for name in assigned(function)}
            later = {name for function in functions for name in assigned(function)}
            found |= {f"{path.name}: {kind.name}.{name}" for name in later - built}
        found |= {
            f"{path.name}: hasattr"
            for node in ast.walk(module)
            if isinstance(node, ast.Name) and node.id in {"hasattr", "getattr", "setattr"}
        }
    assert found == set()


def assigned(function: ast.AST) -> set[str]:
    """Attributes of self that a function assigns."""
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
