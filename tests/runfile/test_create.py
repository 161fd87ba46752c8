"""Creating a run file: all that is in it for people, viewers and readers."""

import collections
import contextlib
import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import param
import pytest
from helpers import compute
from processes import process_of
from run_files import named_source
from sources import usid_source

import resumable as rs
from resumable.model.positions import WINDOW, PositionSet
from resumable.runfile import Header, create, table_rows
from resumable.system import disk

FIT = {
    "fit": rs.Output(shape=3, units="V", labels=("height", "centre", "width")),
    "error": rs.Output(dtype="f4", units="%"),
    "summary": rs.Output(shape=2, per="run"),
}


class Fit(rs.Process):
    """Fit every spectrum.

    Not really.
    """

    version = 1
    outputs = FIT

    def unit_computation(self, spectrum):
        values = np.ravel(spectrum)
        return {"fit": values[:3], "error": values[0]}

    def finish(self, results):
        return {"summary": [1.0, 2.0]}


@pytest.fixture
def mapped(tmp_path):
    """A map of 4 x 5 spectra with dimension scales, units on one of them."""
    path = tmp_path / "map.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "raw", data=np.random.default_rng(2).random((4, 5, 6))
        )
        file["y"] = np.linspace(0, 1, 4)
        file["x"] = np.linspace(10, 20, 5).astype("f4")
        file["y"].make_scale("y")
        file["x"].make_scale("x")
        file["x"].attrs["units"] = "µm"
        data.dims[0].attach_scale(file["y"])
        data.dims[1].attach_scale(file["x"])
    return f"{path}::/raw"


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def test_the_results_group_is_nxdata(mapped):
    with h5py.File(compute(Fit(mapped, position_axes=(0, 1))).path) as file:
        group = file["raw-Fit_000"]
        attributes = dict(group.attrs)

    assert text(attributes["NX_class"]) == "NXdata"
    assert text(attributes["signal"]) == "fit"
    assert [text(a) for a in attributes["axes"]] == ["y", "x", "."]
    # The other output has another shape, which viewers refuse beside the signal.
    assert "auxiliary_signals" not in attributes


def test_scales_of_the_source_are_copied_with_their_units(mapped):
    with h5py.File(compute(Fit(mapped, position_axes=(0, 1))).path) as file:
        group = file["raw-Fit_000"]
        for name in ("fit", "error"):
            dims = group[name].dims
            assert [dims[i].keys() for i in (0, 1)] == [["y"], ["x"]]
            np.testing.assert_array_equal(dims[0][0], np.linspace(0, 1, 4))
            np.testing.assert_array_equal(
                dims[1][0], np.linspace(10, 20, 5, dtype="f4")
            )
        units = text(group["x"].attrs["units"])

        assert group["x"].is_scale
        assert units == "µm"
        assert "units" not in group["y"].attrs


def test_scales_follow_the_order_of_position_axes(mapped):
    with h5py.File(compute(Fit(mapped, position_axes=(1, 0))).path) as file:
        dims = file["raw-Fit_000/fit"].dims
        lengths = [len(dims[0][0]), len(dims[1][0])]
        names = [dims[0].keys(), dims[1].keys()]

    assert names == [["x"], ["y"]]
    assert lengths == [5, 4]


def test_axes_without_scales_get_an_index(scan, make_file):
    cube = make_file("cube.h5", data=np.random.default_rng(0).random((3, 4, 5)))
    flat = compute(Fit(scan))
    square = compute(Fit(f"{cube}::/data", position_axes=(0, 1)))
    with h5py.File(flat.path) as file:
        (axes,) = (file["data-Fit_000/fit"].dims[0],)
        assert axes.keys() == ["position"]
        np.testing.assert_array_equal(axes[0], np.arange(60))
    with h5py.File(square.path) as file:
        dims = file["data-Fit_000/fit"].dims
        found = [dims[i][0][...].tolist() for i in (0, 1)]

        assert [text(a) for a in file["data-Fit_000"].attrs["axes"]][2] == "."
    assert found == [[0, 1, 2], [0, 1, 2, 3]]


def test_labels_and_units_are_stored_for_people(scan):
    with h5py.File(compute(Fit(scan)).path) as file:
        group = file["data-Fit_000"]
        labels = [text(t) for t in group["fit_labels"]]
        units = {name: text(group[name].attrs["units"]) for name in ("fit", "error")}
        bare = dict(group["summary"].attrs)

    assert labels == ["height", "centre", "width"]
    assert units == {"fit": "V", "error": "%"}
    assert bare == {}


