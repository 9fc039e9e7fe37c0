from dporun_api.results import HealthState
from dporun_testing.training import a_config
from dporun_trainer.diagnosis.health import diagnose, examine
from dporun_trainer.diagnosis.measurements import Measurements
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.diagnosis.untrained import LN2, untrained
from dporun_trainer.run_folder.curves import Curves

TRAINED = [{"step": step, "loss": 0.71 - step / 100} for step in range(1, 6)]


def test_a_routers_loss_is_no_part_of_what_is_logged() -> None:
    found = untrained(Curves.of(TRAINED), RunValues.of(a_config(dpo={"router_aux_loss_coef": 0.01})))
    assert (found.loss, found.certain) == (LN2, True)


def test_step_0_tells_where_the_objective_does_not() -> None:
    history = [{"step": 0, "eval_loss": 0.8}, *TRAINED]
    found = untrained(Curves.of(history), RunValues.of(a_config(dpo={"loss": ["sigmoid", "sft"]})))
    assert (found.loss, found.certain) == (0.8, True)


def test_a_run_that_starts_from_an_adapter_starts_lower() -> None:
    """Its objective alone would tell what the base's loss is: a run that undoes what was learnt would look better."""
    run = from_an_adapter(start=0.42, end=0.43, train=[0.36, 0.37])
    assert (run.untrained, run.start) == (LN2, 0.42)
    assert run.no_better(40)
    assert run.yardstick == "the untrained model's loss is 0.693, and this run began with 0.42 at step 0"
    health = examine(run.curves, run.settings)
    assert health.state is HealthState.OVERFITTING
    assert all(run.yardstick in sentence for sentence in health.evidence[:2])


def test_a_low_start_makes_no_ordinary_loss_a_spike() -> None:
    """Logs of two pairs jump as far as those of a run that starts from the base."""
    run = from_an_adapter(start=0.12, end=0.1, train=[0.02, 0.05, 0.03, 0.01, 0.9, 0.04, 0.02, 0.01, 0.06, 0.03])
    assert examine(run.curves, run.settings).state is HealthState.ON_TRACK


def test_a_loss_of_0_is_no_measure() -> None:
    health = diagnose([{"step": step, "loss": 0.0} for step in range(1, 30)])
    assert health.state is not HealthState.UNSTABLE
    assert "the untrained model's loss is about 0" not in " ".join(health.evidence)


def test_a_rounded_loss_at_step_0_is_that_of_the_base() -> None:
    run = from_an_adapter(start=0.6931, end=0.5, train=[0.5])
    assert run.start == run.untrained
    assert run.yardstick == "the untrained model's loss is 0.693"


def from_an_adapter(*, start: float, end: float, train: list[float]) -> Measurements:
    """Two epochs of 20 steps, validated before, between and after."""
    margins = {"eval_rewards/margins": 2.0, "eval_rewards/accuracies": 0.9}
    history: list[dict[str, float]] = [{"step": 0, "eval_loss": start, **margins}]
    for step in range(1, 41):
        history.append({"step": step, "loss": train[step % len(train)], "grad_norm": 1.0})
        if step % 20 == 0:
            history.append({"step": step, "eval_loss": end, **margins})
    return Measurements(Curves.of(history), RunValues.of(a_config(training={"epochs": 2})))
