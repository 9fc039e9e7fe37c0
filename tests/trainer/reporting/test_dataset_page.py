"""dataset.html: what a reader sees of a dataset report, and that the page loads and runs nothing."""

import pytest

from dporun_api.dataset_report import DatasetReport, DropReason, Sample
from dporun_api.results import Failure
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.dataset_reports import a_report, dropped, some_facts
from dporun_testing.page import Page
from dporun_trainer.reporting.dataset_page import MAX_TEXT, render

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def words(report: DatasetReport) -> str:
    return Page(render(report)).words


def test_what_is_wrong_and_what_to_do_comes_first() -> None:
    report = a_report(
        validation=some_facts(source="s3://bucket/validation.jsonl", rows=100),
        leaked_prompts=3,
        warnings=("prompts that training has as well: rows 3, 4, 9 of validation.jsonl",),
        dropped_rows=dropped(DropReason.INVALID, 5, 80, detail="an empty rejected"),
    )
    said = words(report)
    order = [
        "Fit for training TRL preference pairs chat messages",
        "900 pairs for training, 100 for validation, 2 left out; one warning.",
        "Next the rows left out Correct them",
        "Rows read1,100",
        "Leaked prompts3",
        "Warnings prompts that training has as well",
        "dataset.leaks to Drop",
        "Lengths in tokens, training",
        "Lengths in tokens, validation",
        "2an empty rejectedtrainingrows 5, 80 of train.jsonl",
        "row 17 of train.jsonl",
        "Facts",
    ]
    start = said.index(order[0])  # after the title and the links
    assert [said.index(part, start) for part in order] == sorted(said.index(part, start) for part in order)


def test_refused_data_says_why_and_what_to_do() -> None:
    failure = Failure(reason=Reason.DATASET_INVALID, message="300 of 300 rows cannot be used", hint="Correct them.")
    report = a_report(refused=failure, prompt=None, chosen=None, rejected=None, total=None, format="", samples=())
    said = words(report)
    assert "Refused 300 of 300 rows cannot be used Next Correct them." in said
    assert "<svg" not in render(report)


def test_lengths_are_drawn_with_the_limit() -> None:
    html = render(a_report())
    assert html.count("<svg") == 3
    assert "maxLength 1,024" in Page(html).text
    assert "chosen: 60 rows of 0 to 49 tokens" in html
    assert "chosen: 80 rows of 2,000 to 9,000 tokens" in html
    assert "maxLength" not in Page(render(a_report(max_length=None))).text


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    sample = Sample(file=EVIL, row=1, prompt=EVIL, chosen=({"role": EVIL, "content": EVIL},), rejected=EVIL)
    report = a_report(
        source=EVIL, format=EVIL, samples=(sample,), warnings=(EVIL,),
        dropped_rows=dropped(DropReason.INVALID, 1, detail=EVIL),
    )  # fmt: skip
    html = render(report)
    page = Page(html)
    assert page.loads() == []
    assert all((attributes.get("href") or "#").startswith("#") for _, attributes in page.tags)
    assert "url(" not in html
    assert EVIL not in html
    assert page.text.count(EVIL) >= 8


def test_long_texts_are_cut_and_say_so() -> None:
    sample = Sample(file="a.jsonl", row=1, prompt="a" * (MAX_TEXT + 1234), chosen="b", rejected="")
    said = words(a_report(samples=(sample,)))
    assert "a… (1,234 more characters)" in said
    assert "(empty)" in said


def test_messages_have_their_roles_and_calls() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": {"a": 2}}]}
    sample = Sample(
        file="a.jsonl", row=1, prompt=({"role": "user", "content": "2 + 2?"}, call), chosen="4", rejected="5"
    )
    said = words(a_report(samples=(sample,)))
    assert 'user2 + 2? assistant{"tool_calls": [{"name": "add", "arguments": {"a": 2}}]} chosen4 rejected5' in said


@pytest.mark.parametrize("kinds", [1, 60])
def test_kinds_of_dropped_rows_have_an_end(kinds: int) -> None:
    rows = tuple(row for kind in range(kinds) for row in dropped(DropReason.INVALID, kind + 1, detail=f"kind {kind}"))
    said = words(a_report(dropped_rows=rows))
    assert ("There are 10 more kinds." in said) is (kinds == 60)
    assert "dataset_report.json lists every row." in said


def test_the_same_report_gives_the_same_page() -> None:
    assert render(a_report()) == render(a_report())
