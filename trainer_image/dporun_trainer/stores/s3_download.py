"""Downloads: an interrupted one is continued, and nothing that arrived damaged is put in its place."""

import base64
import hashlib
import logging
import os
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from botocore.exceptions import FlexibleChecksumError

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.stores.s3_client import ASK_FOR_CHECKSUMS, CHUNK, LOST, SENDINGS, Requests
from dporun_trainer.stores.transfer import damaged

log = logging.getLogger(__name__)


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Crc32:
    value = 0

    def update(self, data: bytes, /) -> None:
        self.value = zlib.crc32(data, self.value)

    def hexdigest(self) -> str:
        return f"{self.value:08x}"


_HASHES: Mapping[str, Callable[[], _Hash]] = {
    "SHA-256": hashlib.sha256,
    "CRC32": _Crc32,
    "MD5": lambda: hashlib.md5(usedforsecurity=False),
}


def download(
    s3: Requests, at: dict[str, str], path: Path, done: Callable[[int], None], sha256: str | None, reason: Reason
) -> str:
    """Copy an object to ``path`` and return its SHA-256.

    What has another checksum than it should is fetched again: it may have been damaged on the way.

    Args:
        s3: asks.
        at: ``Bucket`` and ``Key`` of the object.
        path: the file appears whole, or not at all.
        done: called with bytes.
        sha256: of the content; without it, the checksums that the store knows count.
        reason: of the error.

    Raises:
        RunError: it arrives damaged every time.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    etag = part.with_name(part.name + ".etag")
    for fetch in range(1, SENDINGS + 1):
        found, right = _fetch(s3, at, part, etag, done if fetch == 1 else lambda _: None)
        if sha256 is not None:
            right = {"SHA-256": sha256}
        wrong = next((kind for kind in right if found[kind] != right[kind]), None)
        if wrong is None:
            break
        part.unlink()
        etag.unlink()
        log.warning("%s arrived damaged, %d of %d times", at["Key"], fetch, SENDINGS)
        if fetch == SENDINGS:
            raise damaged(f"s3://{at['Bucket']}/{at['Key']}", found[wrong], right[wrong], reason, wrong)
    part.replace(path)
    etag.unlink()
    return found["SHA-256"]


def read(s3: Requests, at: dict[str, str]) -> bytes:
    """Read a small object; again, when the connection is lost or it arrives otherwise than the store's checksum says.

    What arrives so every time is what is there: whoever reads it finds out what that is worth.
    """
    for fetch in range(1, SENDINGS + 1):
        ask = ASK_FOR_CHECKSUMS if fetch < SENDINGS else {}  # boto3 gives out nothing that does not match
        answer = s3.checked(s3.boto.get_object, ask, **at)
        try:
            data = bytes(answer["Body"].read())
        except (*LOST, FlexibleChecksumError):
            if fetch == SENDINGS:
                raise
            continue
        right = _checksums(answer, tls=s3.endpoint.startswith("https:"))
        hashes = {kind: _HASHES[kind]() for kind in right}
        _update(hashes, data)
        if all(hashes[kind].hexdigest() == right[kind] for kind in right):
            break
        log.warning("%s arrived damaged, %d of %d times", at["Key"], fetch, SENDINGS)
    return data


def _fetch(
    s3: Requests, at: dict[str, str], part: Path, etag: Path, done: Callable[[int], None]
) -> tuple[dict[str, str], dict[str, str]]:
    """Complete the file ``part``, which is of the version ``etag``; its checksums, and those that it should have."""
    head = s3.checked(s3.boto.head_object, ASK_FOR_CHECKSUMS, **at)
    version = head.get("ETag", "")
    if not (part.exists() and etag.exists() and etag.read_text(encoding="utf-8") == version):
        part.unlink(missing_ok=True)
        etag.write_text(version, encoding="utf-8")
    right = _checksums(head, tls=s3.endpoint.startswith("https:"))
    hashes = {kind: _HASHES[kind]() for kind in {"SHA-256", *right}}
    with part.open("a+b") as file:
        file.seek(0)
        while chunk := file.read(CHUNK):
            _update(hashes, chunk)
        done(file.tell())
        if file.tell() < head["ContentLength"]:
            for chunk in s3.receive(at, start=file.tell(), etag=version):
                file.write(chunk)
                _update(hashes, chunk)
                done(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    return {kind: digest.hexdigest() for kind, digest in hashes.items()}, right


def _update(hashes: Mapping[str, _Hash], data: bytes) -> None:
    for digest in hashes.values():
        digest.update(data)


def _checksums(head: dict[str, Any], *, tls: bool) -> dict[str, str]:
    """What a store says of a whole object, in hexadecimal.

    Checksums of parts ("-") cannot be compared with a file. An ETag is most often the MD5, but not always, so that it
    counts only where nothing else protects the way: without TLS, and without encryption in the store.
    """
    known = {"SHA-256": head.get("ChecksumSHA256", "-"), "CRC32": head.get("ChecksumCRC32", "-")}
    right = {
        kind: base64.b64decode(value).hex()
        for kind, value in known.items()
        if "-" not in value and head.get("ChecksumType") != "COMPOSITE"
    }
    etag = head.get("ETag", "").strip('"')
    if not right and not tls and "ServerSideEncryption" not in head and re.fullmatch("[0-9a-f]{32}", etag):
        return {"MD5": etag}
    return right
