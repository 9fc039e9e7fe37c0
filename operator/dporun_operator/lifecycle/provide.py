"""What the pods of a run need before they start: the volume, the configuration, for several nodes a Service."""

from dporun_operator.lifecycle import volume
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.step import Step
from dporun_operator.objects.config_map import config_map
from dporun_operator.objects.results_claim import results_claim
from dporun_operator.objects.train_service import train_service


def provide(draft: Draft) -> Step:
    """Apply all of them, at every reconciliation: what somebody deleted comes back."""
    provide_results_and_config(draft)
    if draft.run.spec.distributed.nodes > 1:
        draft.apply(train_service(draft.run))
    return Step.DONE


def provide_results_and_config(draft: Draft) -> None:
    """Apply the volume and the configuration, which the archive Job of a deleted run needs, too.

    A claim that no longer exists once training may have begun is made again only for a run that is to be prepared
    anew: an empty volume would pass for the results. Where the run starts from another one that no longer exists, the
    ConfigMap of the time when it did stays.
    """
    run, source_uri = draft.run, draft.observed.source_uri
    if run.spec.storage.claim_name is None and volume.is_to_be_made(draft):
        draft.apply(results_claim(run, draft.status.attempt))
    source = run.spec.checkpoints.resume_from
    if not (source and source.run) or source_uri is not None:
        draft.apply(config_map(run, draft.settings, source=source_uri))
