"""What a run says in every story, as a page that people read: ``make generate`` writes it to docs/messages.md."""

from collections.abc import Iterator
from pathlib import Path

from dporun_operator.lifecycle.plan import Plan
from dporun_testing.stories import STORIES, play, title

INTRODUCTION = """\
# What a run says

Generated from the stories in `tests/operator/lifecycle/cases`: make generate. To be read by people, in review too: is
it clear at every step where the run stands and what to do next?

`kubectl get dporun NAME --output wide` shows the message, `kubectl describe dporun NAME` also the conditions, the
failure with its hint, and the Events. A Warning is shown here where it says more than the message. A message that has
not changed is left out.
"""


def story_book() -> str:
    """The page."""
    return "\n".join([INTRODUCTION, *(line for path in STORIES for line in _chapter(path))])


def _chapter(path: Path) -> Iterator[str]:
    yield f"## {title(path)}"
    yield ""
    yield "| what has happened | phase | message |"
    yield "|---|---|---|"
    said = ""
    for moment, plan, _ in play(path):
        words = _words(plan)
        if words != said:
            yield f"| {_cell(moment.when)} | {plan.status.phase} | {_cell(words)} |"
        said = words
    yield ""


def _words(plan: Plan) -> str:
    message = plan.status.message or ""
    told = [event for event in plan.events if event.type == "Warning" and event.message.rstrip(".") not in message]
    return " ".join([message, *(f"*Warning {event.reason}: {event.message}*" for event in told)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


if __name__ == "__main__":
    print(story_book(), end="")
