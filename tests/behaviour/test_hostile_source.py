"""Damaged and malicious source files: right results or an error, in bounded memory."""

import os
import socket

import h5py
import numpy as np
import pytest
from helpers import compute
from run_files import Mean, assert_printable

import resumable as rs
from resumable.model.positions import MOST_POSITIONS
from resumable.source import coordinates, inputs
from resumable.source.coordinates import scales_of
from resumable.source.reader import Reader
from resumable.source.reference import refer
from resumable.system import machine

EVIL = "a\x1b[31m\nb\u202e"


def nested_type(levels, leaf=h5py.h5t.NATIVE_DOUBLE):
    for _ in range(levels):
        outer = h5py.h5t.create(h5py.h5t.COMPOUND, leaf.get_size())
        outer.insert(b"a", 0, leaf)
        leaf = outer
    return leaf


def create(file, name, kind, shape=(4,)):
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape))


def virtual(file, name, *parts, shape=(4, 3)):
    """A virtual dataset that is put together of the same part of other files."""
    layout = h5py.VirtualLayout(shape, "f8")
    for other, dataset in parts:
        layout[:] = h5py.VirtualSource(other, dataset, shape)
    file.create_virtual_dataset(name, layout)


def pattern(file, name, other, dataset):
    """A virtual dataset of as many parts as there are files or datasets."""
    space = h5py.h5s.create_simple((4, 3), (h5py.h5s.UNLIMITED, 3))
    ahead, count = (0, 0), (h5py.h5s.UNLIMITED, 1)
    space.select_hyperslab(ahead, count, stride=(1, 1), block=(1, 3))
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    part = h5py.h5s.create_simple((1, 3))
    properties.set_virtual(space, other.encode(), dataset.encode(), part)
    whole = h5py.h5s.create_simple((4, 3), (h5py.h5s.UNLIMITED, 3))
    kind = h5py.h5t.NATIVE_DOUBLE
    h5py.h5d.create(file.id, name.encode(), kind, whole, dcpl=properties)


@pytest.fixture
def hostile(tmp_path):
    """A folder with files whose datasets hang, crash or fill the memory of HDF5."""
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe0")
    (tmp_path / "part0.h5").symlink_to("traps.h5")
    (tmp_path / "text").write_text("no HDF5")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["data"] = np.ones((4, 3))
        file["pipe"] = h5py.ExternalLink("pipe", "/data")
    for here, there in (("one.h5", "two.h5"), ("two.h5", "one.h5")):
        with h5py.File(tmp_path / here, "w") as file:
            virtual(file, "data", (there, "data"))
            file["way"] = h5py.ExternalLink(there, "/way")
    with h5py.File(tmp_path / "traps.h5", "w") as file:
        file["loop"] = h5py.SoftLink("/pool")
        file["pool"] = h5py.SoftLink("/loop")
        file["self"] = h5py.ExternalLink("traps.h5", "/self")
        file["pipe"] = h5py.ExternalLink("pipe", "/data")
        file["through"] = h5py.ExternalLink("plain.h5", "/pipe")
        file["group/soft"] = h5py.SoftLink("../group/hard")
        file["group/relative"] = h5py.SoftLink("inner")
        file["group/inner"] = h5py.SoftLink("/pipe")
        file["zero"] = h5py.ExternalLink("/dev/zero", "/data")
        file["folder"] = h5py.ExternalLink(".", "/data")
        file["notes"] = h5py.ExternalLink("text", "/data")
        file["away"] = h5py.ExternalLink("/nowhere/at all.h5", "/data")
        endless = h5py.h5f.UNLIMITED
        for name, where in (
            ("raw pipe", "pipe"),
            ("raw zero", "/dev/zero"),
            ("raw missing", "missing.raw"),
        ):
            outside = [(where, 0, endless)]
            file.create_dataset(name, (4, 3), "f8", external=outside)
        virtual(file, "itself", (".", "itself"))
        virtual(file, "itself by name", ("traps.h5", "itself by name"))
        pattern(file, "itself by pattern", "part%b.h5", "data")
        virtual(file, "pipe part", ("pipe", "data"))
        pattern(file, "data", "part%b.h5", "data")
        pattern(file, "part0", ".", "part%b")
        pattern(file, "pipe pattern", "pipe%b", "data")
        virtual(file, "linked part", ("traps.h5", "pipe"))
        pattern(file, "inner pattern", ".", "part%b")
        positions = {"chunks": (1, 1000), "dtype": "f8"}
        file.create_dataset("absurd", (10**15, 10**6), **positions)
        file.create_dataset("packed", (10**15, 10**6), compression=1, **positions)
        file.create_dataset("overflow", (2**62, 2**62), **positions)
        file.create_dataset("wraps", (2**32, 2**32, 1), "u1", chunks=(1, 1, 1))
        create(file, "nested", nested_type(40))
        create(file, "nested deep", nested_type(500))
        create(file, "large", h5py.h5t.py_create(np.dtype("S100000000")))
        create(file, "time", h5py.h5t.UNIX_D32LE)
        file.create_dataset("reference", (4,), h5py.ref_dtype)
        file.create_dataset("region", (4,), h5py.regionref_dtype)
        file.create_dataset(
            "reference inside", (4,), np.dtype([("a", "f8"), ("r", h5py.ref_dtype)])
        )
        file[EVIL] = np.float64(1)
    return tmp_path


