"""Bring examples/tiny to where its manifest looks for it: a bucket, and a Secret with the keys to it.

The S3 server and its keys are those of the AWS_* environment variables.
"""

import os
import subprocess
import sys
from pathlib import Path

import boto3
import yaml
from botocore.exceptions import ClientError

EXAMPLE = Path(__file__).parents[1] / "examples" / "tiny"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION")


def upload(bucket: str) -> None:
    """Make ``bucket`` and put the model and the data of examples/tiny into it, as ``tiny/...``."""
    s3 = boto3.client("s3")
    try:
        s3.create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
            raise
    for folder in ("model", "data"):
        for path in sorted((EXAMPLE / folder).iterdir()):
            s3.upload_file(str(path), bucket, f"tiny/{folder}/{path.name}")


def create_secret(namespace: str, name: str) -> None:
    """Make or replace the Secret with the keys to the S3 server."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {key: os.environ[key] for key in KEYS if key in os.environ},
    }
    subprocess.run(["kubectl", "apply", "--filename", "-"], input=yaml.safe_dump(secret), text=True, check=True)


if __name__ == "__main__":
    (namespace,) = sys.argv[1:] or ["default"]
    upload("dporun-demo")
    create_secret(namespace, "dporun-demo-s3")
