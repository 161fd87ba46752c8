"""Examine what a kill or a power cut has left: is it right, and does it go on?"""

import collections
import contextlib
import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import scenarios
from scenarios import FAILING, POSITIONS

import resumable as rs
from resumable.runfile.file import RunFile
from resumable.runfile.header import Header


def is_run(name):
    """Return whether a name is one that a run file has."""
    special = name.startswith(".") or name.endswith(".rechunked.h5")
    return name.endswith(".h5") and not special and name != "scan.h5"


@contextlib.contextmanager
def unsynced():
    """Do without syncs: what is examined here is in no danger."""
    real = os.fsync, os.fdatasync
    os.fsync = os.fdatasync = lambda fd: None
    try:
        yield
    finally:
        os.fsync, os.fdatasync = real


@dataclasses.dataclass
class Tally:
    recordings: int = 0
    gaps: int = 0
    states: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    different: int = 0
    files: int = 0
    resumed: int = 0
    faults: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    examples: dict = dataclasses.field(default_factory=dict)

    def __str__(self):
        states = ", ".join(f"{k} {n:,}" for k, n in self.states.items())
        return (
            f"{self.recordings} recordings, {self.gaps:,} gaps, "
            f"{self.states.total():,} states ({states}), {self.different:,} different, "
            f"{self.files:,} run files opened, {self.resumed:,} gone on with; "
            f"faults {dict(self.faults)}"
        )


@dataclasses.dataclass(frozen=True)
class _Found:
    faults: tuple
    done: object = None
    failed: object = None
    key: tuple = ()


