"""The process that uploads checkpoints while training goes on: beside the training processes, so that no step waits.

python -m dporun_trainer.commands.upload_process --config FILE --directory DIR
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime

from dporun_api import logs
from dporun_api.results import CheckpointUpload
from dporun_api.run_config import ArchiveTarget, Identity
from dporun_api.text import shorten, timestamp
from dporun_trainer.archiving.archive import open_archive
from dporun_trainer.archiving.upload import upload_checkpoints
from dporun_trainer.commands.shared import add_process_arguments, read_config
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.checkpoint_index import CheckpointIndex
from dporun_trainer.run_folder.checkpoints import Checkpoint
from dporun_trainer.signals import die_with_parent, on_stop
from dporun_trainer.stores.transfer import Store

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
_LONGEST_DELAY_SECONDS = 60.0
_NOTICE_SECONDS = 0.2


def main() -> int:
    """Upload until asked to stop, and then once more."""
    stop = threading.Event()
    with on_stop(stop.set, [signal.SIGTERM]):
        die_with_parent()
        os.nice(10)  # the training processes come first
        parser = argparse.ArgumentParser(prog="python -m dporun_trainer.commands.upload_process", description=__doc__)
        add_process_arguments(parser)
        arguments = parser.parse_args()
        logs.configure()
        config = read_config(arguments.config)
        if config.archive is not None:
            keep_uploading(config.archive, config.run, RunFolder(arguments.directory), stop)
    return 0


def keep_uploading(archive: ArchiveTarget, run: Identity, folder: RunFolder, stop: threading.Event) -> None:
    """Upload whenever the volume has other checkpoints than before; what fails is tried again, without end."""
    store: Store | None = None
    done: list[Checkpoint] | None = None
    failures = 0
    while True:
        last = stop.is_set()
        try:
            if (found := folder.checkpoints.complete()) != done:
                if store is None:
                    store = open_archive(archive, run)
                _report(folder, upload_checkpoints(store, folder, run))
                log.log(logging.INFO if failures else logging.DEBUG, "checkpoints are uploaded")
                done, failures = found, 0
        except Exception as error:  # noqa: BLE001  whatever it is, training goes on and it is tried again
            done, failures = None, failures + 1
            _report_problem(folder, error, again=failures > 1)
        if last:
            return
        _wait(stop, min(_LOOK_SECONDS * 2.0 ** min(failures, 10), _LONGEST_DELAY_SECONDS))


def _wait(stop: threading.Event, seconds: float) -> None:
    """Wait, or until asked to stop; without the lock of ``stop``, which its signal handler could wait for forever."""
    end = time.monotonic() + seconds
    while not stop.is_set() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _NOTICE_SECONDS))


def _report(folder: RunFolder, index: CheckpointIndex) -> None:
    before, newest = folder.checkpoint_upload.read() or CheckpointUpload(), index.newest
    upload = CheckpointUpload()
    if newest is not None:
        same = before.step == newest.step
        when = before.time if same else timestamp(datetime.fromtimestamp(time.time(), UTC))
        upload = CheckpointUpload(checkpoint=newest.name, step=newest.step, time=when)
    folder.checkpoint_upload.write(upload)


def _report_problem(folder: RunFolder, error: Exception, *, again: bool) -> None:
    """Tell of an outage: in the log when it begins, in progress while it lasts."""
    words = f"{error}" or type(error).__name__
    log.log(logging.DEBUG if again else logging.WARNING, "checkpoints cannot be uploaded now: %s", words)
    before = folder.checkpoint_upload.read() or CheckpointUpload()
    try:
        folder.checkpoint_upload.write(before.model_copy(update={"problem": shorten(words, 256)}))
    except OSError as full:
        log.debug("nor can this be reported: %s", full)


if __name__ == "__main__":
    sys.exit(main())
