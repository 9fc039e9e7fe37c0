"""prepare as a whole: every kind of source, real servers, a real (tiny) model; again and again."""

import collections
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dporun_api.dataset_report import DroppedRow, DropReason
from dporun_api.pod import ExitCode
from dporun_api.results import Outcome, OutcomeState, Progress, Stage
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import families, hub_server
from dporun_testing.hub_server import Repository
from dporun_testing.models import edit_weights
from dporun_testing.run_folders import results
from dporun_testing.s3_server import S3Server
from dporun_testing.tiny_model import chat_pairs, text_pairs, write_rows
from dporun_trainer import disk
from dporun_trainer.__main__ import main
from dporun_trainer.archiving.archive import archive
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.prepare import prepare
from dporun_trainer.run_folder import RunFolder


def a_config(model: str | Path, train: str | Path, validation: str | Path | None = None, **more: Any) -> RunConfig:
    dataset = {"train": str(train)} | ({"validation": str(validation)} if validation else {})
    return RunConfig.model_validate(
        {"run": {"name": "tone"}, "model": {"uri": str(model)}, "dataset": dataset, "lora": {"rank": 4}} | more
    )


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "train.jsonl", chat_pairs(60))


@pytest.fixture
def validation(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "validation.jsonl", chat_pairs(25, seed=1))


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_local_files(tiny_model: Path, train: Path, validation: Path, tmp_path: Path) -> None:
    outcome = prepare(a_config(tiny_model, train, validation), RunFolder(tmp_path / "run"), claims=tmp_path)
    prepared = RunFolder(tmp_path / "run").load_prepared()
    assert outcome.state is OutcomeState.SUCCEEDED
    rows = "60 training and 25 validation rows, read as TRL preference pairs"
    assert outcome.message == f"Model and data are ready: {rows}"
    assert outcome.dataset == prepared.dataset
    assert outcome.memory is not None
    assert outcome.memory.weights == 4 * prepared.model.parameters
    assert prepared.model_path == str(tiny_model), "used where it is"
    assert rows_of(prepared.train_path) == chat_pairs(60)
    assert rows_of(prepared.validation_path) == chat_pairs(25, seed=1)
    assert prepared.model.lora_parameters == 4096
    assert prepared.general_path is None
    assert prepared.adapter_path is None
    progress = Progress.model_validate_json((tmp_path / "run" / "progress.json").read_text())
    assert progress.stage is Stage.PREPARING
    left = sorted(path.name for path in (tmp_path / "run" / "inputs").iterdir())
    assert left == ["key", "prepared.json", "tokens", "train.jsonl", "validation.jsonl"], "nothing temporary stays"


def test_a_tenth_is_held_out_by_default(tiny_model: Path, train: Path, tmp_path: Path) -> None:
    prepare(a_config(tiny_model, train), RunFolder(tmp_path / "run"), claims=tmp_path)
    prepared = RunFolder(tmp_path / "run").load_prepared()
    assert (prepared.dataset.train_rows, prepared.dataset.validation_rows) == (54, 6)
    assert any("only 6 validation rows" in warning for warning in prepared.dataset.warnings)


def test_model_and_parquet_shards_from_the_hub(hub: hub_server.Hub, tiny_model: Path, tmp_path: Path) -> None:
    rows = chat_pairs(60)
    parquet(tmp_path / "data" / "data" / "train-00000-of-00002.parquet", rows[:40])
    parquet(tmp_path / "data" / "data" / "train-00001-of-00002.parquet", rows[40:])
    parquet(tmp_path / "data" / "data" / "test-00000-of-00001.parquet", chat_pairs(25, seed=1))
    (tmp_path / "data" / "README.md").write_text("---\nlicense: mit\n---\n# Pairs")
    hub.models["owner/model"] = Repository(tiny_model)
    hub.datasets["owner/pairs"] = Repository(tmp_path / "data")
    config = a_config("hf://owner/model", "hf://owner/pairs", "hf://owner/pairs?split=test")
    prepare(config, RunFolder(tmp_path / "run"), claims=tmp_path)
    prepared = RunFolder(tmp_path / "run").load_prepared()
    assert prepared.model_revision == Repository(tiny_model).commit
    assert rows_of(prepared.train_path) == rows, "in the order of the shards"
    assert prepared.lint.train.files == ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet")
    assert prepared.dataset.validation_rows == 25

    hub.requests.clear()
    again = prepare(config, RunFolder(tmp_path / "run"), claims=tmp_path)
    assert again.message.startswith("Model and data were prepared before: 60 training")
    assert hub.requests == [], "a finished preparation is not repeated"


