"""S3: one client per set of credentials, and a prefix of a bucket as a Store."""

import base64
import concurrent.futures
import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from s3transfer.utils import ReadFileChunk

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.stores.sources import Credentials
from dporun_trainer.stores.transfer import PART_BYTES, Content, StoredFile

log = logging.getLogger(__name__)

WORKERS = 8
_CHUNK = 2**20
_MISSING = {"404", "NoSuchKey", "NotFound"}
_DENIED = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}


def client(credentials: Credentials, *, endpoint: str | None = None, region: str | None = None) -> Any:
    """Make an S3 client.

    Keys, endpoint and region come from the Secret of ``credentials``; what it does not have, from boto3's own chain
    (plain AWS_* variables, a web identity such as IRSA, the profile of the local user). Other makers' stores do not
    all know the checksums that boto3 sends to Amazon by itself, so they get only those that we compute.
    """
    endpoint = endpoint or credentials.get("AWS_ENDPOINT_URL_S3") or credentials.get("AWS_ENDPOINT_URL")
    checksums = "when_required" if endpoint else "when_supported"
    key, secret, token = credentials.together("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return boto3.session.Session(
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        region_name=region or credentials.get("AWS_REGION") or credentials.get("AWS_DEFAULT_REGION") or "us-east-1",
    ).client(
        "s3",
        endpoint_url=endpoint,
        config=Config(
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=2 * WORKERS,
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
        ),
    )


