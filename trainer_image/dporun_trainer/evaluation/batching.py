"""Run a model over many items in batches: longest first, with smaller batches when the GPU runs out of memory."""

import logging
from collections.abc import Callable, Sequence

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.memory import Item, Result, attempt

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with the items done and the items in all."""
OnStage = Callable[[str, int, int], None]
"""The same, with what is being done first: ``generating``, 12, 60."""


def in_batches(
    work: Callable[[Sequence[Item]], Sequence[Result]],
    items: Sequence[Item],
    *,
    batch_size: int,
    length: Callable[[Item], int],
    on_progress: OnProgress | None = None,
) -> list[Result]:
    """Apply ``work`` to all items, a batch at a time.

    Items of similar length share a batch, so little is padded; the longest go first, so a batch that does not fit
    into the GPU's memory shows at once. Then the batch size is halved and the work goes on.

    Args:
        work: turns a batch of items into as many results, in order.
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
    while order:
        batch = order[:batch_size]
        answers = attempt(work, [items[index] for index in batch])
        if answers is None:
            if len(batch) == 1:
                raise RunError(
                    Reason.GPU_OUT_OF_MEMORY,
                    f"the GPU has too little memory to evaluate one sequence of {length(items[batch[0]])} tokens",
                    hint="Lower spec.dpo.maxLength and spec.evaluation.maxNewTokens, or use a GPU with more memory.",
                )
            batch_size = max(1, len(batch) // 2)
            log.warning("out of GPU memory with %d sequences at a time; going on with %d", len(batch), batch_size)
            continue
        results.update(zip(batch, answers, strict=True))
        order = order[len(batch) :]
        if on_progress is not None:
            on_progress(len(results), len(items))
    return [results[index] for index in range(len(items))]


def stage(on_stage: OnStage | None, name: str, *, per_item: int = 1) -> OnProgress | None:
    """Progress of the stage ``name``, in items, of which each is ``per_item`` pieces of work."""
    if on_stage is None:
        return None
    return lambda done, total: on_stage(name, done // per_item, total // per_item)
