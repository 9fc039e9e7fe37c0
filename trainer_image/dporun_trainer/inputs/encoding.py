"""Preference pairs as the model sees them: rendered by its chat template, and in tokens, exactly as TRL does it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.pairs import Pair, RowError, Text, common_prefix
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder.tokens import PairTokens


@dataclass(frozen=True)
class Rendered:
    """A pair as text: the prompt, and the prompt with each response.

    ``spills`` says that the chat template writes the messages of the prompt otherwise when a response follows, so that
    what was asked counts as a part of the response.
    """

    prompt: str
    chosen: str
    rejected: str
    spills: bool = False


@dataclass(frozen=True)
class Encoded:
    """Token ids (or characters) of a pair: the prompt, and the prompt with each response."""

    prompt: Sequence[Any]
    chosen: Sequence[Any]
    rejected: Sequence[Any]

    def parts(self, prompt: int) -> PairTokens:
        """Cut it as TRL's DPOTrainer does: a prompt of ``prompt`` tokens, and each response after these."""
        return self.prompt[:prompt], self.chosen[prompt:], self.rejected[prompt:]


@dataclass(frozen=True)
class Measures:
    """What TRL's DPOTrainer will make of a pair (trl/trainer/dpo_trainer.py, ``_prepare_dataset``).

    A response begins where the tokens of prompt and prompt + response part; truncation keeps the first
    ``max_length`` tokens; a pair whose prompt alone fills them is dropped. ``lost`` counts the tokens of the prompt
    that the responses begin before.
    """

    prompt: int
    lost: int
    chosen: int
    rejected: int
    too_long: bool
    truncated: bool
    alike: bool


def measure(encoded: Encoded, max_length: int) -> Measures:
    """Measure a pair."""
    prompt = min(common_prefix(encoded.prompt, encoded.chosen), common_prefix(encoded.prompt, encoded.rejected))
    longest = max(len(encoded.chosen), len(encoded.rejected))
    too_long = prompt >= max_length
    return Measures(
        prompt=prompt,
        lost=len(encoded.prompt) - prompt,
        chosen=len(encoded.chosen) - prompt,
        rejected=len(encoded.rejected) - prompt,
        too_long=too_long,
        truncated=not too_long and longest > max_length,
        alike=not too_long and list(encoded.chosen[:max_length]) == list(encoded.rejected[:max_length]),
    )


class PairEncoder(Protocol):
    """Brings pairs into the form in which their lengths are measured.

    Attributes:
        unit: of the lengths, in the plural.
        bos: token that texts begin with, where they do.
        eos: token that responses end with, where they do.
        template: the chat template; empty where the model has none, None where no model is known.

    """

    unit: str
    bos: int | None
    eos: int | None
    template: str | None

    def render(self, pair: Pair) -> Rendered:
        """Write a pair as text; a RowError says that it cannot be written."""

    def encode(self, pairs: Sequence[Rendered], *, conversational: bool) -> Iterator[Encoded]:
        """Cut rendered pairs into what is counted."""


class Characters:
    """Stands in for a tokenizer where no model is known: the texts as they are, in characters."""

    unit = "characters"
    template: str | None = None
    bos: int | None = None
    eos: int | None = None

    def render(self, pair: Pair) -> Rendered:
        """Write a pair as text; roles and their order count for nothing."""
        prompt = _content(pair.prompt)
        return Rendered(prompt, prompt + _content(pair.chosen), prompt + _content(pair.rejected))

    def encode(self, pairs: Sequence[Rendered], *, conversational: bool) -> Iterator[Encoded]:  # noqa: ARG002
        """Take the texts for what they are."""
        return (Encoded(pair.prompt, pair.chosen, pair.rejected) for pair in pairs)


class Encoder:
    """Tokenizes pairs as TRL does: messages by the chat template, and text with EOS after the response."""

    unit = "tokens"

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self.bos: int | None = tokenizer.bos_token_id
        self.eos: int | None = tokenizer.eos_token_id
        self.template: str | None = str(tokenizer.chat_template or "")

    def render(self, pair: Pair) -> Rendered:
        """Write a pair as text.

        Raises:
            RowError: the chat template refuses the messages.

        """
        if isinstance(pair.prompt, str):
            eos = self._tokenizer.eos_token
            responses = (str(text) for text in (pair.chosen, pair.rejected))
            chosen, rejected = (text if text.endswith(eos) else text + eos for text in responses)
            return Rendered(pair.prompt, pair.prompt + chosen, pair.prompt + rejected)
        if not self.template:
            raise RunError(
                Reason.MODEL_INVALID,
                f"the rows are chat messages ({pair.file}), and the model's tokenizer has no chat template",
                hint="Use the instruction-tuned version of the model, add chat_template.jinja to it, or give text.",
            )
        try:
            return self._render_messages(pair.prompt, pair.chosen, pair.rejected, pair.tools)
        except Exception as error:  # a template may raise anything
            rest = [message for message in pair.prompt if message["role"] != "system"]
            if rest != pair.prompt and self._renders(rest, pair.tools):
                raise RowError(
                    f"a system message, which the model's chat template refuses ({error}): move its text to the "
                    "beginning of the first user message"
                ) from error
            raise RowError(f"messages that the model's chat template refuses ({error})") from error

    def encode(self, pairs: Sequence[Rendered], *, conversational: bool) -> Iterator[Encoded]:
        """Tokenize rendered pairs."""
        flat = [text for pair in pairs for text in (pair.prompt, pair.chosen, pair.rejected)]
        ids = self._tokenizer(flat, add_special_tokens=not conversational, verbose=False)["input_ids"] if flat else []
        for index in range(0, len(ids), 3):
            yield Encoded(*ids[index : index + 3])

    def _render_messages(
        self, prompt: Sequence[Any], chosen: Sequence[Any], rejected: Sequence[Any], tools: Sequence[Any]
    ) -> Rendered:
        before = self._render(prompt, tools, add_generation_prompt=True)
        good, bad = (self._render([*prompt, *response], tools) for response in (chosen, rejected))
        kept = min(common_prefix(before, text) for text in (good, bad))
        if kept == len(before):
            return Rendered(before, good, bad)
        # What the template adds for a response to come, such as <think>, is no part of what was asked.
        messages = self._render(prompt, tools)
        asked = messages[: common_prefix(messages, before)].rstrip()
        return Rendered(before, good, bad, spills=kept < len(asked))

    def _renders(self, messages: Sequence[Any], tools: Sequence[Any]) -> bool:
        try:
            self._render(messages, tools, add_generation_prompt=True)
        except Exception:  # noqa: BLE001  a template may raise anything
            return False
        return True

    def _render(self, messages: Sequence[Any], tools: Sequence[Any], **options: Any) -> str:
        shown = list(tools) or None
        return str(self._tokenizer.apply_chat_template(list(messages), tools=shown, tokenize=False, **options))


def _content(text: Text) -> str:
    if isinstance(text, str):
        return text
    return "".join(message["content"] + _calls(message.get("tool_calls")) for message in text)


def _calls(calls: Any) -> str:
    return json.dumps([call["function"] for call in calls]) if calls else ""
