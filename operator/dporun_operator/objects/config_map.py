"""The ConfigMap that carries the RunConfig of a run to its pods."""

from dporun_api.pod import CONFIG_PATH
from dporun_api.translate import translate
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.objects.metadata import metadata
from dporun_operator.run import Manifest, Run
from dporun_operator.settings import Settings


def config_map(run: Run, settings: Settings, *, source: str | None = None) -> Manifest:
    """ConfigMap with run.json; without an owner, as the archive Job of a deleted run needs it.

    Args:
        run: the run.
        settings: names the image where the run does not.
        source: archive of the run that ``checkpoints.resumeFrom.run`` names.

    """
    config = translate(run.spec, run=run.identity, image=settings.trainer_image, manifest=run.manifest, source=source)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(run, names.config_map(run.name), Component.CONFIG, owned=False),
        "data": {CONFIG_PATH.name: config.to_json(indent=2) + "\n"},
    }