class S3Store:
    """The objects of a bucket below a prefix, as a Store (see there).

    Every upload carries its SHA-256, so that the server refuses what was damaged on the way, and is compared with what
    the server then reports (by reading it, where the server keeps no checksums).
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        credentials: Credentials,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        part_bytes: int = PART_BYTES,
    ):
        self._client = client(credentials, endpoint=endpoint, region=region)
        self._bucket = bucket
        self._prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self._credentials = credentials
        self.part_bytes = part_bytes
        self.uri = f"s3://{bucket}/{self._prefix}".rstrip("/")

    def files(self) -> Iterator[StoredFile]:
        """List all objects below the prefix; placeholders of folders are left out."""
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for page in pages:
                for entry in page.get("Contents", []):
                    if not entry["Key"].endswith("/"):
                        yield StoredFile(entry["Key"].removeprefix(self._prefix), entry["Size"])
        except (BotoCoreError, ClientError) as error:
            self._fail(error, "list")

    def read(self, name: str) -> bytes | None:
        """Read a small object; None when there is none."""
        try:
            return bytes(self._client.get_object(**self._at(name))["Body"].read())
        except (BotoCoreError, ClientError) as error:
            if _code(error) in _MISSING:
                return None
            self._fail(error, "read", name)

    def stat(self, name: str) -> StoredFile | None:
        """Size of an object; None when there is none."""
        try:
            return StoredFile(name, self._client.head_object(**self._at(name))["ContentLength"])
        except (BotoCoreError, ClientError) as error:
            if _code(error) in _MISSING:
                return None
            self._fail(error, "read", name)

    def download(self, name: str, path: Path, done: Callable[[int], None]) -> str:
        """Copy an object to ``path`` and return its SHA-256; an interrupted download goes on where it stopped."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        try:
            head = self._client.head_object(**self._at(name))
            etag = part.with_name(part.name + ".etag")
            if not (part.exists() and etag.exists() and etag.read_text(encoding="utf-8") == head["ETag"]):
                part.unlink(missing_ok=True)
                etag.write_text(head["ETag"], encoding="utf-8")
            digest = hashlib.sha256()
            with part.open("a+b") as file:
                file.seek(0)
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                done(file.tell())
                if file.tell() < head["ContentLength"]:
                    answer = self._client.get_object(
                        **self._at(name), IfMatch=head["ETag"], Range=f"bytes={file.tell()}-"
                    )
                    for chunk in answer["Body"].iter_chunks(_CHUNK):
                        file.write(chunk)
                        digest.update(chunk)
                        done(len(chunk))
                file.flush()
                os.fsync(file.fileno())
        except (BotoCoreError, ClientError) as error:
            self._fail(error, "read", name)
        part.replace(path)
        etag.unlink()
        return digest.hexdigest()

    def holds(self, name: str, content: Content) -> bool:
        """Whether the object has exactly this content."""
        try:
            head = self._client.head_object(**self._at(name), ChecksumMode="ENABLED")
        except (BotoCoreError, ClientError) as error:
            if _code(error) in _MISSING:
                return False
            self._fail(error, "read", name)
        if head["ContentLength"] != content.length:
            return False
        stored = head.get("ChecksumSHA256")
        if stored == _checksum(content):
            return True
        if stored and "-" not in stored:  # a checksum of the whole: the content differs, whoever wrote it
            return False
        return self._digest(name) == content.sha256

    def upload(self, name: str, path: Path, content: Content, done: Callable[[int], None]) -> None:
        """Store a file, in parts when it is large; nothing of a failed multipart upload remains."""
        try:
            if len(content.parts) == 1:
                with path.open("rb") as file:
                    self._client.put_object(**self._at(name), Body=file, ChecksumSHA256=_encode(content.parts[0]))
                done(content.length)
            else:
                self._upload_parts(name, path, content, done)
        except (BotoCoreError, ClientError) as error:
            self._fail(error, "write", name)

    def _upload_parts(self, name: str, path: Path, content: Content, done: Callable[[int], None]) -> None:
        upload = self._at(name)
        upload["UploadId"] = self._client.create_multipart_upload(**upload, ChecksumAlgorithm="SHA256")["UploadId"]

        def send(number: int) -> dict[str, Any]:
            start = (number - 1) * content.part_bytes
            length = min(content.part_bytes, content.length - start)
            checksum = _encode(content.parts[number - 1])
            with ReadFileChunk.from_filename(str(path), start, length) as body:
                answer = self._client.upload_part(**upload, PartNumber=number, Body=body, ChecksumSHA256=checksum)
            done(length)
            return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

        try:
            with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
                futures = [pool.submit(send, number) for number in range(1, len(content.parts) + 1)]
                try:
                    parts = [future.result() for future in futures]
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            with contextlib.suppress(BotoCoreError, ClientError):  # the first error is the one that matters
                self._client.abort_multipart_upload(**upload)
            raise

    def create(self, name: str, data: bytes) -> bool:
        """Store a small object where there is none, by a conditional PUT where the server honours it."""
        try:
            if self.stat(name) is not None:  # for servers that ignore the condition
                return False
            self._client.put_object(
                **self._at(name), Body=data, IfNoneMatch="*", ChecksumSHA256=_encode(hashlib.sha256(data).digest())
            )
        except (BotoCoreError, ClientError) as error:
            if _code(error) in {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}:
                return False
            if _code(error) in {"NotImplemented", "501"}:  # a server that does not know the condition
                self.replace(name, data)
                return True
            self._fail(error, "write", name)
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Store a small object, replacing what is there."""
        try:
            self._client.put_object(**self._at(name), Body=data, ChecksumSHA256=_encode(hashlib.sha256(data).digest()))
        except (BotoCoreError, ClientError) as error:
            self._fail(error, "write", name)

    def clean(self) -> None:
        """Abort multipart uploads below the prefix that were never completed; their parts cost money unseen."""
        try:
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for upload in [upload for page in pages for upload in page.get("Uploads", [])]:
                log.info("aborting the unfinished upload of s3://%s/%s", self._bucket, upload["Key"])
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        except ClientError as error:
            if _code(error) not in _DENIED | {"NotImplemented", "NoSuchUpload"}:
                self._fail(error, "list the uploads of")
            log.warning("cannot look for unfinished uploads in %s: %s", self.uri, error)
        except BotoCoreError as error:
            self._fail(error, "list the uploads of")

    def _digest(self, name: str) -> str:
        digest = hashlib.sha256()
        try:
            for chunk in self._client.get_object(**self._at(name))["Body"].iter_chunks(_CHUNK):
                digest.update(chunk)
        except (BotoCoreError, ClientError) as error:
            self._fail(error, "read", name)
        return digest.hexdigest()

    def _at(self, name: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def _fail(self, error: Exception, verb: str, name: str = "") -> NoReturn:
        uri = f"s3://{self._bucket}/{self._prefix}{name}"
        raise explain(error, f"cannot {verb} {uri}", self._credentials, self._client.meta.endpoint_url) from error


def explain(error: Exception, what: str, credentials: Credentials, endpoint: str) -> RunError:
    """Turn an error of boto3 into one that names what to check.

    One that may pass (no answer, an overloaded server) keeps the run alive for another try, unless it is the archive
    that fails: that has a reason, and tries, of its own.
    """
    keys = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    reason = credentials.reason
    passing = reason if reason is Reason.ARCHIVE_FAILED else Reason.TRAINER_ERROR
    code = _code(error)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return RunError(reason, f"{what}: no credentials", hint=f"Name a Secret with {keys} in {credentials.where}.")
    if code in _DENIED:
        return RunError(
            reason,
            f"{what}: access denied by {endpoint} ({code})",
            hint=f"Check {keys} in the Secret of {credentials.where}, and what they may do in the bucket.",
        )
    if code == "NoSuchBucket":
        return RunError(
            reason,
            f"{what}: no such bucket at {endpoint}",
            hint=f"Check the bucket's name, and AWS_ENDPOINT_URL in the Secret of {credentials.where}.",
        )
    if code in _MISSING:
        return RunError(reason, f"{what}: not found at {endpoint}", hint="Check the path after the bucket's name.")
    if isinstance(error, BotoConnectionError | HTTPClientError):
        return RunError(
            passing,
            f"{what}: {endpoint} cannot be reached ({error})",
            hint=f"Check AWS_ENDPOINT_URL in the Secret of {credentials.where}, and the network of the pod.",
        )
    return RunError(passing, f"{what}: {error}")


def _code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _encode(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _checksum(content: Content) -> str:
    """What S3 calls the SHA-256 of an object: that of the whole, or of its parts' checksums and their number."""
    if len(content.parts) == 1:
        return _encode(content.parts[0])
    return f"{_encode(hashlib.sha256(b''.join(content.parts)).digest())}-{len(content.parts)}"
