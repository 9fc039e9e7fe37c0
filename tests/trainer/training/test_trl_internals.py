"""The fence around the private parts of the libraries: it is complete, and they are what it was written for."""

import ast
import hashlib
import importlib
import inspect
import math
import textwrap
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

import dporun_trainer
from dporun_testing import training
from dporun_testing.training import a_config, attempt
from dporun_trainer.data.formats import read_pairs
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.training import trl_internals
from dporun_trainer.training.upstream import UPSTREAM, Upstream

LIBRARIES = {"accelerate", "datasets", "deepspeed", "peft", "safetensors", "tokenizers", "torch", "transformers", "trl"}
ROOT = Path(dporun_trainer.__path__[0])
FENCE = Path(trl_internals.__file__).relative_to(ROOT).as_posix()
EXCEPTIONS: dict[str, set[str]] = {}
"""Private names that other modules may use, by module; keep it empty."""


def source(upstream: Upstream) -> str:
    """Source of a function without comments of their own line, blank lines and indentation of the whole."""
    module, _, name = upstream.function.partition(":")
    found: Any = reduce(getattr, name.split("."), importlib.import_module(module))
    lines = textwrap.dedent(inspect.getsource(found)).splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip() and not line.strip().startswith("#"))


@pytest.mark.parametrize("upstream", UPSTREAM, ids=lambda upstream: upstream.function.partition(":")[2])
def test_upstream_is_what_the_fence_was_written_for(upstream: Upstream) -> None:
    text = source(upstream)
    found = hashlib.sha256(text.encode()).hexdigest()[:16]
    advice = (
        f"{upstream.function} has changed: read it and trl_internals.py again, as the head of upstream.py says. "
        f"At stake: {upstream.breaks} Its hash now: {found}"
    )
    assert upstream.line in text, advice
    assert found == upstream.sha256, advice


def test_every_private_name_is_listed_with_its_origin() -> None:
    listed = {name for upstream in UPSTREAM for name in upstream.names}
    used = {name for _, name in private_names(ROOT / FENCE)}
    assert used == listed, "UPSTREAM and the code of trl_internals.py name other private parts"


