"""What S3's refusals and silences mean: what happened, where, and what to do about it."""

from collections.abc import Collection
from dataclasses import dataclass

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.stores.sources import Credentials

ERRORS = (BotoCoreError, ClientError, RecursionError)
"""All that boto3 raises; it follows a server that redirects everything until it can no more."""
MISSING = {"404", "NoSuchKey", "NotFound"}
DENIED = {"401", "403", "AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden"}
DAMAGED = {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"}
"""What arrived is not what was sent."""
UNSUPPORTED = {"NotImplemented", "501", "MethodNotAllowed", "405", "InvalidRequest", "InvalidArgument", "400"}
"""How stores refuse what they do not know; the answer to a HEAD has no words, only a number."""
WORDLESS = {"400", "403"}
"""How a HEAD is refused for reasons that only the answer to a GET says, such as credentials that have expired."""
EXISTS = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}

_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


@dataclass(frozen=True)
class _Meaning:
    """Of some of the codes; ``passes`` when the same may succeed a little later, without anybody doing anything."""

    codes: Collection[str]
    words: str
    hint: str
    passes: bool = False


_MEANINGS = (
    _Meaning(
        {"NoSuchBucket"},
        "no such bucket at {endpoint}",
        "Check the bucket's name, and AWS_ENDPOINT_URL in the Secret of {where}.",
    ),
    _Meaning(
        {"InvalidBucketName", "ParamValidation"},
        "{endpoint} cannot have such a bucket or path ({error})",
        "Check the address: s3://BUCKET/PATH.",
    ),
    _Meaning(MISSING, "not found at {endpoint}", "Check the path after the bucket's name."),
    _Meaning(
        DENIED,
        "access denied by {endpoint} ({code})",
        f"Check {_KEYS} in the Secret of {{where}}, and that they may list the bucket, and get and put its objects.",
    ),
    _Meaning(
        {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity"},
        "access denied by {endpoint} ({code})",
        f"Check {_KEYS} in the Secret of {{where}}.",
    ),
    _Meaning(
        {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"},
        "the credentials have expired, says {endpoint} ({code})",
        f"Renew {_KEYS} and AWS_SESSION_TOKEN in the Secret of {{where}}; the next try reads them.",
    ),
    _Meaning(
        {"RequestTimeTooSkewed", "RequestInTheFuture"},
        "the clocks of this node and of {endpoint} differ too much ({code})",
        "Set the node's clock, by NTP.",
        passes=True,
    ),
    _Meaning(
        {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"},
        "{endpoint} says that the bucket is elsewhere ({error})",
        "Check the region (AWS_REGION in the Secret of {where}), and whether the address begins with https://.",
    ),
    _Meaning(
        {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "StorageFull", "507"},
        "the store is full, says {endpoint} ({code})",
        "Raise the bucket's quota, or delete there what is no longer needed.",
        passes=True,
    ),
    _Meaning(
        {"SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "503", "TooManyRequests", "429"},
        "{endpoint} has too much to do ({code})",
        "This passes; if it does not, look at the load of the store.",
        passes=True,
    ),
    _Meaning(
        DAMAGED,
        "what arrived at {endpoint} did not match its checksum ({code})",
        "Check the network on the way there; nothing may change the files meanwhile.",
        passes=True,
    ),
    _Meaning({"PreconditionFailed", "412"}, "it changed while it was read", "Let nothing write there.", passes=True),
    _Meaning(
        {"InternalError", "500", "502", "504"},
        "{endpoint} has an error of its own ({code})",
        "Look at the log of the store, and check that this is its address, not that of its website.",
        passes=True,
    ),
    _Meaning(
        {"NoCredentials"},
        "no credentials",
        f"Name a Secret with {_KEYS} in {{where}}.",
    ),
    _Meaning(
        {"Tls"},
        "no TLS connection with {endpoint} ({error})",
        "Check that AWS_ENDPOINT_URL in the Secret of {where} begins with the right http:// or https://, and that the "
        "image knows the server's certificate authority (AWS_CA_BUNDLE).",
    ),
    _Meaning(
        {"Unreachable"},
        "{endpoint} cannot be reached ({error})",
        "Check AWS_ENDPOINT_URL in the Secret of {where}, and the network of the pod.",
        passes=True,
    ),
)


def code(error: Exception) -> str:
    """What S3 calls its refusal, or the status of an answer without a body; empty for what is no refusal."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def explain(error: Exception, what: str, credentials: Credentials, endpoint: str) -> RunError:
    """Turn an error of boto3 into one that names what to check.

    One that may pass (no answer, an overloaded server) keeps the run alive for another try. The archive has a reason,
    and tries, of its own.
    """
    passing = credentials.reason if credentials.reason is Reason.ARCHIVE_FAILED else Reason.TRAINER_ERROR
    meaning = _meaning(error)
    if meaning is None:
        return RunError(passing, f"{what}: {error}")
    values = {"endpoint": endpoint, "where": credentials.where, "code": code(error), "error": error}
    return RunError(
        passing if meaning.passes else credentials.reason,
        f"{what}: {meaning.words.format(**values)}",
        hint=meaning.hint.format(**values),
    )


_CLASSES = (
    ("NoCredentials", (NoCredentialsError, PartialCredentialsError)),
    ("ParamValidation", (ParamValidationError,)),
    ("Tls", (SSLError,)),
    ("Unreachable", (BotoConnectionError, HTTPClientError, IncompleteReadError)),
    ("PermanentRedirect", (RecursionError,)),
)
"""Our words, in the table above, for what S3 never answered; the first that fits counts."""


def _meaning(error: Exception) -> _Meaning | None:
    """Row of the table for an error: by its class, by what S3 calls it, or by the status of the answer."""
    status = (
        error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(error, ClientError) else None
    )
    words = [word for word, classes in _CLASSES if isinstance(error, classes)] + [code(error), str(status)]
    return next((meaning for word in words for meaning in _MEANINGS if word in meaning.codes), None)
