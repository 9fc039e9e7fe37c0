"""Which files of a run make up the parts that ``archive.include`` names."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from dporun_api import run_folder as names
from dporun_api.run_config import ArchiveContent

MERGE_RECORD = "merge.json"
"""Beside a merged model: what was merged, and how exactly."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""File with the weights of an adapter, in PEFT's words."""

_FOLDERS = {
    str(names.FINAL): ArchiveContent.BEST,
    str(names.MERGED): ArchiveContent.MERGED,
    str(names.RUNS): ArchiveContent.LOGS,
    str(names.EVALUATION): ArchiveContent.EVALUATION,
}
_FILES = {
    str(names.LOG_HISTORY): ArchiveContent.LOGS,
    str(names.OLD_LOG_HISTORY): ArchiveContent.LOGS,
    str(names.HEALTH): ArchiveContent.EVALUATION,
    str(names.VERDICT): ArchiveContent.EVALUATION,
    str(names.REPORT_HTML): ArchiveContent.EVALUATION,
    str(names.REPORT_PNG): ArchiveContent.EVALUATION,
}
_OF_THE_VOLUME = {
    str(names.MANIFEST),
    str(names.PROGRESS),
    str(names.ARCHIVE_OUTCOME),
    str(names.CHECKPOINT_UPLOAD),
}


def select(paths: Sequence[str], include: tuple[ArchiveContent, ...], best: str | None) -> list[str]:
    """Choose what is archived.

    Args:
        paths: every file of the run's directory, relative to it.
        include: the parts to archive.
        best: folder of the best checkpoint, to be archived instead of ``final/`` where a run ended without one.

    Returns:
        The names of the files in those parts, and of the run's configuration and metrics.

    """
    if any(name.startswith(f"{names.FINAL}/") for name in paths):
        best = None

    def included(name: str) -> bool:
        top, _, rest = name.partition("/")
        if any(part.startswith(".") or part.endswith(".part") for part in PurePosixPath(name).parts):
            return False
        if not rest:
            part = ArchiveContent.LOGS if name.endswith(".log") else _FILES.get(name)
            return name not in _OF_THE_VOLUME and (part is None or part in include)
        if top.startswith(names.CHECKPOINT_PREFIX):
            return ArchiveContent.CHECKPOINTS in include or (ArchiveContent.BEST in include and top == best)
        return _FOLDERS.get(top) in include

    return sorted(name for name in paths if included(name))
