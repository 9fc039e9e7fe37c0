"""Plain values out of pickles: the right ones, and nothing runs."""

import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dporun_trainer.diagnosis.pickled import MAX_BYTES, Opaque, attributes, plain_value, read_saved

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: (
        st.lists(values, max_size=4)
        | st.lists(values, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=8), values, max_size=4)
    ),
    max_leaves=12,
)


class Arguments:
    """Stands for a dataclass of training arguments."""

    def __init__(self, state: dict[str, Any]):
        self.__dict__.update(state)


class Touching:
    """Makes a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


class TouchingState:
    """Makes a file when its state is set."""

    def __init__(self, path: Path):
        self.path = path

    def __setstate__(self, state: Any) -> None:
        state["path"].touch()


def saved(value: object, path: Path, *, legacy: bool = False) -> Path:
    import torch

    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), PLAIN, max_size=6), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_states_are_read_as_they_are(state: dict[str, Any], protocol: int) -> None:
    value = plain_value(io.BytesIO(pickle.dumps(Arguments(state), protocol)))
    assert isinstance(value, Opaque)
    assert attributes(value) == state


@pytest.mark.parametrize("legacy", [False, True])
def test_training_arguments_of_trl_are_read(tmp_path: Path, legacy: bool) -> None:
    from trl import DPOConfig

    arguments = DPOConfig(
        output_dir=str(tmp_path),
        report_to=[],
        use_cpu=True,
        bf16=False,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, 0.5],
        learning_rate=3e-5,
        max_steps=60,
        save_strategy="epoch",
        lr_scheduler_type="cosine",
    )

    value = read_saved(saved(arguments, tmp_path / "training_args.bin", legacy=legacy))

    assert isinstance(value, Opaque)
    assert value.name == ("trl.trainer.dpo_config", "DPOConfig")
    read = attributes(value)
    plain = {key: item for key, item in vars(arguments).items() if isinstance(item, (int, float, str, list))}
    enums = {key for key in plain if isinstance(read[key], Opaque)}
    assert {key: read[key] for key in plain.keys() - enums} == {key: plain[key] for key in plain.keys() - enums}
    assert {"learning_rate", "loss_type", "beta", "max_steps", "max_grad_norm"} <= plain.keys() - enums
    scheduler = read["lr_scheduler_type"]
    assert isinstance(scheduler, Opaque)
    assert scheduler.arguments == ("cosine",)
    assert attributes(read["distributed_state"])["num_processes"] == 1


@pytest.mark.parametrize("kind", [Touching, TouchingState])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_in_it_runs_nothing(tmp_path: Path, kind: Any, legacy: bool) -> None:
    made = tmp_path / "made"
    path = saved(Arguments({"learning_rate": 0.5, "bait": kind(made)}), tmp_path / "training_args.bin", legacy=legacy)
    assert attributes(read_saved(path))["learning_rate"] == 0.5
    assert not made.exists()
    pickle.loads(pickle.dumps(kind(made)))
    assert made.exists(), "loading runs it"


@pytest.mark.parametrize("program", ["cbuiltins\neval\n(V1/0\ntR.", "(ios\nsystem\n.", "(cos\nsystem\nVfalse\no."])
def test_calls_of_every_kind_are_only_noted(program: str) -> None:
    assert isinstance(plain_value(io.BytesIO(program.encode())), Opaque)


def test_what_would_fill_memory_or_hang_is_small(tmp_path: Path) -> None:
    nested = b")" + b"2\x86" * 5000  # hashing it takes for ever
    assert plain_value(io.BytesIO(b"}" + nested + b"K\x01s.")) == {}
    assert plain_value(io.BytesIO(b"K\x01r\xff\xff\xff\xff.")) == 1  # loading makes room for 2**32 entries
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(64 * MAX_BYTES))
    (tmp_path / "long").write_bytes(b"\x80\x02" + bytes(2 * MAX_BYTES))
    for name in ("bomb", "long"):
        with pytest.raises(ValueError, match="too large"):
            read_saved(tmp_path / name)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torn_file_is_a_value_error(tmp_path: Path, legacy: bool) -> None:
    whole = saved(Arguments({"learning_rate": 0.5}), tmp_path / "training_args.bin", legacy=legacy).read_bytes()
    for end in range(0, len(whole) if not legacy else len(whole) // 2, 7):
        (tmp_path / "torn").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"."):
            read_saved(tmp_path / "torn")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_never_more_than_a_value_error(data: st.DataObject) -> None:
    program = bytearray(pickle.dumps(Arguments({"a": [1, (2.0, "x")], "b": {"c": None}}), data.draw(st.integers(0, 5))))
    for place in data.draw(st.lists(st.integers(0, len(program) - 1), max_size=4)):
        program[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        plain_value(io.BytesIO(bytes(program) + data.draw(st.binary(max_size=16))))
