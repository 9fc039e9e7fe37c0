"""Prompts that leave no room for a response, cut at their beginning: what was said last counts most."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from dporun_trainer.data.pairs import Message, Pair, RowError, Text
from dporun_trainer.inputs.encoding import Encoded, PairEncoder, Rendered, measure


def cut_prompt(pair: Pair, encoder: PairEncoder, max_length: int) -> tuple[Pair, Rendered, Encoded] | None:
    """Cut the beginning of a prompt, so that the longer response fits into ``max_length`` or gets half of it.

    Training cuts responses at their end and knows no cut prompt; it reads the rows that this has made. Of messages,
    the first system message stays, the oldest turns go first, and then the beginning of the last message. The prompt
    is the longest such one that fits.

    Args:
        pair: its prompt fills ``max_length``.
        encoder: tokenizes as training will.
        max_length: dpo.maxLength.

    Returns:
        The pair with the shorter prompt, as text and in tokens; None when no prompt is left, or the chat template
        refuses every shorter one.

    """

    def encoded(prompt: Text) -> tuple[Pair, Rendered, Encoded] | None:
        shorter = replace(pair, prompt=prompt)
        try:
            text = encoder.render(shorter)
        except RowError:
            return None
        tokens = next(encoder.encode([text], conversational=shorter.conversational))
        found = measure(tokens, max_length)
        room = max_length - min(max(found.chosen, found.rejected), max_length // 2)
        return (shorter, text, tokens) if found.prompt <= room and not text.spills else None

    if isinstance(pair.prompt, str):
        return _longest_end(pair.prompt, encoded)
    system, turns = _split(pair.prompt)
    for start in range(1, len(turns)):
        asks = turns[start]["role"] == "user" and turns[start - 1]["role"] != "user"
        if asks and (fits := encoded([*system, *turns[start:]])) is not None:
            return fits
    last = turns[-1]
    return _longest_end(last["content"], lambda text: encoded([*system, {**last, "content": text}]))


def _split(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """The system message at the beginning, and the rest: at least one message."""
    first = 1 if messages[0]["role"] == "system" and len(messages) > 1 else 0
    return list(messages[:first]), list(messages[first:])


def _longest_end(
    text: str, encoded: Callable[[str], tuple[Pair, Rendered, Encoded] | None]
) -> tuple[Pair, Rendered, Encoded] | None:
    """Find the longest end of ``text`` that begins with a word and fits, by bisection."""
    starts = [at for at in range(1, len(text)) if text[at - 1].isspace() and not text[at].isspace()]
    if not starts:  # no spaces: any character
        starts = list(range(1, len(text)))
    low, high, best = 0, len(starts) - 1, None
    while low <= high:
        middle = (low + high) // 2
        if (found := encoded(text[starts[middle] :])) is not None:
            best, high = found, middle - 1
        else:
            low = middle + 1
    return best
