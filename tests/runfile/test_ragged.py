"""Ragged outputs: any number of rows per position, durable, in order, whole."""

import concurrent.futures
import os
from typing import ClassVar

import h5py
import kill_matrix
import numpy as np
import param
import pytest
from chained import compute
from helpers import data_of
from processes import process_of

import resumable as rs
from resumable.results.copy import same_values
from resumable.runfile import chunk_table
from resumable.runfile.ragged import ragged_files_of

pytestmark = pytest.mark.timeout(110, method="signal")

POSITIONS = 60


class Declared(rs.Process):
    """From 0 to 4 rows per position, beside another output."""

    version = 1
    outputs: ClassVar = {
        "events": rs.Output(2, ragged=True, units="um", labels=("x", "y")),
        "level": rs.Output(),
    }


class Events(Declared):
    """Fills the same array again and again."""

    bad = param.List([])

    def setup(self):
        self._buffer = np.empty((4, 2))

    def unit_computation(self, spectrum):
        if self.position in self.bad and "MENDED" not in os.environ:
            raise ValueError("no events")
        self._buffer[...] = spectrum[:8].reshape(4, 2)
        events = self._buffer[: self.position % 5]
        return {"events": events, "level": spectrum.mean()}


class Blocks(Declared):
    def block_computation(self, spectra):
        parts = [
            row[:8].reshape(4, 2)[: position % 5]
            for row, position in zip(spectra, self.position, strict=True)
        ]
        return {"events": parts, "level": spectra.mean(axis=1)}


def expected(source):
    rows = enumerate(data_of(source))
    return [row[:8].reshape(4, 2)[: i % 5] for i, row in rows]


def same(found, wanted):
    return len(found) == len(wanted) and all(
        (a.shape, a.dtype.descr) == (b.shape, b.dtype.descr) and same_values(a, b)
        for a, b in zip(found, wanted, strict=True)
    )


def check_packed(results, wanted):
    """Compare what HDF5 finds in a complete run with a plain loop."""
    with h5py.File(results.path) as file:
        group = next(iter(file.values()))["events"]
        assert group.attrs["signal"] == "values"
        values, count, index = (group[n][...] for n in ("values", "count", "index"))
    numbers = [len(part) for part in wanted]

    assert values.tobytes() == np.concatenate(wanted).tobytes()
    assert count.tolist() == numbers
    assert index.tolist() == np.repeat(np.arange(len(wanted)), numbers).tolist()
    assert ragged_files_of(results.path) == []


@pytest.mark.parametrize(
    "how", ["serial", "local", "driver", "executor", "blocks", "blocks local"]
)
def test_rows_come_in_the_order_of_positions_whoever_computes(scan, how):
    cls = Blocks if how.startswith("blocks") else Events
    options = {"engine": "local", "workers": 2} if "local" in how else {}
    if how == "driver":
        options = {"engine": "local", "workers": 2, "writer": "driver"}
    if how == "executor":
        options = {"engine": concurrent.futures.ThreadPoolExecutor(2)}
    results = compute(cls(scan), **options)
    wanted = expected(scan)
    events = results["events"]

    assert same(events[:], wanted)
    assert same(list(events), wanted)
    assert same([events[7], *events[[3, 50]]], [wanted[7], wanted[3], wanted[50]])
    assert same(events[np.arange(POSITIONS) % 9 == 0], wanted[::9])
    assert events.values.tobytes() == np.concatenate(wanted).tobytes()
    assert events.count.tolist() == [len(part) for part in wanted]
    assert events.index[:4].tolist() == [1, 2, 2, 3]
    assert (events.shape, events.units) == ((POSITIONS, None, 2), "um")
    check_packed(results, wanted)


def test_a_run_in_parts_is_readable_meanwhile(scan):
    process = Events(scan, bad=[9])
    first = compute(process, positions=slice(40, 60))
    wanted = expected(scan)
    wanted[9] = wanted[0]
    partly = [wanted[0]] * 40 + wanted[40:]
    counts = first["events"].count

    assert same(first["events"][:], partly)
    assert counts.tolist() == [len(part) for part in partly]
    assert first["events"].index[0] == 41
    assert len(ragged_files_of(first.path)) == 1
    compute(process, positions=slice(0, 20), engine="local", workers=2)
    last = compute(process)
    check_packed(last, wanted)
    # Results that were opened before read on.
    assert same(first["events"][:], wanted)


