import pytest

from dporun_api.pod import PRETENDED_GPUS_VARIABLE
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError


def test_a_pod_with_gpus_never_trains_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from dporun_trainer.device import this_machine

    monkeypatch.delenv(PRETENDED_GPUS_VARIABLE, raising=False)
    with pytest.raises(RunError, match="the pod was given 2 GPUs, but torch finds none: ") as raised:
        this_machine(2, gpus=2)
    assert raised.value.reason is Reason.INVALID_SPEC
    assert not raised.value.reason.traits.retried
    assert raised.value.hint

    assert not this_machine(2, gpus=0).cuda
    monkeypatch.setenv(PRETENDED_GPUS_VARIABLE, "true")
    assert not this_machine(2, gpus=2).cuda
