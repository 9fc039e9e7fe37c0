"""How much accelerator memory a training process needs: an estimate."""

from dataclasses import dataclass

GIB = 2**30

_FIXED = 2 * GIB
"""CUDA context, kernels, the tiles of the output head and fragmentation."""
_HEADROOM = 0.9
"""Share of a device's memory that an estimate may fill; it is an estimate."""


@dataclass(frozen=True)
class Shape:
    """What decides the memory of a process.

    Attributes:
        parameters: of the base model.
        trainable: of the adapter.
        hidden: width of the residual stream.
        intermediate: width inside the feed-forward block.
        layers: transformer blocks.
        sequences: sequences per forward pass, two for each preference pair.
        length: tokens of the longest sequence.
        value_bytes: bytes of a weight or an activation: 2 for bf16 and fp16, 4 for fp32.
        lora_dropout: whether the adapter keeps a dropped-out copy of its inputs.
        shards: processes that share gradients and optimizer state.

    """

    parameters: int
    trainable: int
    hidden: int
    intermediate: int
    layers: int
    sequences: int
    length: int
    value_bytes: int
    lora_dropout: bool
    shards: int


def activations(shape: Shape, *, checkpointing: bool) -> int:
    """Bytes that the forward pass keeps for the backward pass.

    Per token and layer, counted as in Korthikanti et al. 2022, "Reducing Activation Recomputation in Large
    Transformer Models" (https://arxiv.org/abs/2205.05198), section 4.1, with an attention kernel that stores no
    score matrix and a gated feed-forward block: attention keeps its input, q, k, v, its output and the projection's
    input (5.5 hidden), the block its input, gate, up, activation and product (hidden + 4 intermediate), each norm
    its input in fp32 (4 hidden for both). LoRA's dropout adds a copy of each adapted layer's input
    (6 hidden + intermediate). With checkpointing only the input of every layer stays, and one layer at a time is
    recomputed in full.
    """
    per_token = 10.5 * shape.hidden + 4 * shape.intermediate
    if shape.lora_dropout:
        per_token += 6 * shape.hidden + shape.intermediate
    full_layers = 1 if checkpointing else shape.layers
    stored = shape.layers * shape.hidden if checkpointing else 0
    tokens = shape.sequences * shape.length
    return int(tokens * shape.value_bytes * (full_layers * per_token + stored))


def required(shape: Shape, *, checkpointing: bool) -> int:
    """Bytes that one training process needs at its peak.

    Weights once; for the trainable ones a gradient in fp32, and master copy and two moments of Adam in fp32 shared
    among the processes (Rajbhandari et al. 2020, ZeRO, https://arxiv.org/abs/1910.02054, section 3.1); activations; a
    fixed part.
    """
    weights = (shape.parameters + shape.trainable) * shape.value_bytes + 4 * shape.trainable
    optimizer = 12 * shape.trainable // shape.shards
    return weights + optimizer + activations(shape, checkpointing=checkpointing) + _FIXED


def needs_checkpointing(shape: Shape, available: int) -> bool:
    """Whether activations must be recomputed for training to fit into ``available`` bytes."""
    return required(shape, checkpointing=False) > _HEADROOM * available