def test_positions_on_a_map(make_file):
    """A tuple names a position, a slice several, and count has the map's shape."""
    data = np.random.default_rng(3).normal(size=(4, 5, 8))
    source = make_file(data=data) + "::/data"
    OnMap = process_of(
        lambda self, spectrum: spectrum[spectrum > 0], {"above": rs.Output(ragged=True)}
    )
    part = compute(OnMap(source, position_axes=(0, 1)), positions=(2, 3))
    before = part["above"][2, 3]
    above = compute(OnMap(source, position_axes=(0, 1)))["above"]
    wanted = [row[row > 0] for row in data.reshape(20, 8)]

    assert same([before, above[2, 3]], [wanted[13]] * 2)
    assert same(above[1], wanted[5:10])
    assert same(above[:, 0], wanted[::5])
    assert above.count.tolist() == (data > 0).sum(axis=2).tolist()
    with pytest.raises(IndexError):
        above[4, 0]
    with pytest.raises(TypeError, match=r"ragged .* \.values"):
        np.asarray(above)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_no_rows_at_all(scan, compression):
    Empty = process_of(
        lambda self, spectrum: [],
        {"none": rs.Output((2, 3), "i4", ragged=True, compression=compression)},
    )
    none = compute(Empty(scan))["none"]

    assert none.values.shape == (0, 2, 3)
    assert none.values.dtype == "i4"
    assert none.count.tolist() == [0] * POSITIONS
    assert none[5].shape == (0, 2, 3)


PADDED = np.dtype([("a", ">i2"), ("b", "f8", 2)], align=True)
DTYPES = [*(np.dtype(name) for name in ("u1", "f4", ">i2", "?", "c16", "S3")), PADDED]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_any_dtype_is_kept_bit_for_bit(scan, dtype, compression):
    every = np.zeros(3, dtype)
    for name in dtype.names or ():
        every[name] = np.random.default_rng(4).normal(size=every[name].shape) * 1000
    if not dtype.names:
        every[...] = [1, 0, 77]
    Typed = process_of(
        lambda self, spectrum: every[: self.position % 4],
        {"rows": rs.Output(dtype=dtype, ragged=True, compression=compression)},
    )
    wanted = [every[: i % 4] for i in range(POSITIONS)]
    process = Typed(scan)
    partly = compute(process, positions=slice(0, 30))["rows"][:30]

    assert same(partly, wanted[:30])
    assert same(compute(process)["rows"][:], wanted)


Gives = process_of(
    lambda self, spectrum: eval(self.what, {"np": np}),
    {"rows": rs.Output(3, "f8", ragged=True)},
    what=param.Parameter(),
)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (
            "None",
            r"ragged, but the computation returned None; return an array of shape ",
        ),
        ("3.0", r"ragged.*3\.0.*\(n, 3\)"),
        ("np.zeros((2, 4))", r"shape \(any, 3\), .* returned shape \(2, 4\)"),
        ("np.zeros(3)", r"returned shape \(3,\)"),
        ("np.zeros((0, 2))", r"returned shape \(0, 2\)"),
        ("[[1, 2], [3]]", "cannot be stored as float64"),
        ("np.zeros((2, 3), complex)", "declared with dtype float64"),
    ],
)
def test_rows_that_were_not_declared_are_an_error(scan, what, told):
    """The trailing shape is exact at every position, and nothing stands for no rows."""
    with pytest.raises(rs.OutputError, match=told):
        compute(Gives(scan, what=what))


@pytest.mark.parametrize(
    "what",
    [
        *("[]", "()", "[(1, 2, 3)]", "np.zeros((0, 3), 'f4')", "np.array([])"),
        *("np.array([], object)", "np.zeros((0, 3), complex)"),
    ],
)
def test_a_list_of_rows_is_fine(scan, what):
    """Of a smaller dtype of the same kind; or empty, which says nothing of a row."""
    rows = compute(Gives(scan, what=what))["rows"]

    assert rows[0].dtype == "f8"
    assert rows[0].tolist() == np.reshape(eval(what), (-1, 3)).tolist()


def test_a_block_computation_gives_a_list_per_position(scan):
    Wrong = process_of(
        block=lambda self, spectra: [spectra[0]] * (len(spectra) + 1),
        outputs={"rows": rs.Output(ragged=True)},
    )
    with pytest.raises(rs.OutputError, match="each of the 1 positions, not 2 items"):
        compute(Wrong(scan))


def test_a_declaration_that_makes_no_sense_is_refused():
    with pytest.raises(rs.DeclarationError, match="per='run'"):
        rs.Output(ragged=True, per="run")
    with pytest.raises(rs.DeclarationError, match="fill value"):
        rs.Output(ragged=True, fill_value=0)


def test_ragged_is_part_of_the_identity(scan):
    Sum = process_of(lambda self, spectrum: [spectrum.sum()], {"sum": rs.Output(1)})
    plain = Sum(scan).identity
    Sum.outputs = {"sum": rs.Output(1, ragged=True)}

    assert Sum(scan).identity != plain


def test_failed_positions_are_tried_again(scan, monkeypatch):
    process = Events(scan, bad=[8, 31])
    results = compute(process)
    done = results.status.done
    monkeypatch.setenv("MENDED", "1")
    results = compute(process, retry_failed=True)

    assert done == POSITIONS - 2
    assert results.status.done == POSITIONS
    check_packed(results, expected(scan))


