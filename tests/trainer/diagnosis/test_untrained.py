from dporun_testing.training import a_config
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.diagnosis.untrained import LN2, untrained
from dporun_trainer.run_folder.curves import Curves

TRAINED = [{"step": step, "loss": 0.71 - step / 100} for step in range(1, 6)]


def test_a_routers_loss_is_no_part_of_what_is_logged() -> None:
    found = untrained(Curves.of(TRAINED), RunValues.of(a_config(dpo={"router_aux_loss_coef": 0.01})))
    assert (found.loss, found.certain) == (LN2, True)


def test_a_run_that_starts_from_an_adapter_starts_lower() -> None:
    """Its objective alone would tell what the base's loss is: a run that undoes what was learnt would look better."""
    history = [{"step": 0, "eval_loss": 0.4}, *TRAINED]
    found = untrained(Curves.of(history), RunValues.of(a_config()))
    assert (found.loss, found.certain) == (0.4, True)
