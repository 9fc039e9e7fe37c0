from dporun_testing.training import a_config
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.diagnosis.untrained import LN2, untrained
from dporun_trainer.run_folder.curves import Curves

TRAINED = [{"step": step, "loss": 0.71 - step / 100} for step in range(1, 6)]


def test_a_routers_loss_is_not_known_before_training() -> None:
    """It is part of the training loss; a validation at step 0 is of preferences alone, and tells."""
    of_preferences, with_router = (
        RunValues.of(a_config(dpo={"router_aux_loss_coef": coefficient})) for coefficient in (0.0, 0.01)
    )
    assert untrained(Curves.of(TRAINED), of_preferences).loss == LN2
    guessed = untrained(Curves.of(TRAINED), with_router)
    assert (guessed.loss, guessed.certain) == (0.70, False)
    told = untrained(Curves.of([{"step": 0, "eval_loss": LN2}, *TRAINED]), with_router)
    assert (told.loss, told.certain) == (LN2, True)


def test_a_run_that_starts_from_an_adapter_starts_lower() -> None:
    """Its objective alone would tell what the base's loss is: a run that undoes what was learnt would look better."""
    history = [{"step": 0, "eval_loss": 0.4}, *TRAINED]
    found = untrained(Curves.of(history), RunValues.of(a_config()))
    assert (found.loss, found.certain) == (0.4, True)
