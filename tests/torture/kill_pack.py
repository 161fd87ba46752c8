"""Kill packing, unpacking and publishing, and check what is left.

``python kill_pack.py HOW WHAT FOLDER KILLS`` prints a tally; :func:`tally_of` starts
it, apart from the threads of whoever runs the tests. HOW is ``steps`` or ``torn``,
before each step, or within each write, that leaves the folder as no earlier one does;
``every-step`` or ``every-torn``, all of them; or ``random``.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
from kill_matrix import STEPS, SYNCS, Tally, in_fork, printed, write_half

import resumable as rs
from resumable.runfile.journal import mend_user_file
from resumable.source.files import open_file

GROUP = "/results/level"


class Level(rs.Process):
    """Two outputs, and failures until a file says that they are mended."""

    version = 1
    outputs: ClassVar = {
        "level": rs.Output(units="V"),
        "ends": rs.Output(2, "f4", labels=("first", "last")),
        "count": rs.Output(dtype="i8", per="run"),
    }

    def unit_computation(self, spectrum):
        if self.position == 5 and not Path("mended").exists():
            raise ValueError("not yet")
        return {"level": spectrum.mean(), "ends": spectrum[[0, -1]].astype("f4")}

    def finish(self, results):
        return results.status.done


SOURCE = "scan.h5::/data"


def compute(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rs.ResumableWarning)
        return Level(SOURCE).compute(engine="serial", progress=False, **options)


def run_path(*others):
    (path,) = [p for p in Path().glob("*.h5") if p.name not in ("scan.h5", *others)]
    return path


def rows_of(results):
    return {name: np.asarray(results[name]).tobytes() for name in results}


class Pack:
    def prepare(self):
        self.wanted = rows_of(compute())

    def act(self):
        rs.open(run_path()).pack("gzip")

    def check(self, faults):
        results = rs.open(run_path())
        if rows_of(results) != self.wanted:
            faults.append("other rows")
        if not results.status.finished or len(results.failures) != 1:
            faults.append("another status")

    def go_on(self, turn):
        # Either tidies up; computing leaves the run as it is.
        (self.act if turn % 2 else compute)()

    def check_end(self, faults):
        self.check(faults)
        left = sorted(p.name for p in Path().iterdir())
        if left != sorted(["scan.h5", run_path().name]):
            faults.append(f"left over: {left}")


class Unpack(Pack):
    """A packed run is computed again where it had failed."""

    def prepare(self):
        compute()
        self.before = rows_of(rs.open(run_path()))
        rs.open(run_path()).pack("gzip")
        packed = run_path().read_bytes()
        Path("mended").touch()
        compute(retry_failed=True)
        self.wanted = rows_of(rs.open(run_path()))
        run_path().write_bytes(packed)

    def act(self):
        compute(retry_failed=True)

    def check(self, faults):
        # The summary of all positions is hidden while one of them is computed.
        kept = [name for name in ("level", "ends")]
        rows = rows_of(rs.open(run_path()))
        if not any(
            all(rows[name] == known[name] for name in kept)
            for known in (self.before, self.wanted)
        ):
            faults.append("other rows")

    def go_on(self, turn):
        self.act()

    def check_end(self, faults):
        if rows_of(rs.open(run_path())) != self.wanted:
            faults.append("other rows at the end")
        left = sorted(p.name for p in Path().iterdir())
        if left != sorted(["mended", "scan.h5", run_path().name]):
            faults.append(f"left over: {left}")


class Publish:
    """Results are published into the source."""

    def prepare(self):
        compute()
        self.old = Path("scan.h5").read_bytes()
        self.publish()
        self.new = Path("scan.h5").read_bytes()
        Path("scan.h5").write_bytes(self.old)

    def publish(self):
        rs.open(run_path()).publish(f"scan.h5::{GROUP}", compression="gzip")

    def act(self):
        self.publish()

    def check(self, faults):
        """A kill can leave anything that the next open of ours mends."""

    def go_on(self, turn):
        if turn % 4 == 0:
            mend_user_file("scan.h5")
        elif turn % 4 == 1:
            Level(SOURCE)
        elif turn % 4 == 2:
            open_file("scan.h5").close()
        else:
            with contextlib.suppress(rs.ParameterError):  # it is there
                self.act()

    def check_end(self, faults):
        found = Path("scan.h5").read_bytes()
        if found not in (self.old, self.new):
            faults.append("neither as it was nor as it was to be")
        with h5py.File("scan.h5", "r") as file:
            if not np.array_equal(file["data"][...], data()):
                faults.append("other data")
            if GROUP in file and not file[GROUP]["run/finished"][0]:
                faults.append("half a group")
        left = [p.name for p in Path().iterdir() if "journal" in p.name]
        if left:
            faults.append(f"left over: {left}")


class Make(Publish):
    """Results are published into a file that is made."""

    def prepare(self):
        compute()
        self.publish()
        self.new = Path("made.h5").read_bytes()
        Path("made.h5").unlink()

    def publish(self):
        rs.open(run_path("made.h5")).publish(f"made.h5::{GROUP}")

    def go_on(self, turn):
        with contextlib.suppress(rs.ParameterError):  # it is there
            self.act()

    def check_end(self, faults):
        if Path("made.h5").read_bytes() != self.new:
            faults.append("another file")
        left = [p.name for p in Path().iterdir() if "journal" in p.name]
        if left:
            faults.append(f"left over: {left}")


class Overwrite(Publish):
    """Results are published in the place of others."""

    def prepare(self):
        super().prepare()
        self.publish()
        self.old = Path("scan.h5").read_bytes()
        self.act()
        self.new = Path("scan.h5").read_bytes()
        Path("scan.h5").write_bytes(self.old)

    def act(self):
        rs.open(run_path()).publish(f"scan.h5::{GROUP}", overwrite=True)

    def go_on(self, turn):
        super().go_on(turn % 3)


class Repair(Publish):
    """A file is mended that was to be changed."""

    def prepare(self):
        super().prepare()
        assert in_fork(self._killed_when_decided) == -signal.SIGKILL

    def _killed_when_decided(self):
        journal = Path("scan.h5.resumable-journal")

        def kill(*_):
            if journal.exists() and b'"decided":true' in journal.read_bytes():
                os.kill(os.getpid(), signal.SIGKILL)

        before_steps(kill)
        self.publish()

    def act(self):
        mend_user_file("scan.h5")


CASES = {
    "pack": Pack,
    "unpack": Unpack,
    "publish": Publish,
    "make": Make,
    "overwrite": Overwrite,
    "repair": Repair,
}


@functools.cache
def data():
    return np.random.default_rng(5).normal(size=(40, 16))


def _prepared(what, folder):
    """Make a case in a folder of its own, from which each attempt is copied."""
    start = Path(folder) / "start"
    start.mkdir()
    os.chdir(start)
    with h5py.File("scan.h5", "w") as file:
        file["data"] = data()
        file["data"].attrs["units"] = "V"
        file.create_dataset("other/table", data=np.arange(3000), chunks=(100,))
    case = CASES[what]()
    case.prepare()
    return case, start


def _anew(start):
    os.chdir(start.parent)
    shutil.rmtree("attempt", ignore_errors=True)
    shutil.copytree(start, "attempt")
    os.chdir("attempt")


def _state():
    """Tell what a kill has left, but for the contents of what is never read."""
    unread = (".claim", ".pack", ".resumable-journal-new")
    return {
        path.name: b"" if path.name.endswith(unread) else path.read_bytes()
        for path in Path().iterdir()
    }


def _note(tally, what, action):
    try:
        action()
    except Exception as error:
        tally.faults.append(f"{what}: {type(error).__name__}: {error}")


def before_steps(do):
    """Have this process do something before each step that it takes."""
    lock = threading.Lock()

    def doing(call):
        def instead(*arguments, **options):
            with lock:
                do(call, *arguments)
            return call(*arguments, **options)

        return instead

    for name in (*STEPS, *SYNCS):
        setattr(os, name, doing(getattr(os, name)))


def _note_moments(action, path, *, torn):
    """Do something, and write down the steps at which a kill leaves something new."""
    seen, found = [], []
    steps, pwrite = itertools.count(), os.pwrite

    def note(call, *arguments):
        if torn and call is pwrite:
            write_half(pwrite, *arguments)
        step, state = next(steps), _state()
        if state not in seen:
            seen.append(state)
            found.append(step)

    before_steps(note)
    action()
    path.write_text(json.dumps(found))


def _moments(case, start, *, torn):
    """Return the steps of a case at which a kill leaves something new."""
    _anew(start)
    path = start.parent / "moments"
    assert in_fork(functools.partial(_note_moments, case.act, path, torn=torn)) == 0
    return json.loads(path.read_text())


def all_steps(what, folder, *, torn, every):
    """Kill before steps, or in writes; go on, and check."""
    case, start = _prepared(what, folder)
    tally, seen = Tally(), []
    # Half of the moments, where not all are wanted.
    steps = itertools.count() if every else _moments(case, start, torn=torn)[::2]
    for step in steps:
        _anew(start)
        code = in_fork(case.act, step, torn=torn)
        if code == 0 and every:
            break
        before = len(tally.faults)
        tally.kills += 1
        if code != -signal.SIGKILL:
            tally.faults.append(f"exit code {code}")
        state = _state()
        if state not in seen:
            seen.append(state)
            _check(case, tally, step)
        tally.faults[before:] = [f"step {step}: {f}" for f in tally.faults[before:]]
    else:
        _anew(start)
        case.act()
    _note(tally, "without a kill", lambda: case.check_end(tally.faults))
    return tally


def _check(case, tally, turn):
    _note(tally, "after the kill", lambda: case.check(tally.faults))
    _note(tally, "going on", lambda: case.go_on(turn))
    _note(tally, "at the end", lambda: case.check_end(tally.faults))
    tally.completed += 1


def at_random(what, folder, kills):
    case, start = _prepared(what, folder)
    chance, tally = random.Random(kills), Tally()
    _anew(start)
    began = time.monotonic()
    case.act()
    longest = 1.2 * (time.monotonic() - began)
    while tally.kills < kills:
        _anew(start)
        tally.sessions += 1
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                case.act()
                code = 0
            finally:
                os._exit(code)
        time.sleep(chance.uniform(0, longest))
        os.kill(pid, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL:
            tally.kills += 1
        before = len(tally.faults)
        _check(case, tally, tally.sessions)
        tally.faults[before:] = [
            f"attempt {tally.sessions}: {f}" for f in tally.faults[before:]
        ]
    return tally


def tally_of(program_server, how, what, folder, kills=0):
    return printed(program_server.start(__file__, how, what, str(folder), str(kills)))


def main():
    how, what, folder, kills = sys.argv[1:]
    if how == "random":
        tally = at_random(what, folder, int(kills))
    else:
        every, torn = how.startswith("every-"), how.endswith("torn")
        tally = all_steps(what, folder, torn=torn, every=every)
    sys.stdout.write(json.dumps(dataclasses.asdict(tally)))


if __name__ == "__main__":
    main()
