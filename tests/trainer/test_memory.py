from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dporun_api.memory import GIB, MemoryEstimate
from dporun_api.run_config import RunConfig
from dporun_testing import gpu_sizes
from dporun_testing.run_folders import a_prepared
from dporun_testing.training import a_config
from dporun_trainer.memory import Shape, activations, estimate

SEVEN_BILLION = Shape(
    parameters=7_600_000_000,
    trainable=40_000_000,
    hidden=3584,
    intermediate=18944,
    layers=28,
    vocabulary=152_064,
    sequences=4,
    length=1024,
    lora_dropout=True,
)


def estimated(shape: Shape = SEVEN_BILLION, *, cuda: bool = True, **topology: object) -> MemoryEstimate:
    config = a_config(topology=topology)
    return estimate(config, shape, arithmetic="bf16" if cuda else "fp32", cuda=cuda)


def test_a_model_of_seven_billion_needs_its_weights_and_more() -> None:
    memory = estimated()
    assert memory.weights == 15_200_000_000
    assert memory.process(checkpointing=True) < 24 * GIB < memory.process(checkpointing=False)


def test_it_fits_where_it_is_known_to_fit() -> None:
    assert estimated().fits(80 * GIB, checkpointing=False)
    assert not estimated().fits(40 * GIB, checkpointing=False)


def test_four_bits_make_seventy_billion_fit_on_one_gpu() -> None:
    """40 GB of weights: 68.4 billion of 4.13 bits, 2.1 of the vocabulary in 16, and a layer unpacked."""
    large = replace(SEVEN_BILLION, parameters=70_553_706_496, hidden=8192, intermediate=28672, layers=80)
    packed = replace(large, quantized=68_451_041_280)
    assert estimated(large).weights == 141_107_412_992
    assert estimated(packed).weights == pytest.approx(40.0e9, rel=5e-3)
    assert estimated(packed).fits(80 * GIB, checkpointing=True)
    assert not estimated(large).fits(140 * GIB, checkpointing=True)


@given(st.integers(1, 64), st.integers(16, 8192))
def test_activations_grow_with_the_sequences_of_a_batch(sequences: int, length: int) -> None:
    shape = replace(SEVEN_BILLION, sequences=sequences, length=length)
    one = activations(replace(shape, sequences=1), 2, cuda=True, checkpointing=False)
    full = activations(shape, 2, cuda=True, checkpointing=False)
    assert full == pytest.approx(sequences * one, rel=1e-6)
    assert activations(shape, 2, cuda=True, checkpointing=True) < full


@pytest.mark.parametrize(
    ("deepspeed", "each", "shared"),
    [
        ({"zero_stage": 2}, 4, 16),  # weight and gradient in bf16; master copy, two moments and a sum in fp32
        ({"zero_stage": 1}, 4, 12),
        ({"zero_stage": 2, "offload_optimizer": True}, 4, 4),
    ],
)
def test_more_processes_share_the_optimizer(deepspeed: dict[str, object], each: int, shared: int) -> None:
    for nodes, processes in ((1, 1), (2, 4)):
        memory = estimated(nodes=nodes, processes_per_node=processes, deepspeed=deepspeed)
        assert memory.adapter == 40_000_000 * each + 40_000_000 * shared // (nodes * processes)


def test_processes_that_talk_to_each_other_need_more() -> None:
    assert estimated().overhead == 2 * GIB
    assert estimated(processes_per_node=8).overhead == 3 * GIB
    assert estimated(cuda=False).overhead == 0


def test_the_host_never_holds_a_model_for_each_gpu() -> None:
    one, eight = estimated(), estimated(processes_per_node=8)
    assert eight.host < 8 * 2.1 * GIB + 5e9 < 8 * eight.weights
    assert one.host < eight.host
    offloaded = estimated(processes_per_node=8, deepspeed={"offload_optimizer": True})
    assert offloaded.host - eight.host == 12 * 40_000_000


def test_evaluation_has_a_process_more_than_there_are_gpus() -> None:
    one, eight = estimated(gpus_per_node=1), estimated(gpus_per_node=8, processes_per_node=8)
    assert one.host == estimated().host
    assert eight.host >= 9 * 2 * GIB + 5e9


def test_without_gpus_the_host_holds_all_of_every_process() -> None:
    memory = estimated(cuda=False, processes_per_node=2)
    assert memory.host >= 2 * memory.process(checkpointing=False)
    config = a_config(training={"gradient_checkpointing": "always"}, topology={"processes_per_node": 2})
    checkpointed = estimate(config, SEVEN_BILLION, arithmetic="fp32", cuda=False)
    assert checkpointed.host - memory.host == 2 * (memory.checkpointed_activations - memory.activations)


@pytest.mark.parametrize(("longest", "length"), [(60, 60), (4000, 128), (None, 128)])
def test_the_longest_row_is_as_long_as_it_is_cut(longest: int | None, length: int) -> None:
    config: RunConfig = a_config(dpo={"max_length": 128})
    shape = Shape.of(config, a_prepared().model, longest)
    assert (shape.length, shape.sequences) == (length, 4)


@pytest.mark.parametrize("arithmetic", ["bf16", "fp32"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_activations_are_those_that_torch_counts(arithmetic: str, checkpointing: bool, dropout: float) -> None:
    """A real step on the CPU, in several shapes: heads that share keys and values, wide and narrow blocks."""
    import torch
    from peft import LoraConfig
    from transformers import LlamaConfig

    from dporun_testing.counted_memory import count_step

    for hidden, intermediate, layers, groups, length in ((256, 704, 4, 2, 128), (128, 512, 6, 4, 192)):
        config = LlamaConfig(
            vocab_size=100,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=groups,
        )
        lora = LoraConfig(r=8, lora_dropout=dropout, target_modules="all-linear")
        dtype = torch.bfloat16 if arithmetic == "bf16" else torch.float32
        counted = count_step(
            config, lora, sequences=4, length=length, dtype=dtype, checkpointing=checkpointing, fake=False
        )
        shape = Shape(0, 0, hidden, intermediate, layers, 100, 4, length, lora_dropout=dropout > 0)
        found = activations(shape, dtype.itemsize, cuda=False, checkpointing=checkpointing)
        assert 0.95 < found / counted < 1.2


def test_the_page_shows_the_sizes_of_the_estimate() -> None:
    """After a change of it: make gpu-sizes."""
    assert gpu_sizes.read_page("sizes") == gpu_sizes.sizes_table()
    assert gpu_sizes.read_page("sizes in 4 bits") == gpu_sizes.sizes_table("nf4")


@pytest.mark.parametrize("model", gpu_sizes.COUNTED[:1], ids=lambda model: model.name)
def test_the_page_shows_what_torch_counts(model: gpu_sizes.Published) -> None:
    """Of the smallest model; the larger ones take as long as everything else here."""
    assert gpu_sizes.line(gpu_sizes.counted_row(model)) in gpu_sizes.read_page("counted").splitlines()
