"""What the run says for each refusal and silence of S3, by the way of a real server."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.s3_proxy import Proxy
from dporun_trainer.errors import RunError
from dporun_trainer.stores.s3 import S3Store
from dporun_trainer.stores.sources import ARCHIVE, DATASET

CASES = yaml.safe_load((Path(__file__).parent / "cases" / "errors.yaml").read_text())


def title(case: dict[str, Any]) -> str:
    return str(case["answer"][1] if "answer" in case else case.get("endpoint") or "html")


@pytest.mark.parametrize("case", CASES, ids=title)
def test_says_what_happened_where_and_what_to_do(proxy: Proxy, case: dict[str, Any]) -> None:
    fault = {key: case[key] for key in ("answer", "html") if key in case}
    proxy.break_with(*[fault] if fault else [])
    addresses = {"at": proxy.endpoint, "at_tls": proxy.endpoint.replace("http:", "https:")}
    endpoint = case["endpoint"].format(**addresses) if "endpoint" in case else None
    reasons = set()
    for credentials in (DATASET, ARCHIVE):
        with pytest.raises(RunError) as raised:
            list(S3Store("bucket", "some", credentials, endpoint=endpoint).files())
        said, hint = raised.value.message, str(raised.value.hint).replace(ARCHIVE.where, DATASET.where)
        assert case["says"].format(**addresses) in said
        assert case["hint"] in hint
        assert len(said) < 400, "it goes into a condition"
        reasons.add(raised.value.reason)
    assert reasons == {Reason.TRAINER_ERROR if case.get("passes") else Reason.DATASET_INVALID, Reason.ARCHIVE_FAILED}


def test_names_the_object(proxy: Proxy) -> None:
    proxy.break_with({"answer": [503, "SlowDown"]})
    with pytest.raises(RunError, match="cannot read s3://bucket/some/file: "):
        S3Store("bucket", "some", DATASET).read("file")
