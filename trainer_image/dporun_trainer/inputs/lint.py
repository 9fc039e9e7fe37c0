"""What preference pairs look like to the model: lengths in tokens, truncation, boundaries, duplicates."""

import itertools
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from dporun_api.dataset_report import DataFacts, ScoreFacts
from dporun_trainer.data.formats.transcript import for_template
from dporun_trainer.data.pairs import Pair, RowError, Tally, prompt_digest, row_digest
from dporun_trainer.inputs.encoding import Encoded, Measures, PairEncoder, measure
from dporun_trainer.inputs.lengths import bar_width, lengths
from dporun_trainer.run_folder.tokens import PairTokens

FEW_ROWS = 20
"""With fewer, a rate means little."""
LONGER_SHARE = 0.75
LONGER_RATIO = 1.25
"""Chosen responses that are longer in this share of rows, by this factor on average, teach length."""

_SPILLS = (
    "prompts that the chat template writes otherwise when a response follows, so that what was asked would count as a "
    "part of the response: most templates that do so put a system message into the last user message, so move its text "
    "there yourself"
)


@dataclass
class Lint:
    """Looks at the pairs of one source, first as they are read, then in tokens, and remembers what to warn of.

    ``errors`` holds what no run can go on with, by what is wrong; every other finding is in warnings(). ``prompts``
    are those of the pairs kept; ``one_prompt`` says that all rows have the same.
    """

    source: str
    max_length: int
    errors: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    prompts: set[bytes] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    form: str = ""
    rows: int = 0
    kept: int = 0
    conversational: bool | None = None
    one_prompt: bool = True
    _margins: "array[float]" = field(default_factory=lambda: array("d"))
    _first_prompt: bytes = b""
    _implicit: int = 0
    _seen: set[bytes] = field(default_factory=set)
    _tallies: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    _chosen_longer: float = 0.0
    _lost: int = 0
    _unit: str = "tokens"
    _lengths: dict[str, "array[int]"] = field(default_factory=lambda: defaultdict(lambda: array("L")))

    def refuse(self, file: str, number: int, what: str) -> None:
        """Count a row that cannot be used."""
        self.errors[what].add(file, number)

    def skip(self, file: str, number: int, what: str) -> None:
        """Count a row that holds no preference."""
        self._tallies[f"rows skipped for {what}"].add(file, number)

    def read(self, pair: Pair) -> None:
        """Look at what a row says.

        Raises:
            RowError: it is text where other rows are messages, or the other way round.

        """
        self.conversational = pair.conversational if self.conversational is None else self.conversational
        if pair.conversational != self.conversational:
            raise RowError("text where other rows have messages, or the other way round")
        self._implicit += pair.implicit
        if pair.score_chosen is not None and pair.score_rejected is not None:
            self._margins.append(pair.score_chosen - pair.score_rejected)
        for remark in pair.remarks:
            self._tallies[remark].add(pair.file, pair.number)
        prompt = prompt_digest(pair.prompt)
        self._first_prompt = self._first_prompt or prompt
        self.one_prompt = self.one_prompt and prompt == self._first_prompt
        digest = row_digest(pair)
        if digest in self._seen:
            self._tallies["duplicate"].add(pair.file, pair.number)
        if row_digest(pair, swapped=True) in self._seen:
            self._tallies["swapped"].add(pair.file, pair.number)
        self._seen.add(digest)

    def keep(self, pairs: Sequence[Pair], encoder: PairEncoder) -> list[tuple[Pair, PairTokens]]:
        """Look at some pairs in tokens, and return those that training or validation gets, and their tokens."""
        self._unit = encoder.unit
        usable, texts = [], []
        for given in pairs:
            pair = for_template(given, encoder.template)
            self.conversational = pair.conversational
            self._look_for_unseen_tools(pair, encoder.template)
            try:
                texts.append(encoder.render(pair))
                usable.append(pair)
            except RowError as error:
                self.refuse(pair.file, pair.number, str(error))
        encoded = encoder.encode(texts, conversational=bool(self.conversational))
        kept = []
        for pair, text, tokens in zip(usable, texts, encoded, strict=True):
            self._look_for_doubles(pair, tokens, encoder)
            measures = self._measure(pair, tokens, spills=text.spills)
            if not measures.too_long:
                kept.append((pair, tokens.parts(measures.prompt)))
        self.kept += len(kept)
        self.prompts.update(prompt_digest(pair.prompt) for pair, _ in kept)
        return kept

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with a response, as training will see it."""
        return min(max(self._lengths["total"], default=0), self.max_length)

    @property
    def all_alike(self) -> bool:
        """Whether no pair is left whose responses differ."""
        return self._tallies["alike"].count == self.kept

    def _measure(self, pair: Pair, tokens: Encoded, *, spills: bool) -> Measures:
        """Count a pair's lengths."""
        measures = measure(tokens, self.max_length)
        if spills:
            self.errors[_SPILLS].add(
                pair.file, pair.number, f"keeps {measures.prompt} of the {len(tokens.prompt)} tokens of its prompt"
            )
        self._lost = max(self._lost, measures.lost)
        for name in ("prompt", "chosen", "rejected"):
            self._lengths[name].append(getattr(measures, name))
        self._lengths["total"].append(measures.prompt + max(measures.chosen, measures.rejected))
        self._chosen_longer += ((measures.chosen > measures.rejected) + (measures.chosen >= measures.rejected)) / 2
        for name in ("lost", "too_long", "truncated", "alike"):
            if getattr(measures, name):
                self._tallies[name].add(pair.file, pair.number)
        return measures

    def _look_for_doubles(self, pair: Pair, tokens: Encoded, encoder: PairEncoder) -> None:
        if encoder.bos is not None and list(tokens.prompt[:2]) == [encoder.bos] * 2:
            self._tallies["bos"].add(pair.file, pair.number)
        if encoder.eos is not None and list(tokens.chosen[-2:]) == [encoder.eos] * 2:
            self._tallies["eos"].add(pair.file, pair.number)

    def _look_for_unseen_tools(self, pair: Pair, template: str | None) -> None:
        if template is None or isinstance(pair.prompt, str):
            return
        messages = itertools.chain.from_iterable(
            text for text in (pair.prompt, pair.chosen, pair.rejected) if not isinstance(text, str)
        )
        calls = any(message.get("tool_calls") for message in messages)
        for there, word, what in ((pair.tools, "tools", "tool definitions"), (calls, "tool_calls", "tool calls")):
            if there and word not in template:
                self._tallies[f"{what}, which the model's chat template leaves out"].add(pair.file, pair.number)

    def facts(self) -> DataFacts:
        """Everything that was counted."""
        counts = {name: self._tallies[name].count for name in ("duplicate", "truncated", "alike", "lost")}
        looked_at = len(self._lengths["total"])
        responses = bar_width(self._lengths["chosen"], self._lengths["rejected"])
        return DataFacts(
            source=self.source,
            files=tuple(self.files[:20]),
            format=self.form,
            rows=self.rows,
            kept=self.kept,
            prompts=len(self.prompts),
            conversational=bool(self.conversational),
            implicit_prompts=self._implicit,
            duplicates=counts["duplicate"],
            truncated=counts["truncated"],
            alike_when_truncated=counts["alike"],
            boundary_mismatches=counts["lost"],
            boundary_tokens=self._lost,
            unit=self._unit,
            scores=_scores(self._margins),
            chosen_longer=self._chosen_longer / looked_at if looked_at else 0,
            prompt=lengths(self._lengths["prompt"]),
            chosen=lengths(self._lengths["chosen"], width=responses),
            rejected=lengths(self._lengths["rejected"], width=responses),
            total=lengths(self._lengths["total"]),
        )

    def warnings(self) -> list[str]:
        """What looks wrong, with row numbers; the most harmful first."""
        texts = {
            "too_long": f"prompts that fill dpo.maxLength ({self.max_length} tokens), rows left out",
            "alike": f"responses that are the same once cut to dpo.maxLength ({self.max_length} tokens)",
            "swapped": "the same pair as an earlier row, but with chosen and rejected exchanged",
            "truncated": f"responses that dpo.maxLength ({self.max_length} tokens) cuts",
            "duplicate": "repetitions of an earlier row",
            "lost": "prompts that end in other tokens when a response follows, so that training and use differ by "
            + ("1 token" if self._lost == 1 else f"up to {self._lost} tokens"),
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
            f"({chosen:.0f} against {rejected:.0f} {self._unit} on average), so the model may learn length instead"
        ]


def _scores(margins: "array[float]") -> ScoreFacts | None:
    if not margins:
        return None
    return ScoreFacts(
        pairs=len(margins),
        mean_margin=sum(margins) / len(margins),
        ties=sum(margin == 0 for margin in margins),
        reversed=sum(margin < 0 for margin in margins),
    )
