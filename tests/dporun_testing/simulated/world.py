"""Plays a history, and tells what came of it."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from dporun_operator import names
from dporun_testing.simulated import controllers, virtual_time
from dporun_testing.simulated.api_server import ApiServer, Body
from dporun_testing.simulated.faults import Wire
from dporun_testing.simulated.history import OWN_CLAIM, History
from dporun_testing.simulated.jobs import JobController
from dporun_testing.simulated.node import Node
from dporun_testing.simulated.operators import RESYNC_SECONDS, OperatorProcess
from dporun_testing.simulated.storage import Storage
from dporun_testing.simulated.user import User
from dporun_testing.simulated.witness import Witness

QUIET_SECONDS = 2.2 * RESYNC_SECONDS
"""Nothing changes for so long: the history has converged."""
LONGEST_SECONDS = 24 * 3600.0


@dataclass
class Ended:
    """What is there at the end of a history."""

    history: History
    server: ApiServer
    storage: Storage
    uid: str
    calls: int
    """Requests of operators."""
    converged: bool
    saved: bool
    """Whether there ever was a complete checkpoint."""
    mistakes: list[str]
    """What must never be, at no moment."""
    orphans: int
    """Claims of no run, as the operator counts them."""
    gone_at: float
    """When the run was let go; infinite while it is there."""
    story: list[str] = field(repr=False)

    @property
    def run(self) -> Body | None:
        """The run, if it is still there."""
        return self.server.find("DPORun", "team-a", "demo")


class World:
    """A cluster with one run."""

    def __init__(self, history: History):
        self._history = history
        self._story: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._changed_at = 0.0
        self._server = ApiServer(virtual_time.now)
        self._server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}})
        self._server.listeners.append(self._hear)
        self._storage = Storage()
        self._jobs = JobController(self._server, virtual_time.now)
        self._node = Node(
            self._server, self._storage, fates=history.fates, reclaim=history.reclaim, poke=self._changed.set,
            tell=self._tell,
        )  # fmt: skip
        self._wire = Wire(dict(history.faults), latency=history.latency, tell=self._tell)
        self._user = User(self._server, self._storage)
        self._operators: list[OperatorProcess] = []
        self._mistakes: list[str] = []
        self._witness = Witness(history)
        self.ear = _Ear(self._tell, self._mistakes)
        self._uid = ""
        self._gone_at = float("inf")

    async def play(self) -> Ended:
        """Play the history to its end: until nothing has changed for long."""
        controlling = asyncio.create_task(self._control())
        self._start_operator()
        if self._history.own_claim:
            self._server.create(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {"name": OWN_CLAIM, "namespace": "team-a"},
                    "spec": {},
                }
            )
        self._uid = str(self._server.create(self._history.manifest)["metadata"]["uid"])
        last = self._plan()
        while True:
            await asyncio.sleep(QUIET_SECONDS / 4)
            quiet = self._loop.time() - max(self._changed_at, last)
            if quiet > QUIET_SECONDS or self._loop.time() > LONGEST_SECONDS:
                break
        orphans = max((operator.orphans.count for operator in self._operators), default=0)
        for operator in list(self._operators):
            operator.kill()
        if controlling.done():
            controlling.result()  # a mistake of ours, not of the operator
        controlling.cancel()
        return Ended(
            history=self._history,
            server=self._server,
            storage=self._storage,
            uid=self._uid,
            calls=self._wire.count,
            converged=quiet > QUIET_SECONDS,
            saved=self._storage.ever_saved,
            mistakes=[*self._mistakes, *self._node.mistakes, *self._witness.mistakes],
            orphans=orphans,
            gone_at=self._gone_at,
            story=self._story,
        )

    def _plan(self) -> float:
        """Set the timers of what is planned; returns when the last of it is over."""
        history, ends = self._history, [0.0]
        for second, act in history.acts:
            self._at(second, lambda act=act: self._tell(f"user {act}: {self._user.do(act)}"))  # type: ignore[misc]
            ends.append(second)
        if span := history.s3_refuses:
            self._at(span[0], lambda: self._set_s3(refusing=True))
            self._at(sum(span), lambda: self._set_s3(refusing=False))
            ends.append(sum(span))
        if span := history.watches_break:
            self._at(span[0], lambda: [operator.break_watches() for operator in self._operators])
            self._at(sum(span), lambda: [operator.mend_watches() for operator in self._operators])
            ends.append(sum(span))
        if span := history.second_operator:
            self._at(span[0], self._start_operator)
            self._at(sum(span), self._kill_newest_operator)
            ends.append(sum(span))
        return max(ends)

    def _at(self, second: float, do: Callable[[], object]) -> None:
        self._loop.call_at(second, do)

    def _start_operator(self) -> None:
        self._tell("an operator starts")
        operator = OperatorProcess(
            self._server,
            self._wire,
            self._node.ask,
            lag=self._history.lag,
            alone=self._history.second_operator is None,
            on_death=lambda: self._bury(operator),
        )
        self._operators.append(operator)

    def _kill_newest_operator(self) -> None:
        if self._operators:
            self._operators[-1].kill()

    def _bury(self, operator: OperatorProcess) -> None:
        self._operators.remove(operator)
        if not self._operators:
            self._loop.call_later(self._history.down, self._start_operator)

    def _set_s3(self, *, refusing: bool) -> None:
        self._storage.refusing = refusing
        self._tell("S3 refuses everything" if refusing else "S3 works again")

    async def _control(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(self._history.pace)
            controllers.control(self._server)
            self._jobs.look()
            self._node.look()

    def _hear(self, event: str, body: Body) -> None:
        if body["kind"] == "Lease":
            return
        self._changed.set()
        self._changed_at = self._loop.time()
        kind, name = body["kind"], body["metadata"]["name"]
        if kind == "PersistentVolume" and event == "DELETED":
            self._storage.volumes.pop(name, None)
        if event in {"ADDED", "DELETED"}:
            self._tell(f"{kind} {name} {'is there' if event == 'ADDED' else 'is gone'}")
        if kind == "DPORun" and event == "DELETED":
            self._gone_at = self._loop.time()
        self._witness.hear(event, body)

    def _tell(self, words: str) -> None:
        self._story.append(f"{self._loop.time():9.2f}  {words}")


class _Ear(logging.Handler):
    """Hears what the operator logs; an exception that it does not expect is a mistake."""

    def __init__(self, tell: Callable[[str], None], mistakes: list[str]):
        super().__init__(logging.WARNING)
        self._tell = tell
        self._mistakes = mistakes

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(f"operator says: {record.getMessage()}")
        if record.exc_info:
            self._mistakes.append(f"the operator stumbles: {record.getMessage()} {record.exc_info}")


def play(history: History) -> Ended:
    """Play a history in virtual time."""
    logger = logging.getLogger("dporun_operator")

    async def main() -> Ended:
        world = World(history)
        logger.handlers, logger.propagate = [world.ear], False
        return await world.play()

    try:
        return virtual_time.run(main())
    finally:
        logger.handlers, logger.propagate = [], True


def children(ended: Ended) -> list[str]:
    """Kind and name of what is left of the run."""
    return [
        f"{body['kind']} {body['metadata']['name']}"
        for body in ended.server.objects.values()
        if body["metadata"].get("labels", {}).get(names.RUN_UID) == ended.uid
    ]
