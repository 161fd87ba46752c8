"""Contiguous datasets, read without HDF5: which, and what comes out."""

import os
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import param
import pytest
from helpers import close_all_hdf5_files

import resumable as rs
from resumable.errors import SourceError
from resumable.source.reader import Reader, contiguous
from resumable.source.reference import refer
from resumable.system import disk

MIXED = np.dtype([("small", "i1"), ("large", "f8")], align=True)
NUMBERS = np.arange(60.0).reshape(12, 5)

#: As they lie in a file: whatever a file holds, it is in memory what it is there.
SAME_IN_MEMORY = {
    "float32": NUMBERS.astype("f4"),
    "big_endian": NUMBERS.astype(">f8"),
    "float16": NUMBERS.astype("f2"),
    "complex": NUMBERS * (1 + 2j),
    "bool": NUMBERS % 3 == 0,
    "text": np.array([[b"a", b"bcd"], [b"", b"ef"]]),
    "compound": np.array([[(1, 2.5), (3, 4.5)]], MIXED),
    "enum": NUMBERS.astype(h5py.enum_dtype({"dark": 0, "bright": 59}, "u1")),
    "opaque": np.array([[b"12", b"34"]], "V2"),
    "one_value": np.array([7]),
}


def descriptors_of(path):
    return {
        int(entry.name)
        for entry in Path("/proc/self/fd").iterdir()
        if entry.is_symlink() and os.path.realpath(entry) == os.path.realpath(path)
    }


def read_contiguous(dataset):
    found = contiguous(dataset)
    out = np.empty(dataset.shape, dataset.dtype)
    found.read(0, out)
    disk.close_if_same(found.fd, found.place)
    return out


@pytest.mark.parametrize("user_block", [0, 1024])
@pytest.mark.parametrize("kind", SAME_IN_MEMORY)
def test_the_bytes_of_a_contiguous_dataset_are_its_values(tmp_path, kind, user_block):
    with h5py.File(tmp_path / "f.h5", "w", userblock_size=user_block) as file:
        file["before"] = np.arange(3)
        file["data"] = SAME_IN_MEMORY[kind]
        file["after"] = np.arange(3)

    with h5py.File(tmp_path / "f.h5", "r") as file:
        found, expected = read_contiguous(file["data"]), file["data"][...]

    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


def padded_with_blanks(file):
    """Make texts as Fortran does: h5py hands them out padded with zeros."""
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(4)
    kind.set_strpad(h5py.h5t.STR_SPACEPAD)
    space = h5py.h5s.create_simple((2,))
    made = h5py.h5d.create(file.id, b"data", kind, space)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([b"ab", b"cd"], "S4"))


def of_24_bits(file):
    """Make integers of 24 bits in 4 bytes, of which HDF5 makes 32 bits."""
    kind = h5py.h5t.NATIVE_INT32.copy()
    kind.set_precision(24)
    space = h5py.h5s.create_simple((5,))
    made = h5py.h5d.create(file.id, b"data", kind, space)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(-2, 3, dtype="i4"))


def virtual(file):
    file["whole"] = NUMBERS
    layout = h5py.VirtualLayout(NUMBERS.shape, "f8")
    layout[...] = h5py.VirtualSource(file["whole"])
    file.create_virtual_dataset("data", layout)


def compact(file):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((5,))
    h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_INT32, space, properties)


OTHERWISE = {
    "chunked": lambda file: file.create_dataset("data", data=NUMBERS, chunks=(3, 5)),
    "external": lambda file: file.create_dataset(
        "data", data=NUMBERS, external=[("raw.bin", 0, NUMBERS.nbytes)]
    ),
    "never_written": lambda file: file.create_dataset(
        "data", (4, 4), "i4", fillvalue=7
    ),
    "blanks": padded_with_blanks,
    "24_bits": of_24_bits,
    "virtual": virtual,
    "compact": compact,
}


@pytest.mark.parametrize("user_block", [0, 1024])
@pytest.mark.parametrize("kind", OTHERWISE)
def test_hdf5_reads_what_is_not_as_it_is_in_memory(
    tmp_path, monkeypatch, kind, user_block
):
    monkeypatch.chdir(tmp_path)
    with h5py.File("f.h5", "w", userblock_size=user_block) as file:
        OTHERWISE[kind](file)

    with h5py.File("f.h5", "r") as file:
        expected = file["data"][...]
        assert contiguous(file["data"]) is None
    with Reader(refer("f.h5::/data")) as reader:
        rows = reader.empty(len(expected))
        reader.read(0, np.ones(len(expected), bool), rows)

    assert rows.tobytes() == expected.tobytes()


