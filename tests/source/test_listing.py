"""What is said about the contents of a file, and about a file that is not HDF5."""

import bz2
import contextlib
import gzip
import lzma
import os
import resource

import h5py
import numpy as np
import pytest
from helpers import compute
from processes import Mean
from programs import invoke
from scipy.io import netcdf_file, savemat

import resumable as rs
from resumable.source import list_source


def names(source):
    return [entry.name for entry in list_source(str(source)).entries]


@pytest.fixture
def nexus(tmp_path):
    """A scan with motors, two plots, of which one is the default, and raw data."""
    path = tmp_path / "scan.nxs"
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        for group, signal in (("fit", "height"), ("scan", "counts")):
            made = entry.create_group(group)
            made.attrs["NX_class"], made.attrs["signal"] = "NXdata", signal
        file.attrs["default"], entry.attrs["default"] = "entry", np.bytes_(b"scan")
        for number in range(50):
            entry[f"motors/m{number:02d}"] = float(number)
            entry[f"traces/t{number:02d}"] = np.zeros(10 + number)
        entry["raw"] = np.zeros((9, 100, 10), "u2")
        entry["titles"] = np.zeros(10_000, "S8")
        entry["scan/counts"] = h5py.SoftLink("/entry/instrument/counts")
        entry["instrument/counts"] = np.zeros((3, 4))
        entry["fit/height"] = np.zeros((3, 1))
    return path


def test_the_default_plot_comes_first_then_plots_then_the_largest(nexus):
    found = names(nexus)

    assert found[:4] == [
        "/entry/scan/counts",
        "/entry/fit/height",
        "/entry/raw",
        "/entry/traces/t49",
    ]
    assert found[-2:] == ["/entry/traces/t00", "/entry/titles"]
    assert len(found) == 54


def test_the_signals_of_a_plot_are_named_there_where_their_axes_are(tmp_path):
    """The usual NeXus file: data lie in the detector, the plot links to them."""
    path = tmp_path / "usual.nxs"
    with h5py.File(path, "w") as file:
        file["detector/data"], file["detector/errors"] = np.zeros((2, 4, 5, 6))
        for name in ("first", "map"):
            plot = file.create_group(name)
            plot.attrs["NX_class"], plot.attrs["signal"] = "NXdata", "data"
            plot.attrs["axes"], plot.attrs["auxiliary_signals"] = ["y", "x", "."], "e"
            plot["data"] = h5py.SoftLink("/detector/data")
            plot["e"] = h5py.SoftLink("/detector/errors")
        file.attrs["default"] = "map"

    listing = list_source(str(path))

    assert [(e.name, e.plotted) for e in listing.entries] == [
        ("/map/data", 2),
        ("/map/e", 1),
    ]
    for entry in listing.entries:
        with pytest.warns(rs.ResumableWarning, match="NXdata group /map"):
            assert Mean(f"{path}::{entry.name}").map_shape == (4, 5)
    with pytest.raises(rs.SourceError, match="did you mean '/map/data'"):
        Mean(f"{path}::/map/dat")


@pytest.mark.parametrize("live", [False, True])
def test_a_virtual_dataset_is_listed_beside_a_link_to_its_part(tmp_path, live):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["d"] = np.zeros((4, 5))
    path = tmp_path / "master.h5"
    layout = h5py.VirtualLayout((4, 5), "f8")
    layout[:] = h5py.VirtualSource("raw.h5", "d", (4, 5))
    with h5py.File(path, "w") as file:
        plot = file.create_group("map")
        plot.attrs["NX_class"], plot.attrs["signal"] = "NXdata", "d"
        plot["d"] = h5py.ExternalLink("raw.h5", "/d")
        file.create_virtual_dataset("virtual", layout)

    with h5py.File(path, "r", locking=not live):
        listing = list_source(str(path))
        assert [entry.name for entry in listing.entries] == ["/map/d", "/virtual"]
        assert listing.unreadable == []
        with pytest.raises(rs.SourceError, match=r"it has /map/d .*, /virtual [^;]*$"):
            Mean(f"{path}::/nothing")


LISTED = (
    r"has /entry/scan/counts \(3 x 4 float64, the default plot\), "
    r"/entry/fit/height \(3 x 1 float64, a plot\), /entry/raw \(9 x 100 x 10 uint16\), "
    r"/entry/traces/t49 \(59 float64\), /entry/traces/t48 \(58 float64\) and 49 more$"
)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{}", r"names no dataset; write '.*scan\.nxs::/dataset'; it " + LISTED),
        ("{}::/entry", "/entry is a group, not a dataset; it " + LISTED),
        ("{}::/???", r"has no dataset /\?\?\?; it " + LISTED),
        (
            "{}::/entry/scan",
            r"group, .* /entry/scan/counts \(3 x 4 float64, the de.*t\)$",
        ),
        ("{}::/entry/hight", "no dataset /entry/hight; did you mean '/entry/fit/heig"),
        ("{}::/height", "no dataset /height; did you mean '/entry/fit/height'"),
        ("{}::/Entry/Fit/HEIGHT", "no dataset /Entry; did you mean '/entry/fit/heig"),
        ("{}::../raw", r"no dataset /\.\.; did you mean '/entry/raw'"),
        (
            "{}::/entry/motors",
            "a group, .*; it has no datasets that can be computed ov",
        ),
        ("{}/entry/raw", r"names no dataset; write '.*scan\.nxs::/entry/raw'"),
        ("{}:/entry/raw", r"names no dataset; write '.*scan\.nxs::/entry/raw'"),
    ],
)
def test_messages_name_what_people_look_for(nexus, source, words):
    with pytest.raises(rs.SourceError, match=words):
        Mean(source.format(nexus))