def test_no_other_module_touches_a_private_part_of_a_library() -> None:
    found = [
        f"{module}:{line} {name}"
        for path in sorted(ROOT.rglob("*.py"))
        if (module := path.relative_to(ROOT).as_posix()) != FENCE
        for line, name in private_names(path)
        if name not in EXCEPTIONS.get(module, set())
    ]
    assert not found, f"private parts of a library belong into {FENCE}: {', '.join(found)}"


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch._C",
        "import deepspeed.ops\ndeepspeed.ops.__compatible_ops__",
        "from trl.data_utils import _tokenize",
        "from torch._utils import anything",
        "import torch._utils",
        "def look(trainer):\n    return trainer._metrics",
        "def look(trainer):\n    trainer.accelerator._models = []",
        "def look(trainer):\n    return getattr(trainer, '_metrics')",
        "from trl import DPOTrainer\nclass Ours(DPOTrainer):\n    def _save(self): pass",
        "from trl import DPOTrainer\nclass Ours(DPOTrainer):\n    def log(self):\n        self._tr_loss = 0",
        "import transformers\nclass Ours(transformers.Trainer):\n    _run_epoch = None",
        "from trl import DPOTrainer\nclass A(DPOTrainer): pass\nclass B(A):\n    def _save(self): pass",
        "from dporun_trainer.training.trainer import RunTrainer as R\nclass Ours(R):\n    def _evaluate(self): pass",
    ],
)
def test_a_private_part_is_found_however_it_is_touched(code: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(code)
    assert len(list(private_names(path))) == 1


def test_own_private_names_are_no_ones_business(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "from trl import DPOTrainer\n"
        "class Ours(DPOTrainer):\n"
        "    _own = 1\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self._also = self._own\n"
        "class Other:\n"
        "    def __init__(self, other):\n"
        "        self._metrics = other._metrics\n"
        "        self.name = type(other).__name__\n"
    )
    assert list(private_names(path)) == []


def private_names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of each private part of a library that a module touches.

    That is: a private name that it imports from a library; in a class that descends from a library's, a private method
    or attribute that the library's classes have as well; and any private attribute of something else than ``self``,
    unless a class of the same module has it.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {name for kind in ast.walk(tree) if isinstance(kind, ast.ClassDef) for name in defined(kind)}
    own |= {kind.name for kind in tree.body if isinstance(kind, ast.FunctionDef)}
    heirs: set[ast.AST] = set()
    for kind in ast.walk(tree):
        if isinstance(kind, ast.ClassDef) and (inherited := private_names_of_bases(kind, tree)):
            inside = list(ast.walk(kind))
            heirs.update(inside)
            yield from ((kind.lineno, name) for name in sorted(defined(kind) & inherited))
            yield from (
                (node.lineno, node.attr)
                for node in inside
                if isinstance(node, ast.Attribute) and node.attr in inherited - defined(kind) and private(node.attr)
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from ((node.lineno, name) for name in names if private(name))
        elif isinstance(node, ast.Import):
            names = [name for alias in node.names for name in alias.name.split(".")]
            yield from ((node.lineno, name) for name in names if private(name) and names[0] in LIBRARIES)
        elif isinstance(node, ast.Attribute) and private(node.attr) and node not in heirs:
            selfish = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            if not selfish and node.attr not in own:
                yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"getattr", "setattr"}:
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
            if isinstance(name, str) and private(name):
                yield node.lineno, name


LANGUAGE = {name for kind in (object, type, BaseException, type(ast), list) for name in dir(kind)} | {
    "__cause__",
    "__context__",
    "__version__",
    "__torch_function__",  # as public as __add__: torch's documented way to extend it
}


def private(name: str) -> bool:
    return name.startswith("_") and name not in LANGUAGE


def defined(kind: ast.ClassDef) -> set[str]:
    """Private methods and attributes that a class defines, in its body or on ``self``."""
    names = {node.name for node in kind.body if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(kind):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            names |= {node.attr} if node.value.id == "self" else set()
    for node in kind.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if private(name)}


def private_names_of_bases(kind: ast.ClassDef, tree: ast.Module) -> set[str]:
    """Private names of the libraries' classes from which a class descends."""
    names = set()
    here = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for base in kind.bases:
        if isinstance(base, ast.Name) and base.id in here:
            names |= private_names_of_bases(here[base.id], tree)
        for ancestor in getattr(evaluated(base, tree), "__mro__", ()):
            if ancestor.__module__ in {"torch", "torch._C"}:  # a tensor: its class is not where its module says
                names |= {name for name in vars(ancestor) if private(name)}
            elif ancestor.__module__.split(".")[0] in LIBRARIES:
                names |= defined(ast.parse(textwrap.dedent(inspect.getsource(ancestor))).body[0])
    return names


def evaluated(expression: ast.expr, tree: ast.Module) -> Any:
    """What an expression of names and attributes means in a module, by the module's imports; None when unknown."""
    head, *rest = ast.unparse(expression).split(".")
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            if isinstance(node, ast.ImportFrom) and head == (alias.asname or alias.name):
                return reduce(getattr, [alias.name, *rest], importlib.import_module(node.module or ""))
            if isinstance(node, ast.Import) and head == (alias.asname or alias.name.split(".")[0]):
                return reduce(getattr, rest, importlib.import_module(alias.name if alias.asname else head))
    return None


# References keep their precision


@pytest.fixture(scope="module")
def in_bfloat16(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Trainers of runs in bfloat16, with and without precomputed references."""
    root = tmp_path_factory.mktemp("bf16")
    found = {}
    with training.single_process():
        for precompute in ("always", "never"):
            config = a_config(
                f"bf16-{precompute}",
                dpo={"precompute_ref_log_probs": precompute},
                lora={"dropout": 0.0},
                training={"precision": "bf16", "epochs": 1, "learning_rate": 2e-2},
            )
            found[precompute] = attempt(config, training.prepare(config, root, model))
        yield found


@pytest.mark.slow
def test_bfloat16_leaves_the_references_whole(in_bfloat16: dict[str, Any]) -> None:
    """They are sums of tens to hundreds of nats, of which bfloat16 would keep eight bits."""
    always, never = (training.history(trainer.run.folder.path) for trainer in in_bfloat16.values())
    assert always[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert always == never


@pytest.mark.slow
def test_bfloat16_validates_as_the_evaluation_scores(in_bfloat16: dict[str, Any], model: Path) -> None:
    """Rewards agree within what a batch's padding changes: the roundings of single logits, averaged over tokens.

    A rounded reference would be off by beta times half a step of bfloat16 at its log-probability, 0.0125 at 64 nats.
    """
    from dporun_trainer.evaluation.policy import load_policy
    from dporun_trainer.evaluation.scoring import encode_pair, rewards

    directory = in_bfloat16["always"].run.folder.path
    policy = load_policy(directory / "final", base=model, precision="bf16")
    pairs = [
        encode_pair(pair, policy.tokenizer, max_length=128)
        for pair in read_pairs(RunFolder(directory).input_validation)
    ]
    scored = rewards(policy, [pair for pair in pairs if pair is not None], beta=0.1)
    (validated,) = (entry for entry in training.history(directory) if "eval_loss" in entry)
    margins = [reward.margin for reward in scored]
    assert validated["eval_rewards/margins"] == pytest.approx(sum(margins) / len(margins), abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_only_the_references_of_a_batch_keep_their_type(in_bfloat16: dict[str, Any], dtype: str) -> None:
    """float16 as well, in which DeepSpeed does not train on a CPU."""
    import torch

    trainer = in_bfloat16["always"]
    batch = trainer.data_collator([trainer.eval_dataset[0]]) | {"pixels": torch.ones(2, 3)}
    with pytest.MonkeyPatch.context() as patch:
        plugin = trainer.accelerator.state.deepspeed_plugin
        patch.setattr(plugin.hf_ds_config, "dtype", lambda: getattr(torch, dtype))
        prepared = trainer._prepare_inputs(batch)
    assert prepared["pixels"].dtype == getattr(torch, dtype)
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        assert torch.equal(prepared[name], batch[name])
        assert prepared[name].dtype == torch.float32
