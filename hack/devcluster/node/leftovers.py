"""What processes leave behind in the kernel: control groups with pods in them, shims, mounts."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from node.console import ask
from node.processes import Identity, kill, running_programs
from node.settings import CGROUP, CONTAINERD_SOCKET, STATE

_CGROUPS = Path("/sys/fs/cgroup")


def make_cgroup() -> None:
    """Makes the control group that holds every pod: one with cgroup v2, one per controller with v1."""
    for hierarchy in _hierarchies():
        group = hierarchy / CGROUP
        group.mkdir(exist_ok=True)
        if (hierarchy / "cgroup.controllers").exists():
            for controller in (hierarchy / "cgroup.controllers").read_text().split():
                for parent in (hierarchy, group):
                    with contextlib.suppress(OSError):  # this machine does not delegate that controller
                        (parent / "cgroup.subtree_control").write_text(f"+{controller}")
        for file in ("cpuset.cpus", "cpuset.mems"):  # empty in a new v1 group, which then takes no process
            if (hierarchy / file).exists() and (group / file).exists() and not (group / file).read_text().strip():
                (group / file).write_text((hierarchy / file).read_text())


def remove_cgroup() -> None:
    """Kills what is left in the pods' control group and removes it."""
    for hierarchy in _hierarchies():
        for process in _members(hierarchy / CGROUP):
            kill(process, grace_seconds=0)
        for folder, _, _ in os.walk(hierarchy / CGROUP, topdown=False):
            _remove_when_empty(Path(folder))


def stop_shims(program: Path) -> None:
    """Stops containerd's shims of this cluster and of no other: they outlive containerd on purpose."""
    for shim in running_programs(program, str(CONTAINERD_SOCKET)):
        kill(shim, grace_seconds=2)


def unmount() -> None:
    """Unmounts everything below the state folder, the innermost first."""
    for mount in reversed(mounts()):
        # Lazily, so that one busy mount does not keep the others; the kernel frees it with its last user.
        ask("umount", "--lazy", mount)


def mounts() -> list[str]:
    """Mount points below the state folder, in the order in which they were mounted."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    # Blanks and such are written as octal escapes.
    points = [re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[4]) for line in lines]
    return [point for point in points if point.startswith(f"{STATE}/")]


def _hierarchies() -> list[Path]:
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [
        path
        for path in _CGROUPS.iterdir()
        if path.is_dir() and not path.is_symlink() and (path / "cgroup.procs").exists()
    ]


def _members(group: Path) -> Iterator[Identity]:
    for folder, _, _ in os.walk(group):
        with contextlib.suppress(OSError):
            for pid in (Path(folder) / "cgroup.procs").read_text().split():
                if identity := Identity.of(int(pid)):
                    yield identity


def _remove_when_empty(folder: Path, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:  # the kernel takes a moment to forget a dead process
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
