"""The Job that prunes intermediate checkpoints and uploads the results."""

from dporun_api.pod import PROGRAM, Command, SecretPrefix, arguments
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.plan import pods
from dporun_operator.plan.run import Manifest, Run
from dporun_operator.settings import Settings


def archive_job(run: Run, settings: Settings, attempt: int, *, prune_only: bool = False) -> Manifest:
    """Build the Job of one attempt to archive, counted from 1.

    It has no owner: a foreground deletion of the run would delete it while the run waits for it. The operator makes
    further attempts itself, so that their number and their errors are in the run's status.
    """
    archive = run.spec.archive
    secret = archive.secret_ref if archive and not prune_only else None
    account = archive.service_account_name if archive else None
    template = pods.template(
        run,
        settings,
        component=Component.ARCHIVE,
        attempt=attempt,
        containers=[
            pods.container(
                run,
                settings,
                name=names.MAIN_CONTAINER,
                command=[PROGRAM, *arguments(Command.ARCHIVE, prune_only=prune_only)],
                resources=settings.archive_resources,
                secrets={SecretPrefix.ARCHIVE: secret},
                mounts=[pods.config_mount()],
            )
        ],
        volumes=[pods.config_volume(run)],
        restartPolicy="Never",
        service_account=None if prune_only else account,
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": pods.metadata(
            run, names.archive_job(run.name, attempt), Component.ARCHIVE, attempt=attempt, owned=False
        ),
        "spec": {"backoffLimit": 0, "template": template},
    }
