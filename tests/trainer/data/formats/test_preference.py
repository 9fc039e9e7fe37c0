"""Properties of TRL's preference format; examples are in cases/."""

import json

from hypothesis import given
from hypothesis import strategies as st

from dporun_trainer.data.formats.preference import from_preference
from dporun_trainer.data.pairs import RowError
from dporun_trainer.data.rows import Row

texts = st.text(max_size=30)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": texts}), max_size=4
)
values = st.none() | texts | messages | st.integers() | st.lists(st.integers())


@given(st.fixed_dictionaries({}, optional={"prompt": values, "chosen": values, "rejected": values, "x": values}))
def test_any_row_is_a_pair_or_an_error(columns: dict[str, object]) -> None:
    try:
        pair = from_preference(Row("f", 1, columns))
    except RowError:
        return
    assert pair.conversational == all(isinstance(text, list) for text in (pair.prompt, pair.chosen, pair.rejected))
    again = from_preference(Row("f", 1, json.loads(pair.line())))
    assert again.line() == pair.line(), "what was written is read as the same"


@given(prompt=st.text(min_size=1), chosen=texts, rejected=texts)
def test_implicit_prompt_loses_no_text(prompt: str, chosen: str, rejected: str) -> None:
    try:
        pair = from_preference(Row("f", 1, {"chosen": prompt + chosen, "rejected": prompt + rejected}))
    except RowError:
        return
    assert pair.implicit
    assert f"{pair.prompt}{pair.chosen}" == prompt + chosen
    assert f"{pair.prompt}{pair.rejected}" == prompt + rejected


def test_a_score_too_large_for_a_float_is_none() -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 10**400, "score_rejected": 1}
    assert from_preference(Row("f", 1, row)).score_chosen is None
