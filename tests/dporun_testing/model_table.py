"""The table of docs/models.md: each causal model type of transformers, tried with a tiny random model. ``make models``.

What prepare decides of it, and for what it accepts, whether TRL computes the log-probabilities of the model's own
logits and whether the model reads only what stands before a token.
"""

import datetime
import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dporun_api.run_config import Lora
from dporun_api.text import shorten
from dporun_testing import families
from dporun_testing.paths import ROOT
from dporun_testing.tiny_model import save_tiny_model

if TYPE_CHECKING:
    from dporun_trainer.errors import RunError

PAGE = ROOT / "docs/models.md"
TRAINS = "trains"
WRONG = "WRONG: "
NOT_QUANTIZED = "; not in 4 bits"
NOT_TRIED = "not tried: "
_BEGINS = "<!-- Below is generated: make models -->\n"
_PACKAGES = ("transformers", "trl", "peft", "torch")
_LARGEST = 10**8
"""Parameters; the sizes of larger ones are fixed in transformers, or have names that families.py does not know."""


@dataclass(frozen=True)
class Row:
    """What was found of a model type."""

    model_type: str
    architecture: str
    found: str


def model_types() -> list[str]:
    """Every type for which AutoModelForCausalLM has a class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def try_type(model_type: str, tokenizer: Path) -> Row:
    """Try a type with a tiny model and the tokenizer in that folder."""
    architecture = families.architecture(model_type)
    try:
        _require_small(model_type)
        model = families.tiny_model(model_type)
        logits = _logits(model, families.random_batch()["input_ids"])
        if logits.shape[-1] < families.VOCABULARY:
            raise ValueError("it answers with other words than it reads")
    except Exception as error:  # noqa: BLE001  transformers raises whatever it stumbles on
        return Row(model_type, architecture, _refused_by_structure(model_type) or NOT_TRIED + _words(error))
    with tempfile.TemporaryDirectory() as folder:
        families.save(model, Path(folder), tokenizer)
        return Row(model_type, architecture, decided(Path(folder)))


def _refused_by_structure(model_type: str) -> str | None:
    """What prepare says of a type's default configuration alone, where no small model can be made; None if nothing."""
    from transformers import CONFIG_MAPPING

    from dporun_trainer.errors import RunError
    from dporun_trainer.inputs.structure import build_empty, read_config, require_trainable

    with tempfile.TemporaryDirectory() as folder:
        try:
            CONFIG_MAPPING[model_type](architectures=[families.architecture(model_type)]).save_pretrained(folder)
            require_trainable(build_empty(read_config(Path(folder))))
        except RunError as error:
            refusal = _refusal(error, Path(folder))
            return None if "builds no" in refusal else refusal  # that is about these sizes
        except Exception:  # noqa: BLE001  transformers has no such configuration either
            return None
    return None


def _require_small(model_type: str) -> None:
    import torch

    with torch.device("meta"):
        empty = families.tiny_model(model_type)
    if sum(parameter.numel() for parameter in empty.parameters()) > _LARGEST:
        raise ValueError("no small one can be made")


def decided(folder: Path) -> str:
    """What prepare decides of the model in ``folder``, and whether it would be trained right."""
    from dporun_trainer.errors import RunError
    from dporun_trainer.inputs.model import check_model

    lora, setting, refusal = Lora(), "", ""
    try:
        facts = check_model(folder, lora)
    except RunError as error:
        refusal = _refusal(error, folder)
        named = re.search(r"lora\.targetModules: \[(.+?)\]", error.hint or "")
        if named is None:
            return refusal
        lora, setting = Lora(target_modules=tuple(named[1].split(", "))), f" with `{named[0]}`"
        try:  # what the refusal advises
            facts = check_model(folder, lora)
        except RunError as again:
            return f"{WRONG}prepare advises {setting} and refuses it: {_words(again)}"
    try:
        check_model(folder, lora, "nf4")
        quantized = True
    except RunError:
        quantized = False
    if fault := _fault(folder, lora, quantized=quantized):
        return WRONG + fault
    dropout = "" if facts.takes_dropout else ", with `lora.dropout: 0`"
    return TRAINS + setting + dropout + ("" if quantized else NOT_QUANTIZED)


