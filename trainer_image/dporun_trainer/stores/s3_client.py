"""Requests to S3 and to what calls itself compatible with it."""

import base64
import logging
from collections.abc import Callable, Iterator
from typing import IO, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

from dporun_trainer.errors import RunError
from dporun_trainer.stores.parallel import WORKERS
from dporun_trainer.stores.s3_errors import DAMAGED, UNSUPPORTED, code
from dporun_trainer.stores.sources import Credentials

log = logging.getLogger(__name__)

TRIES = 5
"""Of one request. A longer outage is waited for by whoever starts the command again."""
SENDINGS = 3
"""Of something that does not arrive as it was sent."""
CONNECT_SECONDS = 10
READ_SECONDS = 60
CHUNK = 2**20
ASK_FOR_CHECKSUMS = {"ChecksumMode": "ENABLED"}
"""Of HeadObject and GetObject."""
LOST = (HTTPClientError, IncompleteReadError)
"""While the content of an object arrives: the connection is lost."""


def client(credentials: Credentials, *, endpoint: str | None = None, region: str | None = None) -> Any:
    """Make a client of boto3.

    Keys, endpoint and region come from the Secret of ``credentials``; what it does not have, from boto3's own chain
    (plain AWS_* variables, a web identity such as IRSA, the profile of the local user). boto3 adds no checksums of its
    own, which other makers' stores do not all know: we send SHA-256 with every upload and check every download.

    Raises:
        RunError: the endpoint is no address.

    """
    endpoint = endpoint or credentials.get("AWS_ENDPOINT_URL_S3") or credentials.get("AWS_ENDPOINT_URL")
    key, secret, token = credentials.together("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    session = boto3.session.Session(
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        region_name=region or credentials.get("AWS_REGION") or credentials.get("AWS_DEFAULT_REGION") or "us-east-1",
    )
    config = Config(
        retries={"mode": "standard", "max_attempts": TRIES},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=2 * WORKERS,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return session.client("s3", endpoint_url=endpoint, config=config)
    except ValueError as error:
        raise RunError(
            credentials.reason,
            f"{endpoint} is no address of an S3 server",
            hint=f"Write AWS_ENDPOINT_URL in the Secret of {credentials.where} as https://HOST or https://HOST:PORT.",
        ) from error


class Requests:
    """Requests of one client, with checksums where the store knows them. They raise what boto3 raises."""

    def __init__(self, boto: Any):
        self.boto = boto
        self.checksums = True
        """Whether the store takes checksums, as far as it has shown; False only after a refusal."""

    def checked(self, call: Callable[..., Any], checks: dict[str, str], **arguments: Any) -> Any:
        """Make a request with checksums, and without them to a store that refuses requests with them.

        Such a store is known by its first refusal. What is sent to it is verified by reading it back.
        """
        if self.checksums:
            try:
                return call(**arguments, **checks)
            except ClientError as error:
                if code(error) not in UNSUPPORTED:
                    raise
                refusal = code(error)
            if "Body" in arguments:
                arguments["Body"].seek(0)
            answer = call(**arguments)
            if self.checksums:
                log.warning("%s takes no checksums (%s): what it has is verified by reading it", self.endpoint, refusal)
            self.checksums = False
            return answer
        return call(**arguments)

    def send(self, call: Callable[..., Any], body: IO[bytes], sha256: bytes, **arguments: Any) -> Any:
        """Make a request that sends ``body``; again, when the server says that something else arrived."""
        for sending in range(1, SENDINGS + 1):
            body.seek(0)
            try:
                return self.checked(call, {"ChecksumSHA256": encode(sha256)}, Body=body, **arguments)
            except ClientError as error:
                if code(error) not in DAMAGED or sending == SENDINGS:
                    raise
                log.warning("%s was damaged on the way to %s, sending it again", arguments["Key"], self.endpoint)
        raise AssertionError("the loop returns or raises")

    def receive(self, at: dict[str, str], *, start: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """GET an object from the byte ``start`` on; after a lost connection go on where it was, in the same version."""
        losses = 0
        while True:
            version = {"IfMatch": etag} if etag else {}
            rest = {"Range": f"bytes={start}-"} if start else {}
            answer = self.boto.get_object(**at, **version, **rest)
            etag = etag or answer.get("ETag")
            try:
                for chunk in answer["Body"].iter_chunks(CHUNK):
                    yield chunk
                    start, losses = start + len(chunk), 0
            except LOST as error:
                losses += 1
                if losses == TRIES:
                    raise
                log.warning("lost the connection at byte %d of %s: %s", start, at["Key"], error)
            else:
                return

    @property
    def endpoint(self) -> str:
        """Address of the server."""
        return str(self.boto.meta.endpoint_url)


def encode(digest: bytes) -> str:
    """Write a checksum as S3 does."""
    return base64.b64encode(digest).decode()
