"""Images on their way to the node: pushed to its registry, from which it pulls the layers it lacks."""

import subprocess
import tempfile
from pathlib import Path

from node import settings, tools
from node.components import environment
from node.console import Failure, run, say
from node.settings import CONTAINERD_SOCKET, LOGS, REGISTRY


def load(image: str) -> None:
    """Brings an image from buildah's storage to the node, where the tag then means this image.

    Raises:
        Failure: no such image, or the node does not run.
    """
    name = f"docker.io/{image.removeprefix('docker.io/')}"
    if subprocess.run(["buildah", "inspect", "--type", "image", name], capture_output=True).returncode:
        raise Failure(f"buildah has no image {name}; build it first: hack/images/build")
    say(f"loading {name}")
    # zstd is several times quicker than the default gzip. Layers that the registry has are not compressed again.
    push = [
        "buildah",
        "push",
        "--quiet",
        "--tls-verify=false",
        "--format",
        "oci",
        "--compression-format",
        "zstd",
        "--compression-level",
        "1",
    ]
    run([*push, name, f"docker://{REGISTRY}/{name.removeprefix('docker.io/')}"], LOGS / "push.log")
    binaries = tools.binaries()
    crictl = [binaries / "crictl", "--image-endpoint", f"unix://{CONTAINERD_SOCKET}", "--timeout", "600s"]
    run([*crictl, "pull", name], LOGS / "pull.log", environment=environment(binaries))
    say(f"the node has {name}")


def load_pause(binaries: Path) -> None:
    """Brings the image that holds a pod's namespaces, which every pod needs, to the node."""
    with tempfile.TemporaryDirectory() as folder:
        containerfile = Path(folder, "Containerfile")
        containerfile.write_text('FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n')
        run(
            [
                "buildah",
                "build",
                "--quiet",
                "--layers",
                "--file",
                containerfile,
                "--tag",
                settings.PAUSE_IMAGE,
                binaries,
            ],
            LOGS / "pause.log",
        )
    load(settings.PAUSE_IMAGE)


def purge() -> None:
    """Removes the project's images from buildah's storage."""
    subprocess.run(
        ["buildah", "rmi", "--force", settings.PAUSE_IMAGE, settings.OPERATOR_IMAGE, settings.TRAINER_IMAGE],
        capture_output=True,
    )
    subprocess.run(["buildah", "rmi", "--prune", "--force"], capture_output=True)
