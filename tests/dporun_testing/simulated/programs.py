"""The programs of a run's pods, reduced to what they leave behind: prepare, train, archive."""

import asyncio
import hashlib
import json
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dporun_api import archive_policy
from dporun_api.pod import ExitCode
from dporun_api.results import (
    ArchiveResult,
    BestCheckpoint,
    CheckpointUpload,
    DatasetSummary,
    Failure,
    Outcome,
    OutcomeState,
    Progress,
    Stage,
    Verdict,
    VerdictState,
)
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.simulated import storage, virtual_time
from dporun_testing.simulated.storage import Folder, Storage

STEP_SECONDS = 5.0
STEPS = 6
SAVE_EVERY = 2
FILE_SECONDS = 2.0


class Fate(StrEnum):
    """What happens to a training attempt."""

    ENDS_WELL = "ends well"
    ENDS_BADLY = "is trained, but does not reach its gates"
    IS_KILLED = "is killed"
    IS_EVICTED = "is evicted"
    NODE_IS_LOST = "loses its node"
    DISK_IS_FULL = "finds the disk full"
    DOES_NOT_FIND_MEMORY = "runs out of memory"


class Stopped(Exception):  # noqa: N818  a signal
    """SIGTERM."""


@dataclass
class Process:
    """The main process of a pod."""

    config: RunConfig
    folder: Folder
    storage: Storage
    command: list[str]
    fate: Fate
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    progress: Progress | None = None

    @property
    def uri(self) -> str:
        """The run's folder in the archive; empty when there is none."""
        target = self.config.archive
        return archive_policy.location(target, self.config.run.directory) if target else ""

    @property
    def uploads(self) -> bool:
        """Whether checkpoints are uploaded while training goes on."""
        return self.config.archive is not None and self.config.checkpoints.upload

    async def work(self, seconds: float) -> None:
        """Do something for a while; raises Stopped at a SIGTERM."""
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped


@dataclass(frozen=True)
class End:
    """Exit code and termination message."""

    code: int
    outcome: Outcome | None = None


async def prepare(process: Process) -> End:
    """Fetch and check model and data."""
    try:
        await process.work(4)
    except Stopped:
        return End(ExitCode.PREEMPTED, Outcome(state=OutcomeState.PREEMPTED))
    process.folder.prepared = True
    dataset = DatasetSummary(train_rows=90, validation_rows=10)
    return End(0, Outcome(state=OutcomeState.SUCCEEDED, dataset=dataset))


async def train(process: Process) -> End:
    """Go on from the newest checkpoint and save one now and then."""
    folder = process.folder
    try:
        await process.work(2)  # loading: nothing to save yet
    except Stopped:
        return End(ExitCode.PREEMPTED, Outcome(state=OutcomeState.PREEMPTED))
    if not folder.prepared:
        return _failed(Reason.NOT_PREPARED, ExitCode.ERROR)
    step = max([*folder.checkpoints, *process.storage.uploaded(process.uri)], default=0)
    try:
        while step < STEPS:
            await process.work(STEP_SECONDS)
            step += 1
            if step > STEPS // 2 and process.fate in {Fate.IS_KILLED, Fate.DOES_NOT_FIND_MEMORY}:
                return _killed(process.fate)
            if step % SAVE_EVERY == 0:
                if process.fate is Fate.DISK_IS_FULL:
                    return _failed(Reason.DISK_FULL, ExitCode.ERROR)
                process.storage.save(folder, step)
                _upload_checkpoint(process, step)
            process.progress = _progress(process, step)
        await process.work(STEP_SECONDS)  # evaluating
    except Stopped:
        if process.fate is not Fate.DISK_IS_FULL and step:
            process.storage.save(folder, step)
        outcome = Outcome(state=OutcomeState.PREEMPTED, step=step, best_checkpoint=_best(folder))
        return End(ExitCode.PREEMPTED, outcome)
    folder.succeeded, folder.passed = True, process.fate is not Fate.ENDS_BADLY
    state = VerdictState.GOOD if folder.passed else VerdictState.NEEDS_IMPROVEMENT
    verdict = Verdict(state=state, passed=folder.passed)
    best = _best(folder)
    return End(0, Outcome(state=OutcomeState.SUCCEEDED, step=step, best_checkpoint=best, verdict=verdict))


