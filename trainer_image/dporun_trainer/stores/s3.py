"""A prefix of an S3 bucket as a Store."""

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from botocore.exceptions import ClientError

from dporun_trainer.errors import RunError
from dporun_trainer.stores import s3_download
from dporun_trainer.stores.s3_client import ASK_FOR_CHECKSUMS, Requests, client, encode
from dporun_trainer.stores.s3_errors import ERRORS, EXISTS, MISSING, UNSUPPORTED, WORDLESS, code, explain
from dporun_trainer.stores.s3_multipart import abort_unfinished, upload_parts
from dporun_trainer.stores.sources import Credentials
from dporun_trainer.stores.transfer import Content, DamagedFileError, StoredFile


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
    ):
        self._s3 = Requests(client(credentials, endpoint=endpoint, region=region))
        self._bucket = bucket
        self._prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self._credentials = credentials
        self.uri = f"s3://{bucket}/{self._prefix}".rstrip("/")

    def files(self) -> Iterator[StoredFile]:
        """List all objects below the prefix; placeholders of folders are left out."""
        with self._explained("list"):
            pages = self._s3.boto.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for page in pages:
                for entry in page.get("Contents", []):
                    if not entry["Key"].endswith("/"):
                        yield StoredFile(entry["Key"].removeprefix(self._prefix), entry["Size"])

    def read(self, name: str) -> bytes | None:
        """Read a small object; None when there is none."""
        with self._explained("read", name):
            try:
                return s3_download.read(self._s3, self._at(name))
            except ClientError as error:
                if code(error) in MISSING:
                    return None
                raise

    def stat(self, name: str) -> StoredFile | None:
        """Size of an object; None when there is none."""
        head = self._head(name)
        return None if head is None else StoredFile(name, head["ContentLength"])

    def download(self, name: str, path: Path, done: Callable[[int], None], sha256: str | None = None) -> str:
        """Copy an object to ``path`` and return its SHA-256; an interrupted download goes on where it stopped."""
        try:
            with self._explained("read", name):
                return s3_download.download(self._s3, self._at(name), path, done, sha256, self._credentials.reason)
        except RunError as error:
            if isinstance(error.__cause__, ClientError) and code(error.__cause__) in MISSING:
                raise DamagedFileError(error.reason, error.message, hint=error.hint) from error
            raise

    def holds(self, name: str, content: Content) -> bool:
        """Whether the object has exactly this content.

        Where the store answers with a checksum, that is believed: a checksum that it computed when it got the object.
        So this sees what is missing, short, replaced or damaged on the way; what changed on the store's own disks, it
        sees as far as the store checks them. An object without a comparable checksum is read.
        """
        head = self._head(name)
        if head is None or head["ContentLength"] != content.length:
            return False
        stored = head.get("ChecksumSHA256")
        if stored == _checksum(content):
            return True
        if stored and "-" not in stored:  # a checksum of the whole: the content differs, whoever wrote it
            return False
        digest = hashlib.sha256()
        with self._explained("read", name):
            for chunk in self._s3.receive(self._at(name), etag=head.get("ETag")):
                digest.update(chunk)
        return digest.hexdigest() == content.sha256

    def upload(self, name: str, path: Path, content: Content, done: Callable[[int], None]) -> None:
        """Store a file, in parts when it is large; an interrupted upload in parts is continued (see upload_parts)."""
        with self._explained("write", name):
            if len(content.parts) == 1:
                with path.open("rb") as file:
                    self._s3.send(self._s3.boto.put_object, file, content.parts[0], **self._at(name))
                done(content.length)
                return
            try:
                upload_parts(self._s3, self._at(name), path, content, done)
            except ClientError as error:
                # Perhaps it is complete, and only the answer that said so was lost.
                if code(error) != "NoSuchUpload" or not self.holds(name, content):
                    raise

    def create(self, name: str, data: bytes) -> bool:
        """Store a small object where there is none, by a conditional PUT.

        Where the store ignores the condition or refuses it, what decides is whether the object is there before, and
        what is there afterwards: of two that write in the same moment, the one that looks last may then be the only
        one to see the other's. The folder of a run, named after its UID, has one writer.
        """
        if self.stat(name) is not None:
            return False
        with self._explained("write", name):
            try:
                self._put(name, data, IfNoneMatch="*")
            except ClientError as error:
                if code(error) in EXISTS:
                    return False
                if code(error) not in UNSUPPORTED:
                    raise
                self._put(name, data)
                return self.read(name) == data
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Store a small object, replacing what is there."""
        with self._explained("write", name):
            self._put(name, data)

    def delete(self, name: str) -> None:
        """Delete an object; S3 does not mind when there is none."""
        with self._explained("delete", name):
            self._s3.boto.delete_object(**self._at(name))

    def clean(self) -> None:
        """Abort uploads in parts below the prefix that were never completed; their parts cost money unseen."""
        with self._explained("list the uploads of"):
            abort_unfinished(self._s3, self._bucket, self._prefix)

    def _put(self, name: str, data: bytes, **condition: str) -> None:
        sha256 = hashlib.sha256(data).digest()
        self._s3.send(self._s3.boto.put_object, io.BytesIO(data), sha256, **self._at(name), **condition)

    def _head(self, name: str) -> dict[str, Any] | None:
        """What S3 knows of an object, with its checksums; None when there is none."""
        with self._explained("read", name):
            try:
                return cast(
                    "dict[str, Any]", self._s3.checked(self._s3.boto.head_object, ASK_FOR_CHECKSUMS, **self._at(name))
                )
            except ClientError as error:
                if code(error) in MISSING:
                    return None
                if code(error) in WORDLESS:
                    self._s3.boto.get_object(**self._at(name))["Body"].close()
                raise

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    @contextlib.contextmanager
    def _explained(self, verb: str, name: str = "") -> Iterator[None]:
        """Turn errors of boto3 into a RunError: cannot ``verb`` this object."""
        try:
            yield
        except ERRORS as error:
            what = f"cannot {verb} s3://{self._bucket}/{self._prefix}{name}"
            raise explain(error, what, self._credentials, self._s3.endpoint) from error


def _checksum(content: Content) -> str:
    """What S3 calls the SHA-256 of an object: that of the whole, or of its parts' checksums and their number."""
    if len(content.parts) == 1:
        return encode(content.parts[0])
    return f"{encode(hashlib.sha256(b''.join(content.parts)).digest())}-{len(content.parts)}"
