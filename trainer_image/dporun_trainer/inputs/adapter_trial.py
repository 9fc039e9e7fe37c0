"""A trial of the run's adapter on the empty model, in the settings of the training: what fails here fails there."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dporun_api.run_config import Lora
from dporun_trainer.adapters import ALL_LINEAR, lora_arguments
from dporun_trainer.architectures import language_model
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.weights import unfit


@dataclass(frozen=True)
class Trial:
    """What the adapter would be.

    Attributes:
        modules: layers that get one.
        parameters: trainable ones.
        takes_dropout: whether PEFT can put dropout before it; it cannot on experts, which are parameters of one module.

    """

    modules: int
    parameters: int
    takes_dropout: bool


def try_adapter(build: Callable[[], Any], lora: Lora) -> Trial:
    """Put the adapter on an empty model.

    Args:
        build: makes the model, on the meta device; PEFT changes it.
        lora: the adapter to be trained.

    Raises:
        RunError: the adapter does not fit.

    """
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415  heavy
    from peft.tuners.lora.layer import ParamWrapper  # noqa: PLC0415

    model = build()
    name, layers = type(model).__name__, _linear_layers(model)
    unknown = _unknown_targets(lora, model)
    try:
        adapted = put_adapter(model, lora)
    except ValueError as error:
        if unknown and not str(error).startswith("Cannot convert PEFT target"):
            raise _no_layer(unknown[0], layers) from error
        fitting = _fitting(build, layers) if lora.target_modules == ALL_LINEAR else layers
        if fitting and layers - fitting:
            raise unfit(
                f"PEFT puts no adapter on {', '.join(sorted(layers - fitting))} of {name}, which all-linear takes too",
                _name_layers(fitting),
            ) from error
        raise unfit(f"the adapter does not fit the model: {error}", "Check lora.targetModules.") from error
    # PEFT is content when one name of several is a layer's. Names of experts' layers it turns into those of parameters.
    if lost := [name for name in unknown if name in adapted.peft_config["default"].target_modules]:
        raise _no_layer(lost[0], layers)
    wrapped = {path: module for path, module in adapted.named_modules() if isinstance(module, LoraLayer)}
    experts = {path for path, module in wrapped.items() if isinstance(module, ParamWrapper)}
    others = {_leaf(path) for path in wrapped.keys() - experts}
    if odd := {_leaf(path) for path, module in wrapped.items() if path not in experts and _gives_more(module)}:
        raise unfit(
            f"{', '.join(sorted(odd))} of {name} does more than multiply with its weights, which PEFT takes it to do",
            _name_layers(others - odd),
        )
    if experts and lora.dropout:
        raise unfit(
            f"lora.dropout is {lora.dropout:g}, but the adapter is on the experts of {name} as well, which take none",
            f"Set lora.dropout: 0, or name layers other than experts in lora.targetModules: {_listed(others)}.",
        )
    return Trial(
        modules=len(wrapped),
        parameters=sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad),
        takes_dropout=not experts,
    )


def put_adapter(model: Any, lora: Lora) -> Any:
    """Put the adapter on an empty model, as training does.

    Raises:
        ValueError: PEFT refuses it.

    """
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415  heavy

    arguments = lora_arguments(lora, language_model(model), dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # among others, PEFT 0.21 says of the rank of experts that it is ignored: it is not
        return get_peft_model(
            model, LoraConfig(**arguments), low_cpu_mem_usage=True
        )  # the adapter without weights, too


def _unknown_targets(lora: Lora, model: Any) -> list[str]:
    """Names in lora.targetModules that are no module's.

    Raises:
        RunError: one is the output head's.

    """
    if lora.target_modules == ALL_LINEAR:
        return []
    part, head, unknown = language_model(model), model.get_output_embeddings(), []
    modules = {path: module for path, module in model.named_modules() if part is None or path.startswith(f"{part}.")}
    for target in lora.target_modules:
        matches = [module for path, module in modules.items() if path == target or path.endswith("." + target)]
        if any(module is head for module in matches):
            raise unfit(f"lora.targetModules: {target!r} is the output head, which gets no adapter", "Leave it out.")
        if not matches:
            unknown.append(target)
    return unknown


def _no_layer(target: str, linear: set[str]) -> RunError:
    return unfit(
        f"lora.targetModules: the model has no layer named {target!r}",
        f"Its linear layers are {', '.join(sorted(linear))}; all-linear takes all of them.",
    )


def _linear_layers(model: Any) -> set[str]:
    """Names of the layers that all-linear takes."""
    from torch.nn import Linear  # noqa: PLC0415  heavy
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415

    part, head = language_model(model), model.get_output_embeddings()
    return {
        _leaf(path)
        for path, module in model.named_modules()
        if isinstance(module, Linear | Conv1D) and module is not head and (part is None or path.startswith(f"{part}."))
    }


def _fitting(build: Callable[[], Any], layers: Iterable[str]) -> set[str]:
    """Those of the layers on which PEFT puts an adapter."""
    fitting = set()
    for layer in layers:
        try:
            put_adapter(build(), Lora(target_modules=(layer,)))
        except ValueError:
            continue
        fitting.add(layer)
    return fitting


def _gives_more(layer: Any) -> bool:
    """Whether a linear layer with a forward of its own does something else than a product, as some routers do."""
    import torch  # noqa: PLC0415  heavy

    base = layer.get_base_layer()
    if not isinstance(base, torch.nn.Linear) or type(base).forward is torch.nn.Linear.forward:
        return False
    try:
        given = base(torch.empty(2, base.in_features, dtype=base.weight.dtype, device="meta"))
    except TypeError:  # it wants other arguments: only the model knows them
        return False
    except (RuntimeError, ValueError):  # it takes no matrix, as DeepSeek-V4's grouped projection
        return True
    return not isinstance(given, torch.Tensor)


def _name_layers(layers: Iterable[str]) -> str:
    return f"Name layers in lora.targetModules: {_listed(layers)}."


def _listed(layers: Iterable[str]) -> str:
    return f"[{', '.join(sorted(layers))}]"


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]
