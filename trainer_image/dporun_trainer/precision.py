"""Which arithmetic a model computes in: one decision, for training and for evaluation. No torch."""

from typing import Literal

from dporun_api.run_config import Precision, Quantization
from dporun_trainer.machine import Machine

Arithmetic = Literal["bf16", "fp16", "fp32"]

DTYPES: dict[Arithmetic, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""The types in torch's words, which transformers takes as well."""


def choose_arithmetic(requested: Precision, machine: Machine, quantization: Quantization | None = None) -> Arithmetic:
    """Decide what "auto" means: bf16 where the GPU has it, else fp16, and fp32 on the CPU; there bf16 with 4 bits."""
    if requested != "auto":
        return requested
    if not machine.cuda and quantization is None:
        return "fp32"
    return "bf16" if machine.bf16 else "fp16"
