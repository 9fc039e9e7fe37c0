"""The RunConfig of a run, and the ConfigMap that carries it to the pods."""

from typing import TypeVar

from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.plan import pods
from dporun_operator.plan.run import Manifest, Run
from dporun_operator.settings import Settings
from dporun_trainer.contract import config, layout
from dporun_trainer.contract.base import Document

D = TypeVar("D", bound=Document)

_CLUSTER_ONLY = {"secret_ref", "service_account_name"}
"""Fields of the API that only the operator needs."""


def run_config(run: Run, settings: Settings, *, source_uri: str | None = None) -> config.RunConfig:
    """Translate the spec for the trainer.

    Args:
        run: the run.
        settings: names the default image.
        source_uri: archive of the run that ``checkpoints.resumeFrom.run`` names.

    """
    spec = run.spec
    source = spec.checkpoints.resume_from
    return config.RunConfig(
        run=run.identity,
        model=_narrow(config.Model, spec.model),
        dataset=_narrow(config.Dataset, spec.dataset),
        dpo=_narrow(config.Dpo, spec.dpo),
        lora=spec.lora,
        training=spec.training,
        topology=config.Topology(
            nodes=spec.distributed.nodes,
            processes_per_node=run.processes_per_node,
            deepspeed=spec.distributed.deepspeed,
        ),
        checkpoints=config.CheckpointConfig(
            resume=spec.checkpoints.resume,
            every_steps=spec.checkpoints.every_steps,
            resume_from=source_uri or source.uri if source else None,
        ),
        evaluation=_narrow(config.Evaluation, spec.evaluation),
        archive=None if spec.archive is None else _narrow(config.ArchiveTarget, spec.archive),
        grace_period_seconds=spec.run_policy.grace_period_seconds,
        image=spec.image or settings.trainer_image,
        manifest=run.manifest,
    )


def config_maps(run: Run, settings: Settings, *, source_uri: str | None = None) -> list[Manifest]:
    """ConfigMap with run.json; without an owner, as the archive Job of a deleted run needs it.

    Empty where the run starts from another one that is not there (any more): what was applied when it was stays.
    """
    source = run.spec.checkpoints.resume_from
    if source and source.run and source_uri is None:
        return []
    document = run_config(run, settings, source_uri=source_uri)
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": pods.metadata(run, names.config_map(run.name), Component.CONFIG, owned=False),
            "data": {layout.CONFIG_PATH.name: document.to_json(indent=2) + "\n"},
        }
    ]


def _narrow(kind: type[D], section: Document) -> D:
    return kind.model_validate(section.model_dump(exclude=_CLUSTER_ONLY))
