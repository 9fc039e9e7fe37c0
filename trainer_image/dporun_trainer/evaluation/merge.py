"""Merge a LoRA adapter into its base model, and prove on real prompts that the result is the same model."""

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dporun_api.files import read_json, sha256, sync_folder, sync_tree, write_json
from dporun_api.run_config import Quantization
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import disk
from dporun_trainer.device import this_machine
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.policy import (
    attach_adapter,
    find_base,
    is_adapter,
    load_model,
    load_tokenizer,
)
from dporun_trainer.evaluation.shards import stored_weights, write_merged
from dporun_trainer.machine import Machine
from dporun_trainer.precision import DTYPES, choose_arithmetic
from dporun_trainer.run_folder.model_files import copy_processor, copy_tokenizer
from dporun_trainer.run_folder.parts import ADAPTER_WEIGHTS, MERGE_RECORD

log = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Largest difference by the type that weights are stored in: root mean square, as a share of the logits' own. For
models of up to 16 layers; the rounding of deeper ones adds up as a random walk does, with the root of their number
(measured in bf16: 0.7 % with 2 layers, 2.3 % with 24)."""
KEPT = (0.5, 1.5)
"""How much of what the adapter does may be left in the merged model. Rounding is no reason to be far from 1: it is
independent of what the adapter does (measured in bf16: from 0.85 on where the adapter can be told apart)."""

_MAX_SHARD_SIZE = "5GB"
_PROMPTS = 8
_PROMPT_TOKENS = 64


@dataclass(frozen=True)
class Merge:
    """What was merged, and how near the result is to the adapter; ``merge.json`` beside the merged model.

    Attributes:
        base: folder or Hub name of the base model.
        adapter_sha256: SHA-256 of the adapter's weights.
        dtype: type of the stored weights, that of the base model.
        prompts: prompts on which the logits were compared.
        max_abs_difference: largest difference between a logit of the merged model and of base + adapter.
        difference: root mean square of all differences, as a share of that of the logits.
        effect: the same for base + adapter against the base alone: what the adapter does.
        kept: how much of that the merged model does: 1 is all of it, 0 is the base alone; a least squares fit.
        tolerance: largest ``difference`` allowed.
        quantized_difference: as ``difference``, of the merged model against the 4-bit base + adapter: what was trained
            and evaluated. No sign of a bad merge: it is what quantization had rounded away. None without quantization.

    """

    base: str
    adapter_sha256: str
    dtype: str
    prompts: int
    max_abs_difference: float
    difference: float
    effect: float
    kept: float
    tolerance: float
    quantized_difference: float | None = None

    @property
    def faithful(self) -> bool:
        """Whether the merged model is the adapted one: within rounding, with the adapter in it, once."""
        told_apart = self.effect > self.tolerance
        return self.difference <= self.tolerance and (not told_apart or KEPT[0] <= self.kept <= KEPT[1])


class UnfaithfulMergeError(RunError):
    """The merged model is not the adapted one, and trying again would not change that; the adapter is intact."""

    def __init__(self, found: Merge):
        super().__init__(
            Reason.MODEL_INVALID,
            f"the merged model is not the adapted one: on {found.prompts} prompts its logits differ by "
            f"{found.difference:.2e} (tolerance {found.tolerance:.0e} for {found.dtype}), and {found.kept:.0%} of what "
            f"the adapter changes ({found.effect:.2e}) is in it",
            hint="The adapter in final/ is intact: serve it unmerged, or merge it in a wider dtype.",
        )


def merge(
    adapter: Path,
    output: Path,
    *,
    prompts: Sequence[str],
    base: str | Path | None = None,
    quantization: Quantization | None = None,
) -> Merge:
    """Write base + adapter as one model: safetensors in the base model's dtype, with all that goes with them.

    Everything is written to a temporary folder beside ``output``, read back, compared with the adapter's logits and
    renamed at the end, so ``output`` is a whole and verified model or not there.

    Args:
        adapter: folder of a LoRA adapter.
        output: folder to create; an earlier merged model there is replaced.
        prompts: texts to compare logits on; the first few are used.
        base: folder or Hub name of the base model; found by the adapter's records when absent.
        quantization: of the base in training. The adapter is merged into the base as it is stored, on the CPU: a GPU
            that was large enough for 4 bits may not be for 16.

    Returns:
        What was measured, also written to ``output``/merge.json.

    Raises:
        RunError: not an adapter, a model that cannot be loaded, a full disk, or weights that are not numbers.
        UnfaithfulMergeError: the merged model's logits are not the adapter's; ``output`` is not there.

    """
    if not is_adapter(adapter):
        raise RunError(Reason.MODEL_INVALID, f"{adapter} is a whole model, not an adapter: nothing to merge")
    if output.exists() and any(output.iterdir()) and not (output / MERGE_RECORD).is_file():
        raise RunError(
            Reason.MODEL_INVALID,
            f"{output} is not empty and holds no merged model; it is left as it is",
            hint="Give another folder.",
        )
    base = base or find_base(adapter)
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    _require_space(base, output.parent)
    try:
        partial.mkdir()
        result = _merge_into(partial, adapter, base, prompts, quantization)
        if not result.faithful:
            raise UnfaithfulMergeError(result)
        write_json(partial / MERGE_RECORD, asdict(result))
        for path in partial.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        sync_tree(partial)
        shutil.rmtree(output, ignore_errors=True)
        partial.rename(output)
        sync_folder(output.parent)
    except Exception as error:
        if isinstance(error, RunError) or not disk.is_full(error, partial):
            raise
        raise RunError(
            Reason.DISK_FULL,
            f"no space left on the volume while writing the merged model {output}",
            hint="Set a larger spec.storage.size; the adapter in final/ is complete and kept.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("merged model verified: logits differ by at most %.3g", result.max_abs_difference)
    return result


def is_merged(output: Path, adapter: Path) -> bool:
    """Whether ``output`` is the verified merge of just this adapter."""
    try:
        return bool(read_json(output / MERGE_RECORD)["adapter_sha256"] == adapter_sha256(adapter))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def adapter_sha256(adapter: Path) -> str:
    """SHA-256 of an adapter's weights.

    Raises:
        FileNotFoundError: there are none in safetensors.

    """
    return sha256(adapter / ADAPTER_WEIGHTS)


def _merge_into(
    folder: Path, adapter: Path, base: str | Path, prompts: Sequence[str], quantization: Quantization | None
) -> Merge:
    machine = this_machine()
    device_map = machine.device_map if quantization is None else None
    tokenizer = load_tokenizer(adapter, base)
    inputs = [_encode(tokenizer, prompt) for prompt in prompts[:_PROMPTS] if prompt]
    model = load_model(base, "auto", device_map).eval()
    dtype, layers = model.dtype, getattr(model.config.get_text_config(), "num_hidden_layers", None) or 1
    plain = _logits(model, inputs)
    weights = stored_weights(model) if quantization else None
    adapted_model = attach_adapter(model, adapter).eval()
    adapted = _logits(adapted_model, inputs)
    _make_generation_config_valid(model)
    try:
        _write(adapted_model, weights, folder)
    except ValueError as error:
        raise RunError(Reason.NON_FINITE_LOSS, f"cannot merge {adapter}: {error}") from error
    homes = [source for source in (adapter, Path(base)) if source.is_dir()]
    if not any(copy_tokenizer(source, folder) for source in homes):
        tokenizer.save_pretrained(folder)
    for source in homes:
        if copy_processor(source, folder):
            break
    del model, adapted_model, weights
    stored = _logits(load_model(folder, "auto", device_map).eval(), inputs)
    scale = _rms(adapted) or 1.0
    trained = _quantized_logits(adapter, base, quantization, machine, inputs) if quantization else None
    return Merge(
        base=str(Path(base).resolve() if Path(base).exists() else base),
        adapter_sha256=adapter_sha256(adapter),
        dtype=str(dtype).removeprefix("torch."),
        prompts=len(inputs),
        max_abs_difference=float((stored - adapted).abs().max()),
        difference=_rms(stored - adapted) / scale,
        effect=_rms(adapted - plain) / scale,
        kept=_share(stored - plain, adapted - plain),
        tolerance=TOLERANCE.get(dtype, max(TOLERANCE.values())) * math.sqrt(max(1.0, layers / 16)),
        quantized_difference=None if trained is None else _rms(stored - trained) / scale,
    )


def _write(adapted: PeftModel, weights: Mapping[str, torch.Tensor] | None, folder: Path) -> None:
    """Write the merged model: file by file where ``weights`` are given, if they can be, else all at once."""
    if weights is not None:
        try:
            write_merged(adapted, weights, folder, max_shard_size=_MAX_SHARD_SIZE)
            return
        except NotImplementedError as error:
            log.info("merging in memory: %s", error)
    adapted.merge_and_unload(safe_merge=True).save_pretrained(folder, max_shard_size=_MAX_SHARD_SIZE)


def _quantized_logits(
    adapter: Path, base: str | Path, quantization: Quantization, machine: Machine, inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Logits of what was trained and evaluated."""
    dtype = DTYPES[choose_arithmetic("auto", machine, quantization)]
    model = load_model(base, dtype, machine.device_map, quantization)
    return _logits(attach_adapter(model, adapter).eval(), inputs)


