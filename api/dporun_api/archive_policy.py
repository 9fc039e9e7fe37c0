"""Which runs are archived."""

from dporun_api.run_config import ArchiveTarget, ArchiveWhen


def location(archive: ArchiveTarget, directory: str) -> str:
    """URI of a run's folder in the archive; ``directory`` is that of its Identity."""
    return f"{archive.uri.rstrip('/')}/{directory}"


def skip_reason(archive: ArchiveTarget | None, *, started: bool, succeeded: bool, passed: bool | None) -> str | None:
    """Say why a run is not archived; None when it is.

    Args:
        archive: where and when to archive, as the user asks for it.
        started: whether training ever started.
        succeeded: whether training has ended, and well.
        passed: whether the run reached its gates; None where the verdict is not known, which skips nothing: the trainer
            decides then, who has the verdict on the volume.

    """
    if archive is None:
        return "spec.archive is not set, so the results stay on the volume"
    if not started:
        return "training never started, so there is nothing to archive"
    if archive.when is not ArchiveWhen.FINISHED and not succeeded:
        return f"archive.when is {archive.when}, and the run did not succeed"
    if archive.when is ArchiveWhen.PASSED and passed is False:
        return f"archive.when is {archive.when}, and the run did not pass its gates"
    return None
