"""How much memory training needs: an estimate, for prepare before a GPU is held and for training itself. No torch.

docs/gpus.md has the sizes that follow from it, and how near it is to what was counted.
"""

from dataclasses import dataclass
from typing import Self

from dporun_api.advice import larger_gpu, never_fits
from dporun_api.memory import GIB, MemoryEstimate
from dporun_api.run_config import Quantization, RunConfig
from dporun_api.text import capitalise, sentence
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.precision import Arithmetic
from dporun_trainer.run_folder.prepared import ModelFacts

_OVERHEAD_ALONE, _OVERHEAD_WITH_OTHERS = 2 * GIB, 3 * GIB
"""On each GPU: CUDA context and kernels (0.5 GiB), tiles of the output head (0.3), fragmentation; with other processes
NCCL's buffers (0.5 to 1.5) and DeepSpeed's buckets (0.2). Nobody has measured them yet."""
_PROCESS, _PROCESS_WITH_CUDA = 1 * GIB, 2 * GIB
"""In the host's memory, of each process: Python and the libraries (0.9, measured), and CUDA's part (a guess)."""
_SHARED_MEMORY = 40 * 2**20
"""NCCL's buffers of one process in /dev/shm, which counts as the pod's memory."""
_SHARD = 5 * 10**9
"""A shard of weights: read through the page cache while loading, and written by the merge."""
_NF4 = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a weight of 4 bits: a scale of 8 bits for 64 of them, and one of 32 for 256 scales (Dettmers et al. 2023,
QLoRA, https://arxiv.org/abs/2305.14314, section 3)."""
_MERGE_TOKENS = 8 * 64
"""The merge compares that many tokens' logits: three times in float32, with as much thrice in float64."""


@dataclass(frozen=True)
class Shape:
    """What of model and batch decides the memory of a process.

    Attributes:
        parameters: of the base model.
        trainable: of the adapter.
        hidden: width of the residual stream.
        intermediate: width inside the feed-forward block.
        layers: transformer blocks.
        vocabulary: rows of the token embedding.
        sequences: sequences per forward pass, two for each preference pair.
        length: tokens of the longest sequence.
        lora_dropout: whether there is dropout before the adapter.
        quantized: parameters that are kept in 4 bits.

    """

    parameters: int
    trainable: int
    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    sequences: int
    length: int
    lora_dropout: bool
    quantized: int = 0

    @classmethod
    def of(cls, config: RunConfig, model: ModelFacts, longest: int | None) -> Self:
        """Shape of a run.

        Args:
            config: of the run.
            model: what prepare found of it.
            longest: tokens of the longest row, before it is cut; None where nobody knows.

        """
        limit = config.dpo.max_length
        return cls(
            parameters=model.parameters,
            trainable=model.lora_parameters,
            hidden=model.hidden_size,
            intermediate=model.intermediate_size or 4 * model.hidden_size,
            layers=model.layers,
            vocabulary=model.vocabulary,
            sequences=2 * config.training.per_device_batch_size,
            length=limit if longest is None else min(longest, limit),
            lora_dropout=config.lora.effective_dropout(takes_dropout=model.takes_dropout) > 0,
            quantized=model.quantized_parameters,
        )


def estimate(config: RunConfig, shape: Shape, *, arithmetic: Arithmetic, cuda: bool) -> MemoryEstimate:
    """Estimate what one process of a run needs, and its pod.

    Args:
        config: of the run.
        shape: of model and batch.
        arithmetic: that training computes in.
        cuda: whether each process has a GPU.

    """
    processes = config.topology.world_size
    value_bytes = 4 if arithmetic == "fp32" else 2
    overhead = (_OVERHEAD_ALONE if processes == 1 else _OVERHEAD_WITH_OTHERS) if cuda else 0
    found = MemoryEstimate(
        weights=_weights(shape, value_bytes),
        adapter=_adapter(config, shape.trainable, value_bytes),
        activations=activations(shape, value_bytes, cuda=cuda, checkpointing=False),
        checkpointed_activations=activations(shape, value_bytes, cuda=cuda, checkpointing=True),
        overhead=overhead,
        host=0,
    )
    return found.model_copy(update={"host": _host(config, shape, found, cuda=cuda)})


def activations(shape: Shape, value_bytes: int, *, cuda: bool, checkpointing: bool) -> int:
    """Bytes that the forward pass keeps for the backward pass, and what that adds at its peak.

    In numbers per token and layer, counted as in Korthikanti et al. 2022, "Reducing Activation Recomputation in Large
    Transformer Models" (https://arxiv.org/abs/2205.05198), section 4.1, for a gated feed-forward block, an attention
    kernel that stores no matrix of scores, frozen weights (the input of a frozen layer is not needed), and LoRA on
    every linear layer. Attention keeps q, k, v and its output, the adapters the outputs of both norms (6 hidden), the
    norms their inputs in float32 (2 hidden times 4 / value_bytes); the feed-forward block gate, up, activation and
    product (4 intermediate). The padding is a row of the attention's mask. Dropout before the adapters adds a copy of
    every layer's input (6 hidden + intermediate) and its mask, of one byte on CUDA and of the values' type on the CPU;
    the undropped output of the norms and the product are then not kept.

    With checkpointing only the input of every layer stays, and one layer at a time is recomputed in full. In both
    cases the backward pass of one layer holds gradients beside it, and the last norm its input and output.
    """
    hidden, intermediate = shape.hidden, shape.intermediate
    layer = (6 + 8 / value_bytes) * hidden + 4 * intermediate + shape.length
    if shape.lora_dropout:
        inputs = 6 * hidden + intermediate
        layer += inputs * (1 + (1 if cuda else value_bytes) / value_bytes) - 2 * hidden - intermediate
    kept = layer + shape.layers * hidden if checkpointing else shape.layers * layer
    transient = 3 * intermediate + 3 * hidden
    return int(shape.sequences * shape.length * value_bytes * (kept + transient))


def require_possible(
    memory: MemoryEstimate,
    available: int,
    where: str,
    *,
    quantization: Quantization | None,
    cuda: bool = True,
) -> None:
    """Refuse what can never fit, before anything is loaded; what may fit is left to try.

    Args:
        memory: that one process needs.
        available: bytes that there are for it, used or not.
        where: whose bytes these are, for people.
        quantization: of the weights.
        cuda: whether they are a GPU's.

    Raises:
        RunError: weights, adapter and optimizer alone take more.

    """
    if (why := never_fits(memory, available)) is None:
        return
    if cuda:
        hint = sentence(capitalise(larger_gpu(quantization)))
        raise RunError(Reason.GPU_OUT_OF_MEMORY, f"the model does not fit on {where}: {why}", hint=hint)
    hint = "Train with GPUs, with fewer processes, or a smaller model."
    raise RunError(Reason.HOST_OUT_OF_MEMORY, f"the model does not fit on {where}: {why}", hint=hint)


def _weights(shape: Shape, value_bytes: int) -> int:
    """Bytes of the base model; of 4-bit weights, one layer at a time is there in full as well."""
    plain = (shape.parameters - shape.quantized) * value_bytes
    one_layer = shape.hidden * shape.intermediate * value_bytes if shape.quantized else 0
    return plain + int(shape.quantized * _NF4) + one_layer


def _adapter(config: RunConfig, trainable: int, value_bytes: int) -> int:
    """Bytes of the adapter in one process, with its gradients and, unless it is offloaded, the optimizer's state.

    As in Rajbhandari et al. 2020, ZeRO (https://arxiv.org/abs/1910.02054), section 3.1: weight and gradient in the
    training's arithmetic; a float32 master copy and two moments of Adam, shared among the processes. Stage 2 adds
    the gradients of the micro-batches up in float32, shared as well (training/arguments.py).
    """
    deepspeed, processes = config.topology.deepspeed, config.topology.world_size
    each = 2 * value_bytes
    shared = (0 if deepspeed.offload_optimizer else _OPTIMIZER) + (4 if deepspeed.zero_stage == 2 else 0)
    return trainable * each + trainable * shared // processes


_OPTIMIZER = 12
"""Bytes of the optimizer's state for a trainable parameter."""


def _host(config: RunConfig, shape: Shape, found: MemoryEstimate, *, cuda: bool) -> int:
    """Bytes that a pod needs outside its GPUs, in training or in what follows it, whichever is more.

    Weights go to the GPUs one tensor after the other: what the host holds of them is page cache, of one shard at a
    time, the same for all processes. Without GPUs every process holds all that it needs. After training one process
    evaluates and merges: without GPUs it holds the weights; with several, each has a process that evaluates, beside the
    one that deals out the batches. The merge writes shard by shard and compares logits. What was trained on 4 bits is
    merged in the host's memory, with each shard there twice.
    """
    topology = config.topology
    shard = min(found.weights, _SHARD)
    written = 2 * min(2 * shape.parameters, _SHARD) if shape.quantized else shard
    merge = written + _MERGE_TOKENS * shape.vocabulary * 3 * (4 + 8)
    if not cuda:
        process = _PROCESS + found.process(checkpointing=config.training.gradient_checkpointing == "always")
        return max(topology.processes_per_node * process, _PROCESS + found.weights + merge)
    process = _PROCESS_WITH_CUDA + _SHARED_MEMORY
    if topology.deepspeed.offload_optimizer:
        process += _OPTIMIZER * shape.trainable // topology.world_size
    evaluation = (topology.gpus_per_node + 1) * _PROCESS_WITH_CUDA + shard if topology.gpus_per_node > 1 else 0
    return max(topology.processes_per_node * process + shard, evaluation, _PROCESS_WITH_CUDA + merge)
