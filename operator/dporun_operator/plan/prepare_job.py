"""The Job that fetches and checks model and data, on a CPU, before any GPU is held."""

from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.plan import pods
from dporun_operator.plan.run import Manifest, Run
from dporun_operator.settings import Settings
from dporun_trainer.contract.results import ExitCode

RETRIES = 3
"""Of the Job controller, for what may pass (a hub that does not answer); bad input is final."""


def prepare_job(run: Run, settings: Settings) -> Manifest:
    """Build the Job."""
    mounts, volumes = pods.claim_mounts(pods.input_claims(run))
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
                command=["dporun-trainer", "prepare"],
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


def input_secrets(run: Run) -> list[str]:
    """Secrets that fetching needs; the adapter of another run comes from an archive, so with that one's key."""
    spec = run.spec
    references = [spec.model.secret_ref, spec.dataset.secret_ref]
    if spec.checkpoints.resume_from and spec.archive:
        references.append(spec.archive.secret_ref)
    return [reference.name for reference in references if reference]


def clashing_secrets(run: Run) -> str | None:
    """Say which two Secrets would set the same variables in the pod; None where there are no such two."""
    spec = run.spec
    references = [
        ("spec.model.secretRef", spec.model.uri, spec.model.secret_ref),
        ("spec.dataset.secretRef", spec.dataset.train, spec.dataset.secret_ref),
    ]
    if spec.checkpoints.resume_from and spec.archive:
        references.append(("spec.archive.secretRef", spec.archive.uri, spec.archive.secret_ref))
    seen: dict[str, tuple[str, str]] = {}
    for field, address, reference in references:
        if reference is None:
            continue
        scheme = address.split("://", 1)[0]
        other = seen.setdefault(scheme, (field, reference.name))
        if other[1] != reference.name:
            return (
                f"{other[0]} ({other[1]}) and {field} ({reference.name}) are two Secrets for {scheme}:// addresses, "
                "which one pod cannot tell apart; name one Secret that may read both"
            )
    return None
