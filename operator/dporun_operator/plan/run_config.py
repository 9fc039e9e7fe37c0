"""The ConfigMap that carries the RunConfig of a run to its pods."""

from dporun_api.pod import CONFIG_PATH
from dporun_api.translate import translate
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.plan import pods
from dporun_operator.plan.run import Manifest, Run
from dporun_operator.settings import Settings


def config_maps(run: Run, settings: Settings, *, source_uri: str | None = None) -> list[Manifest]:
    """ConfigMap with run.json; without an owner, as the archive Job of a deleted run needs it.

    Empty where the run starts from another one that is not there (any more): what was applied when it was stays.
    """
    source = run.spec.checkpoints.resume_from
    if source and source.run and source_uri is None:
        return []
    document = translate(
        run.spec, run=run.identity, image=settings.trainer_image, manifest=run.manifest, source=source_uri
    )
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": pods.metadata(run, names.config_map(run.name), Component.CONFIG, owned=False),
            "data": {CONFIG_PATH.name: document.to_json(indent=2) + "\n"},
        }
    ]
