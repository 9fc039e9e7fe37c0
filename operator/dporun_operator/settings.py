"""Settings of the operator: what the administrator decides for every run, read once from the environment."""

import json
import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dporun_api.v1alpha1.formats import amount
from dporun_operator.errors import InvalidSettingsError

ENV_PREFIX = "DPORUN_"

Requirements = Mapping[Literal["requests", "limits"], Mapping[str, str]]
"""Kubernetes resource requirements: quantities by resource name."""


def _split(value: object) -> object:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def _parse_json(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError('expected JSON such as {"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}}') from error


def _quantities(value: Requirements) -> Requirements:
    for amounts in value.values():
        for quantity in amounts.values():
            amount(quantity)
    return value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""In the environment, with commas between."""
Resources = Annotated[Requirements, NoDecode, BeforeValidator(_parse_json), AfterValidator(_quantities)]
"""In the environment, as JSON."""
Variables = Annotated[Mapping[str, str], NoDecode, BeforeValidator(_parse_json)]
"""In the environment, as JSON."""
Seconds = Annotated[float, Field(gt=0, lt=86400)]
ProgressVia = Literal["pod", "apiserver"]


class Settings(BaseModel):
    """The variable of a field is its name in capitals after ``DPORUN_``; empty means the default."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        str_strip_whitespace=True,
        coerce_numbers_to_str=True,  # a quantity such as {"cpu": 4}
    )

    trainer_image: Annotated[str, Field(min_length=1)]
    """The image of every pod of a run."""
    image_allow_list: Words = ()
    """Patterns, with ``*``, of images that spec.image may name besides."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Of the image of a run's pods."""
    image_pull_secrets: Words = ()
    """Names of Secrets in the runs' namespaces."""
    namespaces: Words = ()
    """Namespaces to watch; all when empty."""
    train_resources: Resources = {"requests": {"cpu": "1", "memory": "4Gi"}}
    """Of a training container whose run names none."""
    train_environment: Variables = {}
    """Variables of every training container, such as NCCL's for this cluster's network."""
    prepare_resources: Resources = {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "8Gi"}}
    archive_resources: Resources = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
    tensorboard_resources: Resources = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
    progress_seconds: Seconds = 5.0
    """Time between two requests for the progress of a training pod."""
    progress_via: ProgressVia = "pod"
    """Ask a pod directly, or through the API server's proxy; by default the latter outside a cluster."""
    resync_seconds: Seconds = 600.0
    """Time between two lists of everything."""
    image_pull_seconds: Seconds = 600.0
    """How long an image may fail to be pulled before the run fails."""
    lease_namespace: Annotated[str, Field(min_length=1)] = "kube-system"
    """Where the Lease is: operators that share it never act at the same time."""
    lease_seconds: Annotated[int, Field(ge=3, le=3600)] = 15
    """How long an operator that has died keeps another one waiting."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Of /healthz and /metrics; 0 for none."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @classmethod
    def from_env(cls) -> Self:
        """Read the settings from the environment.

        Raises:
            InvalidSettingsError: a variable is missing or has a wrong value; names each, and what is expected.

        """
        try:
            return cls(**_Environment().model_dump())
        except ValidationError as error:
            raise InvalidSettingsError(_explain(error)) from error

    def allows_image(self, image: str) -> bool:
        """Whether a run may use ``image``."""
        return image == self.trainer_image or any(fnmatchcase(image, pattern) for pattern in self.image_allow_list)


class _Environment(BaseSettings, Settings):
    """Settings that fill themselves from the environment; ``Settings`` alone never looks at it."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="ignore")

    progress_via: ProgressVia = Field(
        default_factory=lambda: "pod" if "KUBERNETES_SERVICE_HOST" in os.environ else "apiserver"
    )


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False):
        name, *inner = problem["loc"]
        variable = f"{ENV_PREFIX}{str(name).upper()}"
        if problem["type"] == "missing":
            problems.append(f"{variable} is not set: {Settings.model_fields[str(name)].description}")
        else:
            where = "".join(f"{part}: " for part in inner if part != "[key]")
            problems.append(
                f"{variable}={os.environ[variable]!r}: {where}{problem['msg'].removeprefix('Value error, ')}"
            )
    return "; ".join(problems)
