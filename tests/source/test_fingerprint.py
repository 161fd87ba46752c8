"""Fingerprints: a changed source is told from an equal one."""

import ast
import os
from unittest import mock

import h5py
import numpy as np
import pytest
from sources import LAYOUTS, fingerprint

import resumable.source.fingerprint
import resumable.source.reader
import resumable.source.stored
from resumable.model.positions import PositionSet
from resumable.source.reader import Contiguous, Reader
from resumable.source.reference import refer

# Fingerprints.


@pytest.mark.parametrize(
    ("layout", "position"),
    [(layout, at) for layout in LAYOUTS for at in (0, 1, 59) if layout != "growable"]
    # What lies behind the first position of a growable one may still be written.
    + [("growable", 0)],
)
def test_one_changed_element_changes_the_fingerprint(make_file, layout, position):
    data = np.zeros((60, 3, 4))
    path = make_file(data={"data": data, **LAYOUTS[layout]})
    before = fingerprint(f"{path}::/data")

    with h5py.File(path, "r+") as file:
        file["data"][position, 2, 3] = 1e-300

    assert fingerprint(f"{path}::/data") != before


def test_a_change_of_content_that_a_growable_source_hides_changes_its_contents(
    make_file,
):
    """What the fingerprint leaves out is compared when the run is found."""
    path = make_file(data={"data": np.zeros((6, 4)), "maxshape": (None, 4)})
    with Reader(refer(f"{path}::/data")) as reader:
        before = reader.contents()

    with h5py.File(path, "r+") as file:
        file["data"][5, 3] = 1

    with Reader(refer(f"{path}::/data")) as reader:
        assert reader.contents() != before


@pytest.mark.parametrize(
    "other",
    [
        np.zeros((5, 12)),
        np.zeros((10, 6)),
        np.zeros((60, 1)),
        np.zeros(60),
        np.zeros((6, 10), "f4"),
        np.zeros((6, 10), "i8"),
        np.zeros((6, 10), [("x", "f8")]),
    ],
    ids=["shape", "transposed", "length", "axes", "width", "kind", "compound"],
)
def test_shape_and_dtype_are_part_of_the_fingerprint(make_file, other):
    first = make_file("first.h5", data=np.zeros((6, 10)))
    second = make_file("second.h5", data=other)

    assert fingerprint(f"{first}::/data") != fingerprint(f"{second}::/data")


def test_the_name_inside_the_file_is_part_of_the_fingerprint(make_file):
    path = make_file(data=np.zeros(5), data_b=np.zeros(5))

    assert fingerprint(f"{path}::/data") != fingerprint(f"{path}::/data_b")


def test_what_cannot_change_results_is_not_in_the_fingerprint(make_file):
    data = np.arange(60.0).reshape(6, 10)
    first = make_file("first.h5", data=data)
    second = make_file("a copy.h5", data={"data": data, "chunks": (2, 3)})
    with h5py.File(second, "a") as file:
        file["data"].attrs["comment"] = "looks good"
        file["more"] = 5

    assert fingerprint(f"{first}::/data") == fingerprint(f"{second}::/data")


def test_chunks_that_were_never_written_have_a_fingerprint(make_file):
    stored = {"chunks": (2, 4), "compression": "gzip"}
    path = make_file(data={"shape": (6, 4), "dtype": "f8", **stored})
    before = fingerprint(f"{path}::/data")

    with h5py.File(path, "r+") as file:
        file["data"][4] = 1

    assert fingerprint(f"{path}::/data") != before


def test_of_a_large_compressed_source_chunks_spread_over_it_are_digested(make_file):
    noise = np.random.default_rng(3).integers(0, 255, (1200, 64 << 10), np.uint8)
    stored = {"chunks": (1, 64 << 10), "compression": 1}
    path = make_file(data={"data": noise, **stored})
    parts = []
    real = resumable.source.fingerprint._sha256

    def counted(part):
        parts.append(part)
        return real(part)

    def corners():
        """Return the first rows of the chunks that were digested, in order."""
        places = [bytes(part) for part in parts if len(part) < 30]
        return sorted(ast.literal_eval(place.decode())[0][0] for place in places)

    with mock.patch("resumable.source.fingerprint._sha256", counted):
        fingerprint(f"{path}::/data")
        sampled, parts[:] = corners(), []
        fingerprint(f"{path}::/data", full=True)

    assert 8 << 20 < len(sampled) * (64 << 10) <= 17 << 20
    assert (sampled[0], sampled[-1]) == (0, 1199)
    assert max(np.diff(sampled)) < 6
    assert corners() == list(range(1200))


def test_a_source_that_only_grew_has_the_same_fingerprint(make_file):
    path = make_file(data={"data": np.ones((6, 4)), "maxshape": (None, 4)})
    before = fingerprint(f"{path}::/data")

    with h5py.File(path, "r+") as file:
        file["data"].resize(9, axis=0)
        file["data"][6:] = 5

    assert fingerprint(f"{path}::/data") == before


def test_the_first_rows_of_a_source_that_grew_have_the_same_contents(make_file):
    """So that rows of another measurement are never taken for them."""
    path = make_file(data={"data": np.ones((6, 4)), "maxshape": (None, 4)})
    with Reader(refer(f"{path}::/data")) as reader:
        before = reader.contents()

    with h5py.File(path, "r+") as file:
        file["data"].resize(9, axis=0)

    with Reader(refer(f"{path}::/data")) as reader:
        assert reader.contents(6) == before
        assert reader.contents() != before


