"""Evaluation in several processes: the results of one, errors that name the process, and nothing that is left over."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import batches
from dporun_testing.adapters import save_random_adapter
from dporun_testing.tiny_model import chat_pairs, save_tiny_model, write_rows
from dporun_trainer.__main__ import main
from dporun_trainer.commands import evaluate
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.batching import in_batches
from dporun_trainer.evaluation.memory import AT_ONCE_ON_CPU
from dporun_trainer.evaluation.workers import Source, Workers, open_models

pytestmark = pytest.mark.slow(20)

RESULTS = ("comparison_results.json", "evaluation_metrics.json", "forgetting.json")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    base = save_tiny_model(folder / "base")
    return Source(save_random_adapter(base, folder / "adapter", scale=0.3), base)


@pytest.fixture(scope="module")
def two(source: Source) -> Iterator[Workers]:
    with open_models(source, batches=9, processes=2) as models:
        assert isinstance(models, Workers)
        yield models


def test_two_processes_write_the_very_files_of_one(
    source: Source, two: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_rows(tmp_path / "pairs.jsonl", chat_pairs(23))
    arguments = ["--model", str(source.path), "--base", str(source.base), "--test", str(pairs), "--max-new-tokens", "6"]
    assert main(["evaluate", *arguments, "--output", str(tmp_path / "1"), "--processes", "1"]) == 0
    monkeypatch.setattr(evaluate, "open_models", lambda *_, **__: nullcontext(two))  # started once for all tests
    assert main(["evaluate", *arguments, "--output", str(tmp_path / "2"), "--processes", "2"]) == 0
    for name in RESULTS:
        assert (tmp_path / "2" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_each_process_gets_its_share(two: Workers) -> None:
    assert two.places == 2
    assert two.tokenizer.pad_token is not None
    assert two.max_positions == 512
    assert two.answers_at_once(100) == AT_ONCE_ON_CPU
    found = in_batches(two, batches.pids, list(range(40)), batch_size=1, length=lambda _: 1)
    assert len(set(found)) == 2
    assert os.getpid() not in found


def test_a_batch_too_large_for_a_process_is_halved(two: Workers) -> None:
    items = list(range(20))
    assert in_batches(two, batches.two_at_a_time, items, batch_size=8, length=lambda x: x) == items


def test_an_error_names_its_process(two: Workers) -> None:
    with pytest.raises(RunError, match=r"evaluation process [01]: a GPU is broken: .*ECC") as caught:
        in_batches(two, batches.broken_gpu, [1, 2, 3], batch_size=1, length=lambda x: x)
    assert caught.value.reason is Reason.GPU_FAULT
    assert "cordon" in str(caught.value.hint)


def test_few_batches_need_no_other_process(source: Source) -> None:
    with open_models(source, batches=1, processes=2) as models:
        assert models.places == 1


def test_a_process_that_dies_is_named(two: Workers) -> None:
    """The last test of these two processes."""
    one = max(active_children(), key=lambda process: process.pid or 0)
    os.kill(one.pid or 0, signal.SIGKILL)
    with pytest.raises(BrokenProcessPool):
        in_batches(two, batches.pids, list(range(20)), batch_size=1, length=lambda x: x)
    killed, memory = two.death(out_of_memory=False), two.death(out_of_memory=True)
    assert killed.message == "evaluation process 1 of 2 ended with signal 9; training is done and kept"
    assert (killed.reason, memory.reason) == (Reason.TRAINER_ERROR, Reason.HOST_OUT_OF_MEMORY)
    two.close()
    assert active_children() == []