class Examiner:
    def __init__(self, case, truth, source, folder, tally):
        self._case, self._truth, self._source = case, truth, source
        self._folder, self.tally = Path(folder), tally
        self._files, self._seen, self._resumed = {}, set(), set()
        self._headers, self._digests = {}, {}
        #: Of states that differ in what is computed from them, go on from each n-th.
        self.every = 1
        #: Every failure has its text when a run is complete. Where a session before
        #: was ended, its texts may be missing or torn; positions never are.
        self.told = True

    def examine(self, state, disk):
        """Examine a state, and go on from it; note what is wrong."""
        self.tally.states[state.how.split()[0]] += 1
        contents = {
            name: state.read(name) for name in state.names if not name.startswith(".")
        }
        digests = {n: self._digest(c) for n, c in contents.items()}
        runs = {}
        for name in filter(is_run, contents):
            # With its ragged files, where it has any.
            own = [n for n in contents if n == name or n.startswith(f"{name[:-2]}")]
            known = tuple((n, digests[n]) for n in sorted(own))
            if known not in self._files:
                parts = {n: contents[n] for n in own}
                self._files[known] = self._look(name, parts)
            runs[name] = self._files[known]
        faults = [fault for found in runs.values() for fault in found.faults]
        faults += self._lost(runs, disk)
        if contents.get("scan.h5") != self._source:
            faults.append("the source has changed")
        for fault in faults:
            self._note(fault, state)
        key = frozenset(digests.items()), frozenset(state.names)
        if key in self._seen:
            return
        self._seen.add(key)
        self.tally.different += 1
        if not faults:
            self._go_on(state, contents, digests, runs)

    def _digest(self, content):
        """Return the sha256 of a file; that of one that is as it was is known."""
        known = self._digests.get(id(content))
        if known is None or known[0] is not content:
            # With the contents, so that their id is not used again.
            known = content, hashlib.sha256(content).digest()
            if len(self._digests) > 100:
                self._digests.clear()
            self._digests[id(content)] = known
        return known[1]

    def _note(self, fault, state):
        kind = fault.partition(":")[0]
        self.tally.faults[kind] += 1
        self.tally.examples.setdefault(kind, f"{state.how}: {fault}")

    # One run file.

    def _look(self, name, parts):
        self.tally.files += 1
        for part, content in parts.items():
            (self._folder / part).write_bytes(content)
        try:
            return self._judge(self._folder / name, told=self.told)
        except (OSError, rs.ResumableError) as error:
            return _Found((f"unreadable: {error}",))
        finally:
            for part in parts:
                (self._folder / part).unlink()

    def _judge(self, path, *, told):
        results = rs.open(path)
        done, failed = results.completed_mask, results.failed_mask
        failing = np.isin(np.arange(len(done)), FAILING)
        faults = []
        if (failed & ~failing).any():
            faults.append("marked wrongly: failed, but nothing was wrong")
        if not self._case.mended and (done & failing).any():
            faults.append("marked wrongly: done, but it fails")
        rows, index = results["wide"][...], results["index"][...]
        truth = np.where(done[:, None], self._truth[: len(done)], np.nan)
        numbers = np.where(done, np.arange(len(done)), -1)
        wrong = (rows.tobytes(), index.tobytes()) != (
            truth.tobytes(),
            numbers.astype("i8").tobytes(),
        )
        if wrong:
            bad = np.flatnonzero((np.nan_to_num(rows) != np.nan_to_num(truth)).any(1))
            faults.append(f"marked wrongly: done, but not what is right: {bad[:10]}")
        if "some" in results:
            some = zip(results["some"][:], truth, done, strict=True)
            for position, (found, row, is_done) in enumerate(some):
                wanted = scenarios.some_of(row, position) if is_done else []
                if found.tobytes() != np.array(wanted).tobytes():
                    faults.append(f"marked wrongly: done, but other rows: {position}")
        if not self._case.mended:
            # Tried again, a failed position may have its row already.
            raw = np.array(RunFile(results.path).array("wide"))[failed]
            if not np.isnan(raw).all():
                faults.append("failed, but its row is not the fill value")
        finished = results.status.finished
        if finished:
            faults += self._judge_finished(results, rows, told=told)
        sessions = results.sessions
        used = tuple(s.end > 0 for s in sessions)
        key = done.tobytes(), failed.tobytes(), finished, used
        return _Found(tuple(faults), done, failed, key)

    def _judge_finished(self, results, rows, *, told):
        if results.status.pending:
            yield f"finished, but not all is there: {results.status}"
        if "total" in results:
            total, count = scenarios.total_of(rows)
            same = results["total"][...].tobytes() == total.tobytes()
            if not same or results["rows"][...] != count:
                yield "finished, but an output per run is not there"
        texts = {f.position: f.message for f in results.failures}
        there = {int(p): f"no row at {p}" for p in np.flatnonzero(results.failed_mask)}
        if told and texts != there:
            yield f"finished, but failures are not told: {texts} of {there}"

    # What must not be lost.

    def _lost(self, runs, disk):
        """Compare with what was durable before, and so known to somebody."""
        for name, file in disk.names.items():
            if not is_run(name) or not file.durable:
                continue
            done, failed = self._status(file, file.durable)
            found = runs.get(name)
            if found is None:
                # With its first sync, when it is made, no process knows it yet.
                if file.syncs > 1 or name in disk.durable_names:
                    yield f"acknowledged, but lost: {name}"
                continue
            if found.done is None:
                continue
            if (done & ~found.done).any():
                yield f"acknowledged, but lost: {np.flatnonzero(done & ~found.done)}"
            # While failed positions are tried again they may become pending.
            settled = found.done | found.failed
            if not self._case.mended and (failed & ~settled).any():
                yield f"failed, but lost: {np.flatnonzero(failed & ~settled)}"

    def settled(self, file):
        """Return which positions are done or failed: now, and durably."""
        both = (self._status(file, c) for c in (file.now(), file.durable))
        return [done | failed for done, failed in both]

    def _status(self, file, content):
        header = self._header(file)
        return [
            np.frombuffer(content, "u1", header.size, header.offsets[name]) == 1
            for name in ("completed_positions", "failed_positions")
        ]

    def _header(self, file):
        if id(file) not in self._headers:
            block = file.durable[: file.durable.index(b"\0")]
            # The file is kept, too, so that its number is not used again.
            self._headers[id(file)] = Header.from_bytes(block, Path("durable")), file
        return self._headers[id(file)][0]

    # Going on.

    def _go_on(self, state, contents, digests, runs):
        key = (
            frozenset((n, found.key) for n, found in runs.items()),
            frozenset((n, digests[n]) for n in contents if n.endswith(".rechunked.h5")),
            frozenset(state.names),
        )
        if key in self._resumed:
            return
        self._resumed.add(key)
        if len(self._resumed) % self.every:
            return
        self.tally.resumed += 1
        folder = self._folder / "on"
        folder.mkdir()
        try:
            for name in state.names:
                # A file with a temporary name may hold anything.
                (folder / name).write_bytes(contents.get(name, b"half a file"))
            with unsynced():
                faults = list(self._computed(folder, runs))
        except (OSError, rs.ResumableError, RuntimeError) as error:
            faults = [f"it does not go on: {type(error).__name__}: {error}"]
        finally:
            shutil.rmtree(folder)
        for fault in faults:
            self._note(fault, state)

    def _computed(self, folder, runs):
        """Give the same command again, and compare with a run without any kill."""
        calls = scenarios.Plain.computed
        calls.clear()
        results = scenarios.compute(self._case, folder)
        if results.status.pending and "retry_failed" in self._case.options:
            # Tried again are only those that are failed; the rest is for later.
            results = scenarios.compute(self._case, folder, retry_failed=False)
        name = results.path.name
        if name in runs:
            known = runs[name].done
        elif self._case.first == "shorter" and runs:
            known = next(iter(runs.values())).done
        else:
            known = np.zeros(0, bool)
        twice = [p for p in calls if p < len(known) and known[p]]
        if twice or len(set(calls)) < len(calls):
            yield f"computed twice: {twice or calls}"
        if len(results.completed_mask) != POSITIONS or not results.status.finished:
            yield f"not complete: {results.status}"
        failing = () if self._case.mended else FAILING
        if np.flatnonzero(results.failed_mask).tolist() != list(failing):
            yield f"failed positions are not the same: {results.failed_mask}"
        for path in filter(lambda p: is_run(p.name), folder.iterdir()):
            yield from (
                f"after going on: {f}" for f in self._judge(path, told=False).faults
            )
            with h5py.File(path, "r") as file:
                file.visititems(lambda _, thing: thing.id.valid)
        left = [p.name for p in folder.iterdir() if not is_run(p.name)]
        if left != ["scan.h5"]:
            yield f"left over: {sorted(left)}"
        if (folder / "scan.h5").read_bytes() != self._source:
            yield "the source has changed"
        unknown = set(runs) - {p.name for p in folder.iterdir()}
        if unknown:
            yield f"acknowledged, but lost: {unknown}"
