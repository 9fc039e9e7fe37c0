"""The two models an evaluation compares: the tuned policy, and the base model it came from."""

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from dporun_api.files import read_json
from dporun_api.run_config import Precision, Quantization
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import architectures, gpu_errors
from dporun_trainer.device import this_machine
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.memory import Item, Result, answers_at_once, attempt
from dporun_trainer.precision import DTYPES, choose_arithmetic
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.parts import MERGE_RECORD

log = logging.getLogger(__name__)

T = TypeVar("T")

ADAPTER_CONFIG = "adapter_config.json"
MODEL_CONFIG = "config.json"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class Sides(NamedTuple, Generic[T]):
    """The same thing for the base model and for the tuned one."""

    base: T
    tuned: T


@dataclass(frozen=True)
class Policy:
    """The tuned model, its tokenizer and its base.

    Attributes:
        model: the tuned model; a PeftModel when ``reference`` is None.
        tokenizer: padding token set.
        reference: the base model, or None when it is ``model`` with its adapter disabled.
        source: folder of the tuned model.

    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    reference: PreTrainedModel | None
    source: Path

    def on_both(self, work: Callable[[PreTrainedModel], Sequence[T]]) -> list[Sides[T]]:
        """Apply ``work`` to the base model and then to the tuned one, and pair what it returns for each item.

        Both in one go: rounding depends on what shares a batch, so base and tuned model get the very same one.
        """
        with self._base() as model:
            base = work(model)
        return [Sides(*results) for results in zip(base, work(self.model), strict=True)]

    @property
    def places(self) -> int:
        """Batches that are worked on at a time."""
        return 1

    def answers_at_once(self, tokens: int) -> int:
        """How many answers to generate at a time, when prompt and answer together have up to ``tokens`` tokens."""
        return answers_at_once(self.model, tokens)

    def submit(self, work: "Work[Item, Result]", batch: Sequence[Item]) -> Future[Sequence[Result] | None]:
        """Work on a batch, here and now; the result is None when the GPU ran out of memory."""
        future: Future[Sequence[Result] | None] = Future()
        try:
            future.set_result(attempt(partial(work, self), batch))
        except Exception as error:  # noqa: BLE001  raised again where the result is asked for
            future.set_exception(error)
        return future

    @contextlib.contextmanager
    def _base(self) -> Iterator[PreTrainedModel]:
        if self.reference is not None:
            yield self.reference
        else:
            with self.model.disable_adapter():
                yield self.model

    @property
    def max_positions(self) -> int | None:
        """Longest sequence the model has positions for, if it has a limit."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else None


Work = Callable[[Policy, Sequence[Item]], Sequence[Result]]
"""What is done with a batch of items: as many results, in order."""


def load_policy(
    source: Path,
    *,
    base: str | Path | None = None,
    precision: Precision = "auto",
    quantization: Quantization | None = None,
    gpus: int = 0,
) -> Policy:
    """Load an adapter or a merged model, and its base.

    Args:
        source: folder of a PEFT adapter or of a whole transformers model, in safetensors.
        base: folder (or Hub name) of the base model; found by the records beside ``source`` when absent.
        precision: arithmetic; auto is bf16 where the GPU has it, else fp16, and fp32 on CPU.
        quantization: of the base on which the adapter was trained; a merged model and its base are loaded as they are.
        gpus: that this pod was given, which it then must see.

    Raises:
        RunError: ``source`` is neither, the base cannot be found, or one of them cannot be loaded.

    """
    adapter = is_adapter(source)
    base = find_base(source) if base is None else _usable(base)
    machine = this_machine(gpus=gpus)
    quantization = quantization if adapter else None
    dtype = DTYPES[choose_arithmetic(precision, machine, quantization)]
    log.info("loading %s and its base %s in %s on %s", source, base, quantization or dtype, machine.device)
    reference = _without_router_logits(load_model(base, dtype, machine.device_map, quantization))
    tokenizer = load_tokenizer(source, base)
    if adapter:
        return Policy(attach_adapter(reference, source).eval(), tokenizer, None, source)
    tuned = _without_router_logits(load_model(source, dtype, machine.device_map))
    return Policy(tuned.eval(), tokenizer, reference.eval(), source)


