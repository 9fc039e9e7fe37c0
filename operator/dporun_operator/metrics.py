"""Metrics of the operator itself, for Prometheus, in a registry of their own."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Requests = Mapping[tuple[str, str], int]
"""How many, by method and resource."""

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""A look without a request takes milliseconds, a request at most 30 s."""


class Metrics:
    """Counts what the operator does.

    Args:
        runs_by_phase: number of runs by phase, asked at each scrape as the others.
        api_requests: requests about runs sent to the API server so far.
        lease_requests: those about the lease.
        lease_held: whether this operator holds it.
        orphaned_claims: claims of results whose run does not exist any more.

    """

    def __init__(
        self,
        runs_by_phase: Callable[[], Mapping[str, int]],
        api_requests: Callable[[], Requests],
        lease_requests: Callable[[], Requests] = dict,
        lease_held: Callable[[], bool] = bool,
        orphaned_claims: Callable[[], int] = int,
    ):
        self.registry = CollectorRegistry()
        asked = _AskedAtScrape(runs_by_phase, api_requests, lease_requests, lease_held, orphaned_claims)
        self.registry.register(asked)
        ProcessCollector(registry=self.registry)
        self._reconciliations = Counter(
            "dporun_operator_reconciliations", "Reconciliations by result.", ["result"], registry=self.registry
        )
        for result in ("ok", "error"):
            self._reconciliations.labels(result)  # so that both are 0 before the first
        self._seconds = Histogram(
            "dporun_operator_reconcile_seconds",
            "Time per reconciliation.",
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._status_writes = Counter("dporun_operator_status_writes", "Statuses written.", registry=self.registry)

    def count_reconciliation(self, seconds: float, *, failed: bool) -> None:
        """Count one reconciliation and the time that it took."""
        self._reconciliations.labels("error" if failed else "ok").inc()
        self._seconds.observe(seconds)

    def count_status_write(self) -> None:
        """Count one status that was written."""
        self._status_writes.inc()


class _AskedAtScrape(Collector):
    """What other objects count already."""

    def __init__(
        self,
        runs_by_phase: Callable[[], Mapping[str, int]],
        api_requests: Callable[[], Requests],
        lease_requests: Callable[[], Requests],
        lease_held: Callable[[], bool],
        orphaned_claims: Callable[[], int],
    ):
        self._runs_by_phase = runs_by_phase
        self._api_requests = api_requests
        self._lease_requests = lease_requests
        self._lease_held = lease_held
        self._orphaned_claims = orphaned_claims

    def collect(self) -> Iterable[Metric]:
        runs = GaugeMetricFamily("dporun_operator_runs", "DPORuns by phase.", labels=["phase"])
        for phase, count in sorted(self._runs_by_phase().items()):
            runs.add_metric([phase], count)
        yield runs
        for name, what, asked in (
            ("api", "Requests to the API server, without those about the lease.", self._api_requests),
            ("lease", "Requests about the lease.", self._lease_requests),
        ):
            requests = CounterMetricFamily(f"dporun_operator_{name}_requests", what, labels=["method", "resource"])
            for labels, count in sorted(asked().items()):
                requests.add_metric(labels, count)
            yield requests
        yield GaugeMetricFamily(
            "dporun_operator_lease_held", "1 while this operator acts, 0 while it stands by.", value=self._lease_held()
        )
        yield GaugeMetricFamily(
            "dporun_orphaned_claims",
            "Claims that the operator's finalizer keeps although their run does not exist any more.",
            value=self._orphaned_claims(),
        )