@pytest.mark.parametrize("finished", [True, False])
def test_a_source_that_has_grown_takes_the_rows_along(tmp_path, finished):
    data = np.random.default_rng(1).normal(size=(POSITIONS, 32))
    with h5py.File(tmp_path / "grows.h5", "w") as file:
        file.create_dataset("data", data=data[:40], maxshape=(None, 32))
    source = f"{tmp_path}/grows.h5::/data"
    first = compute(Events(source), positions=None if finished else slice(5, 25))
    with h5py.File(tmp_path / "grows.h5", "a") as file:
        file["data"].resize(POSITIONS, axis=0)
        file["data"][40:] = data[40:]
    results = compute(Events(source))

    assert results.path != first.path
    assert results.sessions[0].computed == POSITIONS - (40 if finished else 20)
    check_packed(results, expected(source))


def test_torn_or_longer_ragged_files_do_no_harm(scan):
    """What no entry points to is not read, and is written behind."""
    process = Events(scan)
    results = compute(process, positions=slice(0, 30))
    (ragged,) = ragged_files_of(results.path)
    with ragged.open("ab") as file:
        file.write(b"torn")
    compute(process, positions=slice(30, 50))
    (again,) = ragged_files_of(results.path)

    assert again == ragged
    check_packed(compute(process), expected(scan))


@pytest.mark.parametrize("lost", ["whole", "end", "other"])
def test_a_lost_ragged_file_is_an_error_and_is_never_read_as_rows(scan, lost):
    process = Events(scan)
    results = compute(process, positions=slice(0, 30))
    (ragged,) = ragged_files_of(results.path)
    if lost == "whole":
        ragged.unlink()
    else:
        os.truncate(ragged, 0 if lost == "other" else ragged.stat().st_size - 8)
    if lost == "other":
        ragged.write_bytes(b"resumable heap 0000000000000000\n" + bytes(4000))
    told = {
        "whole": "is missing",
        "end": "cut or replaced",
        "other": "not the file of ragged rows",
    }

    with pytest.raises(rs.RunFileError, match=rf"{ragged.stem}.*{told[lost]}"):
        np.shape(results["events"].values)
    with pytest.raises(rs.RunFileError, match=told[lost]):
        compute(process)
    assert results["events"].count[:30].sum() == 60
    found = rs.verify(results.path)
    assert not found.passed
    assert told[lost] in str(found)


@pytest.mark.parametrize("packed", [False, True])
def test_verify_compares_ragged_rows(scan, packed):
    process = Events(scan)
    results = compute(process, positions=None if packed else slice(0, 30))
    sound = process.verify(sample="all")
    if packed:
        with h5py.File(results.path) as file:
            values = next(iter(file.values()))["events/values"]
            place = int(chunk_table(values)[0, -2])
        # The checksum of the chunk notices before any comparison.
        path, told = results.path, "cannot be unpacked"
    else:
        (path,) = ragged_files_of(results.path)
        place, told = 40, "another value of 'events'"
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    found = process.verify(sample="all")

    assert sound.passed, str(sound)
    assert not found.passed
    assert told in str(found)


def test_test_shows_the_rows_of_a_position(scan):
    process = Events(scan)
    wanted = expected(scan)

    assert same([process.test(3)["events"]], [wanted[3]])
    assert same(list(process.test([3, 5])["events"]), [wanted[3], wanted[5]])
    assert "events" in str(process.test(3))


def test_published_rows_are_in_order(scan, make_file):
    place = make_file("other.h5", a=1)
    results = compute(Events(scan))
    results.publish(f"{place}::/found")
    with h5py.File(place) as file:
        values = file["found/events/values"][...]

    assert values.tobytes() == results["events"].values.tobytes()


def test_remove_takes_the_ragged_files_along(scan):
    from click.testing import CliRunner

    from resumable.cli.commands import main

    results = compute(Events(scan), positions=slice(0, 20))
    ragged_files = ragged_files_of(results.path)
    CliRunner().invoke(main, ["remove", "--yes", str(results.path)])

    assert ragged_files
    assert not any(path.exists() for path in [results.path, *ragged_files])


LONG = [pytest.mark.torture, pytest.mark.timeout(3600, method="signal")]
CASES = [("serial", "parent"), ("local", "group")]
MORE_CASES = [*CASES, ("local", "parent"), ("local", "worker")]


@pytest.mark.parametrize(
    ("case", "kills"),
    [
        *((case, 4) for case in CASES),
        *(pytest.param(case, 100, marks=LONG) for case in MORE_CASES),
    ],
)
def test_nothing_is_lost_or_wrong_whatever_process_is_killed(
    program_server, tmp_path, case, kills
):
    given = (program_server, tmp_path, *case, kills)
    tally = kill_matrix.matrix(*given, seed=1, name="Scatter")

    assert tally.faults == []
    assert tally.kills == kills
    assert tally.completed >= 1


@pytest.mark.parametrize(
    ("options", "least"),
    [({"positions": 3, "stride": 15}, 10), pytest.param({}, 200, marks=LONG)],
)
def test_a_kill_before_any_step_leaves_a_run_that_goes_on(
    program_server, tmp_path, options, least
):
    tally = kill_matrix.every_step(program_server, tmp_path, name="Scatter", **options)

    assert tally.faults == []
    assert tally.kills > least
