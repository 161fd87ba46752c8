"""Run files with any bytes changed: refused, or taken for what they still say.

What accidents do is found by the digests, or is one of the bytes that change after
birth. Those say what they say: a status byte that became 1 claims a row, and a row
that changed is another row. Only computing again can notice that. A stranger can
write digests that agree; such a file must do no harm, and can claim anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import h5py
import hypothesis
import numpy as np
import pytest
from forged_files import plain_of, restructured, rewritten
from hypothesis import strategies as st

import resumable as rs
from resumable.cli import report
from resumable.runfile.file import RunFile
from resumable.runfile.header import MAGIC

SIZE = 60
SUITE, LONG = 120, 5_000


class Moody(rs.Process):
    """The mean of every spectrum; of three there is none."""

    version = 1
    outputs = {"mean": rs.Output()}  # noqa: RUF012 - as users write it

    def unit_computation(self, spectrum):
        if self.position % 20 == 7:
            raise ValueError("no mean")
        return spectrum.mean()


class Base:
    """A run that is half done, what is in it, and its source."""

    def __init__(self, folder):
        self.folder = folder
        self.source = f"{folder}/scan.h5::/data"
        data = np.random.default_rng(3).normal(size=(SIZE, 32))
        with h5py.File(folder / "scan.h5", "w") as file:
            file["data"] = data
        self.means = data.mean(axis=1)
        results = quietly_computed(self.source, positions=slice(0, 30))
        self.path = results.path
        self.bytes = self.path.read_bytes()
        header = RunFile(self.path).header
        self.parts = {
            name: range(o, o + n) for name, (o, n) in header.extents().items()
        }
        text = len(MAGIC) + 65
        end = self.bytes.index(b"\n", text)
        self.parts["first line"] = range(len(MAGIC))
        self.parts["digest"] = range(len(MAGIC), text)
        self.parts["text"] = range(text, end + 1)
        self.parts["padding"] = range(end + 1, header.user_block)
        taken = np.zeros(len(self.bytes), bool)
        for part in self.parts.values():
            taken[part.start : part.stop] = True
        self.parts["structure"] = np.flatnonzero(~taken).tolist()
        self.protected = np.zeros(len(self.bytes), bool)
        for name in ("first line", "digest", "text", "structure"):
            self.protected[self.parts[name]] = True

    def is_harmed(self, changed):
        """Whether bytes differ that may never change."""
        if len(changed) < len(self.bytes):
            return True
        before = np.frombuffer(self.bytes, np.uint8)
        after = np.frombuffer(changed, np.uint8)[: len(before)]
        return bool((before != after)[self.protected].any())

    def part_of(self, changed, name):
        part = self.parts[name]
        return np.frombuffer(changed[part.start : part.stop], np.uint8)


@pytest.fixture(scope="module")
def base():
    with tempfile.TemporaryDirectory() as folder:
        yield Base(Path(folder))


def quietly_computed(source, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rs.ResumableWarning)
        return Moody(source).compute(engine="serial", progress=False, **options)


def looked_at(path):
    """All that looking at a run file does; returns what it claims."""
    run = RunFile(path)
    results = rs.open(path)
    shown = [repr(results), results._repr_html_(), report.list_runs(path.parent)]
    shown += [report.status_text(run), report.show_text(run)]
    for text in shown:
        text.encode()
        assert all(c.isprintable() or c in "\n\t" for c in text)
    values = {name: array[...] for name, array in results.items()}
    return results.completed_mask, results.failed_mask, values


PARTS = (
    "first line",
    "digest",
    "text",
    "padding",
    "structure",
    "mean",
    "completed_positions",
    "failed_positions",
    "finished",
    "failures",
    "sessions",
)

byte = st.one_of(st.sampled_from([0, 1, 2, 255]), st.integers(0, 255))
change_of_bytes = st.tuples(
    st.sampled_from(PARTS),
    st.integers(0, 1 << 20),
    st.lists(byte, min_size=1, max_size=16).map(bytes),
)
change_of_size = st.tuples(
    st.sampled_from(["cut", "grown"]), st.integers(0, 1 << 20), st.binary(max_size=8)
)
accidents = st.lists(st.one_of(change_of_bytes, change_of_size), min_size=1, max_size=3)


def damaged(base, changes):
    """Return the bytes of the run file after these accidents."""
    data = bytearray(base.bytes)
    for kind, number, new in changes:
        if kind == "cut":
            del data[number % (len(data) + 1) :]
        elif kind == "grown":
            data += new * (1 + number % 1000)
        else:
            part = base.parts[kind]
            for i, value in enumerate(new):
                at = part[(number + i) % len(part)]
                if at < len(data):
                    data[at] = value
    return bytes(data)


def assert_accident_is_survived(base, changes):
    """A file that was harmed is refused and kept; else it is what its bytes say."""
    changed = damaged(base, changes)
    base.path.write_bytes(changed)
    if base.is_harmed(changed):
        with pytest.raises(rs.RunFileError):
            looked_at(base.path)
        with pytest.raises(rs.RunFileError):
            quietly_computed(base.source)
        assert base.path.read_bytes() == changed
        return
    done = base.part_of(changed, "completed_positions") == 1
    failed = (base.part_of(changed, "failed_positions") == 1) & ~done
    rows = base.part_of(changed, "mean").view("f8")

    claimed, claimed_failed, values = looked_at(base.path)
    assert claimed.tolist() == done.tolist()
    assert claimed_failed.tolist() == failed.tolist()
    ended = base.part_of(changed, "finished")[0] == 1
    assert rs.open(base.path).status.finished == (ended and (done | failed).all())
    expected = np.where(done, rows, np.nan)
    np.testing.assert_array_equal(values["mean"], expected)

    results = quietly_computed(base.source)
    settled = done | failed
    honest = np.where(np.arange(SIZE) % 20 == 7, np.nan, base.means)
    assert results.path == base.path
    assert results.status.pending == 0
    np.testing.assert_array_equal(results["mean"], np.where(settled, expected, honest))


def explored(count, given):
    """Return the decorator that runs a test with so many examples."""
    health = hypothesis.HealthCheck.function_scoped_fixture
    settings = hypothesis.settings(
        max_examples=count,
        derandomize=count == SUITE,
        deadline=None,
        suppress_health_check=[health, hypothesis.HealthCheck.too_slow],
    )
    return lambda test: settings(hypothesis.given(given)(test))


@explored(SUITE, accidents)
def test_accidents_are_noticed_or_change_only_what_they_hit(base, changes):
    """No crash, no hang, no claim that the bytes of the status do not make."""
    assert_accident_is_survived(base, changes)


@pytest.mark.torture
@pytest.mark.timeout(7200)
@explored(LONG, accidents)
def test_many_accidents_are_noticed_or_change_only_what_they_hit(base, changes):
    """The long form of the one above."""
    assert_accident_is_survived(base, changes)


odd_values = st.one_of(
    st.sampled_from([None, True, False, "", "\x1b[31m", "..", "/", [], {}, 1.5, -0.0]),
    st.sampled_from([0, -1, 1, 2, 2**31, 2**32, 2**63, 2**64, 10**18, 10**100]),
    st.integers(-10, 10_000),
    st.recursive(
        st.integers(0, 9), lambda inner: st.lists(inner, max_size=3), max_leaves=9
    ),
    st.text(max_size=5),
)
forgery = st.tuples(
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
    st.sampled_from(["set", "delete", "swap"]),
    odd_values,
)
forgeries = st.tuples(st.lists(forgery, min_size=1, max_size=3), st.booleans())


def forge(plain, way, action, value):
    """Change an entry of the header, found by numbers."""
    for step, number in enumerate(way):
        keys = sorted(plain) if isinstance(plain, dict) else list(range(len(plain)))
        if not keys:
            return
        key = keys[number % len(keys)]
        inner = plain[key]
        if isinstance(inner, (dict, list)) and inner and step < len(way) - 1:
            plain = inner
            continue
        if action == "delete":
            del plain[key]
        elif action == "swap":
            other = keys[(number + 1) % len(keys)]
            plain[key], plain[other] = plain[other], inner
        else:
            plain[key] = value
        return


def assert_forgery_does_no_harm(base, forged):
    """An error of ours, or an answer; whatever it claims."""
    changes, identify = forged
    base.path.write_bytes(base.bytes)

    def change(plain):
        for one in changes:
            forge(plain, *one)

    rewritten(base.path, change, identify=identify)
    others = {p: p.read_bytes() for p in base.folder.iterdir() if p != base.path}
    with contextlib.suppress(rs.RunFileError):
        looked_at(base.path)
    with contextlib.suppress(rs.ResumableError):
        quietly_computed(base.source)
    for path in base.folder.iterdir():
        if path != base.path and path not in others:
            path.unlink()
    assert {p: p.read_bytes() for p in others} == others


@explored(SUITE, forgeries)
def test_a_header_that_was_forged_does_no_harm(base, forged):
    """Its digests agree: no crash, no hang, no other error than ours."""
    assert_forgery_does_no_harm(base, forged)


@pytest.mark.torture
@pytest.mark.timeout(7200)
@explored(LONG, forgeries)
def test_many_headers_that_were_forged_do_no_harm(base, forged):
    """The long form of the one above."""
    assert_forgery_does_no_harm(base, forged)


def test_the_forger_makes_files_that_are_accepted(base):
    """Else its tests would only test the digests."""
    base.path.write_bytes(base.bytes)
    rewritten(base.path, lambda plain: plain["outputs"]["mean"].update(units="m"))

    assert rs.open(base.path)["mean"].units == "m"
    json.dumps(plain_of(base.path))


OPENED = """
import sys
import resumable as rs
for path in sys.argv[1:]:
    try:
        results = rs.open(path)
        results.source_text
        results["mean"].as_source()
    except rs.ResumableError:
        pass
    print(path, flush=True)
"""


@pytest.mark.torture
@pytest.mark.timeout(7200)
def test_forged_hdf5_structures_end_no_more_than_their_process(base, tmp_path):
    """HDF5 reads what a stranger wrote only for group() and the like; count how it
    fares, and see that nothing but its own process can suffer."""
    rng = np.random.default_rng(5)
    paths = []
    for number in range(2000):
        path = tmp_path / f"{number}.h5"
        data = bytearray(base.bytes)
        for at in rng.choice(base.parts["structure"][:20_000], rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        restructured(path)
        paths.append(str(path))
    crashes = []
    while paths:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", OPENED, *paths],
            env={**os.environ, "PYTHONPATH": str(Path(rs.__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        told = done.stdout.split()
        if done.returncode == 0:
            break
        assert done.returncode < 0, done.stderr
        crashes.append((paths[len(told)], done.returncode))
        paths = paths[len(told) + 1 :]
    print(f"{len(crashes)} of 2,000 files ended the process: {crashes[:5]}")  # noqa: T201
