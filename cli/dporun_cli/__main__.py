"""``dporun``, also as ``kubectl dporun``."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dporun_api.pod import MODULE, ExitCode
from dporun_api.row_formats import DatasetFormat
from dporun_api.run_config import Dpo
from dporun_cli.manifest import Manifest, ManifestError, read

app = typer.Typer(
    name="dporun",
    help="Preference fine-tuning (DPO): on Kubernetes, or on this computer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
errors = Console(stderr=True, highlight=False)

ManifestFile = Annotated[
    Path, typer.Option("--filename", "-f", exists=True, dir_okay=False, help="File with the DPORun.", metavar="FILE")
]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="URI=PATH",
        help="Use PATH for every URI of the manifest that begins with URI; can be given several times.",
    ),
]
RunDirectory = Annotated[Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Folder of the run.")]


@app.command()
def run(
    filename: ManifestFile,
    local: Annotated[
        Path | None, typer.Option(file_okay=False, metavar="DIR", help="Run on this computer, with results in DIR.")
    ] = None,
    maps: Maps = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Training processes; the effective batch stays that of the manifest.")
    ] = None,
) -> None:
    """Run a DPORun from beginning to end, and show how good the result is.

    Ctrl-C saves a checkpoint and stops; the same command goes on from there.

    The exit code is that of the cluster's pods: 0 done, 64 bad manifest, 65 bad model or data, 66 out of GPU memory,
    67 loss not a number, 74 not archived, 75 stopped after saving, 1 anything else.
    """
    if local is None:
        errors.print(f"To run in a cluster: kubectl apply -f {filename}\nTo run here: add --local DIR")
        raise typer.Exit(2)
    manifest = _only(_read(filename))
    _require("torch", "trainer")
    from dporun_cli import local_command  # noqa: PLC0415  needs nothing that validate should wait for

    raise typer.Exit(local_command.run(manifest, local, maps or [], processes))


@app.command()
def validate(filename: ManifestFile) -> None:
    """Check a manifest as the API server would, but without a cluster: every problem, with its line."""
    for manifest in _read(filename):
        print(f"{filename}: {manifest.name} is valid")


@app.command()
def data(
    source: Annotated[
        str | None,
        typer.Argument(metavar="FILE|URI", help="Preference data: a file, a folder of shards, hf:// or s3://."),
    ] = None,
    filename: Annotated[
        Path | None,
        typer.Option(
            "--filename",
            "-f",
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="File with the DPORun whose data, policies, seed, dpo.maxLength and model count; "
            "what else is given here wins over it.",
        ),
    ] = None,
    maps: Maps = None,
    validation: Annotated[
        str | None, typer.Option(metavar="FILE|URI", help="Validation data: prompts of both are leaks.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="DIR|URI", help="Count in tokens of this model, and check its chat template."),
    ] = None,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Leave the manifest's model out, and count in characters.")
    ] = False,
    form: Annotated[
        DatasetFormat | None, typer.Option("--format", help="Format of the rows, where it is not recognised.")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=16, help=f"Of the run, in tokens (dpo.maxLength); {Dpo().max_length} when absent."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print dataset_report.json instead of a table.")] = False,
    html: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Write dataset.html, too, with drawings.")
    ] = None,
) -> None:
    """Look at preference data without a run: format, lengths, duplicates, leaks, and what a run would drop or refuse.

    With `-f` the data is that of a DPORun, looked at as its `prepare` would: columns, policies, seed, and tokens of its
    model, of which only the tokenizer is fetched. Without, every policy has its default.

    The exit code is 0 for data that a run would take, 65 for data that it would refuse, and 64 for a bad manifest.
    """
    if source is None and filename is None:
        raise typer.BadParameter("name a file of preference data, or a manifest: -f FILE", param_hint="FILE|URI")
    if maps and filename is None:
        raise typer.BadParameter("replaces URIs of a manifest; add -f FILE", param_hint="--map")
    if model is not None and no_model:
        raise typer.BadParameter("give one of --model and --no-model", param_hint="--no-model")
    manifest = None if filename is None else _only(_read(filename))
    _require("pyarrow", "trainer")
    from dporun_cli import data_command  # noqa: PLC0415  needs nothing that validate should wait for
    from dporun_cli.local_config import LocalConfigError, parse_maps  # noqa: PLC0415  likewise

    given = data_command.Given(
        train=source,
        validation=validation,
        model=model,
        options={"--format": form, "--max-length": max_length, "--html": html},
        switches={"--no-model": no_model, "--json": as_json},
    )
    try:
        code = data_command.run(manifest, parse_maps(maps or []), given, lambda words: _trainer(*words))
    except LocalConfigError as error:
        for problem in error.problems:
            errors.print(problem, markup=False, soft_wrap=True)
        raise typer.Exit(ExitCode.CONFIG_INVALID) from error
    raise typer.Exit(code)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def diagnose(context: typer.Context, directory: RunDirectory) -> None:
    """Diagnose a training run of DPORun or TRL, and suggest what to change (--json, --patch)."""
    raise typer.Exit(_trainer("diagnose", str(directory), *context.args))


@app.command()
def report(directory: RunDirectory) -> None:
    """Rewrite report.html, report.png and the model card of a run."""
    _require("matplotlib", "trainer")
    raise typer.Exit(_trainer("report", str(directory)))


@app.command()
def version() -> None:
    """Print the version."""
    print(importlib.metadata.version("dporun"))


def _read(path: Path) -> list[Manifest]:
    try:
        return read(path)
    except ManifestError as error:
        for line in error.lines():
            errors.print(line, markup=False, soft_wrap=True)
        raise typer.Exit(ExitCode.CONFIG_INVALID) from error


def _only(manifests: list[Manifest]) -> Manifest:
    if len(manifests) > 1:
        errors.print(f"The file contains {len(manifests)} DPORuns; run one at a time.")
        raise typer.Exit(ExitCode.CONFIG_INVALID)
    return manifests[0]


def _require(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        errors.print(f"This needs the trainer's packages: pip install 'dporun[cli,{extra}]'", markup=False)
        raise typer.Exit(1)


def _trainer(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", MODULE, *arguments], check=False).returncode


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
