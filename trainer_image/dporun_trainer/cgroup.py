"""What the kernel gives this container, CPU time, and what it did to it: processes ended for lack of memory."""

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def oom_kills(root: Path = _ROOT) -> int:
    """Processes of this control group that the kernel has ended for lack of memory; 0 where it does not say.

    Reads ``oom_kill`` of memory.events (version 2) or memory.oom_control (version 1);
    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files.
    """
    for path in (root / "memory.events", root / "memory" / "memory.oom_control"):
        try:
            fields = dict(line.split() for line in path.read_text(encoding="ascii").splitlines())
            return int(fields["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def cpu_limit(root: Path = _ROOT) -> float | None:
    """CPUs whose time this control group may use; None where there is no limit.

    Reads cpu.max (version 2), or cpu.cfs_quota_us and cpu.cfs_period_us (version 1);
    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files.
    """
    for paths in ([root / "cpu.max"], [root / "cpu" / "cpu.cfs_quota_us", root / "cpu" / "cpu.cfs_period_us"]):
        try:
            quota, period = (int(word) for path in paths for word in path.read_text(encoding="ascii").split())
        except (OSError, ValueError):  # also "max", which is no number
            continue
        return quota / period if quota > 0 else None
    return None
