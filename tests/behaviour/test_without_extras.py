"""Optional packages that are missing: the message names the extra of ours to install.

A program in which they cannot be imported does all at once.
``.ci/run`` runs this file also where only the package and pytest
are installed.
"""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
from helpers import DATA, ROOT, SUPPORT
from verified_runs import Unit

#: Makes the optional packages missing, and says what each use of them raises.
PROGRAM = """
import json, sys, types
extras = "distributed hdf5plugin ipywidgets matplotlib mpi4py rich scipy".split()
sys.modules.update(dict.fromkeys(extras))  # None there: cannot be imported
import click.testing
import resumable as rs
from resumable.cli.commands import main
from verified_runs import Unit

def why(function):
    try:
        return f"no error, but {function()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def in_notebook():
    # What ipykernel sets up, as far as it tells a notebook from a terminal.
    sys.modules["IPython"] = types.ModuleType("IPython")
    sys.modules["IPython"].get_ipython = lambda: types.SimpleNamespace(kernel=1)
    try:
        return str(Unit("scan.h5::/data", gain=3.0).compute().status)
    finally:
        del sys.modules["IPython"]

command = click.testing.CliRunner().invoke
process = Unit("scan.h5::/data")
print(json.dumps({
    "dask": why(lambda: process.compute(engine="dask")),
    "mpi": why(lambda: process.compute(engine="mpi")),
    "filters": why(lambda: rs.Output(compression="zstd")),
    "filters of a source": why(lambda: Unit("zstd.rtdc::/events/image")),
    "plot": why(lambda: process.test(0).figure),
    "demo": command(main, ["demo"]).output,
    "rich": command(main, ["tree", "scan.h5"]).output,
    "notebook": why(in_notebook),
    "serial": str(process.compute(engine="serial").status),
}))
"""


def run_without_extras(folder, program, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT}:{SUPPORT}", **environment},
        capture_output=True,
        text=True,
    )


def test_what_is_missing_is_named_with_the_extra(make_file, tmp_path):
    make_file(data=np.ones((6, 4)))
    shutil.copy(DATA / "cytoshot-test-data.rtdc", tmp_path / "zstd.rtdc")

    done = run_without_extras(tmp_path, PROGRAM)

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for name in ("dask", "mpi", "filters", "filters of a source", "plot", "demo"):
        extra = name.partition(" ")[0]
        assert f"resumable-hdf5[{extra}]" in said[name], said[name]
        assert "no error" not in said[name]
    # What is only nicer with a package works without it.
    assert said["serial"] == "6 of 6 positions done"
    assert said["rich"].splitlines()[1].startswith("/data    6 x 4")
    assert said["notebook"] == "no error, but 6 of 6 positions done"
    assert "resumable-hdf5[notebook]" in done.stderr
    assert "6.00/6.00" in done.stderr


VERIFY = """
import sys
sys.modules["hdf5plugin"] = None
from resumable.cli.commands import main
main(["verify", *sys.argv[1:]])
"""
CHECKS = ("structure", "status", "source", "computation", "rows")


@pytest.mark.skipif(not find_spec("hdf5plugin"), reason="it writes the files")
@pytest.mark.filterwarnings("ignore:.*positions failed")
@pytest.mark.parametrize(
    ("zstd", "bad", "unchecked"),
    [
        ("source", [], {"source", "rows"}),
        ("rows", [], {"rows"}),
        ("rows", [3], {"status", "rows"}),
    ],
)
def test_what_cannot_be_unpacked_here_is_not_called_unsound(
    tmp_path, zstd, bad, unchecked
):
    import hdf5plugin

    with h5py.File(tmp_path / "scan.h5", "w") as file:
        how = hdf5plugin.Zstd() if zstd == "source" else {}
        file.create_dataset("data", data=np.arange(240.0).reshape(60, 4), **how)
    results = Unit(f"{tmp_path}/scan.h5::/data", bad=bad).compute(engine="serial")
    if zstd == "rows":
        results.pack("zstd")
    arguments = results.path.name, "--class=verified_runs:Unit", "--sample=all"

    with_it = run_without_extras(
        tmp_path, VERIFY.replace('"hdf5plugin"', '"nothing"'), *arguments
    )
    without = run_without_extras(tmp_path, VERIFY, *arguments)

    first, *lines = with_it.stdout.splitlines()
    assert first == f"{results.path.name}: sound"
    assert [line.split()[:2] for line in lines] == [[name, "ok"] for name in CHECKS]
    assert with_it.returncode == 0
    first, *lines = without.stdout.splitlines()
    assert first == f"{results.path.name}: cannot be checked here"
    found = {line.split()[0]: line for line in lines}
    assert {name for name in found if "not checked" in found[name]} == unchecked
    assert "pip install hdf5plugin (or resumable-hdf5[filters])" in without.stdout
    assert "'gzip'" not in without.stdout
    assert without.returncode == 69


@pytest.mark.skipif(not find_spec("mpi4py"), reason="tells what mpi4py needs")
def test_mpi4py_without_a_library_of_mpi_says_where_to_get_one(scan, tmp_path):
    """It was told to install the extra, which is installed."""
    program = (
        "import sys\nfrom verified_runs import Unit\n"
        "Unit(sys.argv[1]).compute(engine=sys.argv[2])"
    )
    nowhere = {"MPI4PY_LIBMPI": "/nowhere/libmpi.so"}

    done = run_without_extras(tmp_path, program, scan, "mpi", **nowhere)
    # A launcher that does not say how many ranks there are: MPI itself is asked.
    alone = run_without_extras(
        tmp_path, program, scan, "auto", PMIX_RANK="0", **nowhere
    )

    assert "finds no MPI library" in done.stderr
    assert "Load the MPI module of the cluster" in done.stderr
    assert "pip install mpich" in done.stderr
    assert "resumable-hdf5[mpi]" not in done.stderr
    assert (alone.returncode, alone.stderr) == (0, "")
