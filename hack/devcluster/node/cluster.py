"""The life of the node: up, down, status."""

import base64
import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import string
from collections.abc import Iterator
from pathlib import Path

from node import images, leftovers, network, settings, tools
from node.components import Component, components, environment
from node.console import DevClusterError, ask, run, say, tail, wait_until
from node.processes import Processes
from node.settings import CONFIG, CONTAINERD_SOCKET, KUBECONFIG, LOGS, PKI, RUN, STATE

processes = Processes(RUN, LOGS)


@contextlib.contextmanager
def exclusively() -> Iterator[None]:
    """Keeps two commands from starting or stopping the cluster at the same time: the second waits for the first."""
    with settings.LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another `devcluster up` or `down` to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up(gpus: int) -> None:
    """Starts what does not run yet, and returns when pods can be scheduled. Leaves nothing running when it fails.

    Raises:
        DevClusterError: says which part failed, with the end of its log.

    """
    if all(processes.get(part.name) for part in components(tools.in_use(), "")):
        changed = "" if tools.in_use() == tools.binaries() else ", from older sources: `down` and `up` make it new"
        say(f"the dev cluster runs already{changed}")
        _settle(tools.in_use(), gpus)
        return
    tools.install_packages()
    binaries = tools.build()
    parts = components(binaries, _secret("s3"))
    _stop_leftovers()
    try:
        for folder in ("etcd", "s3", "volumes", "registry", "log/pods", "run/tmp"):
            (STATE / folder).mkdir(parents=True, exist_ok=True)
        tools.use(binaries)
        leftovers.make_cgroup()
        network.up()
        _make_keys()
        _write_configuration(binaries)
        for part in parts:
            _start(part, binaries)
            if part.name == "kube-apiserver":
                _write_kubeconfig()
            if part.name == "registry":
                images.load_pause(binaries)
        _settle(binaries, gpus)
    except BaseException:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # impatience must not leave half of it running
            signal.signal(number, signal.SIG_IGN)
        say("stopping what was started")
        down()
        raise
    say("the dev cluster is ready")


def down(purge: bool = False) -> None:
    """Stops every process, container, mount, link and rule of the cluster. Data and images stay, unless purged."""
    if network.is_up() or RUN.exists():
        say("stopping the dev cluster")
    _stop_leftovers()
    network.down()
    if purge:
        if mounts := leftovers.mounts():  # what is mounted there is not ours to remove
            raise DevClusterError(f"cannot remove {STATE}: still mounted are {', '.join(mounts)}")
        say(f"removing {STATE}")
        shutil.rmtree(STATE, ignore_errors=True)
        images.purge()


def status() -> bool:
    """Prints what runs and what does not; True when everything does."""
    names = [part.name for part in components(tools.in_use(), "")]
    state = {name: processes.get(name) for name in names}
    for name, process in state.items():
        print(f"{name:24} {f'running, pid {process.pid}' if process else 'not running':24} {processes.log(name)}")
    print(f"{'kubeconfig':24} {KUBECONFIG if KUBECONFIG.exists() else 'none'}")
    if not all(state.values()):
        return False
    nodes = ask(tools.in_use() / "kubectl", "--kubeconfig", KUBECONFIG, "get", "nodes", "-o", "wide")
    print(nodes or "the API server does not answer\n", end="")
    return nodes is not None and re.search(rf"^{settings.NODE}\s+Ready", nodes, re.MULTILINE) is not None


def exports() -> dict[str, str]:
    """Environment variables for whoever works with the cluster."""
    return {
        "KUBECONFIG": str(KUBECONFIG),
        "PATH": f"{tools.in_use()}:{os.environ['PATH']}",
        "CONTAINER_RUNTIME_ENDPOINT": f"unix://{CONTAINERD_SOCKET}",
        "AWS_ENDPOINT_URL_S3": settings.S3,
        "AWS_REGION": settings.S3_REGION,
        "AWS_ACCESS_KEY_ID": settings.S3_ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": _secret("s3"),
        **image_names(),
    }


def image_names() -> dict[str, str]:
    """The names under which the project's images are built and found."""
    names = ("OPERATOR_IMAGE", "TRAINER_IMAGE", "STAND_IN_IMAGE")
    return {name: getattr(settings, name) for name in names}


def start(server: str) -> None:
    """Starts one server that does not run, and returns when it serves; one that runs is left alone.

    Raises:
        DevClusterError: there is no such server, or it does not come up.

    """
    _start(_component(server), tools.in_use())


def kill(server: str, number: signal.Signals) -> None:
    """Sends one server a signal; after SIGKILL and SIGTERM, returns when it has ended.

    Raises:
        DevClusterError: there is no such server, or it does not run.

    """
    process = processes.get(_component(server).name)
    if process is None:
        raise DevClusterError(f"{server} does not run")
    os.kill(process.pid, number)
    if number in {signal.SIGKILL, signal.SIGTERM}:
        wait_until(
            lambda: processes.get(server) != process, f"{server} ending", 60, lambda: tail(processes.log(server))
        )


