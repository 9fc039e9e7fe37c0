"""The Job that fetches and checks model and data, on a CPU, before any GPU is held."""

from dporun_api.pod import PROGRAM, Command, ExitCode, SecretPrefix, arguments
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.objects import pod
from dporun_operator.objects.job import fail_on, job, on_disruption
from dporun_operator.run import Manifest, Run
from dporun_operator.settings import Settings


def prepare_job(run: Run, settings: Settings, attempt: int) -> Manifest:
    """Build the Job of one try, counted from 1.

    A pod that Kubernetes itself ends is replaced by the Job; the operator repeats what else may pass, so that the
    number of repetitions and their errors are in the run's status.
    """
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
        attempt=attempt,
    )
    rules = [on_disruption("Ignore"), fail_on((ExitCode.CONFIG_INVALID, ExitCode.DATA_INVALID))]
    return job(
        run,
        names.prepare_job(run.name, attempt),
        Component.PREPARE,
        {"backoffLimit": 0, "podFailurePolicy": {"rules": rules}, "template": template},
        attempt=attempt,
    )
