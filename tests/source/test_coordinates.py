"""Coordinates in results are what the numbers of a source's scales stand for."""

import h5py
import numpy as np
import pytest
from helpers import compute
from processes import Mean, process_of
from sources import usid_source

import resumable as rs

NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable. {:9d}"


@pytest.fixture
def netcdf(tmp_path):
    """What netCDF-4 writes: a variable over dimensions of every kind."""
    path = tmp_path / "s.nc"
    scales = {
        "row": np.zeros(3, ">f4"),
        "x": np.array([0, 1, 2, -9], "i2"),
        "time": np.arange(5.0),
        "depth": np.array([0, 1, -1], "i1"),
    }
    with h5py.File(path, "w") as file:
        data = file.create_dataset("v", data=np.arange(1080.0).reshape(3, 4, 5, 3, 6))
        for number, (name, values) in enumerate(scales.items()):
            made = file.create_dataset(name, data=values)
            made.make_scale(NO_VARIABLE.format(3) if name == "row" else name)
            data.dims[number].attach_scale(made)
        x, time, depth = (file[name].attrs for name in ("x", "time", "depth"))
        x["units"], x["long_name"] = "rad", np.array(["angle"], h5py.string_dtype())
        x["scale_factor"], x["add_offset"] = np.float32(0.5), np.array([10.0])
        x["_FillValue"] = np.int16(-9)
        time["units"], time["calendar"] = b"days since 2000-01-01", "noleap"
        depth["_Unsigned"], depth["positive"], depth["scale_factor"] = "true", "down", 2
    return path


def coordinates(results):
    """Return values and attributes of every axis."""
    found = {}
    with results.group().file as file:
        group = file[results.group().name]
        for name in group.attrs["axes"]:
            attributes = dict(group[name].attrs)
            for key in ("CLASS", "NAME", "REFERENCE_LIST"):
                attributes.pop(key, None)
            found[name] = (
                group[name][...].tolist(),
                attributes,
            )
    return found


EXPECTED = {
    "row": ([0, 1, 2], {}),
    "x": ([10.0, 10.5, 11.0, None], {"units": "rad", "long_name": "angle"}),
    "time": (
        [0.0, 1.0, 2.0, 3.0, 4.0],
        {"units": "days since 2000-01-01", "calendar": "noleap"},
    ),
    "depth": ([0.0, 2.0, 510.0], {"positive": "down"}),
}


def test_coordinates_of_netcdf_are_unpacked_with_units_and_calendar(netcdf, tmp_path):
    """Also in packed and in published results."""
    results = compute(Mean(f"{netcdf}::/v", position_axes=(0, 1, 2, 3)))
    before = coordinates(results)
    results.publish(f"{tmp_path}/published.h5::/mean")
    with h5py.File(tmp_path / "published.h5") as file:
        published = file["mean/x"][...].tolist()
    results.pack()
    after = coordinates(rs.open(results.path))

    before["x"][0][3] = None if np.isnan(before["x"][0][3]) else "a number"
    after["x"][0][3] = None if np.isnan(after["x"][0][3]) else "a number"
    assert before == EXPECTED
    assert after == EXPECTED
    assert published[:3] == [10.0, 10.5, 11.0]


def test_plain_coordinates_keep_their_type(make_file):
    path = make_file(data=np.zeros((3, 4)), n=np.array([5, 6, 7], "u2"))
    with h5py.File(path, "r+") as file:
        file["n"].make_scale("n")
        file["n"].attrs["_FillValue"] = np.uint16(9)
        file["data"].dims[0].attach_scale(file["n"])
    results = compute(Mean(f"{path}::/data"))
    with h5py.File(results.path) as file:
        assert file["data-Mean_000/n"].dtype == "u2"


def test_packed_numbers_of_a_source_are_told_once(make_file, caplog):
    """The computation gets them as they are stored."""
    path = make_file(v=np.full((6, 3), 20, "i2"), w=np.ones((6, 3)))
    with h5py.File(path, "r+") as file:
        file["v"].attrs["scale_factor"] = 0.5
        file["v"].attrs["_FillValue"] = np.array([-1], "i2")
        file["w"].attrs["_FillValue"] = np.nan
    process = Mean(f"{path}::/v")
    words = (
        f"numbers of {path}::/v arrive as netCDF stores them: they stand for number * "
        "0.5 + 0 and -1 stands for no value"
    )

    assert words in str(process.plan())
    results = compute(process, positions=[0, 1])
    assert [words in record.message for record in caplog.records] == [True]
    caplog.clear()
    assert compute(process)["mean"][...].tolist() == [20.0] * 6
    compute(Mean(f"{path}::/w"))
    assert results.path.exists()
    assert not caplog.records


