"""Run a model over many items in batches: longest first, with smaller batches when the GPU runs out of memory."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.memory import Item, Result
from dporun_trainer.evaluation.policy import Work

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with the items done and the items in all."""
OnStage = Callable[[str, int, int], None]
"""The same, with what is being done first: ``generating``, 12, 60."""


class Models(Protocol):
    """A base and its tuned model, in this process or in several others."""

    @property
    def places(self) -> int:
        """Batches that are worked on at a time."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the tuned model, with a padding token."""

    @property
    def max_positions(self) -> int | None:
        """Longest sequence the model has positions for, if it has a limit."""

    def answers_at_once(self, tokens: int) -> int:
        """How many answers to generate at a time, when prompt and answer together have up to ``tokens`` tokens."""

    def submit(self, work: Work[Item, Result], batch: Sequence[Item]) -> Future[Sequence[Result] | None]:
        """Begin to work on a batch, at a place that is free; the result is None when the GPU ran out of memory."""


def in_batches(
    models: Models,
    work: Work[Item, Result],
    items: Sequence[Item],
    *,
    batch_size: int,
    length: Callable[[Item], int],
    on_progress: OnProgress | None = None,
) -> list[Result]:
    """Apply ``work`` to all items, a batch at a time.

    Items of similar length share a batch, so little is padded; the longest go first, so a batch that does not fit
    into the GPU's memory shows at once. Then the batch size is halved and the work goes on. As long as none has to be
    halved, the batches do not depend on how many are worked on at a time, and so the results do not, bit by bit.

    Args:
        models: that ``work`` is given.
        work: turns a batch of items into as many results, in order; a function that can be pickled.
        items: what to work on.
        batch_size: items per batch, at least 1.
        length: size of an item, in tokens.
        on_progress: called after every batch.

    Returns:
        One result per item, in the order of ``items``.

    Raises:
        RunError: a single item does not fit into the GPU's memory.

    """
    order = sorted(range(len(items)), key=lambda index: -length(items[index]))
    results: dict[int, Result] = {}
    running: dict[Future[Sequence[Result] | None], list[int]] = {}
    while order or running:
        while order and len(running) < models.places:
            batch, order = order[:batch_size], order[batch_size:]
            running[models.submit(work, [items[index] for index in batch])] = batch
        for done in wait(running, return_when=FIRST_COMPLETED).done:
            batch = running.pop(done)
            found = done.result()
            if found is not None:
                results.update(zip(batch, found, strict=True))
                if on_progress is not None:
                    on_progress(len(results), len(items))
                continue
            if len(batch) == 1:
                raise RunError(
                    Reason.GPU_OUT_OF_MEMORY,
                    f"the GPU has too little memory to evaluate one sequence of {length(items[batch[0]])} tokens",
                    hint="Lower spec.dpo.maxLength and spec.evaluation.maxNewTokens, or use a GPU with more memory.",
                )
            batch_size = min(batch_size, max(1, len(batch) // 2))
            log.warning("out of GPU memory with %d sequences at a time; going on with %d", len(batch), batch_size)
            order = batch + order
    return [results[index] for index in range(len(items))]


def stage(on_stage: OnStage | None, name: str, *, per_item: int = 1) -> OnProgress | None:
    """Progress of the stage ``name``, in items, of which each is ``per_item`` pieces of work."""
    if on_stage is None:
        return None
    return lambda done, total: on_stage(name, done // per_item, total // per_item)
