"""Pairs in tokens: written once, by prepare, and mapped into memory by every training process."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dporun_api.files import sync_folder

COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")
"""As TRL's DPOTrainer names them: the prompt, and each response without it."""
PairTokens = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Token ids of a pair, in the order of COLUMNS."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@contextmanager
def token_writer(path: Path | None) -> Iterator[Callable[[Iterable[PairTokens]], None]]:
    """Open a file of tokens, as a stream of Arrow, for writing batches; it appears when it is whole.

    Without a path, nothing is written.
    """
    if path is None:
        yield lambda _: None
        return
    import pyarrow  # noqa: PLC0415  heavy

    schema = pyarrow.schema([(name, pyarrow.list_(pyarrow.int32())) for name in COLUMNS])
    with _stream(path, schema) as stream:

        def write(batch: Iterable[PairTokens]) -> None:
            if columns := list(zip(*batch, strict=True)):
                arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
                stream.write_batch(pyarrow.record_batch(arrays, schema=schema))

        yield write


@contextmanager
def _stream(path: Path, schema: Any) -> Iterator[Any]:
    import pyarrow  # noqa: PLC0415  heavy

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        with pyarrow.ipc.new_stream(file, schema) as stream:
            yield stream
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def tokenizer_digest(model: Path) -> str:
    """SHA-256 over what decides the tokens of a pair: the files of the tokenizer, and its chat templates."""
    digest = hashlib.sha256()
    for path in sorted([*(model / name for name in _TOKENIZER_FILES), *model.glob("**/*.jinja")]):
        if path.is_file():
            digest.update(f"{path.relative_to(model)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
