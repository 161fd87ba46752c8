"""Kill a computation at random moments and at every step, and check what is left.

``python kill_matrix.py run SOURCE ENGINE CLASS`` computes; ``python kill_matrix.py
steps SOURCE CLASS STRIDE`` kills itself before every step of a run, or every so many,
one after the other. The rest is for tests: :func:`matrix` and :func:`every_step`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

import resumable as rs

POSITIONS = 300
WIDTH = 16
FAILING = 97
CHECKPOINT_S = 0.02
#: Every process of a killed run is gone after this time.
GONE_S = 2.0


class Transform(rs.Process):
    """Two outputs that any wrong byte changes, and a position that fails."""

    version = 1
    outputs: ClassVar = {
        "transform": rs.Output(WIDTH + 2),
        "index": rs.Output(dtype="i8", fill_value=-1),
    }

    def unit_computation(self, spectrum):
        if self.position % 100 == FAILING:
            raise ValueError(f"no transform at {self.position}")
        if "RESUMABLE_TEST_FAST" not in os.environ:
            time.sleep(0.001)
        numbers = np.fft.rfft(spectrum + self.rng.normal(size=WIDTH))
        return {"transform": numbers.view("f8"), "index": self.position}


class Scatter(Transform):
    """Ragged outputs beside another, of 0 to 6 rows, and a position that fails."""

    outputs: ClassVar = {
        "index": rs.Output(dtype="i8", fill_value=-1),
        "pairs": rs.Output(2, ragged=True),
        "marks": rs.Output(dtype="i4", ragged=True),
    }

    def unit_computation(self, spectrum):
        index = super().unit_computation(spectrum)["index"]
        pairs = spectrum.reshape(-1, 2)[: index % 7]
        return {"index": index, "pairs": pairs, "marks": np.arange(index % 3)}


#: Engines, and who of their processes is killed.
CASES = [
    ("serial", "parent"),
    ("local", "parent"),
    ("local", "worker"),
    ("local", "group"),
]
CLASSES = {cls.__name__: cls for cls in (Transform, Scatter)}


def make_source(folder, positions=POSITIONS):
    path = Path(folder) / "scan.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.random.default_rng(5).normal(size=(positions, WIDTH))
    return f"{path}::/data"


def stat_of(pid):
    """Return state and session of a process, or None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[3])


def alive(pid):
    """Return whether a process runs (a zombie does not)."""
    stat = stat_of(pid)
    return stat is not None and stat[0] not in "ZX"


def members(session):
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    stats = {pid: stat_of(pid) for pid in pids}
    return [
        pid for pid, s in stats.items() if s and s[1] == session and s[0] not in "ZX"
    ]


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())


@dataclasses.dataclass
class Tally:
    """What a matrix found."""

    kills: int = 0
    completed: int = 0
    sessions: int = 0
    rows_checked: int = 0
    faults: list = dataclasses.field(default_factory=list)


def temporary_folder(source):
    return Path(source.partition("::")[0]).parent / "temporary"


def start(program_server, source, engine, name="Transform"):
    return program_server.start(
        __file__,
        *("run", source, engine, name),
        folder=Path(source.partition("::")[0]).parent,
        environment={"TMPDIR": str(temporary_folder(source))},
    )


def run_files(source):
    path = Path(source.partition("::")[0])
    return sorted(p for p in path.parent.glob("*.h5") if p != path)


def rows_of(results, name):
    """Return the bytes of each position of an output, those of pending ones too."""
    values = results[name][:]
    return np.array([np.asarray(value).tobytes() for value in values], object)


def left_over(source):
    path = Path(source.partition("::")[0])
    temporary = temporary_folder(source)
    known = {path, temporary, *run_files(source)}
    found = [*path.parent.iterdir(), *temporary.glob("*")]
    return sorted(p.name for p in found if p not in known)


def read_status(source):
    """Return the positions marked as done by now, as anybody can read them."""
    for path in run_files(source):
        with contextlib.suppress(rs.RunFileError):
            return rs.open(path).completed_mask
    return None


@functools.cache
def expected(positions, name):
    """Return what an uninterrupted run of make_source's data computes."""
    with tempfile.TemporaryDirectory() as folder:
        source = make_source(folder, positions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rs.ResumableWarning)
            results = CLASSES[name](source).compute(engine="serial")
        return {name: rows_of(results, name) for name in results}


def check(source, wanted, tally, acknowledged=None):
    """Check every run file of a source; note faults."""
    for path in run_files(source):
        try:
            results = rs.open(path)
            with h5py.File(path, "r") as file:
                file.visititems(lambda _, thing: thing.id.valid or tally.faults)
                group = next(iter(file.values()))
                done = group["completed_positions"][...] == 1
                failed = group["failed_positions"][...] == 1
            rows = {name: rows_of(results, name) for name in wanted}
        except (OSError, rs.ResumableError) as error:
            tally.faults.append(f"unreadable: {path.name}: {error}")
            continue
        failing = np.arange(len(done)) % 100 == FAILING
        if (done & failing).any() or (failed & ~failing).any():
            tally.faults.append("a status that cannot be")
        for name, values in wanted.items():
            tally.rows_checked += int(done.sum())
            if (rows[name][done] != values[done]).any():
                tally.faults.append(f"marked as done, but wrong: {name}")
        if acknowledged is not None and (acknowledged & ~done).any():
            lost = np.flatnonzero(acknowledged & ~done).tolist()
            tally.faults.append(f"acknowledged, but lost: {lost[:10]}")
        if results.status.finished and results.status.pending:
            tally.faults.append("finished with pending positions")


