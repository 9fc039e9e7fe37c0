"""Archives in S3, read as a person would who trusts nobody: every byte."""

import hashlib
import json
from typing import Any

from botocore.exceptions import ClientError

ADAPTER = "adapter_model.safetensors"


class NotWholeError(AssertionError):
    """The archive is not what its manifest says; the message says where."""


def verify(s3: Any, uri: str) -> dict[str, Any]:
    """Read every file of an archive, compare it with the manifest, and return that.

    Raises:
        NotWholeError: there is no manifest, a file is missing or differs, or there is no adapter.

    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")

    def read(path: str) -> bytes:
        try:
            return bytes(s3.get_object(Bucket=bucket, Key=f"{prefix}/{path}")["Body"].read())
        except ClientError as error:
            raise NotWholeError(f"{uri}/{path}: {error.response['Error']['Code']}") from error

    manifest: dict[str, Any] = json.loads(read("manifest.json"))
    for file in manifest["files"]:
        content = read(file["path"])
        if len(content) != file["bytes"] or hashlib.sha256(content).hexdigest() != file["sha256"]:
            raise NotWholeError(f"{uri}/{file['path']} differs from the manifest")
    if not any(file["path"].endswith(ADAPTER) for file in manifest["files"]):
        raise NotWholeError(f"{uri} holds no adapter")
    return manifest