def test_provenance_is_written_as_attributes(scan):
    """Versions, host, class, start time and source can be read in any viewer."""
    results = compute(Fit(scan))
    with h5py.File(results.path) as file:
        found = {
            k: text(v) for k, v in file["data-Fit_000"].attrs.items() if k != "axes"
        }

    assert found["resumable_version"] == rs.__version__
    assert found["h5py_version"] == h5py.__version__
    assert found["numpy_version"] == np.__version__
    assert found["python_version"] == sys.version.split()[0]
    assert found["host"]
    assert found["process"] == f"{__name__}.Fit"
    assert found["description"] == "Fit every spectrum."
    assert found["start_time"][:2] == "20"
    assert found["source_file"] == scan.partition("::")[0]
    assert found["source_dataset"] == "/data"
    assert found["identity_sha256"] == results.identity


def test_identity_and_source_text_are_datasets(scan):
    results = compute(Fit(scan))
    with h5py.File(results.path) as file:
        document = json.loads(file["run/identity"][()])
        source = file["run/source_text"][()].decode()

    assert document == results.document
    assert document["process"] == "Fit"
    assert source.startswith("class Fit(rs.Process):")
    assert "values[:3]" in source


def test_the_results_group_names_the_source(scan):
    """As text: netCDF follows links, and reads no file with one that leads nowhere."""
    path = compute(Fit(scan)).path
    with h5py.File(path) as file:
        group = file["data-Fit_000"]
        kinds = {group.get(name, getlink=True).__class__ for name in group}
        assert group.attrs["source"] == "scan.h5::/data"

    assert kinds == {h5py.HardLink}
    assert named_source(path, "data-Fit_000").shape == (60, 32)


