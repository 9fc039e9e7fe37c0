"""The two models once per GPU, each in a process of its own: batches go to whichever is free.

What is worked on, in which batches and in which order the results come is decided by the process that opens them, so
the results are those of one process.
"""

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from multiprocessing import active_children, connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from dporun_api.run_config import Precision, Quantization
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.cgroup import oom_kills
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.batching import Models
from dporun_trainer.evaluation.memory import Item, Result, attempt
from dporun_trainer.evaluation.policy import Policy, Work, load_policy
from dporun_trainer.outcome import explain
from dporun_trainer.signals import die_with_parent

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """What to load: the arguments of ``load_policy``."""

    path: Path
    base: str | Path | None = None
    precision: Precision = "auto"
    quantization: Quantization | None = None
    gpus: int = 0

    def load(self) -> Policy:
        """Load the two models."""
        return load_policy(
            self.path, base=self.base, precision=self.precision, quantization=self.quantization, gpus=self.gpus
        )


@contextlib.contextmanager
def open_models(
    source: Source, *, batches: int, processes: int | None = None, begin: Callable[[], None] | None = None
) -> Iterator[Models]:
    """Load the two models: here where one process is enough, else in processes of their own that end with the block.

    Args:
        source: what to load.
        batches: of the largest stage; more processes than these would have nothing to do.
        processes: to start at most; by default one for each GPU that there is.
        begin: called first in every process that is started; a function that can be pickled.

    Raises:
        RunError: see ``load_policy``; or one of the processes died.

    """
    count = min(processes or gpus_here(), batches)
    if count <= 1:
        yield source.load()
        return
    log.info("evaluating in %d processes", count)
    kills = oom_kills()
    workers = Workers(count)
    try:
        workers.start(begin)
        workers.load(source)
        yield workers
    except BrokenProcessPool as error:
        raise workers.death(out_of_memory=oom_kills() > kills) from error
    finally:
        workers.close()


def gpus_here() -> int:
    """Number of GPUs that this pod sees, and 1 on the CPU; none of them is touched."""
    return max(1, torch.cuda.device_count()) if torch.cuda.is_available() else 1


class Workers:
    """Processes that hold the two models.

    Attributes:
        places: number of processes.

    """

    def __init__(self, count: int):
        self.places = count
        self._executors: list[ProcessPoolExecutor] = []
        self._processes: list[BaseProcess] = []
        self._newest: list[Future[object]] = []

    def start(self, begin: Callable[[], None] | None) -> None:
        """Start the processes; what ends this halfway leaves those that are there to ``close``."""
        for index in range(self.places):
            before = set(active_children())
            # One executor for each process: it says which of them died, and the process knows its GPU from the start.
            executor = ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), initializer=_begin, initargs=(index, begin)
            )
            self._executors.append(executor)
            self._newest.append(executor.submit(int))
            self._processes.extend(set(active_children()) - before)

    def load(self, source: Source) -> None:
        """Load the models in all processes at the same time."""
        self._source = source
        described = [
            executor.submit(_describe, source, index, self.places) for index, executor in enumerate(self._executors)
        ]
        facts = [future.result() for future in described]
        self._tokenizer, self._max_positions = facts[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the tuned model, with a padding token."""
        return self._tokenizer

    @property
    def max_positions(self) -> int | None:
        """Longest sequence the model has positions for, if it has a limit."""
        return self._max_positions

    def answers_at_once(self, tokens: int) -> int:
        """How many answers to generate at a time, when prompt and answer together have up to ``tokens`` tokens.

        As many as the fullest GPU takes: what shares a batch must not depend on where it is worked on.
        """
        places = enumerate(self._executors)
        found = [executor.submit(_room, self._source, index, self.places, tokens) for index, executor in places]
        return min(future.result() for future in found)

    def submit(self, work: Work[Item, Result], batch: Sequence[Item]) -> Future[Sequence[Result] | None]:
        """Begin to work on a batch in a process that is free; the result is None when its GPU ran out of memory."""
        index = next(index for index, newest in enumerate(self._newest) if newest.done())
        future = self._executors[index].submit(_work, self._source, index, self.places, work, batch)
        self._newest[index] = future  # type: ignore[assignment]
        return future

    def death(self, *, out_of_memory: bool) -> RunError:
        """Say which process died, and of what."""
        sentinels = [process.sentinel for process in self._processes]
        index = sentinels.index(connection.wait(sentinels)[0])  # type: ignore[arg-type]
        self._executors[index].shutdown()
        code = self._processes[index].exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        reason = Reason.HOST_OUT_OF_MEMORY if out_of_memory else Reason.TRAINER_ERROR
        what = f"evaluation process {index} of {self.places} ended with {how}"
        return RunError(reason, f"{what}; training is done and kept", hint=reason.traits.hint)

    def close(self) -> None:
        """End all processes, whatever they do."""
        for process in self._processes:
            process.kill()
        for executor in self._executors:
            executor.shutdown(cancel_futures=True)


def _begin(index: int, begin: Callable[[], None] | None) -> None:
    """Become process ``index``: it ends with the one that started it, which is the one that is asked to stop."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["LOCAL_RANK"] = str(index)
    if begin is not None:
        begin()


@cache
def _loaded(source: Source, index: int, processes: int) -> Policy:
    if torch.cuda.is_available():
        torch.cuda.set_device(index)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    return source.load()


def _describe(source: Source, index: int, processes: int) -> tuple[PreTrainedTokenizerBase, int | None]:
    with _explained(index):
        policy = _loaded(source, index, processes)
        return policy.tokenizer, policy.max_positions


def _room(source: Source, index: int, processes: int, tokens: int) -> int:
    with _explained(index):
        return _loaded(source, index, processes).answers_at_once(tokens)


def _work(
    source: Source, index: int, processes: int, work: Work[Item, Result], batch: Sequence[Item]
) -> Sequence[Result] | None:
    with _explained(index):
        return attempt(partial(work, _loaded(source, index, processes)), batch)


@contextlib.contextmanager
def _explained(index: int) -> Iterator[None]:
    """Turn every error into one that crosses to the other process and names this one."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  of whatever class: not all of them can be pickled
        failure = explain(error)
        raise RunError(failure.reason, f"evaluation process {index}: {failure.message}", hint=failure.hint) from None
