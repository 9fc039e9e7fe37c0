"""One form of log lines, at the level that the pod's environment or the program asks for."""

import logging

import pytest

from dporun_api import logs


@pytest.mark.parametrize(
    ("level", "environment", "expected"),
    [
        (None, {}, "INFO"),
        (None, {"DPORUN_LOG_LEVEL": "DEBUG"}, "DEBUG"),
        ("WARNING", {"DPORUN_LOG_LEVEL": "DEBUG"}, "WARNING"),
    ],
)
def test_level(level: str | None, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.delenv("DPORUN_LOG_LEVEL", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(logging, "basicConfig", lambda **arguments: asked.append(arguments["level"]))
    logs.configure(level)
    assert asked == [expected]
