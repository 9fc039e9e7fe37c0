"""A plan in the words of the libraries: arguments of TRL's DPOConfig, and DeepSpeed's configuration. Plain values."""

from typing import Any

from dporun_api.run_config import RunConfig
from dporun_trainer.training.plan import TrainingPlan

_BUCKET = 50_000_000
"""Elements of DeepSpeed's buckets: its default reserves a gigabyte for adapters of some megabytes."""


def deepspeed_config(config: RunConfig, plan: TrainingPlan) -> dict[str, Any]:
    """Build DeepSpeed's configuration; "auto" takes the value of the same meaning from the trainer's arguments."""
    deepspeed = config.topology.deepspeed
    zero: dict[str, Any] = {
        "stage": deepspeed.zero_stage,
        "contiguous_gradients": True,
        "overlap_comm": True,
        "reduce_scatter": True,
        "reduce_bucket_size": _BUCKET,
        "allgather_bucket_size": _BUCKET,
    }
    if deepspeed.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    # Else DeepSpeed adds the gradients of a step's micro-batches up in the model's arithmetic: in bf16, a sum of 64 of
    # them is off by another percent. Stage 1 would change to an optimizer that checkpoints differently.
    exact = {"data_types": {"grad_accum_dtype": "fp32"}} if deepspeed.zero_stage == 2 else {}
    return {
        **exact,
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": plan.precision == "bf16"},
        "fp16": {"enabled": plan.precision == "fp16"},
        "zero_optimization": zero,
        # DeepSpeed's own CPU Adam is compiled at run time; torch's needs no compiler.
        "zero_force_ds_cpu_optimizer": False,
    }


def trainer_arguments(config: RunConfig, plan: TrainingPlan, *, output_dir: str, cuda: bool) -> dict[str, Any]:
    """Build the arguments of TRL's DPOConfig.

    Saving, validating and reporting are scheduled by our own callbacks, so the trainer's own are off.
    """
    dpo, training = config.dpo, config.training
    return {
        "output_dir": output_dir,
        "num_train_epochs": training.epochs,
        "per_device_train_batch_size": training.per_device_batch_size,
        "per_device_eval_batch_size": training.per_device_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler.value,
        "warmup_steps": training.warmup_ratio,  # below 1 it is a share of all steps
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "bf16": plan.precision == "bf16",
        "fp16": plan.precision == "fp16",
        "activation_checkpointing": plan.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if plan.gradient_checkpointing else None,
        "deepspeed": deepspeed_config(config, plan),
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "logging_steps": plan.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "loss_type": list(plan.loss_type),
        "loss_weights": list(plan.loss_weights),
        "beta": dpo.beta,
        "label_smoothing": dpo.label_smoothing,
        "max_length": dpo.max_length,
        "precompute_ref_log_probs": plan.precompute_ref_log_probs,
        # Without it, TRL takes the coefficient of the model's configuration, and the loss is not the objective's.
        "router_aux_loss_coef": dpo.router_aux_loss_coef,
        "disable_dropout": False,
    }
