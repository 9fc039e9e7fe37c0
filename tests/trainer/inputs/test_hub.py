"""Downloads from a Hub, over HTTP, and the files of a split of a data set."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import hub_server
from dporun_testing.hub_server import Repository
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.hub import Listing, data_files, download, list_files, read_card
from dporun_trainer.stores.sources import MODEL, HubSource
from dporun_trainer.stores.transfer import Meter, StoredFile

CASES = yaml.safe_load((Path(__file__).parent / "cases" / "splits.yaml").read_text())


def listing_of(names: list[str]) -> Listing:
    return Listing("owner/name", "dataset", "c0ffee", tuple(StoredFile(name, 1) for name in names))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_files_of_a_split(case: dict[str, object]) -> None:
    config = case.get("config")
    card = {"configs": case["configs"]} if "configs" in case else {}
    for split, expected in case["splits"].items():  # type: ignore[attr-defined]
        listing = listing_of(case["files"])  # type: ignore[arg-type]
        if isinstance(expected, str):
            with pytest.raises(RunError) as raised:
                data_files(listing, card, split=split, config=config)  # type: ignore[arg-type]
            assert expected in f"{raised.value.message} {raised.value.hint}"
        else:
            assert data_files(listing, card, split=split, config=config) == expected  # type: ignore[arg-type]


def test_card_is_the_header_of_the_readme() -> None:
    assert read_card("---\nconfigs:\n- config_name: a\n---\n# Data")["configs"] == [{"config_name": "a"}]
    assert not read_card("# no header").get("configs")
    assert not read_card("---\n[broken\n---\n").get("configs")


@pytest.fixture
def repository(hub: hub_server.Hub, tmp_path: Path) -> Repository:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
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
