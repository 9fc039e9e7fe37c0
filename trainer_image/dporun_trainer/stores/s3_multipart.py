"""Uploads in parts: an interrupted one is continued, and none is forgotten where it costs money unseen."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from s3transfer.utils import ReadFileChunk

from dporun_trainer.stores.parallel import side_by_side
from dporun_trainer.stores.s3_client import Requests, encode
from dporun_trainer.stores.s3_errors import DAMAGED, DENIED, MISSING, UNSUPPORTED, code
from dporun_trainer.stores.transfer import Content

log = logging.getLogger(__name__)

_STALE = DAMAGED | UNSUPPORTED | {"InvalidPart", "InvalidPartOrder", "EntityTooSmall"}
"""Refusals after which an upload is of no use any more."""


def upload_parts(
    s3: Requests,
    at: dict[str, str],
    path: Path,
    content: Content,
    done: Callable[[int], None],
    *,
    afresh: bool = False,
) -> None:
    """Upload a large file in parts, side by side, beginning with those that an interrupted try has left in the store.

    An upload that fails, or whose process is killed, stays for the next try; where the store does not say what there
    is to continue, it is aborted instead, as far as somebody is left to do it.

    Args:
        s3: sends.
        at: ``Bucket`` and ``Key`` of the object.
        path: of the file.
        content: of the file; its parts are those of the upload.
        done: called with the bytes of each part.
        afresh: continue nothing.

    """
    listed = unfinished(s3, at["Bucket"], at["Key"])
    upload, there = (None, {}) if afresh else _continued(s3, at, content, listed or [])
    if upload is None:
        begin = s3.checked(s3.boto.create_multipart_upload, {"ChecksumAlgorithm": "SHA256"}, **at)
        upload = {**at, "UploadId": begin["UploadId"]}

    def send(number: int) -> dict[str, Any]:
        start, length = content.part(number)
        if number in there:
            part = there[number]
        else:
            with ReadFileChunk.from_filename(str(path), start, length) as body:
                answer = s3.send(s3.boto.upload_part, body, content.parts[number - 1], **upload, PartNumber=number)
            part = _part(number, answer)
        done(length)
        return part

    try:
        parts = side_by_side(send, range(1, len(content.parts) + 1))
        s3.boto.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    except Exception as error:
        if code(error) in _STALE or listed is None:
            _abort(s3, upload)
        if code(error) not in _STALE or not there:
            raise
        log.warning("the upload of %s cannot be continued (%s), beginning again", at["Key"], code(error))
        upload_parts(s3, at, path, content, lambda _: None, afresh=True)


def unfinished(s3: Requests, bucket: str, prefix: str) -> list[dict[str, str]] | None:
    """Uploads below a prefix that were never completed, the newest first; None where the store does not tell."""
    try:
        pages = s3.boto.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
        found = [upload for page in pages for upload in page.get("Uploads", [])]
    except ClientError as error:
        if code(error) == "NoSuchUpload":  # what some stores answer where there are none
            return []
        if code(error) not in DENIED | UNSUPPORTED:
            raise
        log.warning("cannot look for unfinished uploads in s3://%s/%s: %s", bucket, prefix, error)
        return None
    found.sort(key=lambda upload: upload["Initiated"], reverse=True)
    return [{"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]} for upload in found]


def abort_unfinished(s3: Requests, bucket: str, prefix: str) -> None:
    """Abort all uploads below a prefix that were never completed."""
    for upload in unfinished(s3, bucket, prefix) or []:
        _abort(s3, upload)


def _continued(
    s3: Requests, at: dict[str, str], content: Content, listed: list[dict[str, str]]
) -> tuple[dict[str, str] | None, dict[int, dict[str, Any]]]:
    """An unfinished upload of this object that has parts of this content, and those parts; abort all others of it."""
    chosen: dict[str, str] | None = None
    there: dict[int, dict[str, Any]] = {}
    for upload in listed:
        if upload["Key"] != at["Key"]:
            continue
        parts = {} if there else _stored_parts(s3, upload, content)
        if parts:
            chosen, there = upload, parts
            log.info("continuing the upload of %s: %d of %d parts are there", at["Key"], len(parts), len(content.parts))
        else:
            _abort(s3, upload)
    return chosen, there


def _stored_parts(s3: Requests, upload: dict[str, str], content: Content) -> dict[int, dict[str, Any]]:
    """Parts of an upload that are what they should be, by their checksums."""
    found = {}
    try:
        for page in s3.boto.get_paginator("list_parts").paginate(**upload):
            for part in page.get("Parts", []):
                number = part["PartNumber"]
                if number > len(content.parts) or part["Size"] != content.part(number)[1]:
                    continue
                if part.get("ChecksumSHA256") == encode(content.parts[number - 1]):
                    found[number] = _part(number, part)
    except ClientError as error:
        if code(error) not in DENIED | UNSUPPORTED | MISSING | {"NoSuchUpload"}:
            raise
        log.warning("cannot continue the upload of %s: %s", upload["Key"], error)
        return {}
    return found


def _part(number: int, answer: dict[str, Any]) -> dict[str, Any]:
    """A part as the completion names it: with its checksum, if the store knows that."""
    return {"PartNumber": number, **{key: answer[key] for key in ("ETag", "ChecksumSHA256") if key in answer}}


def _abort(s3: Requests, upload: dict[str, str]) -> None:
    log.info("aborting the unfinished upload of s3://%s/%s", upload["Bucket"], upload["Key"])
    try:
        s3.boto.abort_multipart_upload(**upload)
    except ClientError as error:
        if code(error) not in DENIED | MISSING | {"NoSuchUpload"}:
            raise
        log.warning("cannot abort the upload of %s: %s", upload["Key"], error)
