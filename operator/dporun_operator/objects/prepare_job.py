"""The Job that fetches and checks model and data, on a CPU, before any GPU is held."""

from dporun_api.pod import PROGRAM, Command, ExitCode, SecretPrefix, arguments
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.objects import pod
from dporun_operator.objects.job import fail_on, job, on_disruption
from dporun_operator.run import Manifest, Run
from dporun_operator.settings import Settings

RETRIES = 3
"""Of the Job controller, for what may pass (a hub that does not answer); bad input is final."""


def prepare_job(run: Run, settings: Settings) -> Manifest:
    """Build the Job; Kubernetes itself repeats it."""
    spec = run.spec
    adapter_secret = spec.archive.secret_ref if spec.checkpoints.resume_from and spec.archive else None
    container = pod.container(
        run,
        settings,
        {
            "name": names.MAIN_CONTAINER,
            "command": [PROGRAM, *arguments(Command.PREPARE)],
            "resources": settings.prepare_resources,
        },
        secrets={
            SecretPrefix.MODEL: spec.model.secret_ref,
            SecretPrefix.DATASET: spec.dataset.secret_ref,
            SecretPrefix.ARCHIVE: adapter_secret,  # the adapter of another run comes from an archive
        },
        mounts=[pod.config_mount(), *pod.claim_mounts(run)],
    )
    template = pod.template(
        run,
        settings,
        Component.PREPARE,
        {
            "containers": [container],
            "restartPolicy": "Never",
            "volumes": [pod.config_volume(run), *pod.claim_volumes(run)],
        },
        attempt=1,
    )
    rules = [on_disruption("Ignore"), fail_on((ExitCode.CONFIG_INVALID, ExitCode.DATA_INVALID))]
    return job(
        run,
        names.prepare_job(run.name),
        Component.PREPARE,
        {"backoffLimit": RETRIES, "podFailurePolicy": {"rules": rules}, "template": template},
    )