def test_the_named_source_is_there_from_another_folder_and_after_moving(scan, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    beside = compute(Fit(scan)).path.rename(other / "beside.h5")
    for path in (compute(Fit(scan, other)).path, beside):
        if path is beside:
            shutil.move(scan.partition("::")[0], other)
        assert named_source(path, "data-Fit_000").shape == (60, 32)


COMPOUND = np.dtype([("Amplitude [V]", "<f4"), ("n", ">i2"), ("name", "S4")])
ALIGNED = np.dtype(
    [("flag", "?"), ("value", "<f8"), ("vector", "<i4", (2,))], align=True
)
NESTED = np.dtype([("c", "<c8"), ("in", [("a", "u1"), ("b", ">f4")])])

DTYPES = {
    "bool": ("?", (2,)),
    "complex": ("c16", (3,)),
    "small complex": (">c8", ()),
    "half": ("f2", (2,)),
    "big-endian float": (">f8", (2,)),
    "big-endian integer": (">i4", ()),
    "bytes": ("S5", (2,)),
    "compound": (COMPOUND, ()),
    "aligned compound": (ALIGNED, ()),
    "compounds": (NESTED, (2,)),
    "unsigned": ("u8", (2, 2)),
}


def values_of(dtype, shape, index):
    made = np.zeros(shape, dtype)
    if made.dtype.names is not None:
        for name in made.dtype.names:
            field = made.dtype[name]
            made[name] = values_of(field.base, (*shape, *field.shape), index)
    elif made.dtype.kind == "S":
        made[...] = f"é{index}".encode()[: made.dtype.itemsize]
    elif made.dtype.kind == "b":
        made[...] = index % 2
    elif made.dtype.kind == "c":
        made[...] = index - 0.5j
    else:
        made[...] = index + 1
    return made


@pytest.mark.parametrize("kind", DTYPES)
def test_any_fixed_size_dtype_is_stored_and_read_back_equal(kind, tmp_path):
    dtype, shape = DTYPES[kind]
    dtype = np.dtype(dtype)
    expected = np.stack([values_of(dtype, shape, i) for i in range(7)])
    Typed = process_of(
        lambda self, index: values_of(dtype, shape, index)[()],
        {"x": rs.Output(shape, dtype)},
        name="Typed",
    )
    results = compute(Typed(7, tmp_path))
    with h5py.File(results.path) as file:
        stored = file["positions-Typed_000/x"][...]

    assert results["x"].dtype == dtype
    np.testing.assert_array_equal(stored, expected)
    np.testing.assert_array_equal(results["x"][...], expected)
    if dtype.names is None:
        assert stored.dtype == dtype


@pytest.mark.parametrize(
    "value",
    [
        (1.5, [1, 2]),
        (1.5, (1, 2)),
        (1.5, np.array([1, 2])),
        np.array((1.5, [1, 2]), "f8,(2,)i4")[()],
    ],
    ids=["list", "tuple", "array", "void"],
)
def test_a_compound_value_may_be_a_tuple_of_its_fields(tmp_path, value):
    """A row is written as numpy writes one: a tuple, with what is nested in it."""
    dtype = np.dtype("f8,(2,)i4")
    Row = process_of(lambda self, index: value, {"x": rs.Output(dtype=dtype)})
    results = compute(Row(3, tmp_path))

    np.testing.assert_array_equal(results["x"][...]["f0"], [1.5] * 3)
    np.testing.assert_array_equal(results["x"][...]["f1"], [[1, 2]] * 3)


def test_fields_in_another_order_are_not_mixed_up(tmp_path):
    """A row with fields b, a never lands in a, b by its place: by name or refused."""
    swapped = np.array((7.0, 1.0), [("b", "f8"), ("a", "f8")])
    Swapped = process_of(
        lambda self, index: swapped[()],
        {"x": rs.Output(dtype=[("a", "f8"), ("b", "f8")])},
    )
    with contextlib.suppress(rs.OutputError):
        results = compute(Swapped(3, tmp_path), on_error="raise")

        assert results["x"]["b"].tolist() == [7.0] * 3
        assert results["x"]["a"].tolist() == [1.0] * 3


def check_if_main(main):
    """The conditions of pyUSID's function of that name, one assertion each."""
    assert isinstance(main, h5py.Dataset)
    assert main.ndim == 2
    for name in ("quantity", "units"):
        assert isinstance(main.attrs[name], (str, bytes))
    ancillary = {}
    for kind in ("Position", "Spectroscopic"):
        for part in ("Indices", "Values"):
            reference = main.attrs[f"{kind}_{part}"]
            assert isinstance(reference, h5py.Reference)
            ancillary[kind, part] = main.file[reference]
        indices, values = ancillary[kind, "Indices"], ancillary[kind, "Values"]
        assert indices.shape == values.shape
        dimensions = indices.shape[1 if kind == "Position" else 0]
        for attribute in ("labels", "units"):
            texts = [text(t) for t in indices.attrs[attribute]]
            assert texts == [text(t) for t in values.attrs[attribute]]
            assert len(texts) == dimensions
    assert ancillary["Position", "Indices"].shape[0] == main.shape[0]
    assert ancillary["Spectroscopic", "Indices"].shape[1] == main.shape[1]
    assert ancillary["Position", "Indices"].dtype == np.uint32
    assert ancillary["Position", "Values"].dtype == np.float32
    return ancillary


def test_two_dimensional_outputs_of_a_usid_source_are_usid_main(tmp_path):
    results = compute(Fit(usid_source(tmp_path / "usid.h5")))
    with h5py.File(results.path) as file:
        main = file["Raw_Data-Fit_000/fit"]
        ancillary = check_if_main(main)
        positions = ancillary["Position", "Values"]

        assert text(main.attrs["units"]) == "V"
        assert main.shape == (12, 3)
        assert positions[5].tolist() == [5.0, 5.0]
        assert [text(t) for t in positions.attrs["labels"]] == ["X", "Y"]
        assert positions.file.filename == file.filename


def test_other_sources_get_no_usid_attributes(scan):
    with h5py.File(compute(Fit(scan)).path) as file:
        assert "quantity" not in file["data-Fit_000/fit"].attrs
        assert "Position_Indices" not in file["data-Fit_000"]


@pytest.mark.parametrize("axes", ["one axis", "two axes", "scales"])
@pytest.mark.parametrize(
    "names",
    [("position",), ("position_0", "position_1"), ("fit", "fit_labels"), ("x", "y")],
    ids="-".join,
)
def test_output_names_do_not_collide_with_what_the_file_adds(
    mapped, make_file, names, axes
):
    """A name the user chose is stored under that name, or refused in our words."""

    class Named(rs.Process):
        version = 1

        def outputs(self):
            labels = ("a", "b")
            return {name: rs.Output(2, labels=labels) for name in names}

        def unit_computation(self, spectrum):
            return dict.fromkeys(names, spectrum[..., :2].reshape(-1)[:2])

    data = np.random.default_rng(2).random((4, 5, 6))
    plain = make_file("plain.h5", raw=data) + "::/raw"
    try:
        results = compute(
            Named(
                mapped if axes == "scales" else plain,
                position_axes=0 if axes == "one axis" else (0, 1),
            )
        )
    except rs.DeclarationError:
        return
    expected = data[:, 0, :2] if axes == "one axis" else data[..., :2]

    for name in names:
        np.testing.assert_array_equal(results[name], expected)
        with h5py.File(results.path) as file:
            np.testing.assert_array_equal(file[f"raw-Named_000/{name}"], expected)


def test_results_can_be_opened_by_another_hdf5_program(scan):
    path = compute(Fit(scan)).path
    code = (
        "import h5py, sys\n"
        "names = []\n"
        "with h5py.File(sys.argv[1]) as file:\n"
        "    file.visititems(lambda n, o: names.append(n) if o.name else None)\n"
        "print(len(names))"
    )
    listed = subprocess.check_output([sys.executable, "-c", code, str(path)])

    assert int(listed) >= 10


def test_texts_beyond_an_attributes_limit_are_stored_whole(tmp_path):
    words = ["word" * 10] * 5000
    Wordy = process_of(lambda self, index: index, name="Wordy", words=param.List([]))
    results = compute(Wordy(5, tmp_path, words=words))
    with h5py.File(results.path) as file:
        document = json.loads(file["run/identity"][()])

    assert document["parameters"]["words"] == words
    assert rs.open(results.path).status.finished


def test_a_single_value_per_run_has_a_place_of_its_own(scan):
    """It is written where HDF5 has room for it, not over the file's signature."""

    class Total(rs.Process):
        version = 1

        def outputs(self):
            return {
                "mean": rs.Output(),
                "total": rs.Output(per="run"),
                "count": rs.Output(dtype="i4", per="run"),
            }

        def unit_computation(self, spectrum):
            return spectrum.mean()

        def finish(self, results):
            return {"total": results["mean"][...].sum(), "count": 60}

    results = Total(scan).compute(engine="serial")
    with h5py.File(results.path, "r") as file:
        group = file[next(name for name in file)]
        stored = group["total"][()], group["count"][()]

    assert stored == (results["mean"][...].sum(), 60)
    assert (results["total"][()], results["count"][()]) == stored


def test_no_positions_reserve_no_space(scan):
    Wide = process_of(
        lambda self, spectrum: np.zeros(100_000), {"wide": rs.Output(100_000)}
    )
    results = Wide(scan).compute(engine="serial", positions=[])
    stat = results.path.stat()

    assert results.status.pending == 60
    assert stat.st_size > 60 * 800_000
    assert stat.st_blocks * 512 < 800_000


@pytest.mark.parametrize("share", [0.0, 1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("step", [1000, 43_690, WINDOW])
def test_space_is_reserved_for_the_steps_in_which_positions_are_and_no_others(
    share, step, monkeypatch
):
    """Also where a step reaches over the end of a window of the bitmap."""
    size = 3 * WINDOW + 77
    positions = np.flatnonzero(np.random.default_rng(1).random(size) < share)
    row_bytes = create._RESERVE_STEP // step
    header = Header(
        identity="",
        document={},
        group="",
        map_shape=(size,),
        outputs={"rows": rs.Output(row_bytes, "u1")},
        offsets=collections.defaultdict(
            int, rows=1 << 40, completed_positions=1 << 42, failed_positions=1 << 44
        ),
        rows=table_rows(size, 2),
        file_bytes=0,
        structure="",
        user_block=0,
        source={},
    )
    reserved = []
    monkeypatch.setattr(disk, "reserve", lambda fd, *extent: reserved.append(extent))
    create.reserve_rows(0, header, PositionSet.of(size, positions))

    def covered(name, whole):
        place = header.offsets[name]
        inside = [(b - place, n) for b, n in reserved if place <= b < 2 * place]
        return [
            number
            for begin, length in inside
            for number in range(begin // whole, -(-(begin + length) // whole))
        ]

    assert covered("rows", step * row_bytes) == np.unique(positions // step).tolist()
    for name in ("completed_positions", "failed_positions"):
        assert covered(name, WINDOW) == np.unique(positions // WINDOW).tolist()