TRAPS = {
    "loop": "no dataset /loop: it leads over too many links|over too many links",
    "self": "over too many links",
    "pipe": "pipe is not a regular file",
    "through": "pipe is not a regular file",
    "group/relative": "pipe is not a regular file",
    "group/soft": r"is a link to \.\./group/hard, which is missing",
    "zero": "/dev/zero is not a regular file",
    "folder": "is a folder",
    "notes": "cannot be read as HDF5",
    "away": "there is no file /nowhere/at all.h5",
    "raw pipe": "its data in pipe, which is not a regular file",
    "raw zero": "its data in /dev/zero, which is not a regular file",
    "raw missing": r"its data in missing\.raw, which is missing",
    "itself": "is a part of itself",
    "itself by name": "is a part of itself",
    "itself by pattern": "is a part of itself",
    "inner pattern": "is a part of itself",
    "pipe part": "pipe is not a regular file",
    "pipe pattern": "pipe0 is not a regular file",
    "linked part": "pipe is not a regular file",
    "absurd": "1,000,000,000,000,000 positions; this machine can keep track of",
    "packed": "positions; this machine can keep track of",
    "overflow": "positions; this machine can keep track of",
    "nested": "compounds within each other more than 32 deep",
    "nested deep": "compounds within each other more than 32 deep",
    "large": "elements of 100,000,000 bytes, more than 16,777,216",
    "time": "cannot be read .*No NumPy equivalent",
    "reference": "has references to objects as entries",
    "region": "has references to regions of datasets as entries",
    "reference inside": r"of no fixed size \(r\).*; one column can be: ::/TABLE/a",
    EVIL: "is a single value",
}


@pytest.mark.parametrize("name", TRAPS, ids=ascii)
def test_a_harmful_dataset_is_refused_at_construction(hostile, name):
    """HDF5 or numpy would hang, crash or fill the memory."""
    with pytest.raises(rs.SourceError, match=TRAPS[name]) as info:
        Mean(f"{hostile}/traps.h5::/{name}")

    assert_printable(str(info.value))
    assert len(str(info.value)) < 1000


def test_files_that_are_parts_of_each_other_are_refused(hostile):
    for name in ("data", "way"):
        with pytest.raises(rs.SourceError, match=r"part of itself|too many links"):
            Mean(f"{hostile}/one.h5::/{name}")


def test_several_position_axes_do_not_wrap_around(hostile):
    with pytest.raises(rs.SourceError, match="18,446,744,073,709,551,616 positions"):
        Mean(f"{hostile}/traps.h5::/wraps", position_axes=(0, 1))


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder"])
def test_a_source_that_is_no_file_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(inputs, "_STRUCTURE_S", 0)
    path = tmp_path / "source.h5"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))

    words = "is a folder" if kind == "folder" else "is not a regular file"
    for source in (f"{path}::/data", str(path)):
        with pytest.raises(rs.SourceError, match=words):
            Mean(source)


def test_the_limit_of_positions_is_named(tmp_path, monkeypatch):
    with pytest.raises(rs.SourceError, match=f"{MOST_POSITIONS + 1:,} positions"):
        Mean(MOST_POSITIONS + 1, tmp_path)
    monkeypatch.setattr(machine, "available_memory", lambda: 10_000_000)
    with pytest.raises(rs.SourceError, match=r"can keep track of 20,000,000\."):
        Mean(20_000_001, tmp_path)

    Mean(20_000_000, tmp_path)


