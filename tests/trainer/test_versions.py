import importlib.metadata

import pytest

from dporun_trainer import versions


def test_a_package_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PACKAGES", ("dporun", "dporun-without-a-release"))
    assert versions.package_versions() == {"dporun": importlib.metadata.version("dporun")}
