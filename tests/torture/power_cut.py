"""Record runs, replay them with a kill or a power cut at every moment, examine all.

``python power_cut.py STATES`` does it until so many states were examined, and prints
what was found.
"""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import recorder
import scenarios
from examiner import Examiner, Tally, is_run
from replay import Disk

TESTS = Path(__file__).parent
#: Seconds between two syncs, and per position.
PACES = ((0.012, 0.003), (0.004, 0.004), (0.05, 0.001), (0.1, 0.002))


class Recording:
    def __init__(self, case, base, tally, seed=0, every=1, share=1.0):
        self.case, self.base = case, Path(base)
        self._chance = random.Random(seed)
        #: Of all moments, the share that is examined.
        self._share = share
        self._folders = 0
        self.folder = self._new()
        truth = case.prepare(self.folder)
        source = (self.folder / "scan.h5").read_bytes()
        self._examiner = Examiner(case, truth, source, self._new(), tally)
        self._examiner.every = every
        self._before = self._new()
        shutil.copytree(self.folder, self._before, dirs_exist_ok=True)
        self.events = []

    @property
    def tally(self):
        return self._examiner.tally

    @tally.setter
    def tally(self, tally):
        self._examiner.tally = tally

    def _new(self):
        self._folders += 1
        folder = self.base / str(self._folders)
        folder.mkdir()
        return folder

    def record(self, engine="local", pace=PACES[0]):
        """Compute, and record what all processes do."""
        log = self.base / "log"
        if engine == "serial":
            with recorder.recording(log):
                scenarios.compute(self.case, self.folder)
        else:
            name = next(n for n, c in scenarios.CASES.items() if c == self.case)
            subprocess.run(
                [sys.executable, scenarios.__file__, name, self.folder, engine],
                env={
                    **os.environ,
                    recorder.LOG: str(log),
                    scenarios.CHECKPOINT: str(pace[0]),
                    scenarios.DELAY: str(pace[1]),
                    "PYTHONPATH": f"{TESTS.parents[1]}:{TESTS}",
                },
                check=True,
                timeout=100,
            )
        self.events = recorder.read_log(log)
        self.tally.recordings += 1
        return self

    def _disk(self):
        disk = Disk(self.folder)
        disk.meet(self._before)
        return disk

    def replay(self, count, **options):
        """Examine what kills and cuts between any two events leave."""
        disk = self._disk()
        self._replay(disk, self.events, count, **options)
        if not options:
            _same(disk, self.folder)

    def _replay(self, disk, events, count, *, until=None):
        for event in events:
            file = disk.take(event)
            if event.kind == "begin" or _is_temporary(file, disk):
                # Nothing that counts has changed.
                continue
            if self._share < 1 and self._chance.random() >= self._share:
                continue
            self.tally.gaps += 1
            written = file if event.kind == "write" else None
            for state in disk.killed(written):
                self._examiner.examine(state, disk)
            for state in disk.cut(self._chance, count):
                self._examiner.examine(state, disk)
            if until is not None and until in self.tally.faults:
                return

    def go_on(self, disk, count, **options):
        """Record a session that goes on from what a kill left, and replay it too."""
        self._examiner.told = False
        log = self._new() / "log"
        with recorder.recording(log):
            scenarios.compute(self.case, disk.folder)
        self.tally.recordings += 1
        self._replay(disk, recorder.read_log(log), count, **options)
        if not options:
            _same(disk, disk.folder)

    def killed_at(self, number):
        """Return the disk after a kill behind so many events."""
        disk = self._disk()
        for event in self.events[:number]:
            disk.take(event)
        disk.move(self._new())
        return disk

    def cut_at(self, number):
        """Return the disk after a power cut behind so many events."""
        disk = self._disk()
        for event in self.events[:number]:
            disk.take(event)
        states = list(disk.cut(self._chance, 1))
        if not states:
            return None
        return disk.after(self._chance.choice(states), self._new())

    def marked_unsynced(self):
        """Return behind how many events all is marked, but not yet durably."""
        disk = self._disk()
        for number, event in enumerate(self.events, 1):
            disk.take(event)
            for name in filter(is_run, disk.names):
                file = disk.names[name]
                if file.durable and file.dirty:
                    now, durable = self._examiner.settled(file)
                    if now.all() and not durable.all():
                        return number
        raise RuntimeError("there is no such moment")


def _is_temporary(file, disk):
    """Return whether a file has no other than temporary names: it may be anything."""
    names = [name for name, other in disk.names.items() if other is file]
    return bool(names) and all(name.startswith(".") for name in names)


def _same(disk, folder):
    """Check the instrument: the replay ends with what there really is."""
    there = {path.name: path.read_bytes() for path in folder.iterdir()}
    replayed = {name: file.now() for name, file in disk.names.items()}
    if there != replayed:
        msg = f"the replay leads to {sorted(replayed)}, the run to {sorted(there)}"
        raise RuntimeError(msg)


def long_form(folder, least, seed=0):
    """Record and replay until so many states were examined; return the tallies."""
    tallies = {name: Tally() for name in scenarios.CASES}
    tallies |= {f"{name}, resumed": Tally() for name in scenarios.CASES}
    chance = random.Random(seed)
    turn = 0
    while sum(t.states.total() for t in tallies.values()) < least:
        for number, (name, case) in enumerate(scenarios.CASES.items()):
            pace = PACES[(turn + number) % len(PACES)]
            with _scratch(folder) as base:
                run = Recording(case, base, tallies[name], seed + turn)
                run.record("local", pace)
                run.replay(12)
                run.tally = tallies[f"{name}, resumed"]
                for moment in chance.sample(range(1, len(run.events)), 3):
                    run.go_on(run.killed_at(moment), 6)
                    disk = run.cut_at(moment)
                    if disk is not None:
                        run.go_on(disk, 6)
        turn += 1
    return tallies


@contextlib.contextmanager
def _scratch(folder):
    with tempfile.TemporaryDirectory(dir=folder) as base:
        yield Path(base)


def table(tallies):
    lines = [f"{name}: {tally}" for name, tally in tallies.items()]
    lines += [f"{f}: {e}" for t in tallies.values() for f, e in t.examples.items()]
    return "\n".join(lines) + "\n"


def main():
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(table(long_form(folder, int(sys.argv[1]))))


if __name__ == "__main__":
    main()