def _fault(folder: Path, lora: Lora, *, quantized: bool) -> str:
    """What is wrong with the training of a model, also on weights of 4 bits if ``quantized``; empty when nothing is."""
    import torch
    from peft import LoraConfig, get_peft_model
    from trl.trainer.utils import add_fused_lm_head

    from dporun_trainer.adapters import lora_arguments
    from dporun_trainer.architectures import language_model, load_model
    from dporun_trainer.training.fused_head import agreement

    batch = families.random_batch()
    try:
        cases = [(torch.float32, None), (torch.bfloat16, None), *([(torch.bfloat16, "nf4")] if quantized else ())]
        for dtype, quantization in cases:
            model = load_model(str(folder), dtype=dtype, quantization=quantization).eval()
            if quantization and _computes_otherwise(model, load_model(str(folder), dtype=dtype).eval(), batch):
                return "it computes with the weights of a layer otherwise than by calling it"
            families.spread_logits(model, batch)
            if dtype == torch.float32 and _sees_the_future(model, batch["input_ids"]):
                return "a token's logits depend on later tokens"
            add_fused_lm_head(model)
            arguments = lora_arguments(lora, language_model(model), dropout=0.0)
            found = agreement(get_peft_model(model, LoraConfig(**arguments)), batch)
            if not found.holds:
                return f"TRL's log-probabilities are not the model's ({found.difference:.1g} nats per token)"
    except Exception as error:  # noqa: BLE001  what would end training
        return _words(error)
    return ""


def _computes_otherwise(quantized: Any, model: Any, batch: dict[str, Any]) -> bool:
    """Whether a model of 4 bits is another one than ``model`` with the weights that these bits stand for."""
    import torch
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    from dporun_trainer.quantization import quantized_layers

    for name, layer in quantized_layers(quantized).items():
        weight, rounded = model.get_submodule(name).weight, dequantize_bnb_weight(layer.weight)
        with torch.no_grad():
            weight.copy_(rounded if isinstance(model.get_submodule(name), torch.nn.Linear) else rounded.T)
    one, other = (_logits(each, batch["input_ids"]).float() for each in (quantized, model))
    return bool((one - other).norm() > 0.05 * other.norm())


def _sees_the_future(model: Any, ids: Any) -> bool:
    other, end = ids.clone(), ids.shape[1] // 4
    other[:, -end:] = other[:, -end:].flip(0)
    difference = (_logits(model, other) - _logits(model, ids))[:, :-end].abs().max()
    return bool(difference > 1e-3)  # of logits that are spread over tens


def _logits(model: Any, ids: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits


def _refusal(error: "RunError", folder: Path) -> str:
    return "refused: " + _words(error.message.replace(str(folder), "it"))


def _words(error: object) -> str:
    text = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error))
    return shorten(text.removeprefix("ValueError: "), 140).replace("|", "/").replace("<", "&lt;")


def read_page() -> dict[str, Row]:
    """The rows of docs/models.md."""
    _, _, table = PAGE.read_text(encoding="utf-8").partition(_BEGINS)
    found = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+) \|$", table, flags=re.MULTILINE)
    return {model_type: Row(model_type, architecture, words) for model_type, architecture, words in found}


def write_page(rows: Iterable[Row]) -> None:
    """Replace the table of docs/models.md; what stands above it is written by hand."""
    from importlib.metadata import version

    above, _, _ = PAGE.read_text(encoding="utf-8").partition(_BEGINS)
    rows = sorted(rows, key=lambda row: row.model_type)
    counted = {what: sum(row.found.startswith(what) for row in rows) for what in (TRAINS, "refused", NOT_TRIED)}
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    lines = [
        f"Tried on {datetime.date.today():%Y-%m-%d} with {packages}: {len(rows)} types, of which {counted[TRAINS]} "  # noqa: DTZ011
        f"train, {counted['refused']} are refused and {counted[NOT_TRIED]} could not be tried.",
        "",
        "| type | class | what happens |",
        "|---|---|---|",
        *(f"| `{row.model_type}` | {row.architecture} | {row.found} |" for row in rows),
    ]
    PAGE.write_text(above + _BEGINS + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Try every type and write the table."""
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = save_tiny_model(Path(folder))
        rows = []
        for model_type in sys.argv[1:] or model_types():
            rows.append(try_type(model_type, tokenizer))
            print(f"{model_type}: {rows[-1].found}", flush=True)
    if not sys.argv[1:]:
        write_page(rows)


def quiet() -> None:
    """Keep the libraries from talking about random models."""
    import transformers

    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)


if __name__ == "__main__":
    main()
