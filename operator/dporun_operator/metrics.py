"""Metrics of the operator itself, in the text format of Prometheus."""

from collections import Counter
from collections.abc import Iterable, Mapping


class Metrics:
    """Counts what the operator does."""

    def __init__(self) -> None:
        self.reconciliations: Counter[str] = Counter()
        """By result: ok or error."""
        self.seconds = 0.0
        """Time spent reconciling, in all."""
        self.status_writes = 0

    def observe(self, seconds: float, *, failed: bool) -> None:
        """Count one reconciliation."""
        self.reconciliations["error" if failed else "ok"] += 1
        self.seconds += seconds

    def render(self, phases: Mapping[str, int], *, requests: int) -> str:
        """Write all metrics.

        Args:
            phases: number of runs by phase.
            requests: requests sent to the API server so far.

        """
        count = sum(self.reconciliations.values())
        results = [(f'{{result="{result}"}}', self.reconciliations[result]) for result in ("ok", "error")]
        runs = [(f'{{phase="{phase}"}}', number) for phase, number in sorted(phases.items())]
        return "".join(
            (
                _metric("dporun_operator_runs", "gauge", "DPORuns by phase.", runs),
                _metric("dporun_operator_reconciliations_total", "counter", "Reconciliations by result.", results),
                "# HELP dporun_operator_reconcile_seconds Time per reconciliation.\n"
                "# TYPE dporun_operator_reconcile_seconds summary\n"
                f"dporun_operator_reconcile_seconds_sum {self.seconds:.6f}\n"
                f"dporun_operator_reconcile_seconds_count {count}\n",
                _metric(
                    "dporun_operator_status_writes_total", "counter", "Statuses written.", [("", self.status_writes)]
                ),
                _metric(
                    "dporun_operator_api_requests_total", "counter", "Requests to the API server.", [("", requests)]
                ),
            )
        )


def _metric(name: str, kind: str, text: str, values: Iterable[tuple[str, float]]) -> str:
    lines = [f"{name}{labels} {value}\n" for labels, value in values]
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n" + "".join(lines)
