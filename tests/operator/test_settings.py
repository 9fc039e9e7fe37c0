"""Settings from the environment."""

import os
from collections.abc import Callable

import pytest

from dporun_operator.__main__ import main
from dporun_operator.errors import InvalidSettingsError
from dporun_operator.settings import Settings

IMAGE = {"DPORUN_TRAINER_IMAGE": "registry.example.com/trainer:1"}

Read = Callable[[dict[str, str]], Settings]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads the settings from an environment that has nothing else."""

    def from_env(environment: dict[str, str]) -> Settings:
        for name in (*os.environ, *environment):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return Settings.from_env()

    return from_env


def test_only_the_image_must_be_named(read: Read) -> None:
    settings = read(IMAGE)
    assert settings.trainer_image == IMAGE["DPORUN_TRAINER_IMAGE"]
    assert settings.namespaces == ()
    assert settings.progress_via == "apiserver"


def test_inside_the_cluster_pods_are_asked_directly(read: Read) -> None:
    assert read({**IMAGE, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}).progress_via == "pod"


def test_lists_and_resources(read: Read) -> None:
    settings = read(
        {
            **IMAGE,
            "DPORUN_NAMESPACES": "team-a, team-b",
            "DPORUN_IMAGE_ALLOW_LIST": "registry.example.com/ml/*",
            "DPORUN_TRAIN_RESOURCES": '{"requests": {"cpu": 4}}',
        }
    )
    assert settings.namespaces == ("team-a", "team-b")
    assert settings.train_resources == {"requests": {"cpu": "4"}}
    assert settings.allows_image("registry.example.com/ml/trainer:2")
    assert settings.allows_image(IMAGE["DPORUN_TRAINER_IMAGE"])
    assert not settings.allows_image("registry.example.com/other:2")
    assert not settings.allows_image("evil.example.com/registry.example.com/ml/trainer:2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DPORUN_TRAINER_IMAGE", ""),
        ("DPORUN_IMAGE_PULL_POLICY", "Sometimes"),
        ("DPORUN_PROGRESS_SECONDS", "0"),
        ("DPORUN_PROGRESS_SECONDS", "soon"),
        ("DPORUN_PORT", "99999"),
        ("DPORUN_TRAIN_RESOURCES", "4 cores"),
        ("DPORUN_TRAIN_RESOURCES", '{"cpu": "4"}'),
        ("DPORUN_TRAIN_RESOURCES", '{"requests": {"memory": "4 GB"}}'),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str, read: Read) -> None:
    with pytest.raises(InvalidSettingsError, match=name):
        read({**IMAGE, name: value})


def test_every_wrong_variable_is_named_and_explained(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    """With its value and what is expected."""
    wrong = {"DPORUN_PORT": "99999", "DPORUN_TRAIN_RESOURCES": "4 cores"}
    with pytest.raises(InvalidSettingsError) as caught:
        read(wrong)
    expected = (
        "DPORUN_TRAINER_IMAGE is not set: The image of every pod of a run.",
        "DPORUN_TRAIN_RESOURCES='4 cores': expected JSON such as",
        "DPORUN_PORT='99999': Input should be less than or equal to 65535",
    )
    for words in expected:
        assert words in str(caught.value)
    assert main() == 2
    assert capsys.readouterr().err == f"dporun-operator: {caught.value}\n"


def test_settings_made_in_code_do_not_look_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPORUN_PORT", "1")
    assert Settings(trainer_image="trainer:1").port == 8080
