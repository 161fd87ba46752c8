"""Position axes that nobody gave: taken where the file says which they are."""

import warnings

import h5py
import numpy as np
import pytest

from resumable.source import measure_source

SHAPE = (3, 4, 5)


@pytest.fixture
def measured(tmp_path):
    """Return a function that writes a source and measures it without axes."""

    def measure(axes=None, shape=SHAPE, of_group=None, of_dataset=None):
        path = tmp_path / "map.h5"
        with h5py.File(path, "w") as file:
            group = file.create_group("entry/map")
            group.attrs["NX_class"], group.attrs["signal"] = "NXdata", "data"
            if axes is not None:
                group.attrs["axes"] = axes
            for key, value in (of_group or {}).items():
                group.attrs[key] = value
            group["data"] = np.zeros(shape)
            for key, value in (of_dataset or {}).items():
                group["data"].attrs[key] = value
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return measure_source(f"{path}::/entry/map/data", None)

    return measure


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (["y", "x", "energy"], (0, 1)),
        (["sample_y", "sample_x", "channel"], (0, 1)),
        (["samz", "pos_x", "q"], (0, 1)),
        (["Y [mm]", "X [mm]", "E"], (0, 1)),
        (["axis_y", "axis_x", "axis_energy"], (0, 1)),
        (["line", "column", "."], (0, 1)),
        (["line", "column"], (0, 1)),
        (["angle", ".", "."], (0,)),
        ([b"y", b"x", b"energy"], (0, 1)),
        # Not known, so the first axis as ever.
        (["time", "y", "x"], (0,)),
        (["energy", "y", "x"], (0,)),
        (["z", "y", "x"], (0,)),
        (["y", "x", "det_x"], (0, 1)),
        ([".", "y", "x"], (0,)),
        (["line", "column", "energy"], (0,)),
        (["y", "energy", "x"], (0,)),
        (["y", "x", "energy", "more"], (0,)),
        (np.arange(3), (0,)),
        (None, (0,)),
    ],
    ids=str,
)
def test_names_of_nxdata_say_which_axes_are_the_map(measured, axes, expected):
    found = measured(axes)

    assert found.ref.position_axes == expected
    assert found.geometry.map_shape == SHAPE[: len(expected)]
    assert bool(found.taken) == (expected != (0,))


@pytest.mark.parametrize(
    ("interpretation", "expected"),
    [
        ("spectrum", (0, 1)),
        ("image", (0,)),
        ("scalar", (0, 1, 2)),
        ("rgba-image", (0,)),
        ("something", (0,)),
        (7, (0,)),
    ],
)
def test_an_interpretation_says_how_many_axes_belong_together(
    measured, interpretation, expected
):
    found = measured(["t", "u", "v"], of_dataset={"interpretation": interpretation})

    assert found.ref.position_axes == expected
    assert ("interpretation" in found.taken) == (expected != (0,))


def test_a_group_that_speaks_of_another_dataset_says_nothing(measured):
    names = ["y", "x", "energy"]

    assert measured(names, of_group={"signal": "other"}).ref.position_axes == (0,)
    assert measured(names, of_group={"NX_class": "NXlog"}).ref.position_axes == (0,)
    further = {"signal": "other", "auxiliary_signals": ["third", "data"]}
    assert measured(names, of_group=further).ref.position_axes == (0, 1)


@pytest.mark.parametrize("default", [True, False])
def test_the_default_plot_counts_for_the_data_that_it_links_to(tmp_path, default):
    """The usual NeXus file, of which the user names the data in the detector."""
    path = tmp_path / "usual.nxs"
    with h5py.File(path, "w") as file:
        file["entry/detector/data"], file["entry/detector/dark"] = np.zeros((2, *SHAPE))
        plot = file.create_group("entry/map")
        plot.attrs["NX_class"], plot.attrs["signal"] = "NXdata", "data"
        plot.attrs["axes"] = ["y", "x", "energy"]
        plot["data"] = h5py.SoftLink("/entry/detector/data")
        if default:
            file.attrs["default"] = "entry"
            file["entry"].attrs["default"] = "map"

    found = measure_source(f"{path}::/entry/detector/data", None)
    other = measure_source(f"{path}::/entry/detector/dark", None)

    assert found.ref.position_axes == ((0, 1) if default else (0,))
    assert ("NXdata group /entry/map" in found.taken) == default
    assert other.ref.position_axes == (0,)


def test_a_main_dataset_of_usid_has_its_positions_first(tmp_path):
    with h5py.File(tmp_path / "usid.h5", "w") as file:
        file["data"], file["indices"] = np.zeros((6, 5)), np.zeros((6, 2))
        file["data"].attrs["Position_Indices"] = file["indices"].ref
        file["data"].attrs["interpretation"] = "?"

    found = measure_source(f"{tmp_path}/usid.h5::/data", None)
    assert (found.ref.position_axes, found.taken) == ((0,), "")


def test_the_group_counts_that_the_user_names_the_dataset_in(tmp_path):
    """A master file: NXdata here, the data behind a link in another file."""
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["frames"] = np.zeros(SHAPE)
    path = tmp_path / "master.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("map")
        group.attrs["NX_class"], group.attrs["signal"] = "NXdata", "data"
        group.attrs["axes"] = ["y", "x", "energy"]
        group["data"] = h5py.ExternalLink("raw.h5", "/frames")

    assert measure_source(f"{path}::/map/data", None).ref.position_axes == (0, 1)
    raw = measure_source(f"{tmp_path}/raw.h5::/frames", None)
    assert raw.ref.position_axes == (0,)
