"""Images on their way to the node: pushed to its registry, from which it pulls the layers it lacks."""

import tempfile
from pathlib import Path

from node import settings, tools
from node.components import environment
from node.console import DevClusterError, ask, run, say
from node.settings import CONTAINERD_SOCKET, LOGS, REGISTRY

# zstd is several times quicker than the default gzip. Layers that the registry has are not compressed again.
_COMPRESSION = ["--compression-format", "zstd", "--compression-level", "1"]


def load(image: str) -> None:
    """Brings an image from buildah's storage to the node, where the tag then means this image.

    Raises:
        DevClusterError: no such image, or the node does not run.

    """
    name = f"docker.io/{image.removeprefix('docker.io/')}"
    if not CONTAINERD_SOCKET.exists():
        raise DevClusterError("the dev cluster does not run; start it first: hack/devcluster/devcluster up")
    if ask("buildah", "inspect", "--type", "image", name) is None:
        raise DevClusterError(f"buildah has no image {name}; build it first: hack/images/build")
    say(f"pushing {name} to the node's registry")
    push = ["buildah", "push", "--quiet", "--tls-verify=false", "--format", "oci", *_COMPRESSION]
    run([*push, name, f"docker://{REGISTRY}/{name.removeprefix('docker.io/')}"], LOGS / "push.log")
    say("pulling it to the node")
    binaries = tools.in_use()
    crictl = [binaries / "crictl", "--image-endpoint", f"unix://{CONTAINERD_SOCKET}", "--timeout", "600s"]
    run([*crictl, "pull", name], LOGS / "pull.log", environment=environment(binaries))
    say(f"the node has {name}")


def load_pause(binaries: Path) -> None:
    """Brings the image that holds a pod's namespaces, which every pod needs, to the node."""
    with tempfile.TemporaryDirectory() as folder:
        containerfile = Path(folder, "Containerfile")
        containerfile.write_text('FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n')
        build = ["buildah", "build", "--quiet", "--layers", "--file", containerfile, "--tag", settings.PAUSE_IMAGE]
        run([*build, binaries], LOGS / "pause.log")
    load(settings.PAUSE_IMAGE)


def purge() -> None:
    """Removes the images of the project from the storage of buildah, and the untagged ones that builds left."""
    bases = (ask("buildah", "images", "--quiet", "--filter", "reference=localhost/dporun/base") or "").split()
    ours = (settings.PAUSE_IMAGE, settings.OPERATOR_IMAGE, settings.STAND_IN_IMAGE, settings.TRAINER_IMAGE)
    for image in (*ours, *bases):
        ask("buildah", "rmi", "--force", image)
    ask("buildah", "rmi", "--prune", "--force")
