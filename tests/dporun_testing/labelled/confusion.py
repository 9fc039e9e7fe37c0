"""What the diagnosis says of the labelled runs, as tables; ``make health-table`` writes them into docs/health.md.

    PYTHONPATH=tests python -m dporun_testing.labelled.confusion [tuning] [--every-entry]

prints them: with ``tuning`` only that half, for the other one judges; with ``--every-entry`` runs are looked at after
every entry of their log instead of sixteen times.
"""

import itertools
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from dporun_api.results import HealthState
from dporun_testing.labelled.recipes import simulated_runs
from dporun_testing.labelled.recorded import recorded_runs
from dporun_testing.labelled.run import LabelledRun
from dporun_testing.paths import ROOT

PAGE = ROOT / "docs" / "health.md"
BEGIN = "<!-- labelled runs: written by `make health-table` -->"
END = "<!-- end of labelled runs -->"
LOOKS = 16
"""Times that a run is looked at while it goes on, evenly over its log."""
SAMPLED = 3
"""Every third simulated run is looked at while it goes on, for the sake of time."""
HEALTHY = {HealthState.ON_TRACK, HealthState.UNKNOWN}


@dataclass(frozen=True)
class Judged:
    """A run and what the diagnosis says of it at its end."""

    run: LabelledRun
    state: HealthState

    @property
    def right(self) -> bool:
        """Whether that is a right answer."""
        return self.run.is_right(self.state)

    @property
    def healthy(self) -> bool:
        """Whether no illness is a right answer."""
        return self.run.label.accepted <= HEALTHY


@dataclass(frozen=True)
class Watched:
    """A run and what the diagnosis says of it while it goes on."""

    run: LabelledRun
    states: tuple[HealthState, ...]
    """At every look, the last one at the end."""

    @property
    def healthy(self) -> bool:
        """Whether the run is healthy at its end."""
        return self.run.label.accepted <= HEALTHY

    @property
    def ill(self) -> bool:
        """Whether nothing but an illness is a right answer at its end."""
        return not self.run.label.accepted & HEALTHY

    @property
    def alarms(self) -> int:
        """Looks at which it was called ill."""
        return sum(state not in HEALTHY for state in self.states)

    @property
    def named(self) -> float | None:
        """Share of the run after which its illness was named for good; None if it is not named at the end."""
        late = next((index for index, state in enumerate(reversed(self.states)) if not self.run.is_right(state)), None)
        share = 0.0 if late is None else (len(self.states) - late) / len(self.states)
        return None if late == 0 else share + 1 / len(self.states)

    @property
    def first_named(self) -> float | None:
        """Share of the run after which its illness was named for the first time."""
        index = next((index for index, state in enumerate(self.states) if self.run.is_right(state)), None)
        return None if index is None else (index + 1) / len(self.states)

    @property
    def changes(self) -> int:
        """Changes of the state, the first one that says something left out."""
        known = [state for state in self.states if state is not HealthState.UNKNOWN]
        return sum(one is not other for one, other in itertools.pairwise(known))