def test_a_chunk_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    """HDF5 decompresses it whole for any part of it; its size is named."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset(
            "data", (4000, 1000), "f8", chunks=(4000, 1000), compression="gzip"
        )
        file.create_dataset("plain", (4000, 1000), "f8", chunks=(4000, 1000))
    monkeypatch.setattr(machine, "available_memory", lambda: 40_000_000)
    with pytest.raises(rs.SourceError, match="compressed chunks of 32 MB"):
        Mean(f"{tmp_path}/x.h5::/data")

    Mean(f"{tmp_path}/x.h5::/plain")


LIMITED = """
import resource, sys
import h5py
import resumable as rs
from processes import Mean

with h5py.File("x.h5", "w") as file:
    file.create_dataset("absurd", (10**6, 10**15), "f8", chunks=(1, 1000))
    file.create_dataset("packed", (10**6, 10**15), "f8", chunks=(1, 1000),
                        compression="gzip")
    file.create_dataset("plain", (10**6, 10**9), "f8")
    long = file.create_dataset("long", (10**8,), "f4", chunks=(1000,))
    scale = file.create_dataset("scale", (10**8,), "f8", chunks=(1000,))
    scale.make_scale("x")
    long.dims[0].attach_scale(scale)
limit = 4 << 30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name in ("absurd", "packed", "plain"):
    for axis in (0, 1):
        try:
            Mean(f"x.h5::/{name}", position_axes=axis).plan(memory="1 GB")
        except rs.ResumableError as error:
            print(name, axis, "refused")
process = Mean("x.h5::/long")
results = process.compute(positions=[5], engine="serial", progress=False)
print(results.status.done, results.path.stat().st_blocks * 512 < 1 << 30)
"""


def test_absurd_shapes_take_no_memory(script):
    """Plans of 10^21 elements, and one position of 10^8, within 4 GB of addresses."""
    output, errors = script(LIMITED).communicate(timeout=30)
    refused = [("absurd", 0), ("absurd", 1), ("packed", 0), ("packed", 1), ("plain", 0)]

    assert errors == ""
    assert output.splitlines() == [*(f"{n} {a} refused" for n, a in refused), "1 True"]


def test_names_of_any_characters_work(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file[f"group/{EVIL}"] = np.arange(12.0).reshape(4, 3)
    results = compute(Mean(f"{path}::/group/{EVIL}"))

    assert results["mean"][...].tolist() == [1, 4, 7, 10]
    assert_printable(results.path.name)
    assert results.group().name.startswith("/a\x1b[31m\nb")
    assert_printable(repr(Mean(f"{path}::/group/{EVIL}")))


def test_opaque_elements_work(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = np.array([b"abcd", b"efgh"], "V4")

    class First(Mean):
        version = 1

        def unit_computation(self, spectrum):
            return spectrum.tobytes()[0]

    results = compute(First(f"{tmp_path}/x.h5::/data"))

    assert results["mean"][...].tolist() == [97, 101]


def test_a_sparse_dataset_is_digested_by_what_is_written(tmp_path):
    """10^8 chunks, two of them written: a change in either is noticed, at once."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset(
            "data", (10**8, 8), "f8", chunks=(1, 8), compression="gzip"
        )
        data[3] = 1.0
        data[99_999_999] = 2.0
    source = f"{tmp_path}/x.h5::/data"

    def digest():
        with Reader(refer(source)) as opened:
            return opened.contents()

    seen = [digest()]
    for row, value in ((3, 5.0), (99_999_999, 5.0), (77, 1.0)):
        with h5py.File(tmp_path / "x.h5", "r+") as file:
            file["data"][row] = value
        seen.append(digest())

    assert len(set(seen)) == 4


def attached(path, scale, **attributes):
    """Attach a scale to the first axis of ``data``."""
    # In the latest format an attribute may have more than 64 kB.
    with h5py.File(path, "r+", libver="latest") as file:
        made = file.create_dataset("x", **scale)
        made.make_scale("x")
        file["data"].dims[0].attach_scale(made)
        for name, value in attributes.items():
            made.attrs[name] = value


@pytest.mark.parametrize(
    "units",
    ["x" * 10**6, np.zeros(7000), np.float64(1), [b"a", b"b"], EVIL, b"\xff\xfe"],
    ids=["long", "array", "number", "texts", "evil", "not text"],
)
def test_odd_units_of_a_scale_do_no_harm(make_file, units):
    path = make_file(data=np.ones((4, 3)))
    attached(path, {"data": np.arange(4.0)}, units=units)
    results = compute(Mean(f"{path}::/data"))

    assert results.status.finished
    with h5py.File(results.path) as file:
        written = file["data-Mean_000/x"].attrs.get("units", b"")
    assert len(written) <= 1000


