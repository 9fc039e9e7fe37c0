"""What has been applied or deleted lately, so that an unchanged object costs no request at every reconciliation."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

DELETED = "deleted"


class AppliedCache:
    """Remembers the newest action per object, for a while; then it is done again, to undo what others did."""

    def __init__(self, *, lifetime: float, clock: Callable[[], float]):
        """Make an empty cache.

        Args:
            lifetime: seconds for which an action counts as done.
            clock: seconds, always growing.

        """
        self._lifetime = lifetime
        self._clock = clock
        self._done: dict[str, dict[tuple[str, str], tuple[str, float]]] = {}

    def is_done(self, uid: str, kind: str, name: str, action: str) -> bool:
        """Whether just this was the last action on an object of run ``uid``, and lately."""
        known, moment = self._done.get(uid, {}).get((kind, name), ("", 0.0))
        return known == action and self._clock() - moment < self._lifetime

    def mark(self, uid: str, kind: str, name: str, action: str) -> None:
        """Remember an action: DELETED and of which UID, or the digest of what was applied."""
        self._done.setdefault(uid, {})[kind, name] = (action, self._clock())

    def clear(self, uid: str, kind: str, name: str) -> None:
        """Forget an object."""
        self._done.get(uid, {}).pop((kind, name), None)

    def forget(self, uid: str) -> None:
        """Forget a run."""
        self._done.pop(uid, None)


def has(found: object, wanted: object) -> bool:
    """Whether an object has every field of a manifest already; what the API server has added does not matter.

    A value that the API server writes in another way (a quantity such as 0.5) passes for a difference, which costs a
    needless write.
    """
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(key in found and has(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list | tuple):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(has, found, wanted))
    return found == wanted


def digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of an object's content."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
