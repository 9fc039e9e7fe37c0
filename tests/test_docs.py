"""The documentation names what exists."""

import ast
import re
from pathlib import Path

import pytest

from dporun_testing.paths import ROOT

PAGES = sorted(
    path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"))
    if "node_modules" not in path.parts
)  # fmt: skip
PACKAGES = ("api/dporun_api", "api/dporun_api/v1alpha1", "operator/dporun_operator", "trainer_image/dporun_trainer")
ROOMS = ("api/", "charts/", "cli/", "crds/", "docs/", "examples/", "hack/", "operator/", "tests/", "trainer_image/")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_exists(page: Path) -> None:
    words = re.findall(r"`([\w./-]+)`", page.read_text(encoding="utf-8"))
    paths = [word for word in words if word.startswith(ROOMS)]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def glossary() -> list[str]:
    """What the last column of the glossary's tables names, files of a run apart."""
    rows = re.findall(r"^\|.*\|(.*)\|$", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    words = [word for row in rows for word in re.findall(r"`([^`]+)`", row)]
    return [word for word in words if not word.endswith(".json")]


@pytest.mark.parametrize("word", glossary())
def test_the_glossary_names_what_exists(word: str) -> None:
    """A folder, a module, or a name that a module defines."""
    packages = [ROOT / package for package in PACKAGES]
    if "/" in word or word.endswith(".py"):
        assert any((package / word).exists() for package in packages)
        return
    *module, name = word.split(".")
    sources = [
        place for package in packages for place in (package / f"{'/'.join(module or [name])}.py",) if place.is_file()
    ]
    assert any(
        not module or re.search(rf"^(class |    )?{name}\b", source.read_text(), re.MULTILINE) for source in sources
    )


def faults() -> list[tuple[str, list[str]]]:
    """Number of each fault of docs/reliability.md, and what its last column names."""
    rows = re.findall(r"^\| ([^#|-]*) \|.*\|(.*)\|$", (ROOT / "docs/reliability.md").read_text("utf-8"), re.MULTILINE)
    return [(number, re.findall(r"`([^`]+)`", tests)) for number, tests in rows]


@pytest.mark.parametrize(("number", "tests"), faults(), ids=[number for number, _ in faults()])
def test_every_fault_has_tests_that_exist(number: str, tests: list[str]) -> None:
    assert tests, f"{number} names no test"
    assert [test for test in tests if not is_a_test(test)] == []


def is_a_test(name: str) -> bool:
    """Whether pytest would collect it: a story of a run's life, or a function of a test module."""
    module, _, function = name.partition("::")
    path = ROOT / module
    if not path.is_file() or not module.startswith("tests/"):
        return False
    if path.suffix == ".yaml":
        return path.parent == ROOT / "tests/operator/lifecycle/cases" and not function
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, kinds)}
    return path.name.startswith("test_") and function.startswith("test_") and function in functions


def test_faults_are_numbered_without_gaps() -> None:
    numbers = [number for number, _ in faults()]
    by_letter: dict[str, list[str]] = {}
    for number in numbers:
        by_letter.setdefault(number[0], []).append(number)
    counted = [f"{letter}{index}" for letter, those in by_letter.items() for index in range(1, len(those) + 1)]
    assert numbers == counted


RUNBOOKS = sorted(path for path in (ROOT / "docs/runbooks").glob("*.md") if path.name != "README.md")


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_every_runbook_is_listed_and_followed_in_a_test(page: Path) -> None:
    assert f"]({page.name})" in (page.parent / "README.md").read_text(encoding="utf-8")
    assert is_a_test(f"tests/cluster/runbooks/test_runbooks.py::test_{page.stem.replace('-', '_')}")