def _upload_checkpoint(process: Process, step: int) -> None:
    """Upload a checkpoint while training goes on; it takes no time that would matter."""
    if process.uploads and not process.storage.refusing:
        files = process.storage.archives.setdefault(process.uri, {})
        files[f"{storage.UPLOADED}{step}"] = f"adapter of step {step}"


async def archive(process: Process) -> End:
    """Upload what differs, the manifest last, or verify what was uploaded; see dporun_trainer.archiving."""
    target, folder = process.config.archive, process.folder
    try:
        await process.work(1)
        if target is None or "--prune-only" in process.command:
            return End(0, Outcome(state=OutcomeState.SUCCEEDED, message="nothing uploaded"))
        stored = process.storage.archives.get(process.uri, {})
        if "--manifest-sha256" in process.command:
            listed = _expected(process, stored)
            files = listed | {name: content for name, content in folder.files.items() if name not in listed}
            lost = [name for name in files if stored.get(name) != files[name] != folder.files.get(name)]
            if lost:
                return _failed(Reason.ARCHIVE_FAILED, ExitCode.ARCHIVE_FAILED)
        else:
            passed = folder.passed
            skipped = archive_policy.skip_reason(target, started=True, succeeded=folder.succeeded, passed=passed)
            if skipped:
                return End(0, Outcome(state=OutcomeState.SUCCEEDED, message=f"not archived: {skipped}"))
            known = storage.parse(stored.get(storage.MANIFEST, ""))
            steps = process.storage.uploaded(process.uri)
            uploaded = {storage.ADAPTER: stored[f"{storage.UPLOADED}{max(steps)}"]} if steps else {}
            intact = {name: content for name, content in known.items() if stored.get(name) == content}
            files = uploaded | intact | folder.files
        return await _upload(process, process.uri, files)
    except Stopped:
        return End(ExitCode.PREEMPTED, Outcome(state=OutcomeState.PREEMPTED))


def _expected(process: Process, stored: Mapping[str, str]) -> dict[str, str]:
    """Files of the manifest that is to be verified: the one in the archive, or its copy on the volume."""
    text = stored.get(storage.MANIFEST, "")
    expected = process.command[process.command.index("--manifest-sha256") + 1]
    return storage.parse(text if sha256(text) == expected else process.folder.manifest)


async def _upload(process: Process, uri: str, files: dict[str, str]) -> End:
    process.folder.manifest = listed = storage.manifest(files)
    for name, content in [*files.items(), (storage.MANIFEST, listed)]:
        await process.work(FILE_SECONDS)
        if process.storage.refusing:
            return _failed(Reason.ARCHIVE_FAILED, ExitCode.ARCHIVE_FAILED)
        process.storage.archives.setdefault(uri, {})[name] = content
    result = ArchiveResult(
        uri=uri,
        manifest_sha256=sha256(listed),
        files=len(files),
        bytes=sum(map(len, files.values())),
        adapter=storage.ADAPTER in files,
    )
    return End(0, Outcome(state=OutcomeState.SUCCEEDED, message=f"archived {len(files)} files", archive=result))


def sha256(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _best(folder: Folder) -> BestCheckpoint | None:
    return BestCheckpoint(step=max(folder.checkpoints), eval_loss=0.3) if folder.checkpoints else None


def _progress(process: Process, step: int) -> Progress:
    steps = process.storage.uploaded(process.uri)
    return Progress(
        stage=Stage.TRAINING,
        step=step,
        total_steps=STEPS,
        best_checkpoint=_best(process.folder),
        checkpoint_upload=CheckpointUpload(checkpoint=f"checkpoint-{max(steps)}", step=max(steps)) if steps else None,
        updated_at=virtual_time.now().timestamp(),
    )


def _killed(fate: Fate) -> End:
    return _failed(Reason.HOST_OUT_OF_MEMORY, ExitCode.ERROR) if fate is Fate.DOES_NOT_FIND_MEMORY else End(137)


def _failed(reason: Reason, code: int) -> End:
    return End(code, Outcome(state=OutcomeState.FAILED, failure=Failure(reason=reason, message="it did not work")))


PROGRAMS: dict[str, Any] = {"prepare": prepare, "train": train, "archive": archive}


def start(component: str, process: Process) -> Coroutine[Any, Any, End]:
    """Start the program of a component."""
    program: Coroutine[Any, Any, End] = PROGRAMS[component](process)
    return program


def read_config(data: dict[str, str]) -> RunConfig:
    """The RunConfig of a ConfigMap."""
    return RunConfig.model_validate(json.loads(data["run.json"]))
