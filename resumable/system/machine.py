"""What this machine offers and what processes use of it: cores and memory."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import time
from pathlib import Path

from resumable.system import batch, launcher
from resumable.system.batch import Limit, least

_PROC = Path("/proc/self")
_CGROUP = Path("/sys/fs/cgroup")
#: Version 1 says "no limit" with a number near 2^63.
_UNLIMITED = 1 << 60


def kernel() -> str:
    """Return what tells the running system from others, and from itself before a boot.

    On macOS the name of the host alone.
    """
    name = platform.node()
    with contextlib.suppress(OSError):
        name += Path("/proc/sys/kernel/random/boot_id").read_text()
    return name


@functools.cache
def cpu_name() -> str:
    """Return the model of the processor; its kind where the system says no more."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def elapsing_s() -> float:
    """Seconds of a clock that nobody sets and that goes on in a machine that sleeps."""
    if hasattr(time, "clock_gettime"):
        # Of macOS this one goes on, too; that of time.monotonic does not.
        clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        return time.clock_gettime(clock)
    return time.monotonic()  # pragma: no cover - Windows


def usable_cores() -> int:
    """Cores that this process may use, at least 1."""
    return core_limit().amount


def core_limit() -> Limit:
    """Return the cores that this process may use, at least 1, and what limits them.

    The least of affinity, of the cgroups' quotas, and of what a batch system has given.
    """
    cores = mine = os.cpu_count() or 1
    with contextlib.suppress(AttributeError):  # macOS
        mine = len(os.sched_getaffinity(0))
    limits = [Limit(mine, "affinity of this process" if mine < cores else "")]
    for folder in _cgroup_folders("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                cores = max(1, int(quota) // int(period))
                limits.append(Limit(cores, f"cpu.max of {folder}"))
        quota_us = _read_number(folder / "cpu.cfs_quota_us") or 0
        period_us = quota_us > 0 and _read_number(folder / "cpu.cfs_period_us")
        if period_us:
            cores = max(1, quota_us // period_us)
            limits.append(Limit(cores, f"cpu.cfs_quota_us of {folder}"))
    return least([*limits, batch.cores()])


def available_memory() -> int:
    """Bytes that this process alone can still use."""
    return least([host_memory(), process_memory()]).amount


def host_memory() -> Limit:
    """Return the bytes that can still be used on this host, and what limits them.

    The least of what is free, left in the cgroups, and left of what a batch system has
    given to the job on this host, of which the processes of all ranks take their part.
    """
    free = _bytes_in(Path("/proc/meminfo"), "MemAvailable:")
    if free is None:
        import psutil  # not on Linux; its import takes as long as a short run

        free = int(psutil.virtual_memory().available)
    left = [Limit(free)]
    for folder in _cgroup_folders("memory"):
        # Version 2, and version 1, which older clusters still have.
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _read_number(folder / limit_name)
            if limit is None or limit >= _UNLIMITED:
                continue
            used = _read_number(folder / used_name)
            if used is not None:
                # It gives its file cache back under pressure.
                cache = _bytes_in(folder / "memory.stat", "inactive_file ", 1) or 0
                rest = max(0, limit - used + cache)
                left.append(Limit(rest, f"{limit_name} of {folder}"))
    given = batch.memory()
    if given is not None:
        used = resident_memory() * launcher.ranks_on_host(ask_mpi=False)
        left.append(Limit(max(0, given.amount - used), given.why))
    return least(left)


def process_memory() -> Limit | None:
    """Return the bytes that this process can still use, where ``ulimit`` limits them.

    Processes that it starts can use as many each. None: there is no limit.
    """
    try:
        import resource
    except ImportError:  # pragma: no cover - Windows, experimental
        return None
    left = []
    for option, kind, used_name in (("v", "AS", "VmSize:"), ("d", "DATA", "VmData:")):
        limit = resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))[0]
        used = _bytes_in(_PROC / "status", used_name)
        if limit != resource.RLIM_INFINITY and used is not None:
            why = f"ulimit -{option} {limit >> 10}"
            left.append(Limit(max(0, limit - used), why))
    return least(left) if left else None


def _bytes_in(path: Path, name: str, unit: int = 1024) -> int | None:
    """Return a size that a file of the system gives in some unit, if it does."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * unit
    return None


def resident_memory() -> int:
    """Resident bytes of this process, shared pages counted whole."""
    # Not on Windows. The folder /proc of wine is that of Linux.
    with contextlib.suppress(OSError, AttributeError):
        pages = int((_PROC / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return int(psutil.Process().memory_info().rss)


def proportional_memory() -> int:
    """Bytes of this process with shared pages divided among their users (PSS).

    Where the system does not tell (macOS), the resident size.
    """
    size = _bytes_in(_PROC / "smaps_rollup", "Pss:")
    return resident_memory() if size is None else size


class PeakMemory:
    """Resident memory of this process at its peak, from a call of `start` on.

    Not ``ru_maxrss``: it never falls, and a child process inherits its parent's. Linux
    can reset the high-water mark; elsewhere the resident size at the end is returned.
    """

    _resettable = True

    def start(self) -> None:
        """Forget the peak so far."""
        if self._resettable:
            try:
                (_PROC / "clear_refs").write_text("5")
            except OSError:
                self._resettable = False

    def peak(self) -> int:
        """Bytes resident at the peak since the start."""
        size = _bytes_in(_PROC / "status", "VmHWM:") if self._resettable else None
        return resident_memory() if size is None else size


def _cgroup_folders(controller: str) -> list[Path]:
    """Folders that may limit this process, version 2 and 1, up to their roots."""
    folders = [_CGROUP, _CGROUP / controller]
    with contextlib.suppress(OSError):
        for line in (_PROC / "cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                root = _CGROUP
            elif controller in controllers.split(","):
                root = _CGROUP / controller
            else:
                continue
            folder = root / path.lstrip("/")
            folders += [p for p in (folder, *folder.parents) if root in p.parents]
    return folders


def _read_number(path: Path) -> int | None:
    try:
        with open(path) as file:  # noqa: PTH123 - it is read often, and Path is slow
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return None