def test_datasets_behind_links_are_listed_once_and_cycles_end(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["far"] = np.zeros((5, 2))
        file["back"] = h5py.ExternalLink("a.h5", "/")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["near/x"] = np.zeros(3)
        file["again"] = h5py.SoftLink("/near/x")
        file["near/up"] = file["/"]
        file["b"] = h5py.ExternalLink("b.h5", "/")
        file["loop"] = h5py.SoftLink("/loop")

    assert names(tmp_path / "a.h5") == ["/b/far", "/near/x"]
    assert names(f"{tmp_path}/a.h5::/b/back//near/") == [
        "/b/back/near/up/b/far",
        "/b/back/near/x",
    ]


def test_many_links_to_other_files_are_listed_with_few_files_open(tmp_path):
    """A detector writes more of them than files may be open in a process."""
    with h5py.File(tmp_path / "0.h5", "w") as file:
        file["d"] = np.zeros((2, 3))
    with h5py.File(tmp_path / "master.h5", "w") as file:
        for number in range(1, 201):
            (tmp_path / f"{number}.h5").hardlink_to(tmp_path / "0.h5")
            file[f"d{number}"] = h5py.ExternalLink(f"{number}.h5", "/d")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, hard))
    try:
        listing = list_source(f"{tmp_path}/master.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert (len(listing.entries), listing.unreadable) == (200, [])


def test_a_damaged_group_elsewhere_is_named_and_the_rest_is_listed(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["good/data"] = np.zeros((4, 3))
        file["bad/data"] = np.zeros((4, 3))
        place = h5py.h5o.get_info(file["bad"].id).addr
    with path.open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * 60)

    listing = list_source(str(path))

    assert [entry.name for entry in listing.entries] == ["/good/data"]
    assert len(listing.unreadable) == 1
    assert listing.unreadable[0].startswith("/bad cannot be read (")
    for source in (f"{path}::/data", f"{path}::/god/data", str(path)):
        with pytest.raises(rs.SourceError, match="/good/data"):
            Mean(source)
    with pytest.raises(rs.SourceError, match="/bad/data cannot be read"):
        Mean(f"{path}::/bad/data")


def test_what_cannot_be_computed_over_is_counted(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"], file["b"] = 1.0, 2.0
        file["text"] = ["x", "yy"]
        file["none"] = h5py.Empty("f4")

    listing = list_source(f"{tmp_path}/x.h5")

    assert listing.entries == []
    assert listing.others == {
        "is a single value": 2,
        "has no elements (a null dataspace, float32)": 1,
        "has entries of variable length (text)": 1,
    }


def test_names_that_are_no_text_are_listed_and_can_be_given(tmp_path):
    """As older programs write them, here in Latin-1."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group(b"caf\xe9")
        group[b"na\xefve"] = np.ones((4, 3))
    (name,) = names(tmp_path / "x.h5")

    assert name == "/caf\udce9/na\udcefve"
    assert compute(Mean(f"{tmp_path}/x.h5::{name}"))["mean"][...].tolist() == [1] * 4
    with pytest.raises(rs.SourceError, match=r"/caf\\udce9/na\\udcefve \(4 x 3"):
        Mean(f"{tmp_path}/x.h5")


def test_a_damaged_file_is_an_error_and_never_a_traceback(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["entry/data/x"] = np.zeros((4, 3))
        file["entry/soft"] = h5py.SoftLink("/entry/data")
        file["table"] = np.zeros(5, [("a", "f8"), ("b", "S3")])
        file.attrs["default"], file["entry"].attrs["default"] = "entry", "data"
        file["entry/data"].attrs["signal"] = "x"
        virtual = h5py.VirtualLayout((4, 3), "f8")
        virtual[:] = h5py.VirtualSource(".", "entry/data/x", (4, 3))
        file.create_virtual_dataset("virtual", virtual)
    raw, rng = path.read_bytes(), np.random.default_rng(1)
    for count in np.repeat([1, 20, 200], 6):
        damaged = np.frombuffer(raw, np.uint8).copy()
        # Not the superblock: of a file marked as open it is waited for the writer.
        damaged[rng.integers(100, len(raw), count)] = rng.integers(0, 256, count)
        path.write_bytes(damaged.tobytes())
        os.utime(path, (1e9, 1e9))
        for name in ("", "::/wrong", "::/table/a", "::/entry/soft/x", "::/virtual"):
            with contextlib.suppress(rs.SourceError):
                Mean(f"{path}{name}")
        with contextlib.suppress(rs.SourceError):
            list_source(str(path))


def test_a_large_file_is_listed_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr("resumable.source.listing._MOST_OBJECTS", 20)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number in range(30):
            file[f"d{number}"] = np.zeros(3)

    listing = list_source(f"{tmp_path}/x.h5")

    assert len(listing.entries) == 19
    assert not listing.whole


def test_of_a_large_file_the_default_plot_and_the_group_meant_are_listed(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("resumable.source.listing._MOST_OBJECTS", 20)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        for number in range(30):
            file[f"g{number}/t"] = np.zeros(3)
        file["y/meant"] = np.zeros(3)
        file["g29/detector"] = np.zeros((3, 4))
        file["z/plot/counts"] = h5py.SoftLink("/g29/detector")
        file.attrs["default"], file["z"].attrs["default"] = "z", "plot"
        file["z/plot"].attrs["signal"] = "counts"

    assert names(path) == ["/z/plot/counts"]
    with pytest.raises(rs.SourceError, match="did you mean '/y/meant'"):
        Mean(f"{path}::/y/ment")
    with h5py.File(path, "r+") as file:
        del file.attrs["default"]
    with pytest.raises(rs.SourceError, match=r"no data.* among the first 20 objects"):
        Mean(path)


def test_a_dataset_whose_raw_data_are_missing_is_told_and_not_listed(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("d", (3,), "f8", external=[("raw.bin", 0, 24)])
    listing = list_source(str(tmp_path / "x.h5"))

    assert listing.entries == []
    assert listing.unreadable == ["/d has its data in raw.bin, which is missing"]


def test_long_dtypes_are_shortened_in_the_tree(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["table"] = np.zeros(3, [(f"column_{n}", "f8") for n in range(20)])
    shown = invoke("tree", str(tmp_path / "x.h5"))

    assert "column_0" in shown
    assert max(map(len, shown.splitlines())) < 80


def test_a_source_without_a_dataset_in_a_missing_file_says_that_it_is_missing(
    tmp_path,
):
    (tmp_path / "scan.h5").touch()
    with pytest.raises(
        rs.SourceError, match=r"no file .*SCAN\.h; did you mean 'scan\."
    ):
        Mean(tmp_path / "SCAN.h")


# Files that are not HDF5.


def netcdf3(path):
    with netcdf_file(path, "w") as file:
        file.createDimension("x", 3)


KINDS = {
    "empty": (lambda path: path.touch(), r"it is empty \(0 bytes\)"),
    "text": (
        lambda path: path.write_text("# λ\n1 2 3\n" * 200),
        r"it is a text file that begins with '# λ\\n1 2 3",
    ),
    "gzip": (
        lambda path: path.write_bytes(gzip.compress(b"x")),
        "gzip; unpack it with",
    ),
    "bzip2": (lambda path: path.write_bytes(bz2.compress(b"x")), "bzip2; unpack it"),
    "xz": (lambda path: path.write_bytes(lzma.compress(b"x")), "with xz; unpack it"),
    "zip": (lambda path: np.savez(path.open("wb"), a=1), "is a zip archive; unpack it"),
    "npy": (lambda path: np.save(path.open("wb"), np.ones(3)), "is an array of numpy"),
    "netCDF-3": (netcdf3, "is netCDF-3; nccopy -k nc4"),
    "MATLAB 5": (
        lambda path: savemat(path, {"a": 1}),
        "is a MATLAB 5 file; save it in",
    ),
    "HDF4": (
        lambda path: path.write_bytes(b"\x0e\x03\x13\x01\x00\xc8\x00\x00" + bytes(900)),
        "it is HDF4; h4toh5",
    ),
    "Git LFS": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "is a pointer of Git LFS; run git lfs pull",
    ),
    "other": (
        lambda path: path.write_bytes(b"\xff\xd8" * 400),
        "begins with the bytes ff",
    ),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_hdf5_is_named_as_what_it_is(tmp_path, kind):
    make, words = KINDS[kind]
    path = tmp_path / "scan.h5"
    make(path)
    for source in (f"{path}::/data", str(path)):
        with pytest.raises(rs.SourceError, match=f"cannot be read as HDF5: .*{words}"):
            Mean(source)


def test_a_truncated_hdf5_file_is_named_as_that(make_file):
    path = make_file(data=np.ones(10_000))
    os.truncate(path, 5000)
    words = r"is truncated: it has 5,000 bytes of \d\d,\d{3}; copy it again"
    with pytest.raises(rs.SourceError, match=words):
        Mean(f"{path}::/data")


def test_a_matlab_file_of_version_7_3_is_hdf5(tmp_path):
    path = tmp_path / "x.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["data"] = np.ones((3, 2))
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file")

    assert Mean(f"{path}::/data").spectrum_shape == (2,)
