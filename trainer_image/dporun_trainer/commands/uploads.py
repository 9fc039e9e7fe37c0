"""What ``train`` does about checkpoints in the archive: fetch newer ones before it trains, upload its own meanwhile."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dporun_api.pod import UPLOADED_STEP_VARIABLE
from dporun_api.results import Outcome, OutcomeState
from dporun_api.run_config import ArchiveTarget, ResumePolicy, RunConfig
from dporun_api.text import shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.archiving.archive import open_archive
from dporun_trainer.archiving.upload import fetch_checkpoints, newer_checkpoints
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.checkpoint_index import UploadedCheckpoint

log = logging.getLogger(__name__)

UPLOAD_PROCESS = "dporun_trainer.commands.upload_process"

LAST_UPLOAD_SECONDS = 60.0
"""How long an attempt that has failed stays for its newest checkpoint to be uploaded."""
PATIENCE_SECONDS = 15.0
"""How long a store may take to say what it has, before an attempt that need not know begins without."""


class Uploads:
    """The process that uploads checkpoints; none where the run asks for none."""

    def __init__(self, process: "subprocess.Popen[bytes] | None"):
        self._process = process

    def finish(self, seconds_left: Callable[[], float]) -> None:
        """Have the newest checkpoint uploaded, now that nothing more will be saved.

        Args:
            seconds_left: until the pod must end; asked again and again, as it may be told to only now.

        """
        if self._process is None:
            return
        self._process.terminate()
        end = time.monotonic() + LAST_UPLOAD_SECONDS
        while self._process.poll() is None:
            if time.monotonic() >= end or seconds_left() <= 0:
                log.warning("the newest checkpoint could not be uploaded in time; it is on the run's volume")
                return
            time.sleep(0.1)

    def end(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def uploading(config: RunConfig, config_path: Path, folder: RunFolder) -> Iterator[Uploads]:
    """Upload checkpoints while the block runs, in a process of its own, where the run asks for it."""
    process = None
    if config.archive is not None and config.checkpoints.upload:
        words = [sys.executable, "-m", UPLOAD_PROCESS, "--config", str(config_path), "--directory", str(folder.path)]
        # In a session of its own: what a terminal sends to all its processes is for the launcher to pass on.
        process = subprocess.Popen(words, start_new_session=True)
    uploads = Uploads(process)
    try:
        yield uploads
    finally:
        uploads.end()


def fetch(config: RunConfig, folder: RunFolder) -> Outcome | None:
    """Bring back checkpoints that are newer in the archive than on the volume, before an attempt begins.

    Where the operator knows that there are such (the volume was lost), the attempt does not begin without them. Else
    it does when the store does not answer.

    Returns:
        None when the attempt may begin; else how it ends before that: to be made again when the store answers.

    Raises:
        RunError: the volume has lost what the run had saved, and so has the archive.
        OSError: the volume is full.

    """
    if config.archive is None or not config.checkpoints.upload or config.checkpoints.resume is ResumePolicy.NEVER:
        return None
    known = os.environ.get(UPLOADED_STEP_VARIABLE, "")
    needed = int(known) if known.isdecimal() else -1
    behind = _newest(folder) < needed
    try:
        _fetch(config, config.archive, folder, None if behind else PATIENCE_SECONDS)
    except (RunError, TimeoutError, ValueError) as error:  # boto3's word for an endpoint that is no address
        if behind:
            message = f"The volume has lost the checkpoint of step {known}, and it cannot be fetched now: {error}"
            return Outcome(state=OutcomeState.PREEMPTED, message=shorten(message, 1024))
        log.warning("beginning without a look at the checkpoints in the archive: %s", error)
    if behind and _newest(folder) < 0:
        raise RunError(
            Reason.VOLUME_LOST,
            f"the checkpoint of step {known} is neither on the volume nor whole in {config.archive.uri}",
            hint="Start the run again; if the bucket keeps versions, restore the run's folder first.",
        )
    return None


def _newest(folder: RunFolder) -> int:
    newest = folder.checkpoints.newest()
    return -1 if newest is None else newest.step


def _fetch(config: RunConfig, archive: ArchiveTarget, folder: RunFolder, patience: float | None) -> None:
    store = open_archive(archive, config.run)
    found: list[UploadedCheckpoint] = []
    errors: list[Exception] = []

    def look() -> None:
        try:
            found.extend(newer_checkpoints(store, folder, config.run))
        except Exception as error:  # noqa: BLE001  raised below
            errors.append(error)

    looking = threading.Thread(target=look, name="look for checkpoints", daemon=True)  # it changes nothing
    looking.start()
    looking.join(patience)
    if looking.is_alive():
        raise TimeoutError(f"{store.uri} has not answered for {patience:.0f} s")
    if errors:
        raise errors[0]
    fetch_checkpoints(store, folder, found)
