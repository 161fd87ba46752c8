"""Coordinates in results are what the numbers of a source's scales stand for."""

import h5py
import numpy as np
import pytest
from helpers import compute
from processes import Mean, process_of

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
