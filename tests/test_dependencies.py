"""Every part imports only what its own extra installs; deptry (``make lint``) cannot tell the extras apart."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dporun_testing.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PARTS = {
    "api/dporun_api": None,
    "operator/dporun_operator": "operator",
    "trainer_image/dporun_trainer": "trainer",
    "cli/dporun_cli": "cli",
}
"""Folder of each part, and its extra."""


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extra: str | None) -> set[str]:
    """Distributions that are installed with ``extra``."""
    requirements = PROJECT["dependencies"] + (PROJECT["optional-dependencies"][extra] if extra else [])
    return {normalized(re.split(r"[<>=~!;\[ ]", requirement)[0]) for requirement in requirements}


def imported(path: Path) -> Iterator[str]:
    """Packages that are not of ours and not of Python, imported anywhere in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                modules = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case _:
                continue
        for name in (module.partition(".")[0] for module in modules):
            if name not in sys.stdlib_module_names and not name.startswith("dporun_"):
                yield name


@pytest.fixture(scope="module")
def distributions() -> Mapping[str, list[str]]:
    """What is installed, by the names of its packages."""
    return importlib.metadata.packages_distributions()


@pytest.mark.parametrize(("folder", "extra"), PARTS.items())
def test_a_part_imports_only_what_its_extra_installs(
    folder: str, extra: str | None, distributions: Mapping[str, list[str]]
) -> None:
    found = {
        name: str(path.relative_to(ROOT)) for path in sorted((ROOT / folder).rglob("*.py")) for name in imported(path)
    }
    assert found, f"nothing is imported in {folder}"
    undeclared = {
        name: path
        for name, path in found.items()
        if not {normalized(distribution) for distribution in distributions.get(name, [])} & declared(extra)
    }
    assert not undeclared, f"add to the extra {extra or 'dependencies'}: {undeclared}"
