"""What several tests of behaviour need."""

import fcntl
import functools
import os

import h5py
import mpiexec
import numpy as np
import pytest
from deadly import POSITIONS, Leaks
from helpers import compute, data_of
from live_sources import WRITER
from run_files import Mean


class Writer:
    """A program that writes, started and not yet writing."""

    def __init__(
        self, start, path, kind, *, count=40, pause=0.02, most=0, rest=-1, version=""
    ):
        version = version or ("latest" if kind == "swmr" else "")
        self.path = path
        self.source = f"{path}::/data"
        arguments = map(str, (kind, path, count, pause, most, rest, version))
        self.program = start(WRITER, *arguments, name="writer.py")
        assert self.program.stdout.readline() == "there\n"

    def tell(self, text="go on"):
        self.program.stdin.write(f"{text}\n")
        self.program.stdin.flush()

    def kill(self):
        self.program.kill()
        self.program.wait()

    def ended_well(self):
        """Let the program end; return whether it ended without an error."""
        self.tell()
        return self.program.wait(20) == 0


@pytest.fixture
def writer(script, tmp_path):
    """Return a function that starts a writer of some kind."""
    return functools.partial(Writer, script, tmp_path / "live.h5")


@pytest.fixture
def one_job(tmp_path_factory):
    """Hold a lock: waiting ranks spin, and two jobs at once would starve each other."""
    with (tmp_path_factory.getbasetemp().parent / "mpi.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(
    params=["mpich", pytest.param("openmpi", marks=pytest.mark.openmpi)],
)
def mpi(request, tmp_path, one_job):
    """Return an MPI that runs scripts in the test's folder."""
    found = getattr(mpiexec, request.param)(tmp_path)
    yield found
    found.stop_all()


@pytest.fixture
def mpich(tmp_path, one_job):
    found = mpiexec.mpich(tmp_path)
    yield found
    found.stop_all()


@pytest.fixture
def data(scan):
    return data_of(scan)


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(3).normal(size=(POSITIONS, 16))


@pytest.fixture
def source(tmp_path, rows):
    """Return a source of 200 spectra."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = rows
    return f"{tmp_path}/scan.h5::/data"


@pytest.fixture
def log(log):
    """Forget what leaked here after the test."""
    yield log
    Leaks.kept.pop(os.getpid(), None)


@pytest.fixture
def run_path(scan):
    return compute(Mean(scan)).path
