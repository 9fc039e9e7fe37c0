"""The forms of the texts in a manifest: addresses, names, quantities; and what to write where one does not fit."""

from typing import Annotated

from pydantic import BeforeValidator, StringConstraints, WithJsonSchema

from dporun_api import run_config
from dporun_api.v1alpha1.rules import Rule

HUB = r"hf://[\w.-]+(/[\w.-]+)?"
S3 = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
CLAIM = r"pvc://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"

MODEL_URI = rf"^({HUB}|{S3}/\S+|{CLAIM}/\S+)$"
DATA_URI = rf"^({HUB}(@[\w.%-]+)?(/[^\s?]+)?(\?[\w=&.,:/%+()\[\]-]+)?|{S3}/\S+|{CLAIM}/\S+)$"
FILE_URI = rf"^({S3}/\S+|{CLAIM}/\S+)$"
FOLDER_URI = rf"^{S3}(/\S*)?$"
OBJECT_NAME = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
IMAGE = r"^[\w][\w./:@-]*$"
RESOURCE_NAME = r"^[a-z0-9.-]+/[\w.-]+$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"

PATTERN_HELP = {
    MODEL_URI: "write hf://OWNER/NAME, s3://BUCKET/PREFIX or pvc://CLAIM/PATH",
    DATA_URI: "write hf://OWNER/NAME?split=train[:10%], s3://BUCKET/FILE or pvc://CLAIM/FILE (or a folder or glob)",
    FILE_URI: "write s3://BUCKET/FILE or pvc://CLAIM/FILE",
    FOLDER_URI: "write s3://BUCKET or s3://BUCKET/PREFIX",
    OBJECT_NAME: "write the name of a Kubernetes object: lower-case letters, digits, '-' and '.'",
    IMAGE: "write an image reference such as registry.example.com/dporun/trainer:0.1.0",
    RESOURCE_NAME: "write an extended resource such as nvidia.com/gpu",
    QUANTITY: "write a quantity such as 500m, 64Gi or 8",
    run_config.ENDPOINT_URL: "write http://HOST:PORT or https://HOST, without a path; the bucket belongs into uri",
    run_config.REVISION: "write a branch, a tag or a commit of the Hub",
}
"""What to write instead of a value that does not match; nobody should have to parse a pattern to mend a manifest."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=OBJECT_NAME)]
"""Name of a Kubernetes object."""

LabelText = Annotated[str, StringConstraints(max_length=317)]
Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    StringConstraints(pattern=QUANTITY, max_length=32),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY,
            "maxLength": 32,
        },
        mode="validation",
    ),
]
"""Kubernetes quantity, such as 500m, 64Gi or 8."""

_UNITS = {
    "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip


def amount(quantity: str) -> float:
    """Read a quantity of Kubernetes; one of memory is in bytes.

    Raises:
        ValueError: it is none.

    """
    number = quantity.rstrip("mkKMGTPEi")
    try:
        return float(number) * _UNITS[quantity[len(number) :]]
    except (KeyError, ValueError):
        raise ValueError(f"{quantity!r} is no quantity such as 500m, 64Gi or 8") from None


def no_parent_folder(field: str) -> Rule:
    """A rule that refuses ``..`` as a step of a path."""
    return Rule(
        f"!has(self.{field}) || !(self.{field}.contains('/../') || self.{field}.endsWith('/..'))",
        lambda document: ".." not in (getattr(document, field) or "").split("/"),
        f"{field} must not contain '..'",
    )


def names_begin_with(field: str, prefixes: tuple[str, ...]) -> Rule:
    """A rule about the names in a mapping."""
    return Rule(
        f"!has(self.{field}) || self.{field}.all(name, "
        + " || ".join(f"name.startsWith('{prefix}')" for prefix in prefixes)
        + ")",
        lambda document: all(name.startswith(prefixes) for name in getattr(document, field) or ()),
        f"names in {field} begin with {', '.join(prefixes)}",
    )
