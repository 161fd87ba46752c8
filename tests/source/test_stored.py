"""Digests of compressed chunks as they are stored."""

import gzip

import h5py
import numpy as np
import pytest
from golden import Peaks, frames
from helpers import DATA, compute

import resumable as rs
import resumable.source.stored
from resumable.source.reader import Reader, is_of_pieces
from resumable.source.reference import refer

VALUES = (np.arange(2400.0) ** 2 % 101).reshape(40, 6, 10)


def contents_of(path, axes=0, length=None, **options):
    with Reader(refer(f"{path}::/data", axes)) as reader:
        return reader.contents(length, **options)


@pytest.fixture(params=[(1, 6, 10), (4, 6, 10), (7, 4, 3), (64, 2, 10)], ids=str)
def chunks(request):
    return request.param


@pytest.fixture
def _low(monkeypatch):
    """Digest samples of what is larger than 2 kB."""
    for room in (resumable.source.stored, resumable.source.fingerprint):
        monkeypatch.setattr(room, "DIGEST_BYTES", 2_000)
        monkeypatch.setattr(room, "SAMPLED_BYTES", 640)


@pytest.fixture(params=[True, False], ids=["whole", "sampled"])
def _amount(request):
    if not request.param:
        request.getfixturevalue("_low")


def grow(path, axis, length):
    """Grow as a program does: what it adds lies in the last chunk, and in new ones."""
    with h5py.File(path, "r+") as file:
        data = file["data"]
        before = data.shape[axis]
        data.resize(length, axis)
        box = [slice(None)] * data.ndim
        box[axis] = slice(before, None)
        data[tuple(box)] = 5.5


@pytest.mark.usefixtures("_amount")
@pytest.mark.parametrize("axis", [0, 1])
def test_what_a_source_begins_with_has_its_digest_when_the_source_has_grown(
    make_file, chunks, axis
):
    stored = {"chunks": chunks, "maxshape": (None, None, 10), "compression": "gzip"}
    path = make_file(data={"data": VALUES, **stored})
    length = VALUES.shape[axis]
    before = contents_of(path, axis)
    found = [before]
    for longer in (length + 1, length + 2, 3 * length):
        grow(path, axis, longer)
        found.append(contents_of(path, axis, length))

    assert is_of_pieces(before)
    assert len(set(found)) == 1
    assert contents_of(path, axis) != before


@pytest.mark.parametrize("position", [0, 1, 20, 39])
def test_a_change_anywhere_is_another_digest(make_file, chunks, position):
    stored = {"chunks": chunks, "maxshape": (None, 6, 10), "compression": "gzip"}
    path = make_file(data={"data": VALUES, **stored})
    before = contents_of(path)
    grow(path, 0, 50)
    with h5py.File(path, "r+") as file:
        file["data"][position, 3, 4] += 1

    assert contents_of(path, length=40) != before


@pytest.mark.usefixtures("_low")
def test_a_change_of_one_number_in_a_large_chunk_is_another_digest(make_file):
    """Its checksum is at the end of the chunk as it is stored."""
    noise = np.random.default_rng(0).integers(0, 255, (5, 20_000), np.uint8)
    stored = {"chunks": (1, 20_000), "compression": 1}
    path = make_file(data={"data": noise, **stored})
    before = contents_of(path)
    with h5py.File(path, "r+") as file:
        file["data"][2, 100] ^= 1

    assert is_of_pieces(before)
    assert contents_of(path) != before
    assert contents_of(path, full=True) not in (before, contents_of(path))


def test_frames_are_not_unpacked_to_be_digested(make_file):
    """Nothing could unpack these."""
    stored = {"chunks": (1, 4), "maxshape": (None, 4), "compression": "gzip"}
    path = make_file(data={"shape": (9, 4), "dtype": "f8", **stored})
    with h5py.File(path, "r+") as file:
        for number in range(9):
            file["data"].id.write_direct_chunk(
                (number, 0), b"no zlib stream %d" % number
            )

    with Reader(refer(f"{path}::/data")) as reader:
        document, contents = reader.fingerprint(), reader.contents()

    assert is_of_pieces(document["first"])
    assert is_of_pieces(contents)


def test_a_user_block_before_the_chunks_changes_no_digest(tmp_path):
    found = set()
    for size in (0, 512):
        path = tmp_path / f"{size}.h5"
        with h5py.File(path, "w", userblock_size=size) as file:
            stored = {"chunks": (4, 6, 10), "compression": "gzip"}
            made = {"data": VALUES, "maxshape": (None, 6, 10), **stored}
            file.create_dataset("data", **made)
        found.add(contents_of(path))

    assert len(found) == 1


