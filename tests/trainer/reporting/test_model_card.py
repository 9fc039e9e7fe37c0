"""The model card: metadata that the Hub reads, and the measured numbers."""

import dataclasses
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from dporun_api.run_config import Dataset, Model
from dporun_testing.run_folders import finished_run
from dporun_trainer.reporting.model_card import model_card
from dporun_trainer.reporting.run_data import RunData, read_run_data
from dporun_trainer.run_folder import RunFolder


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return read_run_data(RunFolder(finished_run(tmp_path_factory.mktemp("runs") / "polite")))


def from_hub(record: RunData) -> RunData:
    """The same run, with model and data from the Hub."""
    assert record.config is not None
    config = record.config.model_copy(
        update={
            "model": Model(uri="hf://Qwen/Qwen2.5-0.5B-Instruct"),
            "dataset": Dataset(train="hf://owner/pairs?split=train", validation="hf://owner/pairs?split=test"),
        }
    )
    assert record.training is not None
    training = record.training.model_copy(update={"requested": config})
    return dataclasses.replace(record, training=training)


def test_the_hub_can_read_the_metadata(record: RunData) -> None:
    card = ModelCard(model_card(from_hub(record)))
    assert card.data.base_model == "Qwen/Qwen2.5-0.5B-Instruct"
    assert card.data.library_name == "peft"
    assert card.data.datasets == ["owner/pairs"]
    assert {"trl", "dpo"} <= set(card.data.tags)
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values == {
        "accuracy": 0.92,
        "reward_margin": 3.68,
        "avg_chosen_reward": 2.45,
        "avg_rejected_reward": -1.23,
        "forgetting": 0.034,
    }


def test_a_model_from_elsewhere_is_not_taken_for_one_on_the_hub(record: RunData) -> None:
    card = ModelCard(model_card(record))
    assert card.data.base_model is None
    assert card.data.datasets is None
    assert "LoRA adapter for examples/tiny/model" in card.text


def test_it_says_how_good_and_how_to_use_it(record: RunData) -> None:
    text = model_card(from_hub(record))
    assert "**Good** (every gate passed)" in text
    assert "| Share of pairs whose chosen response gets the higher reward | 0.92 |" in text
    assert 'AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B-Instruct"' in text
    assert "- warning: train: 2 rows repeat earlier rows" in text
    assert "LoRA rank 16, alpha 32, dropout 0.05" in text
    assert "## Limits" in text


def test_a_multimodal_model_is_loaded_whole(record: RunData) -> None:
    """And nobody is made to believe that it was tuned, or evaluated, on images."""
    assert record.prepared is not None
    model = record.prepared.model.model_copy(update={"modalities": ("image", "video")})
    prepared = record.prepared.model_copy(update={"model": model})
    text = model_card(dataclasses.replace(from_hub(record), prepared=prepared))
    assert 'AutoModelForMultimodalLM.from_pretrained("Qwen/Qwen2.5-0.5B-Instruct"' in text
    assert "Only the language model was trained, on text; what the model makes of images and videos was not" in text


def test_a_run_that_was_not_evaluated_claims_nothing(tmp_path: Path) -> None:
    card = ModelCard(model_card(read_run_data(RunFolder(tmp_path))))
    assert card.data.eval_results is None
    assert "The model was not evaluated." in card.text


def test_words_of_the_data_are_no_markup(record: RunData) -> None:
    assert record.prepared is not None
    dataset = record.prepared.dataset.model_copy(update={"warnings": ("row 3: <img src=x>\n# [title](http://a)",)})
    prepared = record.prepared.model_copy(update={"dataset": dataset})
    text = model_card(dataclasses.replace(record, prepared=prepared))
    assert r"- warning: row 3: \<img src=x\> # \[title\](http://a)" in text
    assert RunFolder(Path()).model_card.name == "README.md"