def test_scales_that_lead_elsewhere_are_left_out(make_file, tmp_path):
    """Reading a scale whose data lie in a pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    path = make_file(data=np.ones((4, 3)))
    outside = [("pipe", 0, h5py.h5f.UNLIMITED)]
    attached(path, {"shape": (4,), "dtype": "f8", "external": outside})
    with Reader(refer(f"{path}::/data")) as opened:
        assert scales_of(opened) == {}

    assert compute(Mean(f"{path}::/data")).status.finished


def test_a_scale_that_is_gone_does_no_harm(make_file):
    path = make_file(data=np.ones((4, 3)))
    attached(path, {"data": np.arange(4.0)})
    with h5py.File(path, "r+") as file:
        del file["x"]

    assert compute(Mean(f"{path}::/data")).status.finished


def test_large_scales_are_not_copied(make_file, monkeypatch):
    monkeypatch.setattr(coordinates, "LARGEST_SCALE_BYTES", 100)
    path = make_file(data=np.ones((20, 3)))
    attached(path, {"data": np.arange(20.0)})
    with Reader(refer(f"{path}::/data")) as opened:
        assert scales_of(opened) == {}


USID = (
    "Position_Indices",
    "Position_Values",
    "Spectroscopic_Indices",
    "Spectroscopic_Values",
)


@pytest.mark.parametrize(
    "kind", ["group", "rows", "null", "texts", "region", "link", "few"]
)
def test_references_that_are_not_those_of_usid_do_no_harm(make_file, tmp_path, kind):
    """What they lead to is not copied: it could be anything, of any size."""
    path = make_file(data=np.ones((4, 3)))
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(path, "r+") as file:
        file["good"] = np.zeros((4, 1), "u4")
        file["group/x"] = np.zeros(4)
        file["few"] = np.zeros((3, 1), "u4")
        file.create_dataset("rows", (10**12, 10), "u1", chunks=(1000, 10))
        file["texts"] = [["a"], ["b"], ["c"], ["d"]]
        outside = [("pipe", 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("link", (4, 1), "u4", external=outside)
        data = file["data"]
        for name in USID:
            data.attrs[name] = file["good"].ref
        data.attrs["Position_Values"] = (
            h5py.Reference()
            if kind == "null"
            else file["good"].regionref[:]
            if kind == "region"
            else file[kind].ref
        )
    results = compute(Mean(f"{path}::/data"))

    assert results.status.finished
    with h5py.File(results.path) as file:
        assert "Position_Indices" not in file["data-Mean_000"]


def test_a_long_list_of_long_names_is_cut(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number in range(20):
            file["n" * 30_000 + str(number)] = [1]
    with pytest.raises(rs.SourceError, match="has no dataset /x; it has /nnn") as info:
        Mean(f"{tmp_path}/x.h5::/x")

    assert len(str(info.value)) < 1000


def test_a_damaged_chunk_is_an_error_that_names_the_source(tmp_path):
    path = tmp_path / "x.h5"
    data = np.random.default_rng(0).random((100, 64))
    with h5py.File(path, "w") as file:
        made = file.create_dataset("data", data=data, chunks=(1, 64), compression=4)
        info = made.id.get_chunk_info(5)
    blob = bytearray(path.read_bytes())
    blob[info.byte_offset : info.byte_offset + info.size] = b"\xff" * info.size
    path.write_bytes(blob)
    process = Mean(f"{path}::/data")
    with pytest.raises(rs.SourceError, match=r"x\.h5::/data, somewhere in positions"):
        compute(process)
    good = np.arange(100) != 5
    results = compute(process, positions=good)

    assert results.status.failed == 0
    np.testing.assert_array_equal(results["mean"][good], data[good].mean(axis=1))
    assert np.isnan(results["mean"][5])


@pytest.mark.parametrize("size", [100, 2000, 0.5, 0.9])
def test_a_truncated_source_is_an_error_of_ours(tmp_path, size):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.ones((400, 64))
    whole = path.stat().st_size
    os.truncate(path, int(size * whole) if size < 1 else size)

    words = (
        rf"x\.h5 is truncated: it has {path.stat().st_size:,} bytes of {whole:,}; copy"
    )
    with pytest.raises(rs.SourceError, match=words):
        Mean(f"{path}::/data")
