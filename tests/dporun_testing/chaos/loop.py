"""Runs arrive, things break, everything settles, every run is judged."""

import contextlib
import random
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import boto3

from dporun_testing.chaos.faults import FAULTS, SYSTEM, Chaos
from dporun_testing.chaos.judging import problems
from dporun_testing.chaos.watching import History, Watching
from dporun_testing.kubectl import KubectlError, apply, eventually, kubectl
from dporun_testing.stand_in import Playground, playground, suspend

SETTLE_SECONDS = 420
"""For everything to come to its end once nothing breaks any more; archives back off for up to five minutes."""


@dataclass(frozen=True)
class Course:
    """How long, with how many runs, and by which chance."""

    seconds: float
    runs: int
    seed: int


@dataclass
class Result:
    """What was done, and what came of it."""

    done: Counter[str] = field(default_factory=Counter)
    """Faults by kind."""
    ends: Counter[str] = field(default_factory=Counter)
    """Runs by how they ended."""
    settled_after: float = 0
    """Seconds from the last fault until every run had its end."""
    restarts: list[float] = field(default_factory=list)
    """Seconds from the loss of each training pod to the next one."""
    wrong: dict[str, list[str]] = field(default_factory=dict)
    """What must not be, by run; "all" for what is of no single one."""

    def print(self) -> None:
        """Print the figures."""
        print("\nwhat was done:")
        for name, count in sorted(self.done.items()):
            print(f"  {count:4} {name}")
        print(f"runs: {', '.join(f'{count} {end}' for end, count in sorted(self.ends.items()))}")
        if self.restarts:
            count, median, worst = len(self.restarts), statistics.median(self.restarts), max(self.restarts)
            print(f"lost training pods: {count}; the next one ran {median:.0f} s later (median), {worst:.0f} s at most")
        print(f"everything had settled {self.settled_after:.0f} s after the last fault")
        print("every run kept its word" if not self.wrong else f"WRONG: {', '.join(sorted(self.wrong))}")


def rage(course: Course) -> Result:
    """Break things as ``course`` says, and judge every run; the histories of those that are wrong are printed."""
    print(f"chaos for {course.seconds:.0f} s with {course.runs} runs, seed {course.seed}")
    result, s3 = Result(), boto3.client("s3")
    with playground("chaos") as place, Watching(place.name) as watching:
        chaos = Chaos(random.Random(course.seed), watching, to_delete=course.runs // 3)
        _break_things(course, place, chaos, result)
        last = time.monotonic()
        _settle(watching, course, place)
        result.settled_after = time.monotonic() - last
        _judge(result, watching, place, s3, "")
        left = [run.name for run in watching.runs.values() if not run.gone]
        kubectl("delete", "dporuns", "--all", "-n", place.name, "--wait=false")
        _wait(lambda: all(run.gone for run in watching.runs.values()), f"all of {len(left)} runs deleted at the end go")
        _judge(result, watching, place, s3, ", after it was deleted at the end")
        for run in watching.runs.values():
            result.ends["deleted on the way" if run.name not in left else "succeeded, archived, then deleted"] += 1
        result.restarts = watching.restarts
        if watching.duplicates:
            result.wrong["all"] = [f"two training pods of one run: {each}" for each in watching.duplicates]
        if len(watching.runs) != course.runs:
            result.wrong.setdefault("all", []).append(f"{len(watching.runs)} runs were seen")
        _tell(result, watching)
    result.print()
    return result


def _break_things(course: Course, place: Playground, chaos: Chaos, result: Result) -> None:
    names, weights = list(FAULTS), [weight for _, weight in FAULTS.values()]
    waiting: list[tuple[float, Callable[[], None]]] = []
    applied = 0
    next_fault = 5.0
    while chaos.watching.seconds < course.seconds:
        now = chaos.watching.seconds
        for one in [one for one in waiting if one[0] <= now]:
            waiting.remove(one)
            one[1]()
        # They come one by one over the first half, so that there are runs in every phase at any time.
        if (
            applied < course.runs
            and now >= applied * course.seconds / 2 / course.runs
            and _apply(place, chaos, applied)
        ):
            applied += 1
        if now >= next_fault:
            next_fault = now + chaos.chance.uniform(0.5, 4)
            name = chaos.chance.choices(names, weights)[0]
            if undo := _once(chaos, name, result, busy=bool(waiting)):
                waiting.append((chaos.watching.seconds + undo[0], undo[1]))
        time.sleep(0.2)
    for _, undo_now in waiting:
        undo_now()
    while applied < course.runs:
        applied += _apply(place, chaos, applied)


def _apply(place: Playground, chaos: Chaos, index: int) -> bool:
    """Apply a run; False when the API server is away at the moment."""
    spec: dict[str, Any] = {"training": {"epochs": chaos.chance.randint(2, 8)}, "runPolicy": {"maxRetries": 100}}
    if index % 5 == 4:
        spec["archive"] = {"when": "Succeeded"}
    try:
        apply(place.manifest(f"run-{index}", **spec), place.name)
    except KubectlError:
        return False
    return True


def _once(chaos: Chaos, name: str, result: Result, *, busy: bool) -> tuple[float, Callable[[], None]] | None:
    """Do one fault; returns what ends it. Of S3 and API server only one is away at a time."""
    if busy and name.startswith(("S3", "API")):
        return None
    try:
        done = FAULTS[name][0](chaos)
    except (KubectlError, subprocess.CalledProcessError) as error:
        words = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        print(f"{chaos.watching.seconds:6.1f} s  ({name} could not be done: {words[:110]})", flush=True)
        return None
    if done is None:
        return None
    result.done[name] += 1
    print(f"{chaos.watching.seconds:6.1f} s  {done.words}", flush=True)
    if done.run:
        chaos.watching.note(done.run, done.words)
    return done.undo


def _settle(watching: Watching, course: Course, place: Playground) -> None:
    print(f"{watching.seconds:6.1f} s  nothing breaks any more", flush=True)
    eventually(lambda: len(watching.runs) == course.runs, seconds=60, what="every run is seen")
    for run in watching.open_runs():
        with contextlib.suppress(KubectlError):  # one that goes in this moment
            suspend(run.name, place.name, on=False)
    _wait(lambda: not watching.open_runs(), "every run comes to its end")
    print(f"{watching.seconds:6.1f} s  every run has come to its end", flush=True)


def _wait(question: Callable[[], bool], what: str) -> None:
    """Wait, and go on when it takes too long: the judgement will tell."""
    try:
        eventually(question, seconds=SETTLE_SECONDS, what=what)
    except AssertionError as error:
        print(error, flush=True)


def _judge(result: Result, watching: Watching, place: Playground, s3: Any, when: str) -> None:
    for run in watching.runs.values():
        if found := problems(run, place.name, s3):
            result.wrong.setdefault(run.name, []).extend(f"{problem}{when}" for problem in found)


def _tell(result: Result, watching: Watching) -> None:
    """Print all that is known of what went wrong."""
    for name in sorted(result.wrong):
        print(f"\n=== {name}: {'; '.join(result.wrong[name])}")
        for run in watching.runs.values():
            if run.name == name:
                print("\n".join(run.lines))
                print(_log_of(run))


def _log_of(run: History) -> str:
    logs = kubectl("logs", "-n", SYSTEM, "-l", "app.kubernetes.io/name=dporun-operator", "--tail=2000")
    return "\n".join(["--- operator:", *[line for line in logs.splitlines() if run.name in line][-40:]])
