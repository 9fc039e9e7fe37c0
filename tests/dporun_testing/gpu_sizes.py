"""The tables of docs/gpus.md: which sizes fit on which GPUs, and how near the estimate is to what is counted.

python -m dporun_testing.gpu_sizes writes them anew.
"""

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from dporun_api.memory import GIB, MemoryEstimate, gibibytes
from dporun_api.run_config import Lora, Quantization, RunConfig
from dporun_testing.paths import ROOT
from dporun_trainer.memory import Shape, activations, estimate

PAGE = ROOT / "docs/gpus.md"
CARDS = {16: 14.6, 24: 22.5, 40: 39.4, 48: 44.4, 80: 79.2, 141: 139.8}
"""GB by name, and the GiB that CUDA reports of a T4, A10, A100 of both sizes, L40S, H100 and H200."""


@dataclass(frozen=True)
class Published:
    """The sizes in a published model's config.json.

    Attributes:
        name: of the model.
        kind: its model_type.
        vocabulary: rows of its embedding.
        hidden: hidden_size.
        intermediate: intermediate_size.
        layers: num_hidden_layers.
        heads: num_attention_heads.
        groups: num_key_value_heads.
        tied: whether the output embeddings are those of the input.

    """

    name: str
    kind: str
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    groups: int
    tied: bool = False

    def config(self) -> Any:
        """Its configuration in transformers."""
        from transformers import AutoConfig

        return AutoConfig.for_model(
            self.kind,
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.groups,
            tie_word_embeddings=self.tied,
            use_cache=False,
        )

    def shape(self, config: RunConfig) -> Shape:
        """The shape of a run with it, counted on its structure."""
        parameters, trainable, quantized = _counted_parameters(self)
        return Shape(
            parameters=parameters,
            trainable=trainable,
            hidden=self.hidden,
            intermediate=self.intermediate,
            layers=self.layers,
            vocabulary=self.vocabulary,
            sequences=2 * config.training.per_device_batch_size,
            length=config.dpo.max_length,
            lora_dropout=True,
            quantized=quantized if config.model.quantization else 0,
        )


PUBLISHED = (
    Published("Qwen2.5-0.5B", "qwen2", 151_936, 896, 4864, 24, 14, 2, tied=True),
    Published("Qwen2.5-1.5B", "qwen2", 151_936, 1536, 8960, 28, 12, 2, tied=True),
    Published("Qwen2.5-3B", "qwen2", 151_936, 2048, 11_008, 36, 16, 2, tied=True),
    Published("Qwen2.5-7B", "qwen2", 152_064, 3584, 18_944, 28, 28, 4),
    Published("Llama-3.1-8B", "llama", 128_256, 4096, 14_336, 32, 32, 8),
    Published("Qwen2.5-14B", "qwen2", 152_064, 5120, 13_824, 48, 40, 8),
    Published("Qwen2.5-32B", "qwen2", 152_064, 5120, 27_648, 64, 40, 8),
    Published("Llama-3.1-70B", "llama", 128_256, 8192, 28_672, 80, 64, 8),
)
COUNTED = (PUBLISHED[0], PUBLISHED[4])


@cache
def _counted_parameters(model: Published) -> tuple[int, int, int]:
    """Parameters of the model, of a run's default adapter, and those that 4 bits are for; all layers are alike."""
    one, two = (_of_layers(replace(model, layers=layers)) for layers in (1, 2))
    parameters, trainable, quantized = (
        first + (model.layers - 1) * (second - first) for first, second in zip(one, two, strict=True)
    )
    return parameters, trainable, quantized


def _of_layers(model: Published) -> tuple[int, int, int]:
    from dporun_trainer.inputs.adapter_trial import try_adapter
    from dporun_trainer.inputs.structure import build_empty
    from dporun_trainer.quantization import quantize_empty

    config = model.config()
    trial = try_adapter(lambda: build_empty(config), Lora())
    parameters = sum(parameter.numel() for parameter in build_empty(config).parameters())
    return parameters, trial.parameters, quantize_empty(build_empty(config))


def a_config(quantization: Quantization | None = None, **training: Any) -> RunConfig:
    """The defaults, on one GPU."""
    model = {"uri": "x", "quantization": quantization}
    return RunConfig.model_validate(
        {"run": {"name": "run"}, "model": model, "dataset": {"train": "x"}, "training": training}
    )


def needs(model: Published, quantization: Quantization | None = None) -> MemoryEstimate:
    """What training ``model`` with the defaults needs, in bf16 on one GPU."""
    config = a_config(quantization)
    return estimate(config, model.shape(config), arithmetic="bf16", cuda=True)


def sizes_table(quantization: Quantization | None = None) -> str:
    """Which sizes fit where."""
    head = ["model", "weights", "all", "recomputing", *(f"{card} GB" for card in CARDS), "pod"]
    rows = []
    for model in PUBLISHED:
        memory = needs(model, quantization)
        both = [gibibytes(memory.process(checkpointing=checkpointing)) for checkpointing in (False, True)]
        cells = [_fits(memory, int(card * GIB)) for card in CARDS.values()]
        rows.append([model.name, gibibytes(memory.weights), *both, *cells, gibibytes(memory.host)])
    return _table(head, rows)


def _fits(memory: MemoryEstimate, card: int) -> str:
    if memory.fits(card, checkpointing=False):
        return "yes"
    if memory.fits(card, checkpointing=True):
        return "recomputing"
    return "no" if memory.least <= card else "never"


def counted_table() -> str:
    """How near the estimate of activations is to what torch counts."""
    head = ["model", "counted, all", "estimated", "counted, recomputing", "estimated"]
    return _table(head, [counted_row(model) for model in COUNTED])


def counted_row(model: Published) -> list[str]:
    """A row of it."""
    cells = [model.name]
    for checkpointing in (False, True):
        counted, estimated = count(model, checkpointing=checkpointing)
        cells += [gibibytes(counted), f"{gibibytes(estimated)} ({estimated / counted:.2f})"]
    return cells


def count(model: Published, *, checkpointing: bool) -> tuple[int, int]:
    """Bytes of activations as torch counts them, and as they are estimated: of the defaults, in bf16 on a CPU."""
    import torch
    from peft import LoraConfig

    from dporun_testing.counted_memory import count_step

    shape = model.shape(a_config())
    counted = count_step(
        model.config(),
        LoraConfig(r=16, lora_dropout=0.05, target_modules="all-linear"),
        sequences=shape.sequences,
        length=shape.length,
        dtype=torch.bfloat16,
        checkpointing=checkpointing,
        fake=True,
    )
    return counted, activations(shape, 2, cuda=False, checkpointing=checkpointing)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(map(line, (head, ["---"] * len(head), *rows)))


def line(cells: list[str]) -> str:
    """A row as Markdown."""
    return f"| {' | '.join(cells)} |"


TABLES = {"sizes": sizes_table, "sizes in 4 bits": partial(sizes_table, "nf4"), "counted": counted_table}


def read_page(name: str) -> str:
    """A table of the page, as it is there."""
    return PAGE.read_text(encoding="utf-8").split(f"<!-- {name}: -->\n")[1].split("\n<!--")[0]


def main() -> None:
    """Write the tables into the page."""
    page = PAGE.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        page = page.replace(f"<!-- {name}: -->\n{read_page(name)}\n<!--", f"<!-- {name}: -->\n{table()}\n<!--")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
