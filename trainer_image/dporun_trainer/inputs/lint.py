"""What preference pairs look like to the model: lengths in tokens, truncation, boundaries, duplicates."""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.pairs import Pair, RowError, Tally, common_prefix, prompt_digest, row_digest
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder.prepared import DataFacts, Lengths

FEW_ROWS = 20
"""With fewer, a rate means little."""
LONGER_SHARE = 0.75
LONGER_RATIO = 1.25
"""Chosen responses that are longer in this share of rows, by this factor on average, teach length."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a pair: the prompt, and the prompt with each response."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


@dataclass(frozen=True)
class Measures:
    """What TRL's DPOTrainer will make of a pair (trl/trainer/dpo_trainer.py, ``_prepare_dataset``).

    A response begins where the tokens of prompt and prompt + response part; truncation keeps the first
    ``max_length`` tokens; a pair whose prompt alone fills them is dropped.
    """

    prompt: int
    chosen: int
    rejected: int
    mismatch: bool
    too_long: bool
    truncated: bool
    alike: bool


def measure(encoded: Encoded, max_length: int) -> Measures:
    """Measure a pair in tokens."""
    prompt = min(common_prefix(encoded.prompt, encoded.chosen), common_prefix(encoded.prompt, encoded.rejected))
    longest = max(len(encoded.chosen), len(encoded.rejected))
    too_long = prompt >= max_length
    return Measures(
        prompt=prompt,
        chosen=len(encoded.chosen) - prompt,
        rejected=len(encoded.rejected) - prompt,
        mismatch=prompt < len(encoded.prompt),
        too_long=too_long,
        truncated=not too_long and longest > max_length,
        alike=not too_long and list(encoded.chosen[:max_length]) == list(encoded.rejected[:max_length]),
    )


class Encoder:
    """Tokenizes pairs as TRL does: messages by the chat template, and text with EOS after the response."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self.bos: int | None = tokenizer.bos_token_id
        self.eos: int | None = tokenizer.eos_token_id

    def texts(self, pair: Pair) -> tuple[str, str, str]:
        """Render prompt, prompt + chosen and prompt + rejected.

        Raises:
            RowError: the chat template refuses the messages.

        """
        if isinstance(pair.prompt, str):
            eos = self._tokenizer.eos_token
            responses = (str(text) for text in (pair.chosen, pair.rejected))
            chosen, rejected = (text if text.endswith(eos) else text + eos for text in responses)
            return pair.prompt, pair.prompt + chosen, pair.prompt + rejected
        if not self._tokenizer.chat_template:
            raise RunError(
                Reason.MODEL_INVALID,
                f"the rows are chat messages ({pair.file}), and the model's tokenizer has no chat template",
                hint="Use the instruction-tuned version of the model, add chat_template.jinja to it, or give text.",
            )
        try:
            return (
                self._render(pair.prompt, add_generation_prompt=True),
                self._render([*pair.prompt, *pair.chosen]),
                self._render([*pair.prompt, *pair.rejected]),
            )
        except Exception as error:  # a template may raise anything
            raise RowError(f"messages that the model's chat template refuses ({error})") from error

    def encode(self, texts: Sequence[tuple[str, str, str]], *, conversational: bool) -> Iterator[Encoded]:
        """Tokenize rendered pairs."""
        flat = [text for three in texts for text in three]
        ids = self._tokenizer(flat, add_special_tokens=not conversational, verbose=False)["input_ids"] if flat else []
        for index in range(0, len(ids), 3):
            yield Encoded(*ids[index : index + 3])

    def _render(self, messages: Sequence[Any], **options: Any) -> str:
        return str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, **options))


