"""What several tests need: small files, scripts run as a user runs them."""

import contextlib
import gc
import os
import subprocess
import textwrap

import h5py
import hypothesis
import numpy as np
import pytest
from helpers import ROOT, SUPPORT
from program_server import ProgramServer

from resumable.worker import server

# The same examples each time: what a random one finds belongs into a test of its own.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")

# Hundreds of processes import the package: compiling it each time would be a fifth of
# all the time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Workers import the module of their class, and with it what a test module imports: they
# are forked with that, as they are with scipy.
known = server._loaded_subpackages
imported = ["pytest", "hypothesis", "engine_processes", "deadly", "processes"]
server._loaded_subpackages = lambda: [*known(), *imported]


# The modules that take longest: last, one of them would run alone at the end. Of those
# under mpiexec one runs at a time, so they are apart.
FIRST = ("mpi_failures", "edits", "dask", "choice", "power_cut", "futures", "mpi")
FIRST += ("kill", "shared_memory", "docs", "memory_errors", "replacing", "server")
FIRST += ("live", "pool", "kill_chain", "server_ends", "ragged", "mpi_launch")
FIRST += ("objects", "commands", "notebooks", "together", "pack_damage", "chain")


def pytest_collection_modifyitems(items):
    """Begin with the long modules, whose order is kept by --no-loadscope-reorder."""
    place = {f"test_{name}": number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))


def pytest_collection_finish():
    """Keep the collected tests, which stay to the end, out of garbage collections."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """Keep the environment of whoever runs the tests out of them."""
    monkeypatch.delenv("RESUMABLE_TARGET", raising=False)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Time trials for 2 ms instead of 100: times are the matter of test_trial."""
    monkeypatch.setattr("resumable.session.trial._MEASURED_S", 0.002)


@pytest.fixture
def impatient(monkeypatch):
    """Wait only shortly for others who have a file open that is published into."""
    monkeypatch.setattr("resumable.runfile.journal.PATIENCE_S", 0.05)


@pytest.fixture
def log(tmp_path):
    """Return the name of a file for notes."""
    return str(tmp_path / "log")


@pytest.fixture
def make_file(tmp_path):
    """Return a function that writes datasets into a file and returns its path."""

    def make(name="scan.h5", **datasets):
        path = tmp_path / name
        with h5py.File(path, "a") as file:
            for key, value in datasets.items():
                if isinstance(value, dict):
                    file.create_dataset(key, **value)
                else:
                    file[key] = value
        return str(path)

    return make


@pytest.fixture
def scan(make_file):
    """Return the source ``scan.h5::/data``, 60 positions of 32 floats."""
    data = np.random.default_rng(1).normal(size=(60, 32))
    return make_file(data=data) + "::/data"


@pytest.fixture(scope="session")
def program_server():
    """Return what starts programs that have imported the package already."""
    with ProgramServer.of_package() as made:
        yield made


@pytest.fixture
def start(program_server, tmp_path):
    """Return a function that starts a program, with ``tmp_path`` as its folder."""
    with contextlib.ExitStack() as stack:

        def start(*command, **paths):
            program = program_server.start(*command, folder=tmp_path, environment=paths)
            stack.callback(program.close)
            return program

        yield start


@pytest.fixture
def script(start, tmp_path):
    """Return a function that starts a script, which can import tests/support."""

    def start_script(text, *arguments, name="script.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return start(path, *arguments, PYTHONPATH=f"{ROOT}:{SUPPORT}")

    return start_script


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB, where one can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3M", "none", str(folder)],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