def test_viewers_find_the_results_and_outputs_of_the_shape_of_the_first(scan, tmp_path):
    """A viewer of NeXus refuses a group with an auxiliary signal of another shape."""

    def unit(self, spectrum):
        return {"a": 1.0, "fit": spectrum[:2], "b": 2.0}

    outputs = {"a": rs.Output(), "fit": rs.Output(2), "b": rs.Output()}
    results = compute(process_of(unit, outputs)(scan))
    for _ in range(2):
        with h5py.File(results.path) as file:
            group = file["run"][file["run"].attrs["default"]]
            assert file.attrs["default"] == "run"
            assert group == file["data-Unit_000"]
            assert group.attrs["NX_class"] == "NXdata"
            assert group.attrs["signal"] == "a"
            assert group.attrs["auxiliary_signals"].tolist() == ["b"]
            assert len(group.attrs["axes"]) == group["a"].ndim
        results.pack()


def stated(axes):
    return {
        name: (axis.values.tolist(), dict(axis.attributes))
        for name, axis in axes.items()
    }


def nexus_map(path, **of_group):
    """Write a map as NXdata: the names of its axes say nothing of their order."""
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/map")
        group.attrs["NX_class"], group.attrs["signal"] = "NXdata", "counts"
        group.attrs["axes"] = ["x", "y", "energy"]
        for name, value in ({"y_indices": 0, "x_indices": [1]} | of_group).items():
            group.attrs[name] = value
        group["counts"] = np.arange(24.0).reshape(2, 3, 4)
        for name, count, units in (("y", 2, "mm"), ("x", 3, "um"), ("energy", 4, "eV")):
            group[name] = np.arange(count) / 2
            group[name].attrs["units"] = units
        group["energy"].attrs["offset"] = 1.5
    return f"{path}::/entry/map/counts"


NEXUS = {
    "y": ([0.0, 0.5], {"units": "mm"}),
    "x": ([0.0, 0.5, 1.0], {"units": "um"}),
    "energy": ([0.0, 0.5, 1.0, 1.5], {"units": "eV", "offset": 1.5}),
}


def test_coordinates_of_nexus_are_in_the_process_the_results_and_the_file(tmp_path):
    """And those of a spectrum belong to an output of its shape."""
    source = nexus_map(tmp_path / "map.h5")

    def half(self, spectrum):
        return {"mean": spectrum.mean(), "half": spectrum / 2}

    outputs = {"mean": rs.Output(), "half": rs.Output(4)}
    process = process_of(half, outputs)(source, position_axes=(0, 1))
    results = compute(process)

    assert stated(process.coords) == NEXUS
    assert stated(results.coords) == {name: NEXUS[name] for name in ("y", "x")}
    with h5py.File(results.path) as file:
        half = file["counts-Unit_000/half"]
        assert [half.dims[n].keys()[0] for n in range(3)] == ["y", "x", "energy"]
        assert half.dims[2][0].attrs["units"] == "eV"
        assert file["counts-Unit_000"].attrs["axes"].tolist() == ["y", "x"]


def test_a_detector_has_the_coordinates_of_the_plot_that_links_to_it(tmp_path):
    nexus_map(tmp_path / "map.h5")
    with h5py.File(tmp_path / "map.h5", "r+") as file:
        file.attrs["default"], file["entry"].attrs["default"] = "entry", "map"
        file["entry/detector/data"] = file["entry/map/counts"]
    process = Mean(f"{tmp_path}/map.h5::/entry/detector/data", position_axes=(0, 1))

    assert stated(process.coords) == NEXUS


@pytest.mark.parametrize("bad", ["missing", "length", "texts", "axis", "link"])
def test_an_axis_of_nexus_that_cannot_be_taken_counts_from_0(tmp_path, bad):
    path = tmp_path / "map.h5"
    source = nexus_map(path, **({"x_indices": [1, 2]} if bad == "axis" else {}))
    with h5py.File(path, "r+") as file:
        group = file["entry/map"]
        if bad != "axis":
            del group["x"]
        if bad == "length":
            group["x"] = np.zeros(7)
        elif bad == "texts":
            group["x"] = ["a", "b", "c"]
        elif bad == "link":
            group["x"] = h5py.ExternalLink("none.h5", "/x")
    process = Mean(source, position_axes=(0, 1))

    assert list(process.coords) == ["y", "position_1", "energy"]
    assert process.coords["position_1"].values.tolist() == [0, 1, 2]
    assert list(compute(process).coords) == ["y", "position_1"]


def test_coordinates_of_usid_are_those_of_its_ancillaries(tmp_path):
    """Of positions, which lie on one axis, one for each dimension of the map."""
    process = Mean(usid_source(tmp_path / "usid.h5"))

    found = stated(process.coords)

    assert list(found) == ["X", "Y", "Bias"]
    assert found["X"][0][:5] == [0.0, 5.0, 10.0, 15.0, 0.0]
    assert found["Y"] == ([0.0] * 4 + [5.0] * 4 + [10.0] * 4, {"units": "nm"})
    assert found["Bias"] == ([n / 8 for n in range(8)], {"units": "V"})


def test_axes_of_netcdf_are_known_before_a_run(netcdf):
    """A dimension without a variable is an index; so is an axis without a scale."""
    coords = Mean(f"{netcdf}::/v", position_axes=(0, 1, 2, 3)).coords

    assert list(coords) == ["row", "x", "time", "depth", "spectrum"]
    assert coords["row"].values.tolist() == [0, 1, 2]
    assert coords["x"].units == "rad"
    assert coords["spectrum"].values.tolist() == list(range(6))
