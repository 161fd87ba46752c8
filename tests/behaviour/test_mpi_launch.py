"""Which launcher has started the ranks, and what one process does without any."""

import json
import os

import h5py
import pytest
from engine_processes import Logged
from helpers import SUPPORT
from mpi_jobs import HEAD, told, with_head

import resumable as rs
from resumable.system import launcher as world

# A hung job is ended by its own helper, well before.
pytestmark = pytest.mark.timeout(90, method="signal")


def test_tasks_of_mpi4py_futures_do_not_hang(mpi, scan, tmp_path):
    """Rank 0 runs the script alone: it computes alone, and engine="mpi" is refused."""
    script = mpi.write(
        with_head("""
        if __name__ == "__main__":
            process = Logged("scan.h5::/data", log="log")
            results = process.compute(workers=1)
            tell(engine=results.sessions[-1].engine)
            try:
                process.compute(engine="mpi")
            except rs.PlanError as error:
                tell(text=str(error))
        """)
    )
    job = mpi.end(mpi.start(3, "-m", "mpi4py.futures", script))
    texts = {key: value for one in told(tmp_path) for key, value in one.items()}

    assert job.code == 0, job.err
    assert texts["engine"] == "auto"
    assert "leave '-m mpi4py.futures' out" in texts["text"]


def test_the_command_prints_once(mpi, scan, tmp_path):
    """Results, errors and code 75 under mpiexec are those without it."""
    cls = f"{SUPPORT}/engine_processes.py:Logged"
    command = ["-m", "resumable", "run", cls, "scan.h5::/data", "--log", "log"]
    command += ["--delay-s", "0.01"]
    stopped = mpi.end(mpi.start(2, *command, "--time-limit", "0.1"))
    done = mpi.end(mpi.start(2, *command))
    wrong = mpi.end(mpi.start(2, *command, "--positions", "99", "--override"))

    assert stopped.code == 75
    assert (done.code, done.err) == (0, "")
    assert done.out.count("60 of 60 positions done") == 1
    assert wrong.code == 1
    assert wrong.err.count("position 99 does not exist") == 1


SINGLE = with_head(
    """
results = Logged("scan.h5::/data", log="log").compute(**OPTIONS)
print(results.sessions[-1].engine, "mpi4py" in sys.modules)
"""
)


@pytest.fixture
def alone(script, monkeypatch):
    """Return a function that runs one process, and returns its output and errors."""

    def run(environment, options):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        program = script(SINGLE, json.dumps(options))
        return *program.communicate(timeout=30), program.returncode

    return run


def test_processes_that_another_mpi_started_are_refused(scan, tmp_path, alone):
    """Two processes of two think that they are alone: refused before any work."""
    # As Open MPI's mpiexec would have it; the MPI here is MPICH.
    started = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
    _, errors, code = alone(started, {})

    assert code == 1
    assert "mpiexec started 2 processes" in errors
    assert "own mpiexec" in errors
    assert not list(tmp_path.glob("scan-*.h5"))


def test_an_mpi_that_cannot_be_loaded_is_told_once(scan, alone):
    ours = {"PMI_SIZE": "2", "PMI_RANK": "0", "MPI4PY_LIBMPI": "/nowhere/libmpi.so"}
    _, errors, code = alone(ours, {})

    assert code == 1
    assert errors.count("PlanError: MPI needs mpi4py, which cannot be imported") == 1
    assert "sys.excepthook" not in errors


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_NTASKS": "8", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"},
        {"PMI_SIZE": "1", "PMI_RANK": "0"},
        {},
    ],
)
def test_one_process_needs_no_mpi(scan, alone, environment):
    """Plain Python in a batch script, or a job of one rank."""
    output, errors, _ = alone(environment, {"workers": 1})

    assert (output.split(), errors) == (["auto", "False"], "")


def test_mpi_by_name_works_with_one_process(scan, alone):
    output, errors, _ = alone({}, {"engine": "mpi"})

    assert (output.split(), errors) == (["mpi", "True"], "")


def test_an_import_under_mpiexec_starts_no_mpi(mpi):
    job = mpi.run(
        2,
        """
        import sys
        before = sys.excepthook
        import resumable as rs
        rs.MPIEngine
        assert sys.excepthook is before

        class Level(rs.Process):
            outputs = {"level": rs.Output()}

        assert sys.excepthook is not before
        assert "mpi4py" not in sys.modules
        """,
    )

    assert (job.code, job.err) == (0, "")


def test_a_file_opened_with_mpio_is_refused(monkeypatch, scan):
    """It would be read by every rank at once, and collectively."""
    path, _, name = scan.partition("::")
    with h5py.File(path, "r") as file:
        # No wheel of h5py can open one.
        monkeypatch.setattr(h5py.File, "driver", "mpio")
        with pytest.raises(rs.SourceError, match="driver 'mpio': close it and give"):
            Logged(file[name], log="log")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (1, 0, 1)),
        ({"PMI_SIZE": "4", "PMI_RANK": "3", "MPI_LOCALNRANKS": "2"}, (4, 3, 2)),
        ({"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "5"}, (8, 5, 8)),
        ({"PMIX_RANK": "2", "SLURM_STEP_NUM_TASKS": "16"}, (16, 2, 16)),
        ({"SLURM_NTASKS": "16", "SLURM_PROCID": "0"}, (1, 0, 1)),
    ],
)
def test_the_launcher_says_how_many_ranks_there_are(monkeypatch, environment, expected):
    for name in list(os.environ):
        if name.startswith(("PMI", "OMPI", "SLURM", "MPI")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert (world.ranks(), world.rank(), world.ranks_on_host()) == expected


def test_a_class_asks_no_mpi_for_the_number_of_ranks(script, monkeypatch):
    monkeypatch.setenv("PALS_RANKID", "0")
    text = HEAD + "print('mpi4py.MPI' in sys.modules, world.ranks(ask_mpi=False))\n"
    out, _ = script(text).communicate(timeout=30)

    assert out.split() == ["False", "1"]
