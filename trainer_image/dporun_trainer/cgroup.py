"""What the kernel has done to this container: the word that a process was ended because memory ran out."""

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
