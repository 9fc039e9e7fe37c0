"""Which pairs are left out and which are held out: by what spec.dataset says, before there is a tokenizer."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dporun_api.dataset_report import DropReason
from dporun_api.run_config import Dataset, RowPolicy
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.gather import Gathered
from dporun_trainer.inputs.lint import refused
from dporun_trainer.inputs.survey import Survey

DEFAULT_FRACTION = 0.1
"""Share of the prompts that is held out when neither validation nor validationFraction is given."""

_FAR = 2
"""Times the wanted share from which on it is told that more is held out."""


@dataclass(frozen=True)
class Leaks:
    """Prompts of validation that training has as well.

    Attributes:
        exact: how many prompts are the same.
        near: how many more are nearly the same.
        warnings: what to say of them.

    """

    exact: int
    near: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """Pairs that training and validation get, as far as no tokenizer leaves some out.

    Attributes:
        train: the training data.
        validation: the validation data; without it, some pairs of ``train`` are held out.
        train_out: indexes of pairs of ``train`` that are left out.
        validation_out: likewise of ``validation``.
        held_out: indexes of pairs of ``train`` that validation gets.
        leaks: prompts on both sides.
        warnings: what looks wrong with the two sides.

    """

    train: Gathered
    validation: Gathered | None
    train_out: set[int]
    validation_out: set[int]
    held_out: set[int]
    leaks: Leaks
    warnings: tuple[str, ...]


@dataclass
class _Side:
    """Pairs of one source while it is decided which are left out."""

    source: Gathered
    out: set[int] = field(default_factory=set)

    @property
    def survey(self) -> Survey:
        return self.source.survey

    def rest(self) -> list[int]:
        return [index for index in range(self.source.count) if index not in self.out]

    def leave_out(self, indexes: Iterable[int], reason: DropReason, why: Mapping[int, str]) -> None:
        for index in sorted(set(indexes) - self.out):
            self.source.lint.drop(*self.survey.place(index), reason, why.get(index, ""))
            self.out.add(index)

    def apply(self, policy: RowPolicy, name: str, reason: DropReason, what: str, found: Mapping[int, int]) -> None:
        """Do with some pairs what the policy ``dataset.NAME`` says; ``found`` names the other pair of each."""
        if not found or policy is RowPolicy.KEEP:
            return
        if policy is RowPolicy.FAIL:
            tally = self.survey.tally(sorted(found))
            raise refused(f"{self.source.source.uri}: {tally.count} of {self.source.count} pairs {what}: {tally}", name)
        others = {index: self.survey.place(other) for index, other in found.items()}
        self.leave_out(found, reason, {index: f"row {row} of {file}" for index, (file, row) in others.items()})


def select(train: Gathered, validation: Gathered | None, policies: Dataset, seed: int) -> Selection:
    """Decide which pairs are left out, and which are held out.

    Args:
        train: the training data.
        validation: the validation data, where it is data of its own.
        policies: spec.dataset.
        seed: of the choice of what is held out.

    Raises:
        RunError: a policy refuses pairs, the sources do not fit together, or nothing is left, or can be held out.

    """
    train.survey.prompts.close()
    sides = [_Side(source) for source in (train, validation) if source is not None]
    _refuse_mixture(train, validation)
    for side in sides:
        survey = side.survey
        side.apply(policies.contradictions, "contradictions", DropReason.CONTRADICTION,
                   "contradict another one", survey.contradicting())  # fmt: skip
        side.apply(policies.duplicates, "duplicates", DropReason.DUPLICATE, "repeat an earlier one", survey.repeats)
        side.apply(policies.duplicates, "duplicates", DropReason.NEAR_DUPLICATE,
                   "nearly repeat an earlier one", survey.near_repeats)  # fmt: skip
    first = sides[0]
    held: set[int] = set()
    warnings: tuple[str, ...] = ()
    if validation is None:
        held, warnings = _hold_out(first, policies, seed)
        train_pairs, other, validation_pairs = set(first.rest()) - held, first, held
    else:
        train_pairs, other, validation_pairs = set(first.rest()), sides[1], set(sides[1].rest())
    leaks = _leaks(first, train_pairs, other, validation_pairs, policies)
    for name, pairs in (("training", train_pairs - first.out), ("validation", validation_pairs)):
        if not pairs:
            raise nothing_left(name, [side.source for side in sides])
    out = sides[1].out if validation else set()
    return Selection(train, validation, first.out, out, held, leaks, (*warnings, *leaks.warnings))


def nothing_left(name: str, sources: Iterable[Gathered]) -> RunError:
    """Why there is nothing for training, or for validation."""
    dropped, skipped = Counter[str](), Counter[str]()
    for source in sources:
        dropped.update(row.reason.value for row in source.lint.dropped)
        skipped.update(source.lint.skipped)
    reasons = ", ".join(f"{count} as {reason}" for reason, count in dropped.items())
    rows = "".join(f"; rows skipped for {why}: {count}" for why, count in skipped.items())
    return RunError(
        Reason.DATASET_INVALID,
        f"no pair is left for {name}: {reasons or 'none'} left out{rows}",
        hint="Look at what dataset.overlong, dataset.identicalResponses, dataset.duplicates and dataset.leaks leave "
        "out, or give more data.",
    )


def _refuse_mixture(train: Gathered, validation: Gathered | None) -> None:
    """Raise when one has text and the other messages: a loss on one means nothing for the other."""
    if validation is not None and train.lint.conversational != validation.lint.conversational:
        kinds = {True: "chat messages", False: "text"}
        raise RunError(
            Reason.DATASET_INVALID,
            f"{train.source.uri} has {kinds[bool(train.lint.conversational)]}, {validation.source.uri} has "
            f"{kinds[bool(validation.lint.conversational)]}",
            hint="Give both as chat messages, or both as text.",
        )


def _hold_out(side: _Side, policies: Dataset, seed: int) -> tuple[set[int], tuple[str, ...]]:
    """Choose pairs to hold out: whole groups, or all pairs of prompts that are nearly the same; returns warnings, too.

    Raises:
        RunError: they are all one, or there are none.

    """
    survey, uri = side.survey, side.source.source.uri
    if not side.rest():
        raise nothing_left("training", [side.source])
    if policies.group_by is not None:
        keys = list(survey.group_keys)
        unit: dict[int, bytes] = {index: keys[survey.group[index]] for index in side.rest()}
        what = f"all rows have the same {policies.group_by} (dataset.groupBy)"
        large = f"rows with the same {policies.group_by} (dataset.groupBy)"
    else:
        families = survey.prompts.families()
        prompts = survey.prompts.digests()
        unit = {index: prompts[families[survey.prompt[index]]] for index in side.rest()}
        same = len({survey.prompt[index] for index in unit}) == 1
        what = "all rows have the same prompt" if same else "the prompts of all rows are nearly the same"
        large = "prompts that are nearly the same"
    if len(unit) == 1:
        what = "there is only one pair"
    sizes = Counter(key for key, _ in {(key, survey.prompt[index]) for index, key in unit.items()})
    fraction = policies.validation_fraction or DEFAULT_FRACTION
    try:
        chosen = choose(sizes, fraction, seed)
    except ValueError as error:
        raise RunError(
            Reason.DATASET_INVALID,
            f"{uri}: no validation rows can be held out, because {what}",
            hint="Name a file of validation rows in dataset.validation.",
        ) from error
    held, total = sum(sizes[key] for key in chosen), sum(sizes.values())
    warnings: tuple[str, ...] = ()
    if held > _FAR * max(fraction * total, 1):
        warnings = (
            f"{held} of {total} prompts are held out, {held / total:.0%} where dataset.validationFraction asks for "
            f"{fraction:.0%}, because {large} stay together",
        )
    return {index for index, key in unit.items() if key in chosen}, warnings


def choose(sizes: Mapping[bytes, int], fraction: float, seed: int) -> set[bytes]:
    """Choose what is held out, by keys alone, so that no order of rows matters.

    Args:
        sizes: how many prompts belong together, by a key of theirs.
        fraction: share of the prompts to hold out, between 0 and 1.
        seed: another one chooses others.

    Returns:
        Keys of about that share of the prompts, taken in an order that the seed decides, those left that would be too
        many: at least one, and not all.

    Raises:
        ValueError: there are fewer than two.

    """
    if len(sizes) < 2:
        raise ValueError("at least two are needed to hold one out")
    ordered = sorted(sizes, key=lambda key: hashlib.sha256(b"%d:%b" % (seed, key)).digest())
    total = sum(sizes.values())
    wanted = min(max(round(total * fraction), 1), total - 1)
    chosen: set[bytes] = set()
    for key in ordered:
        if sizes[key] <= wanted:
            chosen.add(key)
            wanted -= sizes[key]
    return chosen or {min(ordered, key=lambda key: sizes[key])}


def _leaks(train: _Side, pairs: set[int], other: _Side, validation: set[int], policies: Dataset) -> Leaks:
    """Find prompts of validation that training has as well, and do with the training pairs what dataset.leaks says."""
    families = train.survey.prompts.families()
    trained = {train.survey.prompt[index] for index in pairs}
    kin = {families[prompt] for prompt in trained}
    exact = [index for index in sorted(validation) if other.survey.prompt[index] in trained]
    near = [
        index
        for index in sorted(validation)
        if other.survey.prompt[index] not in trained and families[other.survey.prompt[index]] in kin
    ]
    warnings = []
    if exact:
        warnings.append(
            "prompts that training has as well, so that validation looks better than it is: "
            f"{other.survey.tally(exact)}"
        )
    if near:
        warnings.append(f"prompts that training nearly has as well: {other.survey.tally(near)} of validation")
    counts = [len({other.survey.prompt[index] for index in found}) for found in (exact, near)]
    if (exact or near) and policies.leaks is RowPolicy.FAIL:
        raise refused(f"{other.source.source.uri}: {'; '.join(warnings)}", "leaks")
    if policies.leaks is RowPolicy.DROP:
        leaked = {families[other.survey.prompt[index]] for index in (*exact, *near)}
        found = [index for index in sorted(pairs) if families[train.survey.prompt[index]] in leaked]
        train.leave_out(found, DropReason.LEAK, {})
        warnings = []
    return Leaks(counts[0], counts[1], tuple(warnings))
