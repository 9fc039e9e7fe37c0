"""``final``: the adapter of the best checkpoint, with its tokenizer; the result of a run."""

import shutil
from collections.abc import Mapping

from dporun_api.files import read_json, sync_file, sync_folder, write_json
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder.checkpoints import Checkpoint
from dporun_trainer.run_folder.folder import RunFolder

_RESULT_FILES = ("adapter_", "tokenizer", "special_tokens", "added_tokens", "chat_template", "vocab", "merges")
"""How the names of the files begin that make up an adapter with its tokenizer."""


def save_final(folder: RunFolder, base: Mapping[str, str | None]) -> Checkpoint:
    """Make the best checkpoint's adapter the run's result: ``final`` appears whole or not at all.

    Args:
        folder: of the run.
        base: entries of adapter_config.json about the base model, which replace its path in this pod.

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
        for file in best.path.iterdir():
            if file.is_file() and file.name.startswith(_RESULT_FILES):
                shutil.copy2(file, temporary / file.name)
                sync_file(temporary / file.name)
        adapter = temporary / "adapter_config.json"
        write_json(adapter, read_json(adapter) | dict(base))
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    sync_folder(folder.path)
    return best
