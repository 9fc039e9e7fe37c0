"""``prepare``: fetch data and model, check both, and hold out the validation rows, before any GPU is held.

The cheapest check comes first: the data is read before the model, whose check imports torch.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dporun_api.files import write_text
from dporun_api.results import DatasetSummary, Outcome, OutcomeState, Stage
from dporun_api.run_config import RunConfig
from dporun_api.text import shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import disk
from dporun_trainer.data.questions import load_questions
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.adapter import fetch_adapter
from dporun_trainer.inputs.dataset import Side, build
from dporun_trainer.inputs.encoding import Encoder
from dporun_trainer.inputs.fetch import Fetcher
from dporun_trainer.inputs.fit import expected_memory, require_gpu_memory
from dporun_trainer.inputs.model import check_model, check_positions, say_dropout, say_modalities
from dporun_trainer.inputs.reading import Reading
from dporun_trainer.inputs.router import require_router
from dporun_trainer.inputs.tokenizer import load_tokenizer
from dporun_trainer.run_folder import RunFolder, room
from dporun_trainer.run_folder.prepared import ModelFacts, Prepared, Tokens
from dporun_trainer.run_folder.tokens import tokenizer_digest
from dporun_trainer.stores.sources import DATASET, MODEL

log = logging.getLogger(__name__)

_MAX_WARNINGS = 20


def prepare(config: RunConfig, folder: RunFolder, *, claims: Path) -> Outcome:
    """Fetch and check everything that training needs, once: first the data, then the model, then both together.

    What a finished preparation with the same inputs has left is used as it is; one that was interrupted is taken up
    with the files that it had fetched.

    Args:
        config: of the run.
        folder: of the run.
        claims: folder below which claims are mounted; pvc:// is used in place.

    Raises:
        RunError: model or data cannot be had or cannot be used (exit code 65), or may be had later (exit code 1).

    """
    key = inputs_key(config)
    if (done := _finished(folder, key)) is not None:
        return _outcome(config, done, "Model and data were prepared before")
    _begin(folder, key)

    def show(line: str) -> None:
        folder.progress.update(stage=Stage.PREPARING, detail=shorten(line, 256))

    def report(line: str) -> None:
        log.info("%s", line)
        show(line)

    fetcher = Fetcher(claims, show)
    general = _general(config, folder, fetcher)
    reading = Reading(config.dataset, config.dpo.max_length, config.training.seed)
    with _reported(folder, reading):
        selection = reading.select(fetcher, folder.raw_inputs, report)
    report(f"fetching the model from {config.model.uri}")
    model_path, revision = fetcher.model(config.model.uri, config.model.revision, folder.input_model, MODEL)
    model = _checked(config, model_path)
    require_router(model_path, config.dpo)
    report(f"{model.architecture} with {model.parameters:,} parameters ({model.dtype}) is fit for training")
    require_gpu_memory(config, model)
    _require_room(config, folder, model)
    if config.checkpoints.resume_from:
        fetch_adapter(config, model, folder.input_adapter)
    with _reported(folder, reading):
        dataset = build(
            selection,
            Encoder(load_tokenizer(model_path)),
            train_to=Side(folder.input_train, folder.train_tokens),
            validation_to=Side(folder.input_validation, folder.validation_tokens),
            on_progress=report,
        )
    folder.dataset_report.write(dataset.report)
    warnings = [
        *model.warnings,
        *say_modalities(model),
        *say_dropout(model, config.lora),
        *check_positions(model_path, model, dataset.longest),
        *dataset.warnings,
    ]
    for warning in warnings:
        log.warning("%s", warning)
    shutil.rmtree(folder.raw_inputs, ignore_errors=True)
    prepared = Prepared(
        key=key,
        model_path=str(model_path.absolute()),
        model_revision=revision,
        model=model,
        train_path=str(folder.input_train.absolute()),
        validation_path=str(folder.input_validation.absolute()),
        tokens=Tokens(
            train_path=str(folder.train_tokens.absolute()),
            validation_path=str(folder.validation_tokens.absolute()),
            tokenizer=tokenizer_digest(model_path),
        ),
        general_path=str(general.absolute()) if general else None,
        adapter_path=str(folder.input_adapter.absolute()) if config.checkpoints.resume_from else None,
        dataset=DatasetSummary(
            train_rows=dataset.train_rows,
            validation_rows=dataset.validation_rows,
            warnings=tuple(shorten(warning, 300) for warning in warnings[:_MAX_WARNINGS]),
            dropped_rows=dataset.dropped,
            fingerprint=dataset.fingerprint,
            format=dataset.lint.train.format,
        ),
        lint=dataset.lint,
    )
    folder.prepared.write(prepared)
    return _outcome(config, prepared, "Model and data are ready")


def inputs_key(config: RunConfig) -> str:
    """SHA-256 over everything in ``config`` that decides what prepare leaves."""
    general = config.evaluation.general
    parts = {
        "model": config.model.model_dump(mode="json"),
        "dataset": config.dataset.model_dump(mode="json"),
        "max_length": config.dpo.max_length,
        "router_aux_loss_coef": config.dpo.router_aux_loss_coef,
        "lora": config.lora.model_dump(mode="json"),
        "general": general.uri if config.evaluation.enabled and general.enabled else None,
        "resume_from": config.checkpoints.resume_from,
        "seed": config.training.seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _finished(folder: RunFolder, key: str) -> Prepared | None:
    """What an earlier preparation left, if it is of these inputs and still there."""
    prepared = folder.prepared.read()
    if prepared is None or prepared.key != key or prepared.tokens is None:
        return None
    paths = (
        prepared.model_path,
        prepared.train_path,
        prepared.validation_path,
        prepared.tokens.train_path,
        prepared.tokens.validation_path,
        prepared.general_path,
        prepared.adapter_path,
    )
    there = all(Path(path).exists() for path in paths if path)
    return prepared if there and tokenizer_digest(Path(prepared.model_path)) == prepared.tokens.tokenizer else None


def _begin(folder: RunFolder, key: str) -> None:
    """Make the folder of inputs; what was fetched for other inputs is deleted, for these it stays."""
    mark = folder.inputs_key
    if not mark.is_file() or mark.read_text(encoding="utf-8") != key:
        shutil.rmtree(folder.inputs, ignore_errors=True)
        write_text(mark, key)
    folder.prepared.delete()
    folder.dataset_report.delete()


def _checked(config: RunConfig, folder: Path) -> ModelFacts:
    """Check the model; an error begins with the URI that the user knows, not only with the folder."""
    try:
        return check_model(folder, config.lora, config.model.quantization)
    except RunError as error:
        raise RunError(error.reason, f"{config.model.uri}: {error.message}", hint=error.hint) from error


def _require_room(config: RunConfig, folder: RunFolder, model: ModelFacts) -> None:
    """Refuse a volume on which the run cannot end; what an earlier attempt left of it takes its room already."""
    needed = room.run_bytes(model.lora_parameters, model.bytes, config.training.epochs)
    free = disk.free(folder.path)
    if needed > free and not folder.checkpoints.folders():
        raise RunError(
            Reason.DISK_FULL,
            room.lacking("what the run will write (checkpoints, the adapter and the merged model)", needed, free),
            hint="Set a larger spec.storage.size.",
        )


def _general(config: RunConfig, folder: RunFolder, fetcher: Fetcher) -> Path | None:
    """Fetch and check the general questions, where the user has some."""
    general = config.evaluation.general
    if not (config.evaluation.enabled and general.enabled and general.uri):
        return None
    files = fetcher.data(general.uri, folder.raw_inputs / "general", DATASET)
    path = folder.input_general
    write_text(path, "".join(file.path.read_text(encoding="utf-8") for file in files))
    log.info("%d general questions", len(load_questions(path)))
    return path


@contextmanager
def _reported(folder: RunFolder, reading: Reading) -> Iterator[None]:
    """Leave dataset_report.json of data that is refused meanwhile."""
    try:
        yield
    except RunError as error:
        if (refused := reading.refused(error.failure())) is not None:
            folder.dataset_report.write(refused)
        raise


def _outcome(config: RunConfig, prepared: Prepared, what: str) -> Outcome:
    lengths = prepared.lint.train.total
    data = prepared.dataset
    count = len(data.warnings)
    out = f", {data.dropped_rows} left out" if data.dropped_rows else ""
    warnings = f"{out}, {count} warning{'s' if count > 1 else ''}" if count else out
    read = f", read as {data.format}" if data.format else ""
    return Outcome(
        state=OutcomeState.SUCCEEDED,
        message=f"{what}: {data.train_rows} training and {data.validation_rows} validation rows{read}{warnings}",
        dataset=data,
        memory=expected_memory(config, prepared.model, lengths.maximum if lengths else None),
    )
