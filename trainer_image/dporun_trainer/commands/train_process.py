"""One training process: started by accelerate on each rank, it trains, saves checkpoints and reports how it ended.

python -m dporun_trainer.commands.train_process --config FILE --directory DIR
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from dporun_api import logs
from dporun_api.pod import ExitCode
from dporun_api.results import OutcomeState
from dporun_api.run_config import RunConfig
from dporun_trainer.commands.shared import add_process_arguments, quiet_libraries, read_config
from dporun_trainer.diagnosis.health import diagnose
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.signals import die_with_parent
from dporun_trainer.training import ranks
from dporun_trainer.training.ranks import RankEnd


def main() -> int:
    """Train as one rank; its end file carries what accelerate's exit code cannot."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m dporun_trainer.commands.train_process", description=__doc__)
    add_process_arguments(parser)
    arguments = parser.parse_args()
    _configure_logging()
    rank = int(os.environ.get("RANK", "0"))
    end = _run(read_config(arguments.config), RunFolder(arguments.directory), rank)
    ranks.write(Path(os.environ[ranks.FOLDER_VARIABLE]), end)
    if end.state is OutcomeState.PREEMPTED:
        return ExitCode.PREEMPTED
    return ExitCode.OK if end.failure is None else end.failure.exit_code or ExitCode.ERROR


def _configure_logging() -> None:
    """Log only about the run, and in full on rank 0 alone."""
    main = os.environ.get("RANK", "0") == "0"
    logs.configure(None if main else "WARNING")
    quiet_libraries()
    for library in ("accelerate", "deepspeed", "DeepSpeed", "transformers", "trl", "datasets", "torch", "filelock"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _run(config: RunConfig, folder: RunFolder, rank: int) -> RankEnd:
    # libraries log while they are imported, so logging is configured before
    from dporun_trainer.training.agreement import leave  # noqa: PLC0415
    from dporun_trainer.training.attempt import Attempt  # noqa: PLC0415
    from dporun_trainer.training.failures import explain_training  # noqa: PLC0415
    from dporun_trainer.training.trainer import Preempted  # noqa: PLC0415

    stop = threading.Event()

    def save_when_stopped(_: object) -> None:
        """Until now there was nothing to save: SIGTERM ended this process at once, whatever it was waiting for."""
        signal.signal(signal.SIGTERM, lambda *_: stop.set())

    attempt = Attempt(
        config,
        folder,
        stop,
        rank,
        lambda history, model: diagnose(history, config, takes_dropout=model.takes_dropout),
    )
    try:
        attempt.run(before=save_when_stopped)
        leave()
    except Preempted:
        leave()
        return RankEnd(rank=rank, state=OutcomeState.PREEMPTED, at=time.time(), step=attempt.step)
    except Exception as error:  # noqa: BLE001  the end file is where every error goes
        failure = explain_training(error, config, folder.path, plan=attempt.plan, machine=attempt.machine)
        return RankEnd(rank=rank, state=OutcomeState.FAILED, at=time.time(), step=attempt.step, failure=failure)
    return RankEnd(rank=rank, state=OutcomeState.SUCCEEDED, at=time.time(), step=attempt.step)


if __name__ == "__main__":
    sys.exit(main())