@dataclass
class Lint:
    """Looks at the pairs of one source, batch by batch, and remembers what to warn of.

    ``errors`` holds what no run can go on with, by what is wrong; every other finding is in warnings().
    """

    source: str
    encoder: Encoder
    max_length: int
    errors: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    prompts: set[bytes] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    rows: int = 0
    kept: int = 0
    conversational: bool | None = None
    _implicit: int = 0
    _seen: set[bytes] = field(default_factory=set)
    _tallies: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    _chosen_longer: float = 0.0
    _lengths: dict[str, "array[int]"] = field(default_factory=lambda: defaultdict(lambda: array("L")))

    def refuse(self, file: str, number: int, what: str) -> None:
        """Count a row that cannot be used."""
        self.errors[what].add(file, number)

    def keep(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Look at some pairs, and return those that training or validation gets."""
        usable, texts = [], []
        for pair in pairs:
            self.conversational = pair.conversational if self.conversational is None else self.conversational
            try:
                if pair.conversational != self.conversational:
                    raise RowError("text where other rows have messages, or the other way round")
                texts.append(self.encoder.texts(pair))
                usable.append(pair)
            except RowError as error:
                self.refuse(pair.file, pair.number, str(error))
        encoded = self.encoder.encode(texts, conversational=bool(self.conversational))
        kept = [pair for pair, tokens in zip(usable, encoded, strict=True) if self._look(pair, tokens)]
        self.kept += len(kept)
        self.prompts.update(prompt_digest(pair.prompt) for pair in kept)
        return kept

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with a response, as training will see it."""
        return min(max(self._lengths["total"], default=0), self.max_length)

    def _look(self, pair: Pair, tokens: Encoded) -> bool:
        self._compare(pair)
        measures = measure(tokens, self.max_length)
        for name in ("prompt", "chosen", "rejected"):
            self._lengths[name].append(getattr(measures, name))
        self._lengths["total"].append(measures.prompt + max(measures.chosen, measures.rejected))
        self._chosen_longer += ((measures.chosen > measures.rejected) + (measures.chosen >= measures.rejected)) / 2
        for name in ("mismatch", "too_long", "truncated", "alike"):
            if getattr(measures, name):
                self._tallies[name].add(pair.file, pair.number)
        if self.encoder.bos is not None and list(tokens.prompt[:2]) == [self.encoder.bos] * 2:
            self._tallies["bos"].add(pair.file, pair.number)
        if self.encoder.eos is not None and list(tokens.chosen[-2:]) == [self.encoder.eos] * 2:
            self._tallies["eos"].add(pair.file, pair.number)
        return not measures.too_long

    def _compare(self, pair: Pair) -> None:
        self._implicit += pair.implicit
        for remark in pair.remarks:
            self._tallies[remark].add(pair.file, pair.number)
        digest = row_digest(pair)
        if digest in self._seen:
            self._tallies["duplicate"].add(pair.file, pair.number)
        if row_digest(pair, swapped=True) in self._seen:
            self._tallies["swapped"].add(pair.file, pair.number)
        self._seen.add(digest)

    def facts(self) -> DataFacts:
        """Everything that was counted."""
        counts = {name: self._tallies[name].count for name in ("duplicate", "truncated", "alike", "mismatch")}
        looked_at = len(self._lengths["total"])
        return DataFacts(
            source=self.source,
            files=tuple(self.files[:20]),
            rows=self.rows,
            kept=self.kept,
            prompts=len(self.prompts),
            conversational=bool(self.conversational),
            implicit_prompts=self._implicit,
            duplicates=counts["duplicate"],
            truncated=counts["truncated"],
            alike_when_truncated=counts["alike"],
            boundary_mismatches=counts["mismatch"],
            chosen_longer=self._chosen_longer / looked_at if looked_at else 0,
            **{name: _distribution(self._lengths[name]) for name in ("prompt", "chosen", "rejected", "total")},
        )

    def warnings(self) -> list[str]:
        """What looks wrong, with row numbers; the most harmful first."""
        texts = {
            "too_long": f"prompts that fill dpo.maxLength ({self.max_length} tokens), rows left out",
            "alike": f"responses that are the same once cut to dpo.maxLength ({self.max_length} tokens)",
            "swapped": "the same pair as an earlier row, but with chosen and rejected exchanged",
            "truncated": f"responses that dpo.maxLength ({self.max_length} tokens) cuts",
            "duplicate": "repetitions of an earlier row",
            "mismatch": "prompts that end in other tokens when a response follows, so that training and use differ",
            "bos": "a doubled BOS token: the text begins with one, and the tokenizer adds another",
            "eos": "a doubled EOS token at the end of chosen",
        }
        found = [f"{text}: {self._share(name)}" for name, text in texts.items() if self._tallies[name].count]
        remarks = [name for name, tally in self._tallies.items() if name not in texts and tally.count]
        found += [f"{remark}: {self._share(remark)}" for remark in remarks]
        return found + self._length_bias()

    def _share(self, name: str) -> str:
        tally = self._tallies[name]
        return f"{tally.count} of {self.rows} rows ({tally})"

    def _length_bias(self) -> list[str]:
        facts = self.facts()
        if facts.rows < FEW_ROWS or facts.chosen is None or facts.rejected is None:
            return []
        chosen, rejected, share = facts.chosen.mean, facts.rejected.mean, facts.chosen_longer
        if share >= LONGER_SHARE and chosen >= LONGER_RATIO * rejected:
            word, often = "longer", share
        elif share <= 1 - LONGER_SHARE and rejected >= LONGER_RATIO * chosen:
            word, often = "shorter", 1 - share
        else:
            return []
        return [
            f"length bias: chosen responses are {word} than rejected ones in {often:.0%} of rows "
            f"({chosen:.0f} against {rejected:.0f} tokens on average), so the model may learn length instead"
        ]


def _distribution(values: "array[int]") -> Lengths | None:
    if not values:
        return None
    ordered = sorted(values)

    def rank(share: float) -> int:
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    return Lengths(mean=sum(ordered) / len(ordered), p50=rank(0.5), p90=rank(0.9), p99=rank(0.99), maximum=ordered[-1])
