"""The Job that prunes intermediate checkpoints and uploads the results."""

from dporun_api.pod import PROGRAM, Command, SecretPrefix, arguments
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.objects import pod
from dporun_operator.objects.job import job
from dporun_operator.run import Manifest, Run
from dporun_operator.settings import Settings


def archive_job(
    run: Run,
    settings: Settings,
    attempt: int,
    *,
    prune_only: bool = False,
    manifest_sha256: str | None = None,
    with_volume: bool = True,
) -> Manifest:
    """Build the Job of one attempt to archive, counted from 1.

    It has no owner: a foreground deletion of the run would delete it while the run waits for it. The operator makes
    further attempts itself, so that their number and their errors are in the run's status.

    Args:
        run: the run.
        settings: name the image and the resources.
        attempt: number of the Job.
        prune_only: delete intermediate checkpoints, upload nothing.
        manifest_sha256: of the manifest of an archive that is to be verified.
        with_volume: whether the Job gets the run's results; an archive can be verified without them.

    """
    archive = None if prune_only else run.spec.archive
    container = pod.container(
        run,
        settings,
        {
            "name": names.MAIN_CONTAINER,
            "command": [
                PROGRAM,
                *arguments(Command.ARCHIVE, prune_only=prune_only, manifest_sha256=manifest_sha256),
            ],
            "resources": settings.archive_resources,
        },
        secrets={SecretPrefix.ARCHIVE: archive.secret_ref if archive else None},
        mounts=[pod.config_mount()],
    )
    template = pod.template(
        run,
        settings,
        Component.ARCHIVE,
        {
            "containers": [container],
            "restartPolicy": "Never",
            "serviceAccountName": archive.service_account_name if archive else None,
            "volumes": [pod.config_volume(run)],
        },
        attempt=attempt,
        with_results=with_volume,
    )
    name = names.archive_job(run.name, attempt)
    return job(run, name, Component.ARCHIVE, {"backoffLimit": 0, "template": template}, attempt=attempt, owned=False)
