"""The facts of the dev cluster: its folders, addresses and names. Each has its one home here."""

import os
import re
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
GO_MODULE = SOURCE / "go"
# Apart from the rest, because it wants a newer cri-api than Kubernetes.
CONTAINERD_GO_MODULE = GO_MODULE / "containerd"
CONFIG_TEMPLATES = SOURCE / "config"

# What is slow to make: binaries, by the hash of their sources, and a Go tool chain where there is none.
CACHE = Path(os.environ.get("DPORUN_CACHE") or Path.home() / ".cache" / "dporun") / "devcluster"

# What one cluster consists of: processes, logs, etcd's data, containers, volumes, buckets.
STATE = Path(os.environ.get("DPORUN_STATE") or "/var/lib/dporun-devcluster")
LOCK = STATE.with_suffix(".lock")
RUN = STATE / "run"
LOGS = STATE / "log"
PKI = STATE / "pki"
CONFIG = STATE / "config"
KUBECONFIG = STATE / "kubeconfig"
CONTAINERD_SOCKET = RUN / "containerd.sock"
CONTAINERD = STATE / "containerd"
IMAGE_REGISTRY = STATE / "registry"

NODE = "dporun-dev"
BRIDGE = "dporun0"
CGROUP = STATE.name
NFT_TABLE = "dporun_devcluster"

# Every server listens on loopback or on the bridge, so that nothing is offered to the network outside this machine.
POD_CIDR = "10.213.0.0/16"
ADDRESS = "10.213.0.1"
FIRST_POD_ADDRESS = "10.213.0.10"
SERVICE_CIDR = "10.214.0.0/16"
API_SERVER = f"https://{ADDRESS}:6443"
ETCD = "http://127.0.0.1:23790"
ETCD_PEER = "http://127.0.0.1:23800"
REGISTRY = "127.0.0.1:5050"
S3 = f"http://{ADDRESS}:9000"
S3_REGION = "us-east-1"
S3_ACCESS_KEY = "dporun-dev"

STORAGE_PROVISIONER = "dporun.io/local-folder"
PAUSE_IMAGE = "docker.io/dporun/pause:dev"
OPERATOR_IMAGE = os.environ.get("OPERATOR_IMAGE") or "docker.io/dporun/operator:dev"
TRAINER_IMAGE = os.environ.get("TRAINER_IMAGE") or "docker.io/dporun/trainer:dev"
STAND_IN_IMAGE = os.environ.get("STAND_IN_IMAGE") or "docker.io/dporun/stand-in:dev"


def module_version(module: str) -> str:
    """The version that go.mod pins for a module, such as v1.36.3."""
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", (GO_MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(f"{GO_MODULE / 'go.mod'} does not require {module}")
    return found[1]
