"""Settings of the operator: read once from the environment, frozen from then on."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

from dporun_operator.errors import InvalidSettingsError

Requirements = Mapping[str, Mapping[str, str]]
"""Kubernetes resource requirements: ``requests`` and ``limits``, each by resource name."""


def _requirements(cpu: str, memory: str, memory_limit: str | None) -> Requirements:
    limits = {"limits": {"memory": memory_limit}} if memory_limit else {}
    return {"requests": {"cpu": cpu, "memory": memory}, **limits}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the administrator decides for every run."""

    trainer_image: str
    """Image of every pod of a run (DPORUN_TRAINER_IMAGE)."""
    image_allow_list: tuple[str, ...] = ()
    """Patterns, with ``*``, of images that spec.image may name besides (DPORUN_IMAGE_ALLOW_LIST, commas between)."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Of the trainer image (DPORUN_IMAGE_PULL_POLICY)."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets in the runs' namespaces (DPORUN_IMAGE_PULL_SECRETS, commas between)."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to watch (DPORUN_NAMESPACES, commas between); all when empty."""
    train_resources: Requirements = field(default_factory=lambda: _requirements("1", "4Gi", None))
    """Of a training container whose run names none (DPORUN_TRAIN_RESOURCES, as JSON)."""
    prepare_resources: Requirements = field(default_factory=lambda: _requirements("250m", "1Gi", "8Gi"))
    """Of prepare (DPORUN_PREPARE_RESOURCES, as JSON)."""
    archive_resources: Requirements = field(default_factory=lambda: _requirements("100m", "256Mi", "2Gi"))
    """Of archive (DPORUN_ARCHIVE_RESOURCES, as JSON)."""
    tensorboard_resources: Requirements = field(default_factory=lambda: _requirements("50m", "256Mi", "1Gi"))
    """Of TensorBoard (DPORUN_TENSORBOARD_RESOURCES, as JSON)."""
    progress_seconds: float = 5.0
    """Time between two looks at a training pod (DPORUN_PROGRESS_SECONDS)."""
    progress_via: Literal["pod", "apiserver"] = "pod"
    """Ask pods directly, or through the API server's proxy when outside the cluster (DPORUN_PROGRESS_VIA)."""
    resync_seconds: float = 600.0
    """Time between two full looks at the cluster (DPORUN_RESYNC_SECONDS)."""
    image_pull_seconds: float = 600.0
    """How long an image may fail to be pulled before the run fails (DPORUN_IMAGE_PULL_SECONDS)."""
    port: int = 8080
    """Port of /healthz and /metrics (DPORUN_PORT); 0 for none."""
    log_level: str = "INFO"
    """DPORUN_LOG_LEVEL."""

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings.

        Raises:
            InvalidSettingsError: a variable is missing or has a value that makes no sense.

        """
        values: dict[str, Any] = {"progress_via": "pod" if "KUBERNETES_SERVICE_HOST" in environment else "apiserver"}
        for name, parse in _PARSERS.items():
            variable = f"DPORUN_{name.upper()}"
            text = environment.get(variable, "").strip()
            if not text:
                continue
            try:
                values[name] = parse(text)
            except ValueError as error:
                raise InvalidSettingsError(f"{variable}={text!r}: {error}") from error
        if not values.get("trainer_image"):
            raise InvalidSettingsError("DPORUN_TRAINER_IMAGE is not set: it names the image of the runs' pods")
        return cls(**values)

    def allows_image(self, image: str) -> bool:
        """Whether a run may use ``image``."""
        return image == self.trainer_image or any(fnmatchcase(image, pattern) for pattern in self.image_allow_list)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 86400:
        raise ValueError("expected seconds, more than 0 and less than a day")
    return seconds


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 65536:
        raise ValueError("expected a port from 0 to 65535")
    return port


def _choice(*choices: str) -> Any:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return text

    return parse


def _resources(text: str) -> Requirements:
    value = json.loads(text)
    if not isinstance(value, dict) or not set(value) <= {"requests", "limits"}:
        raise ValueError('expected JSON such as {"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}}')
    return {kind: {name: str(quantity) for name, quantity in (value[kind] or {}).items()} for kind in value}


_PARSERS: dict[str, Any] = {
    "trainer_image": str,
    "image_allow_list": _words,
    "image_pull_policy": _choice("Always", "IfNotPresent", "Never"),
    "image_pull_secrets": _words,
    "namespaces": _words,
    "train_resources": _resources,
    "prepare_resources": _resources,
    "archive_resources": _resources,
    "tensorboard_resources": _resources,
    "progress_seconds": _seconds,
    "progress_via": _choice("pod", "apiserver"),
    "resync_seconds": _seconds,
    "image_pull_seconds": _seconds,
    "port": _port,
    "log_level": _choice("DEBUG", "INFO", "WARNING", "ERROR"),
}