@dataclass(frozen=True)
class Table:
    """The tables of some runs."""

    title: str
    runs: Sequence[LabelledRun]
    watched_every: int = 1
    looks: int | None = LOOKS
    """None: at every entry of the log."""

    @cached_property
    def judged(self) -> tuple[Judged, ...]:
        """All runs at their end."""
        return tuple(Judged(run, run.diagnose().state) for run in self.runs)

    @cached_property
    def watched(self) -> tuple[Watched, ...]:
        """The runs that are looked at while they go on."""
        return tuple(
            Watched(run, tuple(_looks(run, self.looks or len(run.history)))) for run in self.runs[:: self.watched_every]
        )

    @property
    def share_right(self) -> float:
        """Share of right answers."""
        return sum(one.right for one in self.judged) / len(self.judged)

    def lines(self) -> Iterator[str]:
        """The tables as Markdown."""
        expected = sum(one.state is one.run.label.expected for one in self.judged) / len(self.judged)
        clear = [one for one in self.judged if len(one.run.label.accepted) == 1]
        yield (
            f"### {self.title}: {len(self.runs)} runs, {_percent(self.share_right)} right "
            f"({_percent(expected)} the expected answer; of {len(clear)} with one right answer alone "
            f"{_percent(sum(one.right for one in clear) / max(1, len(clear)))})"
        )
        yield ""
        yield f"| label ↓ / diagnosis → | {' | '.join(HealthState)} |"
        yield "|---|" + "---|" * len(HealthState)
        for label in HealthState:
            of_label = [one for one in self.judged if one.run.label.expected is label]
            if of_label:
                cells = (_cell([one.right for one in of_label if one.state is state]) for state in HealthState)
                yield f"| {label} ({len(of_label)}) | {' | '.join(cells)} |"
        yield ""
        misses = [
            f"{one.run.name} ({one.run.label.expected}, said {one.state})" for one in self.judged if not one.right
        ]
        yield f"Misses: {'; '.join(misses)}." if misses else "No misses."
        yield ""
        yield from self._while_they_go_on()

    def _while_they_go_on(self) -> Iterator[str]:
        healthy = [one for one in self.watched if one.healthy]
        alarmed = [one for one in healthy if one.alarms]
        ill = [one for one in self.watched if one.ill]
        first = [one.first_named for one in ill if one.first_named is not None]
        named = [one.named for one in ill if one.named is not None]
        changes = [one.changes for one in self.watched]
        looks = sum(len(one.states) for one in healthy)
        alarms = sum(one.alarms for one in healthy)
        yield (
            f"While they go on ({len(self.watched)} runs): of {len(healthy)} healthy ones {len(alarmed)} were ever "
            f"called ill, at {alarms} of {looks} looks; of {len(ill)} ill ones {len(named)} are named, "
            f"at first after {_median(first)} of the run and for good after {_median(named)} (medians); "
            f"{statistics.mean(changes):.1f} changes of the state per run, at most {max(changes)}."
        )
        if alarmed:
            yield ""
            yield f"Healthy ones called ill meanwhile: {', '.join(one.run.name for one in alarmed)}."
        yield ""


def tables(looks: int | None = LOOKS) -> tuple[Table, ...]:
    """Simulated and real runs, each in two halves."""
    return tuple(
        Table(f"{origin}, {half} half", [run for run in runs if run.half == half], every, looks)
        for origin, runs, every in (("Simulated", simulated_runs(), SAMPLED), ("Real", recorded_runs(), 1))
        for half in ("tuning", "held-out")
    )


def section(all_tables: Iterable[Table]) -> str:
    """The section of docs/health.md between its markers."""
    return "\n".join(["", *(line for table in all_tables for line in table.lines())])


def parts(page: str) -> tuple[str, str, str]:
    """What stands before the section, the section, and what stands after it, markers outside."""
    before, _, rest = page.partition(BEGIN)
    middle, _, after = rest.partition(END)
    return before + BEGIN, middle, END + after


def _looks(run: LabelledRun, looks: int) -> Iterator[HealthState]:
    entries = len(run.history)
    for entry in sorted({max(1, entries * (look + 1) // looks) for look in range(looks)}):
        yield run.diagnose(None if entry == entries else entry).state


def _cell(right: Sequence[bool]) -> str:
    """Right answers, and in bold wrong ones."""
    count = Counter(right)
    return " + ".join([str(count[True])] * bool(count[True]) + [f"**{count[False]}**"] * bool(count[False]))


def _median(shares: Sequence[float]) -> str:
    return _percent(statistics.median(shares)) if shares else "-"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share in {0, 1} else f"{100 * share:.1f} %"


def main(arguments: Sequence[str]) -> None:
    """Print the tables, or write them into the page."""
    all_tables = tables(None if "--every-entry" in arguments else LOOKS)
    chosen = [table for table in all_tables if "tuning" not in arguments or table.title.endswith("tuning half")]
    text = section(chosen)
    if "--write" in arguments:
        before, _, after = parts(PAGE.read_text(encoding="utf-8"))
        PAGE.write_text(f"{before}\n{text}{after}", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
