"""Objects that a run can do without."""

from datetime import timedelta
from typing import Any

import pytest

from dporun_operator.errors import ApiError, NameTakenError
from dporun_operator.optional_objects import OptionalObjects
from dporun_operator.run import Manifest, Run
from dporun_testing.builders import NOW, UID, a_run

RUN = a_run()
SERVICE = {"kind": "Service", "metadata": {"name": "demo-tensorboard"}}
DEPLOYMENT = {"kind": "Deployment", "metadata": {"name": "demo-tensorboard"}}
QUOTA = ApiError(403, "Forbidden", "exceeded quota")


class Server:
    """Answers requests to apply an object, by kind."""

    def __init__(self, **answers: Exception):
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, _run: Run, manifest: Manifest) -> None:
        self.asked.append(manifest["kind"])
        if manifest["kind"] in self.answers:
            raise self.answers[manifest["kind"]]


@pytest.mark.parametrize("error", [QUOTA, NameTakenError("Service demo-tensorboard exists already")])
async def test_one_that_is_refused_does_not_hold_up_the_next(error: Any) -> None:
    server = Server(Service=error)
    optional = OptionalObjects(server)
    assert await optional.apply(RUN, [SERVICE, DEPLOYMENT], NOW)
    assert server.asked == ["Service", "Deployment"]
    assert optional.refused(UID) == {"Service/demo-tensorboard": error.refusal}


async def test_it_is_tried_once_a_minute_until_it_is_allowed() -> None:
    server = Server(Service=QUOTA)
    optional = OptionalObjects(server)
    news = [await optional.apply(RUN, [SERVICE], NOW + timedelta(seconds=5 * n)) for n in range(12)]
    assert news == [True] + 11 * [False]
    assert len(server.asked) == 1
    server.answers.clear()
    assert await optional.apply(RUN, [SERVICE], NOW + timedelta(seconds=61))
    assert optional.refused(UID) == {}


async def test_what_may_pass_by_itself_is_no_refusal() -> None:
    optional = OptionalObjects(Server(Service=ApiError(503, "ServiceUnavailable", "try later")))
    with pytest.raises(ApiError):
        await optional.apply(RUN, [SERVICE], NOW)
    assert optional.refused(UID) == {}
