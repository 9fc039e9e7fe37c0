"""What training leaves behind."""

from pathlib import Path

import pytest

from dporun_api.files import read_json, write_json
from dporun_api.run_config import Model
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder, checkpoints
from dporun_trainer.run_folder.checkpoints import Checkpoints, Marker
from dporun_trainer.run_folder.final import save_final
from dporun_trainer.run_folder.model_files import TEMPLATES
from dporun_trainer.training.bookkeeping import hub_base


def saved(directory: Path, step: int, eval_loss: float) -> None:
    path = Checkpoints(directory).folder(step)
    path.mkdir(parents=True)
    (path / "adapter_model.safetensors").write_text(f"weights of step {step}")
    (path / "optimizer.pt").write_text("moments")
    write_json(path / "adapter_config.json", {"base_model_name_or_path": "/results/run/inputs/model", "r": 16})
    checkpoints.mark_complete(path, Marker(step=step, eval_loss=eval_loss))


@pytest.mark.parametrize(
    ("uri", "name", "revision"),
    [
        ("hf://Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "abc"),
        ("s3://bucket/model", "/results/run/inputs/model", None),
    ],
)
def test_final_is_the_best_adapter_and_names_its_base(
    tmp_path: Path, uri: str, name: str, revision: str | None
) -> None:
    """By a name under which it can be found."""
    saved(tmp_path, 9, 0.3)
    saved(tmp_path, 18, 0.5)
    best = save_final(RunFolder(tmp_path), hub_base(Model(uri=uri), revision))
    assert best.step == 9
    final = tmp_path / "final"
    assert {path.name for path in final.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert (final / "adapter_model.safetensors").read_text() == "weights of step 9"
    config = read_json(final / "adapter_config.json")
    assert (config["base_model_name_or_path"], config.get("revision"), config["r"]) == (name, revision, 16)


def test_final_has_tokenizer_templates_and_processor_of_the_base(tmp_path: Path) -> None:
    """As they are: what training saves in a checkpoint is for this version of transformers."""
    saved(tmp_path, 9, 0.3)
    texts = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", f"{TEMPLATES}/tool_use.jinja")
    processor = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
    for name in (*texts, *processor, "config.json", "model.safetensors", "README.md"):
        for folder in (tmp_path / "checkpoint-9", tmp_path / "model"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{name} of {folder.name}")
    save_final(RunFolder(tmp_path), {}, tmp_path / "model")
    final = tmp_path / "final"
    found = {path.relative_to(final).as_posix() for path in final.rglob("*") if path.is_file()}
    assert found == {"adapter_config.json", "adapter_model.safetensors", *texts, *processor}
    assert all((final / name).read_text() == f"{name} of model" for name in (*texts, *processor))


def test_without_a_complete_checkpoint_there_is_no_final(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="without a complete checkpoint"):
        save_final(RunFolder(tmp_path), {})
    assert not (tmp_path / "final").exists()
