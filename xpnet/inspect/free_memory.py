"""How much memory this process can still get: of the system, under its limits, in its control
groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# Of each version of control groups: the controller in /proc/self/cgroup, where its files are below
# the mount point, the limit, the use, and the name of the part of the use that can be taken back.
GROUPS = (("", "", "memory.max", "memory.current", "inactive_file"),
          ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
           "total_inactive_file"))


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes of main memory for new arrays; None where nothing says, as without Linux's /proc."""
    found = [*_system(proc), *_limits(proc), *_control_groups(proc, groups)]
    return max(0, min(found)) if found else None


def _system(proc: Path) -> Iterator[int]:
    yield from (1024 * size for size in _sizes(proc / "meminfo", "MemAvailable:"))


def _limits(proc: Path) -> Iterator[int]:
    """What `ulimit -v` (address space) and `ulimit -d` (data) leave."""
    try:
        import resource
    except ImportError:                 # Windows
        return
    for limit, used in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            yield from (most - 1024 * size for size in _sizes(proc / "self" / "status", used))


def _control_groups(proc: Path, mount: Path) -> Iterator[int]:
    """What each group leaves that the process is in, and each group above it."""
    for line in _lines(proc / "self" / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller, folder, limit, use, idle in GROUPS:
            if controller in controllers.split(","):
                group = mount / folder
                # in a container only the root is there
                for part in ("", *Path(path.lstrip("/")).parts):
                    group /= part
                    yield from _group(group, limit, use, idle)


def _group(group: Path, limit: str, use: str, idle: str) -> Iterator[int]:
    try:
        most, used = int((group / limit).read_text()), int((group / use).read_text())
    except (OSError, ValueError):       # no such group, or "max"
        return
    yield most - used + sum(_sizes(group / "memory.stat", idle))


def _sizes(file: Path, name: str) -> list[int]:
    """The number after a name in a file of names and numbers."""
    return [int(line.split()[1]) for line in _lines(file) if line.split()[:1] == [name]]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
