"""What NVIDIA's management library (NVML) tells of the GPUs of this pod: failures and counters. No torch.

Where there is no such library, or it refuses, nothing is known, which is no reason for anything to fail.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pynvml

_ECC = (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)


def driver_version() -> str | None:
    """Version of the driver, as nvidia-smi shows it."""
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    return None


@contextlib.contextmanager
def watching() -> Iterator[Callable[[], str]]:
    """Note the failures of GPUs from now on.

    Yields:
        A function that describes what is known so far: Xids (codes of failures, which the driver also writes to the
        kernel's log), and uncorrected errors of memory since the driver was loaded. Empty when there is nothing.

    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield lambda: ""
        return
    with contextlib.ExitStack() as opened:
        opened.callback(_try, pynvml.nvmlShutdown)
        events = _try(pynvml.nvmlEventSetCreate)
        gpus = [_try(pynvml.nvmlDeviceGetHandleByIndex, index) for index in range(_try(pynvml.nvmlDeviceGetCount) or 0)]
        if events is not None:
            opened.callback(_try, pynvml.nvmlEventSetFree, events)
            for gpu in gpus:
                _try(pynvml.nvmlDeviceRegisterEvents, gpu, pynvml.nvmlEventTypeXidCriticalError, events)
        yield lambda: "; ".join([*_xids(events), *_uncorrected(gpus)])


def _try(function: Callable[..., Any], *arguments: object) -> Any:
    """Result of a call of NVML, or None: an old GPU or driver does not know everything, a lost GPU knows nothing."""
    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None


def _xids(events: object) -> Iterator[str]:
    """Those that the driver has queued since they were last asked for; each once."""
    seen: dict[str, None] = {}
    while events is not None and (event := _try(pynvml.nvmlEventSetWait, events, 0)) is not None:
        index = _try(pynvml.nvmlDeviceGetIndex, event.device)
        seen[f"{'a GPU' if index is None else f'GPU {index}'}: Xid {event.eventData}"] = None
    yield from seen


def _uncorrected(gpus: list[object]) -> Iterator[str]:
    for index, gpu in enumerate(gpus):
        if count := _try(pynvml.nvmlDeviceGetTotalEccErrors, gpu, *_ECC):
            yield f"GPU {index}: {count} uncorrected ECC errors"
