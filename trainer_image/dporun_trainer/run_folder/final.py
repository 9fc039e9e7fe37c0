"""``final``: the adapter of the best checkpoint, with its tokenizer; the result of a run."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from dporun_api.files import read_json, sync_folder, sync_tree, write_json
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder.checkpoints import Checkpoint
from dporun_trainer.run_folder.folder import RunFolder
from dporun_trainer.run_folder.model_files import copy_processor, copy_tokenizer


def save_final(folder: RunFolder, base: Mapping[str, str | None], model: Path | None = None) -> Checkpoint:
    """Make the best checkpoint's adapter the run's result: ``final`` appears whole or not at all.

    Args:
        folder: of the run.
        base: entries of adapter_config.json about the base model, which replace its path in this pod.
        model: folder of the base model, whose tokenizer and processor are copied; the checkpoint's when absent.

    Raises:
        RunError: there is no complete checkpoint.

    """
    best = folder.checkpoints.best()
    if best is None:
        raise RunError(Reason.TRAINER_ERROR, f"training ended without a complete checkpoint in {folder.path}")
    final = folder.final
    temporary = final.with_name(f".{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for file in best.path.glob("adapter_*"):
            shutil.copy2(file, temporary / file.name)
        copy_tokenizer(model or best.path, temporary)
        copy_processor(model or best.path, temporary)
        adapter = temporary / "adapter_config.json"
        write_json(adapter, read_json(adapter) | dict(base))
        sync_tree(temporary)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    sync_folder(folder.path)
    return best
