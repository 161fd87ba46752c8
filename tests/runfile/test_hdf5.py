"""What HDF5 writes to: a disk that does not take it, and old bytes that stay."""

import errno
import resource
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from resumable.runfile.hdf5 import (
    MOST_CHANGED_BYTES,
    SafeFile,
    chunk_table,
    new_hdf5,
)


@pytest.fixture
def limit():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_new_file_is_what_h5py_makes(tmp_path):
    """Datasets, attributes and a user block are there, of a size that fits."""
    path = tmp_path / "new.h5"
    with new_hdf5(path, userblock_size=1024) as file:
        file["group/data"] = np.arange(100_000)
        file["group"].attrs["name"] = "a"
    with h5py.File(path) as file:
        data, name = file["group/data"][...], file["group"].attrs["name"]
        block = file.userblock_size

    np.testing.assert_array_equal(data, np.arange(100_000))
    assert (name, block) == ("a", 1024)
    assert path.stat().st_mode & 0o111 == 0


def test_a_file_that_is_there_is_not_touched(tmp_path):
    path = tmp_path / "new.h5"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError), new_hdf5(path):
        pass

    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("size", [0, 100, 5000, 50_000])
def test_what_the_disk_says_is_raised_at_the_end(tmp_path, limit, size):
    """The block runs to its end; HDF5 is as sound after it as before."""
    reached = []

    def make():
        with new_hdf5(tmp_path / "new.h5") as file:
            file["data"] = np.arange(100_000)
            reached.append(1)

    limit(size)
    with pytest.raises(OSError, match="too large") as caught:
        make()
    limit(resource.RLIM_INFINITY)
    with new_hdf5(tmp_path / "other.h5") as file:
        file["data"] = np.arange(10)

    assert caught.value.errno == errno.EFBIG
    assert reached == [1]
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == 0


def test_an_error_of_the_block_stays_what_it_is(tmp_path):
    with pytest.raises(KeyError, match="mine"), new_hdf5(tmp_path / "new.h5"):
        raise KeyError("mine")


def test_changes_in_the_middle_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("resumable.runfile.hdf5.MOST_CHANGED_BYTES", 1 << 20)
    path = tmp_path / "file"
    path.write_bytes(bytes(4 << 20))
    with path.open("r+b") as file:
        safe = SafeFile(file.fileno(), 4 << 20)
        for start in range(0, 2 << 20, 4096):
            safe.seek(start)
            safe.write(b"x")
        with pytest.raises(OSError, match="h5repack"):
            safe.check()

    assert path.read_bytes() == bytes(4 << 20)
    assert MOST_CHANGED_BYTES == 256 << 20


def test_a_safe_file_reads_what_was_written(tmp_path):
    """As a file would, with nothing of it below the old end on the disk."""
    chance = np.random.default_rng(0)
    old = chance.bytes(10_000)
    (tmp_path / "one").write_bytes(old)
    mirror = bytearray(old)
    with (tmp_path / "one").open("r+b") as file:
        safe = SafeFile(file.fileno(), len(old))
        for _ in range(300):
            start, size = int(chance.integers(0, 20_000)), int(chance.integers(0, 9000))
            if chance.random() < 0.5:
                data = chance.bytes(size)
                mirror += bytes(max(0, start + size - len(mirror)))
                mirror[start : start + size] = data
                safe.seek(start)
                assert safe.write(data) == size
            safe.seek(start)
            wanted = bytes(mirror[start : start + size])
            assert safe.read(size)[: len(wanted)] == wanted
        changes = list(safe.changes())

    assert (tmp_path / "one").read_bytes()[: len(old)] == old
    for offset, before, after in changes:
        assert old[offset : offset + len(before)] == before
        assert mirror[offset : offset + len(after)] == after


def without_a_walk(dataset):
    """Stand in for a dataset on HDF5 1.10, which tells of one chunk at a time."""
    asked = ("get_num_chunks", "get_chunk_info")
    found = SimpleNamespace(**{name: getattr(dataset.id, name) for name in asked})
    return SimpleNamespace(id=found, ndim=dataset.ndim, file=dataset.file)


@pytest.mark.parametrize("user_block", [0, 1024])
@pytest.mark.parametrize("see", [lambda dataset: dataset, without_a_walk])
def test_chunks_are_where_their_bytes_are(tmp_path, user_block, see):
    """Whatever HDF5 this is, and whatever it counts from."""
    noise = np.random.default_rng(0).integers(0, 256, (7, 6), np.uint8)
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", userblock_size=user_block) as file:
        made = file.create_dataset("data", (40, 6), "u1", chunks=(2, 6), fillvalue=3)
        made[:7] = noise
        made[-1] = 1
    content = path.read_bytes()
    with h5py.File(path) as file:
        dataset = file["data"]
        table = chunk_table(see(dataset))
        stored = {
            row: dataset.id.read_direct_chunk((row, 0)) for row in (0, 2, 4, 6, 38)
        }

    assert sorted(table[:, 0]) == sorted(stored)
    for row, column, mask, place, size in table.tolist():
        assert (column, mask) == (0, stored[row][0])
        assert content[place : place + size] == stored[row][1]
