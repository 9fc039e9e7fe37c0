"""What goes wrong between the operator and the API server, at a call that is chosen beforehand."""

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from dporun_testing.simulated.answers import Refused
from dporun_testing.simulated.client import Request

TIMEOUT_SECONDS = 30.0


class Fault(StrEnum):
    """What happens to one request."""

    KILLED_BEFORE = "the operator is killed before its request arrives"
    KILLED_AFTER = "the operator is killed before it has the answer"
    LOST_REQUEST = "the request is lost"
    LOST_ANSWER = "the answer is lost"
    CONFLICT = "the request is answered with 409"
    FORBIDDEN = "the request is answered with 403"
    UNAVAILABLE = "the request is answered with 500"


KILLS = {Fault.KILLED_BEFORE, Fault.KILLED_AFTER}
TAKES_EFFECT = {Fault.KILLED_AFTER, Fault.LOST_ANSWER}
_REFUSALS = {
    Fault.CONFLICT: (409, "Conflict"),
    Fault.FORBIDDEN: (403, "Forbidden"),
    Fault.UNAVAILABLE: (500, "Internal"),
}


class Wire:
    """Carries the requests of every operator, counted from 0, and does to each what is planned for its number.

    Args:
        faults: by the number of the request.
        latency: seconds of each request.
        tell: notes what happens.

    """

    def __init__(self, faults: Mapping[int, Fault], *, latency: float, tell: Callable[[str], None]):
        self.count = 0
        self._faults = faults
        self._latency = latency
        self._tell = tell

    async def carry(self, request: Request, act: Callable[[], Any], kill: Callable[[], None]) -> Any:
        """Carry a request to the server and its answer back; ``kill`` ends the operator that sent it."""
        fault = self._faults.get(self.count)
        self.count += 1
        await asyncio.sleep(self._latency)
        if fault is None:
            if request.writes:
                self._tell(f"operator: {request}")
            return act()
        self._tell(f"operator: {request}: {fault}")
        if fault in TAKES_EFFECT:
            try:
                act()
            except Refused as refused:
                self._tell(f"          (it would have been refused: {refused})")
        if fault in KILLS:
            kill()
            await asyncio.Event().wait()
        if fault in _REFUSALS:
            raise Refused(*_REFUSALS[fault], f"{fault}")
        await asyncio.sleep(TIMEOUT_SECONDS)
        raise TimeoutError(fault.value)