def _component(server: str) -> Component:
    parts = components(tools.in_use(), _secret("s3"))
    found = next((part for part in parts if part.name == server), None)
    if found is None:
        raise DevClusterError(f"there is no server {server}, but {', '.join(part.name for part in parts)}")
    return found


def _start(part: Component, binaries: Path) -> None:
    say(f"starting {part.name}")
    processes.start(part.name, part.argv, {**environment(binaries), **part.environment})

    def ready() -> bool:
        if processes.get(part.name) is None:
            raise DevClusterError(f"{part.name} ended; {tail(processes.log(part.name))}")
        return part.ready()

    wait_until(ready, f"{part.name} becoming ready", 60, lambda: tail(processes.log(part.name)))


def _settle(binaries: Path, gpus: int) -> None:
    """Brings the cluster's own objects to what they should be: the storage class and the pretended GPUs."""
    kubectl = [binaries / "kubectl", "--kubeconfig", KUBECONFIG]
    run([*kubectl, "apply", "--server-side", "-f", CONFIG / "storage-class.yaml"], LOGS / "kubectl.log")
    # An extended resource in the node's status outlives the kubelet's updates; the pods that ask for it get no device.
    patch = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": str(gpus)}]
    run(
        [*kubectl, "patch", "node", settings.NODE, "--subresource=status", "--type=json", "-p", json.dumps(patch)],
        LOGS / "kubectl.log",
    )
    allocatable = [*kubectl, "get", "node", settings.NODE, "-o", r"jsonpath={.status.allocatable.nvidia\.com/gpu}"]
    wait_until(
        lambda: ask(*allocatable) == str(gpus),
        f"the node offering {gpus} nvidia.com/gpu",
        30,
        lambda: tail(processes.log("kubelet")),
    )
    account = [*kubectl, "get", "serviceaccount", "default", "--namespace", "default"]
    wait_until(
        lambda: ask(*account) is not None,
        "the default service account, which pods need",
        30,
        lambda: tail(processes.log("kube-controller-manager")),
    )


def _secret(name: str) -> str:
    file = PKI / f"{name}.secret"
    if not file.exists():
        PKI.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(20))
    return file.read_text()


def _make_keys() -> None:
    (PKI / "tokens.csv").write_text(f'{_secret("admin")},admin,admin,"system:masters"\n')
    log = LOGS / "openssl.log"
    if not (PKI / "service-accounts.key").exists():
        run(["openssl", "genrsa", "-out", PKI / "service-accounts.key", "2048"], log)
    if not (PKI / "kubelet-client.crt").exists():
        run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=kube-apiserver",
             "-addext", "extendedKeyUsage=clientAuth",
             "-keyout", PKI / "kubelet-client.key", "-out", PKI / "kubelet-client.crt"],
            log,
        )  # fmt: skip


def _write_configuration(binaries: Path) -> None:
    values = {name: str(value) for name, value in vars(settings).items() if name.isupper()} | {"BIN": str(binaries)}
    for template in settings.CONFIG_TEMPLATES.rglob("*"):
        if template.is_file() and template.name != "kubeconfig":
            target = CONFIG / template.relative_to(settings.CONFIG_TEMPLATES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(string.Template(template.read_text()).substitute(values))


def _write_kubeconfig() -> None:
    """Written when the API server has made its certificate, which the kubeconfig carries."""
    template = string.Template((settings.CONFIG_TEMPLATES / "kubeconfig").read_text())
    certificate = base64.b64encode((PKI / "apiserver.crt").read_bytes()).decode()
    KUBECONFIG.touch(mode=0o600)
    KUBECONFIG.write_text(
        template.substitute(API_SERVER=settings.API_SERVER, CERTIFICATE=certificate, TOKEN=_secret("admin"))
    )


def _stop_leftovers() -> None:
    """Stops whatever of the cluster runs, whichever version of it, and however the last `up` or `down` ended."""
    if RUN.exists():
        binaries = tools.in_use()
        for part in reversed(components(binaries, "")):
            if part.name == "containerd" and processes.get(part.name):
                _remove_pods(binaries)  # with the runtime that can do it, and after the kubelet that would restart them
            processes.stop(part.name, part.grace_seconds)
        leftovers.stop_shims(binaries / "containerd-shim-runc-v2")
    leftovers.remove_cgroup()
    leftovers.unmount()
    shutil.rmtree(RUN, ignore_errors=True)
    shutil.rmtree(settings.CONTAINERD / "state", ignore_errors=True)


def _remove_pods(binaries: Path) -> None:
    say("removing pods")
    crictl = [binaries / "crictl", "--runtime-endpoint", f"unix://{settings.CONTAINERD_SOCKET}", "--timeout", "60s"]
    with contextlib.suppress(DevClusterError):  # what is left is killed with its control group
        run([*crictl, "rmp", "--all", "--force"], LOGS / "crictl.log")
