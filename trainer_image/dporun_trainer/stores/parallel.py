"""Work that is done side by side, and that nothing waits for once the process is asked to stop."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = 8


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Do ``work`` for every item, WORKERS at a time, and return the results in the items' order.

    After the first error nothing more is begun, what is under way ends, and the error is raised. A signal to stop
    (``signals.Stopped``, raised in the main thread) waits for nothing: a server that does not answer must not hold up
    the end of the process, and threads of this kind do not.
    """
    results: dict[int, Result] = {}
    errors: list[BaseException] = []
    todo = iter(enumerate(items))
    lock = threading.Lock()

    def worker() -> None:
        while not errors:
            with lock:
                entry = next(todo, None)
            if entry is None:
                return
            try:
                results[entry[0]] = work(entry[1])
            except BaseException as error:  # noqa: BLE001  raised below, in the thread that waits
                errors.append(error)

    threads = [threading.Thread(target=worker, daemon=True) for _ in items[:WORKERS]]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as stopped:
        errors.append(stopped)
        raise
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(items))]
