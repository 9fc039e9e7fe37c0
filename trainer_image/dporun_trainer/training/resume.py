"""Which checkpoint an attempt goes on from, and whether going on from it continues the same run exactly."""

from collections.abc import Mapping

from dporun_api.run_config import ResumePolicy, RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.checkpoints import Checkpoint, differences
from dporun_trainer.run_folder.prepared import Prepared
from dporun_trainer.training.plan import TrainingPlan

_PROCESSES = ("worldSize", "gradient_accumulation_steps")
_NO_EFFECT_ON_WEIGHTS = {"logging_steps", "early_stopping_patience", "stop_on_unstable"}


def run_identity(config: RunConfig, prepared: Prepared, plan: TrainingPlan) -> dict[str, object]:
    """List what a checkpoint and an attempt must have in common for the attempt to go on exactly."""
    # The precision that "auto" means depends on the machine, so the decided one counts.
    training = config.training.model_dump(mode="json", exclude=_NO_EFFECT_ON_WEIGHTS | {"precision"})
    dpo = config.dpo.model_dump(mode="json", exclude={"precompute_ref_log_probs"})
    if not config.dpo.router_aux_loss_coef:  # checkpoints from before there was the field do not name it
        del dpo["router_aux_loss_coef"]
    return {
        "model": config.model.uri,
        "revision": prepared.model_revision,
        **({"quantization": config.model.quantization} if config.model.quantization else {}),
        "dataset": prepared.dataset.fingerprint,
        **dpo,
        **{f"lora.{name}": value for name, value in config.lora.model_dump(mode="json").items()},
        "lora.dropout": config.lora.effective_dropout(takes_dropout=prepared.model.takes_dropout),
        **training,
        "precision": plan.precision,
        "worldSize": config.topology.world_size,
        "zeroStage": config.topology.deepspeed.zero_stage,
        "offloadOptimizer": config.topology.deepspeed.offload_optimizer,
    }


def checkpoint_to_resume(config: RunConfig, folder: RunFolder, identity: dict[str, object]) -> Checkpoint | None:
    """Find the checkpoint that this attempt goes on from.

    Raises:
        RunError: there is one, but going on from it would not continue the same run.

    """
    if config.checkpoints.resume is ResumePolicy.NEVER:
        return None
    newest = folder.checkpoints.newest()
    if newest is None:
        return None
    saved, wanted = newest.marker.identity, identity
    if not is_exact(newest, identity) and _accumulated(saved) == _accumulated(wanted):
        saved, wanted = ({**one, **dict.fromkeys(_PROCESSES)} for one in (saved, wanted))
    differing = differences(saved, wanted)
    if differing:
        raise RunError(
            Reason.INVALID_SPEC,
            f"{newest.path.name} was saved by a different run, so it cannot be continued: {'; '.join(differing)}",
            hint="Set these back (with other processes, gradientAccumulationSteps so that the effective batch is as it "
            "was), give the run a new name, or start it again with checkpoints.resume: never.",
        )
    return newest


def is_exact(checkpoint: Checkpoint, identity: Mapping[str, object]) -> bool:
    """Whether an attempt goes on exactly: it has as many processes as the one that saved the checkpoint.

    DeepSpeed cannot split a saved optimizer state among other processes. With others and the same effective batch, an
    attempt goes on from the weights: every step has the rows that it would have had, Adam's moments begin at zero.
    """
    return checkpoint.marker.identity.get("worldSize") == identity["worldSize"]


def _accumulated(identity: Mapping[str, object]) -> object:
    """Forward passes of one optimizer step, over all processes."""
    processes, passes = (identity.get(name) for name in _PROCESSES)
    return processes * passes if isinstance(processes, int) and isinstance(passes, int) else None