def is_adapter(source: Path) -> bool:
    """Whether ``source`` holds a PEFT adapter (True) or a whole model (False).

    Raises:
        RunError: it holds neither.

    """
    if (source / ADAPTER_CONFIG).is_file():
        return True
    if (source / MODEL_CONFIG).is_file():
        return False
    what = "has neither adapter_config.json nor config.json" if source.is_dir() else "is not a folder"
    raise RunError(
        Reason.MODEL_INVALID,
        f"{source} {what}",
        hint="Give the folder of a LoRA adapter (such as a run's final/ or checkpoint-N/) or of a merged model.",
    )


def find_base(source: Path) -> str | Path:
    """Find the base model of the adapter or merged model in ``source``.

    Looks at what the model itself records (a merged model's merge.json, an adapter's base_model_name_or_path), then at
    the run's directory around it.

    Raises:
        RunError: no record names a model that can be had.

    """
    recorded = [_record(source / MERGE_RECORD, "base"), _record(source / ADAPTER_CONFIG, "base_model_name_or_path")]
    for candidate in filter(None, recorded):
        if (Path(candidate) / MODEL_CONFIG).is_file():
            return Path(candidate)
    prepared = RunFolder.around(source).input_model
    if (prepared / MODEL_CONFIG).is_file():
        return prepared
    for candidate in filter(None, recorded):
        if _HUB_NAME.fullmatch(candidate):
            return candidate
    raise RunError(
        Reason.MODEL_INVALID,
        f"the base model of {source} is not known"
        + "".join(f"; {name} is not here" for name in filter(None, recorded)),
        hint="Name it with --base.",
    )


def load_model(
    source: str | Path,
    dtype: str,
    device_map: dict[str, str] | None = None,
    quantization: Quantization | None = None,
) -> PreTrainedModel:
    """Load a causal language model from safetensors, without running any code that comes with it.

    Args:
        source: folder or Hub name.
        dtype: torch's name of the weights' type, or auto for the one that they are stored in.
        device_map: see ``Machine.device_map``.
        quantization: of its linear layers.

    Raises:
        RunError: it cannot be loaded, or the weights are not those of the model that its configuration describes.

    """
    disable_progress_bar()
    try:
        return architectures.load_model(str(source), dtype=dtype, device_map=device_map, quantization=quantization)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _unloadable("model", source, error) from error


def attach_adapter(model: PreTrainedModel, source: Path) -> PeftModel:
    """Put the adapter in ``source`` on ``model``, in the model's own arithmetic, as it was trained.

    Raises:
        RunError: it cannot be loaded, or does not fit the model.

    """
    try:
        if PeftConfig.from_pretrained(str(source)).is_prompt_learning:
            raise ValueError("prompt-learning adapters are not supported; LoRA is")
        return PeftModel.from_pretrained(model, str(source), is_trainable=False, autocast_adapter_dtype=False)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise _unloadable("adapter", source, error) from error


def load_tokenizer(source: Path, base: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of ``source``, or of ``base`` when ``source`` has none; padding falls back to EOS as in TRL.

    Raises:
        RunError: it cannot be loaded.

    """
    home = source if (source / "tokenizer_config.json").is_file() else base
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(home), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _unloadable("tokenizer", home, error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _without_router_logits(model: PreTrainedModel) -> PreTrainedModel:
    """Have a mixture of experts compute no router's loss: transformers' fails on the single token of a step."""
    config = model.config.get_text_config()
    if hasattr(config, "output_router_logits"):
        config.output_router_logits = False
    return model


def _record(path: Path, key: str) -> str | None:
    try:
        record: Any = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, json.JSONDecodeError) as error:
        raise _unloadable("record", path, error) from error
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, str) else None


def _usable(base: str | Path) -> str | Path:
    path = Path(base)
    if (path / MODEL_CONFIG).is_file():
        return path
    if not path.exists() and _HUB_NAME.fullmatch(str(base)):
        return str(base)
    raise RunError(Reason.MODEL_INVALID, f"{base} is not the folder of a base model: it has no config.json")


def _unloadable(what: str, source: str | Path, error: Exception) -> RunError:
    if (found := gpu_errors.in_error(error)) is not None:
        hint = found.hint or "Take a GPU with more memory, and look whether another process holds some of it."
        return RunError(found.reason, f"cannot load the {what} {source}: {found.message}", hint=hint)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return RunError(Reason.MODEL_INVALID, f"cannot load the {what} {source}: {reason}")
