"""Downloads from a Hub, over HTTP."""

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import hub_server
from dporun_testing.hub_server import Repository
from dporun_trainer.errors import RunError
from dporun_trainer.inputs import hub as hub_module
from dporun_trainer.inputs.hub import Listing, download, list_files
from dporun_trainer.stores.sources import MODEL, HubSource
from dporun_trainer.stores.transfer import Meter


@pytest.fixture
def repository(hub: hub_server.Hub, tmp_path: Path) -> Repository:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool_use.jinja").write_text("{{ tools }}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4096)
    hub.models["owner/name"] = Repository(folder)
    return hub.models["owner/name"]


def fetch(folder: Path, token: str | None = None) -> Listing:
    credentials = dataclasses.replace(
        MODEL, environment={**MODEL.environment, **({"HF_TOKEN": token} if token else {})}
    )
    listing = list_files(HubSource("owner/name"), "model", credentials)
    meter = Meter("fetched", len(listing.files), sum(file.length for file in listing.files))
    download(listing, [file.name for file in listing.files], folder, credentials, meter)
    return listing


def test_commit_is_resolved_and_files_are_whole(repository: Repository, tmp_path: Path) -> None:
    listing = fetch(tmp_path / "model")
    assert listing.commit == repository.commit
    for name, path in repository.files().items():
        assert (tmp_path / "model" / name).read_bytes() == path.read_bytes()


def test_what_is_there_is_not_fetched_again(hub: hub_server.Hub, repository: Repository, tmp_path: Path) -> None:
    fetch(tmp_path / "model")
    (tmp_path / "model" / "config.json").unlink()
    fetch(tmp_path / "model")
    assert hub.downloads("model.safetensors") == 1
    (repository.folder / "model.safetensors").write_bytes(b"new")
    fetch(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == b"new"


def test_broken_connection_goes_on_where_it_broke(hub: hub_server.Hub, repository: Repository, tmp_path: Path) -> None:
    chunk = 10 * 2**20  # of huggingface_hub: what it has of an unfinished one is lost
    whole = bytes(range(256)) * 4096 * 24
    (repository.folder / "model.safetensors").write_bytes(whole)
    hub.cut["model.safetensors"] = chunk + 5
    fetch(tmp_path / "model")
    assert hub.ranges == [f"bytes={chunk}-"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == whole


def test_bytes_of_a_xet_download_count_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def from_the_xet_store(*_: object, tqdm_class: type, **__: object) -> None:
        """As huggingface_hub tells how a download from its Xet store goes on: received first, then written."""
        with XetDownloadProgressReporter(
            reconstruction_desc="", total=10, log_level=logging.INFO, tqdm_class=tqdm_class
        ) as reporter:
            for received, written in ((10, 0), (10, 4), (10, 10)):
                report = SimpleNamespace(
                    total_bytes=10,
                    total_bytes_completed=written,
                    total_transfer_bytes_completed=received,
                    total_bytes_completion_rate=1.0,
                    total_transfer_bytes_completion_rate=1.0,
                )
                reporter.update_progress(report)

    monkeypatch.setattr(hub_module, "hf_hub_download", from_the_xet_store)
    meter = Meter("fetched", 1, 10)
    download(Listing("owner/name", "model", "c0ffee", ()), ["model.safetensors"], tmp_path, MODEL, meter)
    assert meter._done_bytes == 10


def test_token_of_the_secret_opens_a_private_repository(repository: Repository, tmp_path: Path) -> None:
    repository.token = "hf_secret"
    with pytest.raises(RunError, match="has no such model, or shows it to others only") as raised:
        fetch(tmp_path / "model")
    assert "HF_TOKEN" in str(raised.value.hint)
    assert "spec.model.secretRef" in str(raised.value.hint)
    with pytest.raises(RunError) as raised:
        fetch(tmp_path / "model", token="hf_wrong")
    assert "Check HF_TOKEN in the Secret of spec.model.secretRef" in str(raised.value.hint)
    assert fetch(tmp_path / "model", token="hf_secret").files


def test_gated_repository(repository: Repository, tmp_path: Path) -> None:
    repository.gated = True
    with pytest.raises(RunError, match="is gated") as raised:
        fetch(tmp_path / "model")
    assert raised.value.reason is Reason.MODEL_INVALID


@pytest.mark.parametrize(("repo", "revision"), [("owner/other", None), ("owner/name", "v9"), ("owner/na me", None)])
@pytest.mark.usefixtures("repository")
def test_what_does_not_exist(repo: str, revision: str | None) -> None:
    with pytest.raises(RunError, match="no such") as raised:
        list_files(HubSource(repo, revision=revision), "model", MODEL)
    assert raised.value.reason is Reason.MODEL_INVALID


def test_trouble_of_the_hub_may_pass(hub: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fail_with = 500
    with pytest.raises(RunError, match="answered HTTP 500") as raised:
        list_files(HubSource("owner/name"), "model", MODEL)
    assert raised.value.reason is Reason.TRAINER_ERROR, "the Job tries again"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RunError, match="cannot be reached") as raised:
        list_files(HubSource("owner/name"), "model", MODEL)
    assert raised.value.reason is Reason.TRAINER_ERROR
