"""Errors of the operator. All of them are retried, with backoff; none of them ever releases a run."""


class OperatorError(Exception):
    """Base of the errors below."""

    @property
    def refusal(self) -> str | None:
        """What to tell on the run, where the same would be refused until somebody changes something; else None."""
        return None


class InvalidSettingsError(OperatorError):
    """The environment of the operator is wrong; it does not start."""


class InvalidRunError(OperatorError):
    """The resource does not have the shape that this version of the operator knows."""


class NotHolderError(OperatorError):
    """Another operator holds the lease, or it could not be renewed in time: this process must not write."""


class ApiError(OperatorError):
    """The API server refused a request.

    Attributes:
        status: HTTP status code; 0 when there was no answer.
        reason: reason of the Status object, such as ``Forbidden``.
        message: what the API server said.

    """

    def __init__(self, status: int, reason: str, message: str):
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def not_found(self) -> bool:
        """The object, or its namespace, does not exist."""
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """The object exists already, or changed meanwhile."""
        return self.status == 409

    @property
    def refused(self) -> bool:
        """The same request would be refused again until a person changes something: quota, policy or schema."""
        return self.status in {400, 403, 422}

    @property
    def refusal(self) -> str | None:
        """The API server's words, where it would say them again."""
        return self.message if self.refused else None

    @property
    def namespace_terminates(self) -> bool:
        """The namespace is being deleted: nothing can be created in it any more."""
        return self.status == 403 and "because it is being terminated" in self.message


class NameTakenError(OperatorError):
    """An object of another owner has the name that a child of this run needs."""

    @property
    def refusal(self) -> str | None:
        """Whose name it is."""
        return str(self)
