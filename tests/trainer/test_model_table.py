"""The table of docs/models.md: what prepare decides of each model type, and that what it accepts is trained right."""

import os
from pathlib import Path

import pytest

from dporun_testing import model_table
from dporun_testing.model_table import NOT_TRIED, TRAINS, WRONG
from dporun_testing.multimodal import Family, save_tiny_multimodal

FAMILIES = (
    "llama", "gpt2", "gemma2", "qwen3_moe", "granitemoehybrid", "gpt_oss", "deepseek_v3", "mamba", "falcon_h1",
    "bert", "modernbert-decoder", "recurrent_gemma", "xlnet", "phimoe", "llama4",
)  # fmt: skip
"""Different in kind; ``make nightly`` tries all types."""
EVERY = "DPORUN_EVERY_MODEL_TYPE"


@pytest.mark.parametrize("model_type", model_table.model_types() if os.environ.get(EVERY) else FAMILIES)
def test_a_model_type_is_treated_as_the_table_says(model_type: str, tiny_model: Path) -> None:
    """After an update of a library or another decision of prepare: make models, and read the difference."""
    row = model_table.try_type(model_type, tiny_model)
    assert row == model_table.read_page()[model_type]


@pytest.mark.parametrize("family", ["gemma3", "qwen3_5", "qwen2_5_vl"])
def test_a_model_that_reads_images_is_trained_right(family: Family, tmp_path: Path) -> None:
    """Also of types that are no causal ones."""
    assert model_table.decided(save_tiny_multimodal(tmp_path, family)) == TRAINS


def test_no_type_is_accepted_and_trained_wrong() -> None:
    rows = model_table.read_page()
    assert set(rows) == set(model_table.model_types())
    assert [row for row in rows.values() if row.found.startswith(WRONG)] == []
    assert sum(row.found.startswith(TRAINS) for row in rows.values()) > 130
    assert sum(row.found.startswith(NOT_TRIED) for row in rows.values()) < 25
