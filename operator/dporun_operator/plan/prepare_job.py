"""The Job that fetches and checks model and data, on a CPU, before any GPU is held."""

from dporun_api.pod import PROGRAM, Command, ExitCode, SecretPrefix, arguments
from dporun_api.v1alpha1.spec import SecretReference
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.plan import pods
from dporun_operator.plan.run import Manifest, Run
from dporun_operator.settings import Settings

RETRIES = 3
"""Of the Job controller, for what may pass (a hub that does not answer); bad input is final."""


def prepare_job(run: Run, settings: Settings) -> Manifest:
    """Build the Job."""
    mounts, volumes = pods.claim_mounts(run)
    template = pods.template(
        run,
        settings,
        component=Component.PREPARE,
        attempt=1,
        containers=[
            pods.container(
                run,
                settings,
                name=names.MAIN_CONTAINER,
                command=[PROGRAM, *arguments(Command.PREPARE)],
                resources=settings.prepare_resources,
                secrets=input_secrets(run),
                mounts=[pods.config_mount(), *mounts],
            )
        ],
        volumes=[pods.config_volume(run), *volumes],
        restartPolicy="Never",
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": pods.metadata(run, names.prepare_job(run.name), Component.PREPARE, attempt=1),
        "spec": {
            "backoffLimit": RETRIES,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": names.MAIN_CONTAINER,
                            "operator": "In",
                            "values": [ExitCode.CONFIG_INVALID.value, ExitCode.DATA_INVALID.value],
                        },
                    },
                ]
            },
            "template": template,
        },
    }


def input_secrets(run: Run) -> dict[str, SecretReference | None]:
    """Secrets that fetching needs, by prefix; the adapter of another run comes from an archive, so with its key."""
    spec = run.spec
    return {
        SecretPrefix.MODEL: spec.model.secret_ref,
        SecretPrefix.DATASET: spec.dataset.secret_ref,
        SecretPrefix.ARCHIVE: spec.archive.secret_ref if spec.checkpoints.resume_from and spec.archive else None,
    }
