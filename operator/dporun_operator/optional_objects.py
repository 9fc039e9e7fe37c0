"""Applies the objects that a run can do without: one that is refused (quota, policy, a name taken) holds nothing up."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta

from dporun_operator.errors import OperatorError
from dporun_operator.run import Manifest, Run

TRY_AGAIN = timedelta(seconds=60)
"""How soon one that was refused is tried again."""


class OptionalObjects:
    """Remembers what was refused, so that the next decision can tell of it.

    Args:
        apply: makes the cluster have an object of a run.

    """

    def __init__(self, apply: Callable[[Run, Manifest], Awaitable[None]]):
        self._apply = apply
        self._refused: dict[str, dict[str, tuple[datetime, str]]] = {}

    def refused(self, run_uid: str) -> Mapping[str, str]:
        """The API server's words, by kind and name of the object."""
        return {name: words for name, (_, words) in self._refused.get(run_uid, {}).items()}

    async def apply(self, run: Run, manifests: Iterable[Manifest], now: datetime) -> bool:
        """Apply ``manifests``; returns whether other ones are refused than before, or in other words.

        Raises:
            OperatorError: one that may pass by itself; a refusal does not, and is remembered.

        """
        known, before = self._refused.get(run.uid, {}), self.refused(run.uid)
        answers = {}
        for manifest in manifests:
            name = f"{manifest['kind']}/{manifest['metadata']['name']}"
            if name in known and now - known[name][0] < TRY_AGAIN:
                answers[name] = known[name]
                continue
            try:
                await self._apply(run, manifest)
            except OperatorError as error:
                if error.refusal is None:
                    raise
                answers[name] = now, error.refusal
        self.forget(run.uid)
        if answers:
            self._refused[run.uid] = answers
        return self.refused(run.uid) != before

    def forget(self, run_uid: str) -> None:
        """Drop what is remembered about a run."""
        self._refused.pop(run_uid, None)