@pytest.mark.parametrize(
    ("maxshape", "axes", "growable"),
    [
        ((None, 4), (0,), True),
        ((9, 4), (0,), True),
        ((6, 4), (0,), False),
        ((6, None), (0,), False),
        ((6, None), (1,), True),
        ((None, 4), (1, 0), False),
    ],
)
def test_a_source_can_grow_along_its_first_position_axis(
    make_file, maxshape, axes, growable
):
    stored = {"maxshape": maxshape, "chunks": (2, 2)}
    path = make_file(data={"shape": (6, 4), "dtype": "f8", **stored})

    with Reader(refer(f"{path}::/data", axes)) as reader:
        assert reader.growable is growable


SIZE = 80 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return the path of 80 MB of zeros that take no space, and its offset."""
    path = tmp_path_factory.mktemp("large") / "large.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (80, 1 << 20), "u1")
        data[0, 0] = 1
        offset = data.id.get_offset()
    os.truncate(path, offset + SIZE)
    return path, offset


def change(large, at, value):
    path, offset = large
    with path.open("r+b") as file:
        file.seek(offset + at)
        file.write(bytes([value]))


def test_beyond_64_mb_the_fingerprint_covers_samples_unless_full(large):
    source = f"{large[0]}::/data"
    # The samples are 0.25 MB each and begin every 1.27 MB.
    between = 700_000
    before = fingerprint(source)
    whole = fingerprint(source, full=True)

    change(large, between, 1)
    unseen, seen = fingerprint(source), fingerprint(source, full=True)
    change(large, between, 0)
    change(large, SIZE - 1, 1)
    last = fingerprint(source)
    change(large, SIZE - 1, 0)

    assert unseen == before
    assert seen != whole
    assert last != before


def test_the_fingerprint_of_a_large_source_reads_at_most_16_mb(large):
    read = []
    real = Contiguous.read

    def counted(contents, start, out):
        read.append(out.nbytes)
        real(contents, start, out)

    with mock.patch.object(Contiguous, "read", counted):
        fingerprint(f"{large[0]}::/data")

    assert 8 << 20 < sum(read) <= 16 << 20


VALUES = (np.arange(60_000) ** 2 % 1009).astype("<f4").reshape(200, 300)
# How a dataset is stored, and whether all of it is digested or samples of it.
KINDS = {
    "contiguous": ({}, False),
    "contiguous, sampled": ({}, True),
    "chunked": ({"chunks": (7, 300)}, False),
    "chunked, sampled": ({"chunks": (7, 300)}, True),
    "compressed": ({"chunks": (7, 64), "compression": "gzip"}, False),
    "compressed, sampled": ({"chunks": (7, 64), "compression": "gzip"}, True),
    "growable": ({"chunks": (7, 300), "maxshape": (None, 300)}, False),
}
# An identity holds these: a digest that changes makes every old run unknown.
GOLDEN = {
    "contiguous": ["931ebc67f5ea1c7d", "3664bb8a86832689", "682b47de7e8f426e"],
    "contiguous, sampled": ["8f917812eb221e42", "3664bb8a86832689", "5d0b22946caebf9f"],
    "chunked": ["931ebc67f5ea1c7d", "3664bb8a86832689", "682b47de7e8f426e"],
    "chunked, sampled": ["8f917812eb221e42", "3664bb8a86832689", "5d0b22946caebf9f"],
    "compressed": ["ad02fc6069319a49", "3664bb8a86832689", "682b47de7e8f426e"],
    "compressed, sampled": ["e621f888e8e7df7b", "3664bb8a86832689", "5d0b22946caebf9f"],
    "growable": ["d91941f2022f398d", "3664bb8a86832689", "682b47de7e8f426e"],
    "other axes": ["931ebc67f5ea1c7d", "117aa80a3d5e981e"],
}


@pytest.mark.parametrize("name", KINDS)
def test_the_digest_of_contents_never_changes(make_file, monkeypatch, name):
    stored, sampled = KINDS[name]
    if sampled:
        rooms = resumable.source
        for module in (rooms.fingerprint, rooms.reader, rooms.stored):
            monkeypatch.setattr(module, "DIGEST_BYTES", 50_000)
            monkeypatch.setattr(module, "SAMPLED_BYTES", 20_000)
    path = make_file(data={"data": VALUES, **stored})
    some = PositionSet.of(200, np.r_[0:50:3, 100:190])

    with Reader(refer(f"{path}::/data")) as source:
        # With so low limits all chunks are large.
        document = source.fingerprint(like={} if sampled else None)
        found = (
            document.get("contents") or document["first"],
            source.contents(30, like=""),
            source.contents_at(some),
        )

    assert [digest[:16] for digest in found] == GOLDEN[name]


def test_the_digest_of_other_axes_never_changes(make_file):
    path = make_file(data=VALUES)

    with Reader(refer(f"{path}::/data", 1)) as source:
        found = [source.contents(), source.contents(30)]

    assert [digest[:16] for digest in found] == GOLDEN["other axes"]