@torch.inference_mode()
def _logits(model: PreTrainedModel, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits at every token of every prompt, shape (tokens, vocabulary), float32 on the CPU.

    One forward pass of all prompts, as one reads all weights. Padding is on the right, where nothing looks back from.
    """
    ids = pad_sequence(list(inputs), batch_first=True)
    mask = pad_sequence([torch.ones_like(prompt) for prompt in inputs], batch_first=True)
    logits: torch.Tensor = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
    return logits[mask.bool().to(logits.device)].float().cpu()


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: str) -> torch.Tensor:
    return torch.tensor(tokenizer(prompt)["input_ids"][:_PROMPT_TOKENS])


def _rms(values: torch.Tensor) -> float:
    return math.sqrt(float(values.double().square().mean()))


def _share(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The factor by which ``wanted`` fits ``found`` best; 1 where nothing is wanted."""
    square = float(wanted.double().square().sum())
    return float((found.double() * wanted.double()).sum()) / square if square else 1.0


def _make_generation_config_valid(model: PreTrainedModel) -> None:
    """Turn sampling on where the base sets a temperature without it, which transformers refuses to save."""
    try:
        model.generation_config.validate(strict=True)
    except ValueError:
        model.generation_config.do_sample = True


def _require_space(base: str | Path, folder: Path) -> None:
    """Refuse to begin what the volume has no room for: the merged model is as large as the base."""
    needed = sum(path.stat().st_size for path in Path(base).glob("*.safetensors"))
    free = disk.free(folder)
    if needed > free:
        raise RunError(
            Reason.DISK_FULL,
            f"the merged model needs {disk.size(needed)}, and {folder} has {disk.size(free)} free",
            hint="Set a larger spec.storage.size; the adapter in final/ is complete and kept.",
        )
