"""The operator's own metrics."""

from prometheus_client import generate_latest

from dporun_operator.metrics import Metrics


def test_metrics_are_in_the_format_of_prometheus() -> None:
    metrics = Metrics(
        lambda: {"Training": 2, "Failed": 1},
        lambda: {("GET", "pods"): 7},
        lambda: {("PATCH", "leases"): 3},
        lambda: True,
        lambda: 2,
    )
    metrics.count_reconciliation(0.25, failed=False)
    metrics.count_reconciliation(0.5, failed=True)
    lines = generate_latest(metrics.registry).decode().splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(samples['dporun_operator_runs{phase="Training"}']) == 2
    assert float(samples['dporun_operator_reconciliations_total{result="error"}']) == 1
    assert float(samples["dporun_operator_reconcile_seconds_sum"]) == 0.75
    assert float(samples["dporun_operator_reconcile_seconds_count"]) == 2
    assert float(samples['dporun_operator_reconcile_seconds_bucket{le="0.25"}']) == 1
    assert float(samples["dporun_operator_status_writes_total"]) == 0
    assert float(samples['dporun_operator_api_requests_total{method="GET",resource="pods"}']) == 7
    assert float(samples['dporun_operator_lease_requests_total{method="PATCH",resource="leases"}']) == 3
    assert float(samples["dporun_operator_lease_held"]) == 1
    assert float(samples["dporun_orphaned_claims"]) == 2
    assert float(samples["process_resident_memory_bytes"]) > 0
    named = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    values = {name.partition("{")[0] for name in samples}
    assert {value.removesuffix("_sum").removesuffix("_count").removesuffix("_bucket") for value in values} == named


def test_results_are_zero_before_the_first() -> None:
    text = generate_latest(Metrics(dict, dict).registry).decode()
    assert 'dporun_operator_reconciliations_total{result="error"} 0.0' in text


def test_two_operators_count_apart() -> None:
    one, other = Metrics(dict, dict), Metrics(dict, dict)
    one.count_status_write()
    name = "dporun_operator_status_writes_total"
    assert (one.registry.get_sample_value(name), other.registry.get_sample_value(name)) == (1, 0)