def test_wrong_shard_is_named(tiny_model: Path, tmp_path: Path) -> None:
    parquet(tmp_path / "data" / "a.parquet", text_pairs(5))
    parquet(tmp_path / "data" / "b.parquet", [*text_pairs(3), {"prompt": "p", "chosen": "c", "rejected": None}])
    with pytest.raises(RunError, match=r"no rejected .* \(row 4 of b\.parquet\)"):
        prepare(a_config(tiny_model, tmp_path / "data"), RunFolder(tmp_path / "run"), claims=tmp_path)


def test_model_and_data_from_s3(
    s3: S3Server, bucket: str, tiny_model: Path, train: Path, validation: Path, tmp_path: Path
) -> None:
    client = s3.client()
    for path in tiny_model.iterdir():
        client.upload_file(str(path), bucket, f"models/tiny/{path.name}")
    client.put_object(Bucket=bucket, Key="models/tiny/original/consolidated.bin", Body=b"large")
    client.upload_file(str(train), bucket, "pairs.jsonl")
    client.upload_file(str(validation), bucket, "held/out.jsonl")
    config = a_config(f"s3://{bucket}/models/tiny", f"s3://{bucket}/pairs.jsonl", f"s3://{bucket}/held")
    prepare(config, RunFolder(tmp_path / "run"), claims=tmp_path)
    prepared = RunFolder(tmp_path / "run").load_prepared()
    assert prepared.model_path == str(tmp_path / "run" / "inputs" / "model")
    assert not (tmp_path / "run" / "inputs" / "model" / "original").exists()
    assert rows_of(prepared.train_path) == chat_pairs(60)
    assert rows_of(prepared.validation_path) == chat_pairs(25, seed=1)


@pytest.mark.parametrize("missing", ["model", "data"])
@pytest.mark.usefixtures("s3")
def test_nothing_there_in_s3(bucket: str, tiny_model: Path, train: Path, tmp_path: Path, missing: str) -> None:
    model = f"s3://{bucket}/nothing" if missing == "model" else str(tiny_model)
    data = f"s3://{bucket}/nothing.jsonl" if missing == "data" else str(train)
    with pytest.raises(RunError) as raised:
        prepare(a_config(model, data), RunFolder(tmp_path / "run"), claims=tmp_path)
    assert raised.value.exit_code is ExitCode.DATA_INVALID
    assert f"s3://{bucket}/nothing" in raised.value.message


def test_claims_are_used_in_place(tiny_model: Path, train: Path, tmp_path: Path) -> None:
    claim = tmp_path / "claims" / "shared"
    shutil.copytree(tiny_model, claim / "models" / "tiny")
    shutil.copy(train, claim / "train.jsonl")
    config = a_config("pvc://shared/models/tiny", "pvc://shared/train.jsonl")
    prepare(config, RunFolder(tmp_path / "run"), claims=tmp_path / "claims")
    assert RunFolder(tmp_path / "run").load_prepared().model_path == str(claim / "models" / "tiny")
    assert not (tmp_path / "run" / "inputs" / "model").exists()


def test_interrupted_preparation_keeps_what_is_whole(hub: hub_server.Hub, tiny_model: Path, tmp_path: Path) -> None:
    parquet(tmp_path / "data" / "train.parquet", chat_pairs(60))
    hub.datasets["owner/pairs"] = Repository(tmp_path / "data")
    config = a_config("hf://owner/model", "hf://owner/pairs")
    with pytest.raises(RunError, match="owner/model"):
        prepare(config, RunFolder(tmp_path / "run"), claims=tmp_path)
    with pytest.raises(RunError, match="prepare has not finished"):
        RunFolder(tmp_path / "run").load_prepared()
    hub.models["owner/model"] = Repository(tiny_model)
    prepare(config, RunFolder(tmp_path / "run"), claims=tmp_path)
    assert RunFolder(tmp_path / "run").load_prepared().dataset.train_rows == 54
    assert hub.downloads("train.parquet") == 1
    assert max(collections.Counter(hub.requests)[("GET", path)] for _, path in hub.requests if "resolve" in path) == 1


HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "safetensors")
"""What no refusal of data waits for: to import torch and transformers takes seconds, and nobody has a model yet."""


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*text_pairs(3), {"prompt": "p", "chosen": "", "rejected": "r"}], "an empty chosen (row 4 of train.jsonl)"),
        ([{"text": "no pair at all"}] * 3, "train.jsonl holds data for supervised fine-tuning"),
        ([{"prompt": "p", "chosen": f"c{n}", "rejected": "r"} for n in range(3)], "all rows have the same prompt"),
        (None, "train.jsonl does not exist"),
    ],
)
def test_data_is_refused_before_the_model_is_fetched(
    hub: hub_server.Hub, tiny_model: Path, tmp_path: Path, rows: list[Any] | None, message: str
) -> None:
    """The cheapest check first: nothing of the model is asked for, and no heavy library is imported."""
    hub.models["owner/model"] = Repository(tiny_model)
    if rows is not None:
        write_rows(tmp_path / "train.jsonl", rows)
    (tmp_path / "run.json").write_text(a_config("hf://owner/model", tmp_path / "train.jsonl").to_json())
    arguments = ["prepare", "--config", str(tmp_path / "run.json"), "--root", str(tmp_path), "--claims", str(tmp_path)]
    program = (
        "import sys; from dporun_trainer.__main__ import main\n"
        f"print(int(main({arguments})), sorted({set(HEAVY)} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stdout.splitlines()[-1] == f"{int(ExitCode.DATA_INVALID)} []", ended.stderr
    outcome = Outcome.model_validate_json((tmp_path / "tone" / "prepare_outcome.json").read_text())
    assert message in outcome.message
    assert hub.requests == []


def test_other_inputs_start_over(tiny_model: Path, train: Path, validation: Path, tmp_path: Path) -> None:
    prepare(a_config(tiny_model, train), RunFolder(tmp_path / "run"), claims=tmp_path)
    first = RunFolder(tmp_path / "run").load_prepared()
    prepare(a_config(tiny_model, train, validation), RunFolder(tmp_path / "run"), claims=tmp_path)
    second = RunFolder(tmp_path / "run").load_prepared()
    assert (first.dataset.validation_rows, second.dataset.validation_rows) == (6, 25)
    (tmp_path / "run" / "inputs" / "train.jsonl").unlink()
    prepare(a_config(tiny_model, train, validation), RunFolder(tmp_path / "run"), claims=tmp_path)
    assert Path(second.train_path).exists(), "what was lost since is made again"


def test_another_tokenizer_never_meets_old_tokens(tiny_model: Path, train: Path, tmp_path: Path) -> None:
    """In a claim, a model can change under its address."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    folder, config = RunFolder(tmp_path / "run"), a_config(model, train)
    prepare(config, folder, claims=tmp_path)
    tokens = folder.train_tokens.read_bytes()
    assert prepare(config, folder, claims=tmp_path).message.startswith("Model and data were prepared before")
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "helper"))
    assert prepare(config, folder, claims=tmp_path).message.startswith("Model and data are ready")
    assert folder.train_tokens.read_bytes() != tokens


def test_general_questions_are_fetched_and_checked(tiny_model: Path, train: Path, tmp_path: Path) -> None:
    general = write_rows(tmp_path / "general.jsonl", [{"question": "What is red?", "answer": "a color"}])
    config = a_config(tiny_model, train, evaluation={"general": {"uri": str(general)}})
    prepare(config, RunFolder(tmp_path / "run"), claims=tmp_path)
    assert rows_of(RunFolder(tmp_path / "run").load_prepared().general_path or "")[0]["question"] == "What is red?"
    write_rows(general, [{"question": "What is red?"}])
    with pytest.raises(RunError, match="row 1: answer") as raised:
        prepare(config, RunFolder(tmp_path / "other"), claims=tmp_path)
    assert raised.value.reason is Reason.DATASET_INVALID


def test_adapter_of_an_archived_run(tiny_model: Path, train: Path, tmp_path: Path) -> None:
    first = a_config(tiny_model, train, archive={"uri": str(tmp_path / "archive")})
    prepare(first, RunFolder(tmp_path / "first"), claims=tmp_path)
    results(tmp_path / "first")
    (tmp_path / "first" / "final" / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 32}')
    archived = archive(first, RunFolder(tmp_path / "first")).archive
    assert archived
    second = a_config(tiny_model, train, checkpoints={"resumeFrom": archived.uri})
    prepare(second, RunFolder(tmp_path / "second"), claims=tmp_path)
    adapter = Path(RunFolder(tmp_path / "second").load_prepared().adapter_path or "")
    assert (adapter / "adapter_model.safetensors").read_bytes() == b"a" * 1000


def test_dropped_rows_are_listed_in_a_file(tiny_model: Path, tmp_path: Path) -> None:
    bad = {"prompt": "what is red", "chosen": "", "rejected": "no"}
    train = write_rows(tmp_path / "train.jsonl", [*text_pairs(30), bad])
    config = a_config(tiny_model, train, dataset={"train": str(train), "invalidRows": {"maxFraction": 0.1}})
    outcome = prepare(config, RunFolder(tmp_path / "run"), claims=tmp_path)
    assert outcome.dataset
    assert outcome.dataset.dropped_rows == 1
    assert ", 1 left out, " in outcome.message
    report = RunFolder(tmp_path / "run").dataset_report.load()
    dropped = DroppedRow(file="train.jsonl", row=31, reason=DropReason.INVALID, detail="an empty chosen")
    assert report.train.dropped == (dropped,)
    assert report.train_pairs + report.validation_pairs == 30
    assert report.warnings


def test_long_rows_are_warned_about(tiny_model: Path, tmp_path: Path) -> None:
    rows = [*text_pairs(30), {"prompt": "what is red", "chosen": "red " * 600, "rejected": "no"}]
    train = write_rows(tmp_path / "train.jsonl", rows)
    outcome = prepare(a_config(tiny_model, train), RunFolder(tmp_path / "run"), claims=tmp_path)
    assert outcome.dataset
    assert "the model was made for 512" in outcome.dataset.warnings[0]


def test_full_disk_is_seen_before_the_download(
    hub: hub_server.Hub, tiny_model: Path, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.models["owner/model"] = Repository(tiny_model)
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000, 999, 1))
    with pytest.raises(RunError, match=r"the model needs .* has 1 B free") as raised:
        prepare(a_config("hf://owner/model", train), RunFolder(tmp_path / "run"), claims=tmp_path)
    assert raised.value.reason is Reason.DISK_FULL
    assert hub.downloads("model.safetensors") == 0


def test_a_volume_on_which_the_run_cannot_end_is_refused(small_disk: Path, tiny_model: Path, train: Path) -> None:
    """Before a GPU is held: its checkpoints and the merged model have no room."""
    (small_disk / "filler").write_bytes(bytes(disk.free(small_disk) - 100_000))
    with pytest.raises(RunError, match=r"the run will write .* needs .* KiB, and the volume has .* KiB free") as raised:
        prepare(a_config(tiny_model, train), RunFolder(small_disk / "run"), claims=small_disk)
    assert raised.value.reason is Reason.DISK_FULL


def test_command(tiny_model: Path, tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", [*text_pairs(30), {"prompt": "p", "chosen": "", "rejected": "r"}])
    (tmp_path / "run.json").write_text(a_config(tiny_model, train).to_json())
    folders = ["--root", str(tmp_path), "--claims", str(tmp_path)]
    assert main(["prepare", "--config", str(tmp_path / "run.json"), *folders]) == ExitCode.DATA_INVALID
    outcome = Outcome.model_validate_json((tmp_path / "tone" / "prepare_outcome.json").read_text())
    assert outcome.failure
    assert outcome.failure.reason is Reason.DATASET_INVALID
    assert "an empty chosen (row 31 of train.jsonl)" in outcome.failure.message


def compiled(model: Path) -> None:
    edit_weights(model, lambda tensors: {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()})


def encoder_decoder(model: Path) -> None:
    families.tiny_config("bart").save_pretrained(model)


def with_experts(model: Path) -> None:
    (model / "model.safetensors").unlink()
    families.tiny_model("qwen3_moe").save_pretrained(model)


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (
            compiled,
            "MODEL: the weights in MODEL lack 21 tensors (lm_head.weight, model.embed_tokens.weight, "
            "model.layers.0.input_layernorm.weight, …) of LlamaForCausalLM: they would start at random",
            'The names contain "_orig_mod.", which torch.compile leaves behind: save the model without its wrapper, or '
            "take that part out of the names.",
        ),
        (
            encoder_decoder,
            "MODEL: a bart model is an encoder-decoder, for which TRL has no DPO",
            "Use a decoder-only language model, such as Llama or Qwen.",
        ),
        (
            with_experts,
            "MODEL: lora.dropout is 0.1, but the adapter is on the experts of Qwen3MoeForCausalLM as well, "
            "which take none",
            "Set lora.dropout: 0, or name layers other than experts in lora.targetModules: "
            "[k_proj, o_proj, q_proj, v_proj].",
        ),
    ],
)
def test_what_the_user_of_an_unfit_model_reads(
    tiny_model: Path, train: Path, tmp_path: Path, change: Callable[[Path], None], message: str, hint: str
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    change(model)
    config = a_config(model, train, lora={"dropout": 0.1})
    (tmp_path / "run.json").write_text(config.to_json())
    folders = ["--root", str(tmp_path), "--claims", str(tmp_path)]
    assert main(["prepare", "--config", str(tmp_path / "run.json"), *folders]) == ExitCode.DATA_INVALID
    outcome = Outcome.model_validate_json((tmp_path / "tone" / "prepare_outcome.json").read_text())
    assert outcome.failure
    assert outcome.failure.reason is Reason.MODEL_INVALID
    assert outcome.failure.message.replace(str(model), "MODEL") == message
    assert outcome.failure.hint == hint
