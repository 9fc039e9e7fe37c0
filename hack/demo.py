"""The demo: from a bucket with a model and data to an archived run, and back to nothing but the archive.

Needs a cluster with the images (``make demo`` sees to both) and the AWS_* variables of its S3 server.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import upload_example
from rich.console import Console
from rich.rule import Rule

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "build" / "demo"
MANIFEST = "examples/tiny/dporun.yaml"
RUN = "polite"
NAMESPACE = "dporun-demo"

console = Console(highlight=False)


def show(*command: str) -> None:
    """Print a command as a user would type it, run it, and show what it prints."""
    console.print(f"[bold]$ {' '.join(command)}[/]", soft_wrap=True)
    subprocess.run(command, check=True, cwd=ROOT)


def kubectl(*arguments: str) -> str:
    """Run kubectl in the demo's namespace and return what it prints."""
    command = ["kubectl", "--namespace", NAMESPACE, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def run_object() -> dict[str, Any]:
    """The DPORun, as the API server has it."""
    found: dict[str, Any] = json.loads(kubectl("get", "dporun", RUN, "--output", "json"))
    return found


def prepare() -> None:
    """Bring model and data to S3, the operator and a namespace to the cluster."""
    upload_example.upload("dporun-demo")
    console.print("s3://dporun-demo/tiny: the example's model and data are in the bucket")
    show("hack/install", "--hide-notes")
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    subprocess.run(["kubectl", "apply", "--filename", "-"], input=json.dumps(namespace), text=True, check=True)
    upload_example.create_secret(NAMESPACE, "dporun-demo-s3")


def follow() -> dict[str, Any]:
    """Print a line whenever the run's status changes, until it is finished; return the status."""
    started = time.monotonic()
    last = ""
    for document in watch():
        status: dict[str, Any] = document.get("status", {})
        summary = status.get("summary", {})
        facts = [
            f"{status.get('phase', 'Pending'):<10}",
            f"{summary.get('progress', ''):>9}",
            f"{'ETA ' + summary['eta'] if summary.get('eta') else '':<9}",
            *(
                f"{name} {summary[key]}"
                for key, name in (("evalLoss", "eval loss"), ("margin", "margin"))
                if summary.get(key)
            ),
            status.get("health", {}).get("state", ""),
        ]
        line = " ".join(fact for fact in facts if fact).rstrip()
        if line != last:
            console.print(f"{time.monotonic() - started:5.0f} s  {line}", soft_wrap=True)
            last = line
        if any(c["type"] == "Finished" and c["status"] == "True" for c in status.get("conditions", ())):
            return status
    raise SystemExit("the watch ended before the run did")


def watch() -> Iterator[dict[str, Any]]:
    """Every version of the DPORun that the API server announces."""
    command = ["kubectl", "--namespace", NAMESPACE, "get", "dporun", RUN, "--watch", "--output", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        decoder, text = json.JSONDecoder(), ""
        try:
            for line in process.stdout:
                text += line
                if line.rstrip("\n") == "}":
                    yield decoder.decode(text)
                    text = ""
        finally:
            process.terminate()


def archive_listing(uri: str) -> dict[str, int]:
    """Size of every archived file, by its path below ``uri``."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {
        item["Key"].removeprefix(prefix).lstrip("/"): item["Size"]
        for page in pages
        for item in page.get("Contents", ())
    }


def show_archive(uri: str) -> dict[str, int]:
    """Print the archive's content, and return it."""
    files = archive_listing(uri)
    console.print(f"[bold]{uri}[/]")
    for path, size in files.items():
        console.print(f"  {size:>12,}  {path}")
    return files


def fetch_report(uri: str) -> Path:
    """Download the report out of the archive."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    REPORTS.mkdir(parents=True, exist_ok=True)
    for name in ("report.html", "report.png"):
        boto3.client("s3").download_file(bucket, f"{prefix.rstrip('/')}/{name}", str(REPORTS / name))
    return REPORTS / "report.html"


def main() -> None:
    """Run the demo."""
    console.print(Rule("Install the operator", align="left"))
    prepare()
    console.print(Rule("Apply a DPORun", align="left"))
    show("kubectl", "apply", "--namespace", NAMESPACE, "--filename", MANIFEST)
    status = follow()
    console.print(Rule("The result", align="left"))
    show("kubectl", "get", "dporuns", "--namespace", NAMESPACE, "--output", "wide")
    if status["phase"] != "Succeeded":
        raise SystemExit(f"the run ended {status['phase']}: {status.get('message')}")
    console.print_json(data={"verdict": status["verdict"], "evaluation": status["evaluation"]})
    uri = status["archive"]["uri"]
    before = show_archive(uri)
    console.print(f"TensorBoard: [bold]{status['tensorboard']['command']}[/]", soft_wrap=True)
    console.print(f"Report:      [bold]{fetch_report(uri).relative_to(ROOT)}[/]")
    console.print(Rule("Delete the run: its archive stays", align="left"))
    show("kubectl", "delete", "dporun", RUN, "--namespace", NAMESPACE)
    left = kubectl("get", "jobs,pvc", "--output", "name", "--selector", f"dporun.io/run={RUN}").split()
    after = archive_listing(uri)
    console.print(f"jobs and volumes left in the cluster: {len(left)} {left or ''}")
    console.print(f"archive: {len(after)} files, {sum(after.values()):,} bytes, unchanged: {after == before}")
    checkpoints = [path for path in after if path.startswith("checkpoint-")]
    console.print(f"intermediate checkpoints left: {len(checkpoints)}")
    if left or checkpoints or after != before:
        raise SystemExit("the deletion did not leave exactly the archive")


if __name__ == "__main__":
    main()
