from pathlib import Path

import pytest
from transformers import GraniteMoeHybridConfig, LlamaConfig, MixtralConfig, PretrainedConfig, Qwen3MoeConfig

from dporun_api.run_config import Dpo
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.router import require_router

WITH_ROUTER_LOSS = Dpo(router_aux_loss_coef=0.01)


@pytest.mark.parametrize("config", [MixtralConfig(), Qwen3MoeConfig()], ids=lambda config: config.model_type)
def test_a_mixture_of_experts_may_balance_its_router(config: PretrainedConfig, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    require_router(tmp_path, WITH_ROUTER_LOSS)


@pytest.mark.parametrize("config", [LlamaConfig(), GraniteMoeHybridConfig()], ids=lambda config: config.model_type)
def test_a_router_loss_without_a_usable_router_is_refused(config: PretrainedConfig, tmp_path: Path) -> None:
    """Granite's router has logits, but TRL does not find the number of its experts."""
    config.save_pretrained(tmp_path)
    require_router(tmp_path, Dpo())
    with pytest.raises(RunError, match=f"routerAuxLossCoef is 0.01, but a {config.model_type} model") as raised:
        require_router(tmp_path, WITH_ROUTER_LOSS)
    assert raised.value.reason is Reason.INVALID_SPEC