def check_complete(source, wanted, tally):
    """Check the run of a source that says it is complete; note faults."""
    check(source, wanted, tally)
    paths = run_files(source)
    if len(paths) != 1:
        tally.faults.append(f"{len(paths)} run files")
    for path in paths:
        results = rs.open(path)
        if not results.status.finished:
            tally.faults.append(f"exit code 0, but {results.status}")
        for name, values in wanted.items():
            if (rows_of(results, name) != values).any():
                tally.faults.append(f"another result than uninterrupted: {name}")
        path.unlink()
    if left_over(source):
        tally.faults.append(f"left over: {left_over(source)}")
    tally.completed += 1


def matrix(server, folder, engine, victim, kills, *, seed=0, name="Transform"):
    """Kill until there were so many kills, each time going on where it was."""
    chance = random.Random(seed)
    source = make_source(folder)
    temporary_folder(source).mkdir()
    path = Path(source.partition("::")[0])
    digest = hashlib.sha256(path.read_bytes()).digest()
    wanted = expected(POSITIONS, name)
    tally = Tally()
    acknowledged = np.zeros(POSITIONS, bool)
    # All kills may have come before there was a run.
    while tally.kills < kills or run_files(source) or not tally.completed:
        process = start(server, source, engine, name)
        tally.sessions += 1
        process.stdout.readline()
        if tally.kills < kills:
            # The short ones hit the creation of the run file.
            delay = chance.uniform(0, chance.choice([0.03, 0.3, 0.6]))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(delay)
        if tally.kills < kills and process.poll() is None:
            done = read_status(source)
            if done is not None:
                acknowledged |= done
            _kill(process, victim, chance)
            tally.kills += 1
        _, errors = process.communicate(timeout=30)
        process.close()
        if not wait_until(functools.partial(_none_of, process.pid), GONE_S):
            tally.faults.append(f"orphans: {members(process.pid)}")
        if hashlib.sha256(path.read_bytes()).digest() != digest:
            tally.faults.append("the source has changed")
        check(source, wanted, tally, acknowledged)
        if process.returncode == 0:
            check_complete(source, wanted, tally)
            acknowledged[:] = False
        elif process.returncode > 0 and "WorkerDied" not in errors:
            tally.faults.append(f"exit code {process.returncode}: {errors[-300:]}")
            if tally.kills >= kills:
                break
    return tally


def _none_of(session):
    return not members(session)


def _kill(process, victim, chance):
    if victim == "group":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return
    chosen = process.pid
    if victim == "worker":
        others = [pid for pid in members(process.pid) if pid != process.pid]
        chosen = chance.choice(others) if others else chosen
    with contextlib.suppress(ProcessLookupError):
        os.kill(chosen, signal.SIGKILL)


# Every step.

#: Calls that change the disk. A kill leaves what the ones before it did, synced or
#: not, so the syncs are counted and not done, which is faster.
STEPS = ("open", "pwrite", "posix_fallocate", "link", "unlink", "ftruncate", "rename")
STEPS += ("replace",)
SYNCS = ("fsync", "fdatasync")


def every_step(server, folder, *, positions=5, name="Transform", stride=1):
    """Kill a run before each of its steps, or every so many, and go on after each."""
    command = (__file__, "steps", make_source(folder, positions), name, str(stride))
    fast = {"RESUMABLE_TEST_FAST": "1"}
    return printed(server.start(*command, folder=folder, environment=fast))


def printed(program):
    """Return the tally that a program prints."""
    with contextlib.closing(program):
        output, errors = program.communicate(timeout=3000)
    assert program.returncode == 0, errors
    return Tally(**json.loads(output))


def _all_steps(source, name, stride):
    with h5py.File(source.partition("::")[0], "r") as file:
        wanted = expected(len(file["data"]), name)
    tally = Tally()
    step = 0
    while True:
        code = in_fork(functools.partial(_compute, source, "serial", name), step)
        if code == 0:
            check_complete(source, wanted, tally)
            break
        tally.kills += 1
        check(source, wanted, tally)
        if code != -signal.SIGKILL:
            tally.faults.append(f"step {step}: exit code {code}")
        before = len(tally.faults)
        if in_fork(functools.partial(_compute, source, "serial", name)) != 0:
            tally.faults.append("it does not go on")
        check_complete(source, wanted, tally)
        tally.faults[before:] = [f"step {step}: {f}" for f in tally.faults[before:]]
        for left in left_over(source):
            (Path(source.partition("::")[0]).parent / left).unlink()
        step += int(stride)
    sys.stdout.write(json.dumps(dataclasses.asdict(tally)))


def in_fork(action, step=None, *, torn=False):
    """Do something in a copy of this process, killed before a step; return its code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        for name in SYNCS:
            setattr(os, name, lambda fd: None)
        try:
            if step is not None:
                kill_before(step, torn=torn)
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def write_half(pwrite, fd, data, offset):
    """Write half of some data. No disk and no page cache divides a sector."""
    data = memoryview(data).cast("B")
    pwrite(fd, data[: data.nbytes // 2 // 512 * 512], offset)


def kill_before(step, *, torn=False):
    """Have this process killed before it takes a step, or in the middle of a write."""
    left, pwrite = [step], os.pwrite

    def counted(call):
        def instead(*arguments, **options):
            if not left[0]:
                if torn and call is pwrite:
                    write_half(pwrite, *arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*arguments, **options)

        return instead

    for name in (*STEPS, *SYNCS):
        setattr(os, name, counted(getattr(os, name)))


def _compute(source, engine, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rs.ResumableWarning)
        CLASSES[name](source).compute(engine=engine, workers=2, checkpoint=CHECKPOINT_S)


def main():
    if sys.argv[1] == "steps":
        _all_steps(*sys.argv[2:])
        return
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    _compute(*sys.argv[2:])


if __name__ == "__main__":
    main()
