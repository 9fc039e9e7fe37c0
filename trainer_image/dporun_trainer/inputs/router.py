"""Whether the base model has a router whose load can be balanced, where the run asks for that."""

from pathlib import Path

from dporun_api.run_config import Dpo
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.structure import read_config

_OF_A_ROUTER = ("output_router_logits", "num_experts", "num_experts_per_tok")
"""What TRL 1.16 reads of a model's configuration to compute the loss (trl/trainer/utils.py, ``add_fused_lm_head``)."""


def require_router(folder: Path, dpo: Dpo) -> None:
    """Refuse ``dpo.routerAuxLossCoef`` for a model whose router's loss TRL cannot compute.

    Args:
        folder: of a model that transformers can load.
        dpo: the objective.

    Raises:
        RunError: the model is no mixture of experts, or one that does not give its router's logits.

    """
    if not dpo.router_aux_loss_coef:
        return
    config = read_config(folder).get_text_config()
    if not all(hasattr(config, name) for name in _OF_A_ROUTER):
        raise RunError(
            Reason.INVALID_SPEC,
            f"dpo.routerAuxLossCoef is {dpo.router_aux_loss_coef:g}, but a {config.model_type} model has no router "
            "whose loss can be computed",
            hint="Leave dpo.routerAuxLossCoef out: it balances the experts of a mixture of experts.",
        )