def test_a_run_made_when_such_sources_were_unpacked_is_found_and_goes_on(tmp_path):
    path = tmp_path / "scan-data-Peaks-03893556.h5"
    path.write_bytes(gzip.decompress((DATA / "unpacked.h5.gz").read_bytes()))
    process = Peaks(frames(tmp_path, 5))
    same = compute(process)
    verified = rs.verify(path, Peaks)
    longer = compute(Peaks(frames(tmp_path, 8)))

    assert same.path == path
    assert process.identity == same.identity
    assert verified.passed
    assert longer.sessions[-1].computed == 3
    assert longer["peak"][...].tolist() == [3 + 4 * n for n in range(8)]
    assert compute(Peaks(frames(tmp_path, 8))) == longer


def test_a_run_made_when_large_chunks_were_digested_whole_is_found(make_file, request):
    noise = np.random.default_rng(0).random((40, 60))
    path = make_file(data={"data": noise, "chunks": (1, 60), "compression": "gzip"})
    before = compute(Peaks(f"{path}::/data"))
    request.getfixturevalue("_low")
    same = compute(Peaks(f"{path}::/data"))
    before.path.unlink()
    new = compute(Peaks(f"{path}::/data"))

    assert same == before
    assert new.identity != before.identity
    assert is_of_pieces(new.document["source"]["contents"])
    assert compute(Peaks(f"{path}::/data")) == new


# Bytes that are no data.

PADDED = np.dtype([("flag", "u1"), ("value", "f8")], align=True)
INNER = np.dtype([("x", "u1"), ("y", "f4")], align=True)
KINDS = {
    "padded": PADDED,
    "nested": np.dtype([("a", "u1"), ("in", INNER), ("z", "f8")], align=True),
    "array": np.dtype([("a", "u1"), ("in", INNER, (3,))], align=True),
    "long double": np.dtype([("a", np.longdouble), ("b", "u1")]),
    "complex": np.dtype(np.clongdouble),
}


def fingerprints_of(path, axes=0):
    """Digest a dataset again and again, in memory that held something else before."""
    found = set()
    for seed in range(8):
        rubbish = np.random.default_rng(seed).integers(1, 255, 1 << 18, np.uint8)
        for size in range(16, 4096, 8):
            _ = rubbish[:size].copy()
        with Reader(refer(f"{path}::/data", axes)) as reader:
            found.add(f"{reader.fingerprint()} {reader.contents()}")
    return found


@pytest.mark.parametrize("maxshape", [(200, 3), (None, 3)], ids=["fixed", "growable"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_pads_values_is_not_digested(make_file, kind, maxshape):
    made = {"shape": (200, 3), "dtype": KINDS[kind], "maxshape": maxshape}
    path = make_file(data={**made, "chunks": (50, 3), "compression": "gzip"})
    with h5py.File(path, "r+") as file:
        file["data"][:120] = np.zeros((120, 3), KINDS[kind])

    assert len(fingerprints_of(path)) == 1
    assert len(fingerprints_of(path, 1)) == 1


@pytest.mark.parametrize("chunks", [None, (50,)], ids=["contiguous", "growable"])
def test_what_lies_between_the_texts_of_a_c_struct_is_not_digested(tmp_path, chunks):
    """HDF5 converts C's texts, and leaves any bytes behind them."""
    text = h5py.h5t.C_S1.copy()
    text.set_size(6)
    kind = h5py.h5t.create(h5py.h5t.COMPOUND, 16)
    kind.insert(b"name", 0, text)
    kind.insert(b"value", 8, h5py.h5t.NATIVE_DOUBLE)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if chunks:
        properties.set_chunk(chunks)
    space = h5py.h5s.create_simple((200,), (h5py.h5s.UNLIMITED if chunks else 200,))
    fields = {"names": ["name", "value"], "formats": ["S6", "f8"], "offsets": [0, 8]}
    rows = np.zeros(200, np.dtype({**fields, "itemsize": 16}))
    rows["name"], rows["value"] = b"ab", np.arange(200)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        made = h5py.h5d.create(file.id, b"data", kind, space, dcpl=properties)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, rows)
    before = fingerprints_of(tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        file["data"][150, "value"] = 7

    assert len(before) == 1
    assert fingerprints_of(tmp_path / "c.h5").isdisjoint(before)
