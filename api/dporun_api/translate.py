"""From what the user asks for to what the trainer is given: DPORunSpec → RunConfig."""

from typing import Any, TypeVar

from dporun_api import run_config
from dporun_api.document import Document
from dporun_api.v1alpha1.formats import amount
from dporun_api.v1alpha1.spec import DPORunSpec

D = TypeVar("D", bound=Document)

_CLUSTER_ONLY = {"secret_ref", "service_account_name", "retry_for_seconds"}
"""Fields of the API that only the operator needs."""


def translate(
    spec: DPORunSpec,
    *,
    run: run_config.Identity,
    image: str | None = None,
    manifest: dict[str, Any] | None = None,
    source: str | None = None,
) -> run_config.RunConfig:
    """Build the RunConfig of a run.

    Args:
        spec: what the user asks for.
        run: who the run is.
        image: that runs where ``spec.image`` names none, recorded for reproduction.
        manifest: the DPORun as the user wrote it, recorded likewise.
        source: where the results are of the run that ``checkpoints.resumeFrom.run`` names.

    """
    resume_from = spec.checkpoints.resume_from
    return run_config.RunConfig(
        run=run,
        model=_narrow(run_config.Model, spec.model),
        dataset=_narrow(run_config.Dataset, spec.dataset),
        dpo=_narrow(run_config.Dpo, spec.dpo),
        lora=spec.lora,
        training=spec.training,
        topology=run_config.Topology(
            nodes=spec.distributed.nodes,
            processes_per_node=spec.processes_per_node,
            gpus_per_node=spec.resources.gpus_per_node,
            gpu_memory=None if spec.resources.gpu_memory is None else int(amount(spec.resources.gpu_memory)),
            environment=spec.distributed.environment or {},
            deepspeed=spec.distributed.deepspeed,
        ),
        checkpoints=run_config.CheckpointConfig(
            resume=spec.checkpoints.resume,
            every_steps=spec.checkpoints.every_steps,
            upload=spec.uploads_checkpoints,
            resume_from=source or resume_from.uri if resume_from else None,
        ),
        evaluation=_narrow(run_config.Evaluation, spec.evaluation),
        archive=None if spec.archive is None else _narrow(run_config.ArchiveTarget, spec.archive),
        grace_period_seconds=spec.run_policy.grace_period_seconds,
        stall_seconds=spec.run_policy.stall_seconds,
        image=spec.image or image,
        manifest=manifest,
    )


def _narrow(kind: type[D], section: Document) -> D:
    return kind.model_validate(section.model_dump(exclude=_CLUSTER_ONLY))