def test_what_this_process_has_written_and_not_flushed_is_read_by_hdf5(
    make_file, tmp_path
):
    """The same process may have the file open for writing: HDF5 has it in a buffer."""
    make_file("f.h5", data=np.zeros((10, 4)))
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        written = file["data"]
        written[...] = 1
        with Reader(refer(f"{tmp_path}/f.h5::/data")) as reader:
            rows = reader.empty(10)
            reader.read(0, np.ones(10, bool), rows)
            fingerprint = reader.fingerprint()

    assert rows.min() == 1
    with Reader(refer(f"{tmp_path}/f.h5::/data")) as reader:
        assert reader.fingerprint() == fingerprint


def test_an_address_that_hdf5_does_not_understand_is_an_error(make_file):
    path = Path(make_file(data=NUMBERS))
    with h5py.File(path, "r") as file:
        place = file["data"].id.get_offset().to_bytes(8, "little")
    size = NUMBERS.nbytes.to_bytes(8, "little")
    content = path.read_bytes()
    assert content.count(place + size) == 1
    path.write_bytes(content.replace(place + size, bytes(8) + size))

    with pytest.raises(SourceError, match="::/data cannot be read"):
        Reader(refer(f"{path}::/data"))


@pytest.mark.parametrize("axes", [(0,), (1,), (1, 0)])
@pytest.mark.parametrize("length", [None, 1, 3])
def test_the_digest_does_not_depend_on_how_it_is_read(make_file, axes, length):
    chunked = {"data": NUMBERS, "chunks": (4, 5), "maxshape": (None, None)}
    path = make_file(contiguous=NUMBERS, chunked=chunked)
    found = set()
    for name in ("contiguous", "chunked"):
        with Reader(refer(f"{path}::/{name}", axes)) as reader:
            found.add(reader.contents(length))

    assert len(found) == 1


def test_the_file_that_is_open_is_read_whatever_its_name_stands_for(make_file):
    path = make_file(data=NUMBERS)
    other = make_file(name="other.h5", data=-NUMBERS)
    with Reader(refer(f"{path}::/data")) as reader:
        Path(other).replace(path)
        rows = reader.empty(2)
        reader.read(3, np.array([True, True]), rows)

    np.testing.assert_array_equal(rows, NUMBERS[3:5])


def test_a_file_cut_short_while_it_is_read_is_an_error(make_file):
    path = make_file(data=NUMBERS)
    with Reader(refer(f"{path}::/data")) as reader:
        os.truncate(path, Path(path).stat().st_size - NUMBERS.nbytes // 2)
        rows = reader.empty(12)

        with pytest.raises(SourceError, match="positions 0 to 11, cannot be read"):
            reader.read(0, np.ones(12, bool), rows)


def test_descriptors_are_given_back(make_file):
    path = make_file(data=NUMBERS)
    for _ in range(3):
        with Reader(refer(f"{path}::/data")) as reader:
            assert len(descriptors_of(path)) == 2
            reader.read(0, np.ones(12, bool), reader.empty(12))

    assert not descriptors_of(path)


class ClosesAll(rs.Process):
    """Closes all HDF5 files, and notes how often the source is open then."""

    version = 1
    scratch = 2**20
    path = param.String()
    outputs: ClassVar = {"count": rs.Output(dtype="i8")}

    def block_computation(self, spectra):
        close_all_hdf5_files()
        return np.full(len(spectra), len(descriptors_of(self.path)))


def test_a_computation_that_closes_all_files_uses_up_no_descriptors(make_file):
    path = make_file(data=np.zeros((60, 2)))

    results = ClosesAll(f"{path}::/data", path=path).compute(engine="serial")

    # What reads without HDF5 is open until the next block.
    assert set(results["count"][...]) == {1}


def test_no_row_is_read_from_a_file_that_got_our_descriptor(make_file, tmp_path):
    path = make_file(data=NUMBERS)
    (tmp_path / "other").write_bytes(bytes(1 << 16))
    with h5py.File(path, "r") as file:
        before = descriptors_of(path)
        found = contiguous(file["data"])
        (ours,) = descriptors_of(path) - before
        os.close(ours)
        other = os.open(tmp_path / "other", os.O_RDONLY)
        assert other == ours

        with pytest.raises(OSError, match="closed file descriptors"):
            found.read(0, np.empty(5))

        disk.close_if_same(found.fd, found.place)
        assert os.fstat(other).st_size == 1 << 16
        os.close(other)
