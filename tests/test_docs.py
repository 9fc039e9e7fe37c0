"""The documentation names what exists."""

import re
from pathlib import Path

import pytest

from dporun_testing.paths import ROOT

PAGES = sorted(
    path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"))
    if "node_modules" not in path.parts
)  # fmt: skip
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
