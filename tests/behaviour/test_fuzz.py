"""Run files with any bytes changed: refused, or read as their bytes say.

The digests find a changed byte, unless it is one of those that are written while the
run is computed: a status byte that became 1 says that its row is done, and a row that
changed is another row. Only computing again can notice that.
"""

import tempfile
import warnings
from pathlib import Path

import h5py
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import resumable as rs
from resumable.cli import report
from resumable.runfile.file import RunFile
from resumable.runfile.header import MAGIC

SIZE = 60
SUITE, LONG = 120, 5_000


class Failing(rs.Process):
    """The mean of every spectrum; three positions fail."""

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
        return Failing(source).compute(engine="serial", progress=False, **options)


def looked_at(path):
    """Look at all parts of a run file; return its status and rows."""
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
    """Return the bytes of the run file with these changes."""
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
    sound = np.where(np.arange(SIZE) % 20 == 7, np.nan, base.means)
    assert results.path == base.path
    assert results.status.pending == 0
    np.testing.assert_array_equal(results["mean"], np.where(settled, expected, sound))


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
    """No crash, no hang, and no position is done that its status byte calls pending."""
    assert_accident_is_survived(base, changes)


@pytest.mark.torture
@pytest.mark.timeout(7200)
@explored(LONG, accidents)
def test_many_accidents_are_noticed_or_change_only_what_they_hit(base, changes):
    assert_accident_is_survived(base, changes)
