"""Programs of others open run files and published results, during a run and after it.

They are not installed with the other tests: scripts/viewers installs and runs them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from viewed import make_all, make_usid

pytestmark = pytest.mark.viewers

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    before = Path.cwd()
    try:
        yield make_all(tmp_path_factory.mktemp("runs"))
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def usid(tmp_path_factory):
    return make_usid(tmp_path_factory.mktemp("usid"))


@pytest.fixture(autouse=True)
def _quiet():
    """What those libraries warn of is not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def results_group(path):
    """Return the name of the group of results, of a run file or a user's file."""
    found = []

    def look(name, thing):
        if "identity_sha256" in thing.attrs:
            found.append(f"/{name}")

    with h5py.File(path, "r") as file:
        file.visititems(look)
    return found[0]


def test_silx_finds_valid_nxdata_and_the_default_plot(files):
    from silx.io import open as open_silx
    from silx.io.nxdata import NXdata, get_default

    for kind, path in files.items():
        # What it is to plot is there when the run is packed.
        with open_silx(str(path)) as file:
            plot = get_default(file, validate=False)
            assert plot is not None, kind
            assert plot.is_valid, (kind, plot.issues)
            group = file[results_group(path)]
            if "signal" in group.attrs:
                own = NXdata(group, validate=False)
                assert own.is_valid, (kind, own.issues)
                shapes = {signal.shape for signal in own.auxiliary_signals}
                assert shapes <= {own.signal.shape}, kind


def test_nexusformat_loads_everything_and_the_default_plot(files):
    from nexusformat.nexus import NXdata, NXgroup, nxload

    def read(group):
        for thing in group.values():
            read(thing) if isinstance(thing, NXgroup) else thing.nxvalue

    for kind, path in files.items():
        root = nxload(str(path))
        plot = root.get_default()
        assert isinstance(plot, NXdata), kind
        assert plot.nxsignal is not None, kind
        read(root)


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_reads_the_results_and_the_whole_file(files, engine):
    import xarray

    for kind, path in files.items():
        group = results_group(path)
        with xarray.open_dataset(path, engine=engine, group=group) as dataset:
            dataset.load()
            assert "completed_positions" in dataset, kind
            assert {"run", "failures", "source"}.isdisjoint(dataset.variables), kind
            if "mean" in dataset:
                assert dataset["mean"].shape == (5, 6), kind
        with xarray.open_datatree(path, engine=engine) as tree:
            tree.load()
    with xarray.open_dataset(
        files["Labels"], engine=engine, group=results_group(files["Labels"])
    ) as dataset:
        assert dataset["fit"].attrs["units"] == "V"
        assert dataset["fit"].sel(fit_labels="Größe").shape == (5, 6)


def test_h5netcdf_and_netcdf4_read_every_variable(files):
    import h5netcdf
    import netCDF4

    def read(group):
        for variable in group.variables.values():
            variable[...]
            dict(getattr(variable, "attrs", variable.__dict__))
        for inner in group.groups.values():
            read(inner)

    for path in files.values():
        with h5netcdf.File(path, "r", phony_dims="sort") as file:
            read(file)
        with netCDF4.Dataset(path) as file:
            read(file)


def test_hyperspys_reader_loads_run_files_and_files_of_users(files):
    from rsciio.nexus import file_reader

    for kind, path in files.items():
        signals = file_reader(str(path))
        assert signals, kind
        # HyperSpy makes signals of numbers, not of texts.
        assert all(one["data"].dtype.kind != "S" for one in signals), kind
        plot = file_reader(str(path), use_default=True)
        assert plot, kind
    (plot,) = file_reader(str(files["Labels"]), use_default=True)
    assert plot["data"].shape == (5, 6, 4)


def test_pyusid_and_sidpy_read_results_as_main_datasets(usid):
    from pyUSID.io.hdf_utils import get_all_main
    from sidpy.hdf.hdf_utils import get_attributes

    for path in usid:
        with h5py.File(path, "r") as file:
            file.visititems(lambda name, thing: get_attributes(thing) and None)
            main = {one.name.rpartition("/")[2]: one for one in get_all_main(file)}
            fit = main["fit"]
            assert fit.pos_dim_labels == ["X", "Y"]
            assert fit.get_n_dim_form().shape == (4, 3, 4)
            assert "V" in fit.data_descriptor


def test_h5dump_and_h5wasm_read_every_dataset(files):
    h5dump, node = shutil.which("h5dump"), shutil.which("node")
    folder = os.environ.get("RESUMABLE_H5WASM")
    for path in files.values():
        if h5dump:
            subprocess.run([h5dump, str(path)], check=True, stdout=subprocess.DEVNULL)
    if node and folder:
        script = Path(__file__).with_name("read_all.mjs")
        found = subprocess.run(
            [node, str(script), *map(str, files.values())],
            env={**os.environ, "RESUMABLE_H5WASM": folder},
            check=True,
            capture_output=True,
            text=True,
        )
        counts = json.loads(found.stdout)
        assert len(counts) == len(files)
        assert min(counts) > 10
    if not (h5dump and node and folder):
        pytest.skip("without h5dump (hdf5-tools) or h5wasm (npm)")


def test_the_recipes_of_the_documentation_run(files, tmp_path):
    """Each block of code with a name is a script, in a folder with a run."""
    page = (ROOT / "docs" / "viewers.rst").read_text()
    blocks = re.findall(
        r"code-block:: python\n   :caption: (\S+)\n\n((?:   .*\n|\n)+)", page
    )
    assert len(blocks) >= 6
    (tmp_path / "map.h5").write_bytes(files["published Two"].read_bytes())
    shutil.copy(files["Two"], tmp_path / "map-counts-Two-12345678.h5")
    for name, text in blocks:
        script = tmp_path / name
        script.write_text("\n".join(line[3:] for line in text.splitlines()))
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(script)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (name, done.stderr)
        assert "(5, 6" in done.stdout, (name, done.stdout)


def test_the_numbers_are_those_of_the_run(files):
    """Also where a run is not finished: xarray masks what is not done."""
    import xarray

    path = files["PartTwo"]
    with xarray.open_dataset(
        path, engine="netcdf4", group=results_group(path)
    ) as dataset:
        done = dataset["completed_positions"].values.reshape(5, 6) == 1
        mean = dataset["mean"].where(done)
        assert int(done.sum()) == 3
        assert np.isfinite(mean.values).sum() == 3
