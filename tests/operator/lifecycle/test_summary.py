"""The columns of kubectl get."""

import pytest

from dporun_operator.lifecycle.summary import short_model


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("hf://Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
        ("s3://bucket/tiny/model/", "tiny/model"),
        ("pvc://c/llama", "llama"),
    ],
)
def test_models_are_told_apart(uri: str, shown: str) -> None:
    assert short_model(uri) == shown
