"""What preference pairs look like to the model: lengths in tokens, truncation, boundaries, duplicates."""

import itertools
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from dporun_api.dataset_report import DataFacts, DroppedRow, DropReason, ScoreFacts
from dporun_api.run_config import Dataset, InvalidPolicy, OverlongPolicy, RowPolicy
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.formats.transcript import for_template
from dporun_trainer.data.pairs import Pair, RowError, Tally, text_digest
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.encoding import Encoded, Measures, PairEncoder, measure
from dporun_trainer.inputs.lengths import bar_width, lengths
from dporun_trainer.inputs.survey import Survey
from dporun_trainer.inputs.truncation import cut_prompt
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

Kept = tuple[int, Pair, PairTokens]
"""A pair that training or validation gets: its index in its source, and its tokens."""


def refused(message: str, policy: str) -> RunError:
    """Why rows that the policy ``dataset.POLICY`` refuses end the run."""
    return RunError(
        Reason.DATASET_INVALID,
        f"{message}, and dataset.{policy} is Fail",
        hint=f"Take these rows out, or set another dataset.{policy}.",
    )


@dataclass
class Lint:
    """Looks at the pairs of one source, first as they are read, then in tokens, and remembers what to say of them.

    Attributes:
        source: URI of the source.
        max_length: dpo.maxLength, in tokens.
        dataset: spec.dataset, which says what becomes of them.
        survey: what the pairs have in common with one another.
        dropped: every row, or pair of one, that is left out.
        rows: how many there are.
        pairs: how many they hold.
        kept: how many of these training or validation gets.
        conversational: whether they are messages.
        skipped: how many rows hold no preference, by why.

    """

    source: str
    max_length: int
    dataset: Dataset
    survey: Survey
    dropped: list[DroppedRow] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    form: str = ""
    rows: int = 0
    pairs: int = 0
    kept: int = 0
    conversational: bool | None = None
    skipped: Counter[str] = field(default_factory=Counter)
    _invalid: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    _invalid_rows: set[tuple[str, int]] = field(default_factory=set)
    _prompts: set[bytes] = field(default_factory=set)
    _margins: "array[float]" = field(default_factory=lambda: array("d"))
    _implicit: int = 0
    _tallies: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    _chosen_longer: float = 0.0
    _lost: int = 0
    _unit: str = "tokens"
    _lengths: dict[str, "array[int]"] = field(default_factory=lambda: defaultdict(lambda: array("L")))

    def refuse(self, file: str, number: int, what: str, example: str = "") -> None:
        """Leave out a row that cannot be used."""
        self._invalid[what].add(file, number, example)
        self._invalid_rows.add((file, number))
        self.drop(file, number, DropReason.INVALID, what)

    def drop(self, file: str, number: int, reason: DropReason, detail: str = "") -> None:
        """Remember that a row, or a pair of it, is left out."""
        self.dropped.append(DroppedRow(file=file, row=number, reason=reason, detail=detail))

    @property
    def invalid_rows(self) -> int:
        """Rows that cannot be used."""
        return len(self._invalid_rows)

    def require_valid(self) -> None:
        """Do with rows that cannot be used what dataset.invalidRows says.

        Raises:
            RunError: they are too many; names the first of each kind.

        """
        policy, count = self.dataset.invalid_rows, self.invalid_rows
        if not count or (policy.policy is InvalidPolicy.DROP and count <= policy.max_fraction * self.rows):
            return
        kinds = [f"{what} ({tally})" for what, tally in list(self._invalid.items())[:5]]
        more = f"; and {len(self._invalid) - 5} more kinds of errors" if len(self._invalid) > 5 else ""
        less = f"; or raise dataset.invalidRows.maxFraction, which is {policy.max_fraction:g}"
        raise RunError(
            Reason.DATASET_INVALID,
            f"{self.source}: {count} of {self.rows} rows cannot be used: {'; '.join(kinds)}{more}",
            hint="Correct these rows or take them out. docs/data.md shows each format as rows; dataset.format fixes "
            "which one it is, and dataset.columns names columns that have other names"
            + (less if policy.policy is InvalidPolicy.DROP else "; or set dataset.invalidRows.policy: Drop")
            + ".",
        )

    def skip(self, file: str, number: int, what: str) -> None:
        """Count a row that holds no preference."""
        self.skipped[what] += 1
        self._tallies[f"rows skipped for {what}"].add(file, number)

    def read(self, pair: Pair, group: bytes | None) -> None:
        """Look at what a row says; ``group`` is what dataset.groupBy says of it.

        Raises:
            RowError: it is text where other rows are messages, or the other way round.

        """
        self.conversational = pair.conversational if self.conversational is None else self.conversational
        if pair.conversational != self.conversational:
            raise RowError("text where other rows have messages, or the other way round")
        self.pairs += 1
        self._implicit += pair.implicit
        if pair.score_chosen is not None and pair.score_rejected is not None:
            self._margins.append(pair.score_chosen - pair.score_rejected)
        for remark in pair.remarks:
            self._tallies[remark].add(pair.file, pair.number)
        self.survey.add(pair, group)

    def keep(self, pairs: Sequence[tuple[int, Pair]], encoder: PairEncoder) -> list[Kept]:
        """Look at some pairs in tokens; returns those that training or validation gets, with their indexes."""
        self._unit = encoder.unit
        usable, texts = [], []
        for index, given in pairs:
            pair = for_template(given, encoder.template)
            self.conversational = pair.conversational
            self._look_for_unseen_tools(pair, encoder.template)
            try:
                texts.append(encoder.render(pair))
                usable.append((index, pair))
            except RowError as error:
                self.refuse(pair.file, pair.number, str(error))
        encoded = encoder.encode(texts, conversational=bool(self.conversational))
        kept: list[Kept] = []
        cuts = self.dataset.overlong is OverlongPolicy.TRUNCATE_PROMPT
        for (index, whole), rendered, encoding in zip(usable, texts, encoded, strict=True):
            pair, text, tokens = whole, rendered, encoding
            overlong = cuts and not text.spills and measure(tokens, self.max_length).too_long
            if overlong and (shorter := cut_prompt(pair, encoder, self.max_length)) is not None:
                pair, text, tokens = shorter
                self._tallies["cut"].add(pair.file, pair.number)
            self._look_for_doubles(pair, tokens, encoder)
            measures = self._measure(pair, tokens, spills=text.spills)
            if measures is not None:
                kept.append((index, pair, tokens.parts(measures.prompt)))
        self.kept += len(kept)
        self._prompts.update(text_digest(pair.prompt) for _, pair, _ in kept)
        return kept

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with a response, as training will see it."""
        return min(max(self._lengths["total"], default=0), self.max_length)

    def require_useful(self) -> None:
        """Do with pairs of which training sees nothing, or nothing to learn from, what their policies say.

        Raises:
            RunError: a policy refuses them, or there are no others.

        """
        self.require_valid()
        overlong, alike = self._tallies["too_long"], self._tallies["alike"]
        looked_at = len(self._lengths["total"])
        if looked_at and overlong.count == looked_at:
            raise RunError(
                Reason.DATASET_INVALID,
                f"{self.source}: every prompt is longer than dpo.maxLength ({self.max_length} tokens)",
                hint="Set a larger dpo.maxLength.",
            )
        if looked_at == alike.count > 0 and self._unit != "tokens":
            raise RunError(
                Reason.DATASET_INVALID,
                f"{self.source}: in every row chosen and rejected are the same: nothing can be learned from them",
                hint="Look at the columns that are read as chosen and rejected; dataset.columns names others.",
            )
        if looked_at and alike.count == looked_at - overlong.count:
            raise RunError(
                Reason.DATASET_INVALID,
                f"{self.source}: in every row chosen and rejected are the same {self.max_length} or fewer tokens, as "
                "training would see them: nothing can be learned from them",
                hint="Set a larger dpo.maxLength if they differ later; else the model's chat template leaves out their "
                "text, as one does that looks for parts in the content of a message: give the model another.",
            )
        for name, policy, tally in (
            ("overlong", self.dataset.overlong, overlong),
            ("identicalResponses", self.dataset.identical_responses, alike),
        ):
            if tally.count and policy in {OverlongPolicy.FAIL, RowPolicy.FAIL}:
                what = self._texts()["too_long" if name == "overlong" else "alike"]
                raise refused(f"{self.source}: {what}: {self._share(tally)}", name)

    def _measure(self, pair: Pair, tokens: Encoded, *, spills: bool) -> Measures | None:
        """Count a pair's lengths; None when it is left out."""
        measures = measure(tokens, self.max_length)
        if spills:
            example = f"keeps {measures.prompt} of the {len(tokens.prompt)} tokens of its prompt"
            self.refuse(pair.file, pair.number, _SPILLS, example)
            return None
        self._lost = max(self._lost, measures.lost)
        for name in ("prompt", "chosen", "rejected"):
            self._lengths[name].append(getattr(measures, name))
        self._lengths["total"].append(measures.prompt + max(measures.chosen, measures.rejected))
        self._chosen_longer += ((measures.chosen > measures.rejected) + (measures.chosen >= measures.rejected)) / 2
        for name in ("lost", "too_long", "truncated", "alike"):
            if getattr(measures, name):
                self._tallies[name].add(pair.file, pair.number)
        if measures.too_long:
            self.drop(pair.file, pair.number, DropReason.OVERLONG, f"a prompt of {measures.prompt} {self._unit}")
            return None
        if measures.alike and self.dataset.identical_responses is RowPolicy.DROP:
            self.drop(pair.file, pair.number, DropReason.IDENTICAL_RESPONSES)
            return None
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
        counts = {name: self._tallies[name].count for name in ("truncated", "alike", "lost")}
        looked_at = len(self._lengths["total"])
        responses = bar_width(self._lengths["chosen"], self._lengths["rejected"])
        return DataFacts(
            source=self.source,
            files=tuple(self.files[:20]),
            format=self.form,
            rows=self.rows,
            pairs=self.pairs,
            kept=self.kept,
            dropped=dict(Counter(row.reason for row in self.dropped)),
            prompts=len(self._prompts),
            conversational=bool(self.conversational),
            implicit_prompts=self._implicit,
            duplicates=len(self.survey.repeats),
            near_duplicates=len(self.survey.near_repeats),
            contradictions=len(self.survey.contradicting()),
            truncated_prompts=self._tallies["cut"].count,
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
        out = [f"left out, {what}: {self._share(tally)}" for what, tally in self._invalid.items()]
        texts = self._texts()
        tallies = self._tallies | {
            "contradiction": self.survey.tally(sorted(self.survey.contradicting())),
            "duplicate": self.survey.tally(self.survey.repeats),
            "near": self.survey.tally(self.survey.near_repeats),
        }
        found = [f"{text}: {self._share(tallies[name])}" for name, text in texts.items() if tallies[name].count]
        remarks = [name for name, tally in self._tallies.items() if name not in texts and tally.count]
        found += [f"{remark}: {self._share(self._tallies[remark])}" for remark in remarks]
        return out + found + self._length_bias()

    def _texts(self) -> dict[str, str]:
        """Words for what may be wrong, the most harmful first."""
        policies = self.dataset

        def out(policy: StrEnum) -> str:
            return ", left out" if policy not in {RowPolicy.KEEP, RowPolicy.FAIL, OverlongPolicy.FAIL} else ""

        return {
            "too_long": f"prompts that fill dpo.maxLength ({self.max_length} tokens){out(policies.overlong)}",
            "alike": "responses that are the same"
            + (f" once cut to dpo.maxLength ({self.max_length} tokens)" if self._unit == "tokens" else "")
            + out(policies.identical_responses),
            "contradiction": f"pairs that are there in both orders{out(policies.contradictions)}",
            "cut": "prompts that lost their beginning, so that the responses have room in dpo.maxLength "
            f"({self.max_length} tokens)",
            "truncated": f"responses that dpo.maxLength ({self.max_length} tokens) cuts",
            "duplicate": f"repetitions of an earlier pair{out(policies.duplicates)}",
            "near": f"near repetitions of an earlier pair{out(policies.duplicates)}",
            "lost": "prompts that end in other tokens when a response follows, so that training and use differ by "
            + ("1 token" if self._lost == 1 else f"up to {self._lost} tokens"),
            "bos": "a doubled BOS token: the text begins with one, and the tokenizer adds another",
            "eos": "a doubled EOS token at the end of chosen",
        }

    def _share(self, tally: Tally) -> str:
        return f"{tally.rows} of {self.rows} rows ({tally})"

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
