"""What a batch system has given to a job on this host, read from the environment.

Not every site holds jobs to it by a cgroup or by affinity: a job that takes more memory
is killed, and one with more processes than cores slows down the jobs of others.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resumable.system import launcher

if TYPE_CHECKING:
    from collections.abc import Iterable


class Limit(NamedTuple):
    """How many cores or bytes there are, and what limits them to so many."""

    amount: int
    why: str = ""
    """A variable or a file, with what it says; empty: there are no more."""


def least(limits: Iterable[Limit | None]) -> Limit:
    """Return the first of those with the least amount."""
    return min(filter(None, limits), key=lambda limit: limit.amount)


#: Megabytes for a node, and of what on the node each has so many.
_MEMORY = (
    ("SLURM_MEM_PER_NODE", ""),
    ("SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"),
    ("SLURM_MEM_PER_GPU", "SLURM_GPUS_ON_NODE"),
)


def cores() -> Limit | None:
    """Return how many cores of this host are for this process; None: not known.

    Ranks that a launcher has started on the host share what the job has.
    """
    found = [*_of_slurm(), *_of_pbs(), *_of_lsf(), *_of_sge()]
    return least(found) if found else None


def memory() -> Limit | None:
    """Return how many bytes the job has on this host; None: not known.

    Only Slurm says it. Others hold a job to it by a cgroup or by ``ulimit``.
    """
    found = []
    for name, of in _MEMORY:
        megabytes, times = _number(name), _number(of) if of else 1
        if megabytes and times:
            why = f"{name}={megabytes}" + (f", {of}={times}" if of else "")
            found.append(Limit((megabytes << 20) * times, why))
    return least(found) if found else None


def _of_slurm() -> Iterable[Limit]:
    each, on_host = _number("SLURM_CPUS_PER_TASK"), _number("SLURM_CPUS_ON_NODE")
    if each:
        # A batch script is one process with the cores of all tasks of its host.
        in_step = "SLURM_STEP_NUM_TASKS" in os.environ or _ranks() > 1
        tasks = 1 if in_step else launcher.tasks_on_node("SLURM_TASKS_PER_NODE") or 1
        why = f"SLURM_CPUS_PER_TASK={each}" + (f", {tasks} tasks" if tasks > 1 else "")
        yield Limit(each * tasks, why)
    if on_host:
        yield _divided(on_host, f"SLURM_CPUS_ON_NODE={on_host}")


def _of_pbs() -> Iterable[Limit]:
    # NCPUS may be for one rank. The file has a line for each rank, or for each core.
    names = ("NCPUS", "PBS_NUM_PPN") if "PBS_JOBID" in os.environ else ("PBS_NUM_PPN",)
    known = {name: _number(name) or 0 for name in names}
    lines = _text_of("PBS_NODEFILE").split()
    known["lines of PBS_NODEFILE"] = _here((line, "1") for line in lines)
    name = max(known, key=lambda name: known[name])
    if known[name]:
        yield _divided(known[name], f"{name}={known[name]}")


def _of_lsf() -> Iterable[Limit]:
    words = os.environ.get("LSB_MCPU_HOSTS", "").split()
    here = _here(zip(words[::2], words[1::2], strict=False))
    if here:
        yield _divided(here, f"LSB_MCPU_HOSTS={' '.join(words[:8])}")
        return
    for name in ("LSB_DJOB_NUMPROC", "LSB_MAX_NUM_PROCESSORS"):
        number = _number(name)
        if number:
            yield _divided(number, f"{name}={number}")
            return


def _of_sge() -> Iterable[Limit]:
    slots = _number("NSLOTS")
    if slots:
        lines = [line.split() for line in _text_of("PE_HOSTFILE").splitlines()]
        here = _here((words[0], words[1]) for words in lines if len(words) > 1)
        why = f"NSLOTS={slots}" + (f", {here} of them here" if here else "")
        yield _divided(here or slots, why)


def _divided(number: int, why: str) -> Limit:
    """Return the share of one of the ranks on this host."""
    ranks = _ranks()
    among = f", divided among {ranks} ranks" if ranks > 1 else ""
    return Limit(max(1, number // ranks), why + among)


def _ranks() -> int:
    return launcher.ranks_on_host(ask_mpi=False)


def _here(slots: Iterable[tuple[str, str]]) -> int:
    """Return how many slots a list of hosts gives to this one, 0 where none."""
    node = platform.node().partition(".")[0]
    return sum(
        int(number)
        for host, number in slots
        if number.isdigit() and host.partition(".")[0] == node
    )


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else None


def _text_of(name: str) -> str:
    """Return the text of a file that a variable names, empty where there is none."""
    try:
        return Path(os.environ[name]).read_text()
    except (KeyError, OSError, UnicodeDecodeError):
        return ""
