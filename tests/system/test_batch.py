"""What a batch system has given, as its variables say it."""

import os
import platform
import resource
import subprocess
import sys

import pytest

from resumable.system import batch, launcher, machine

MB = 1 << 20
HERE = platform.node()


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
    """Have no variables of a batch system or a launcher to begin with."""
    for name in os.environ:
        if name.startswith(("SLURM_", "PBS_", "LSB_", "PMI_", "MPI_", "OMPI_")):
            monkeypatch.delenv(name)
    for name in ("NSLOTS", "NCPUS", "PE_HOSTFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Return a function that sets variables; HERE and FILE stand for what is here."""

    def give(variables):
        for word in variables.split():
            name, _, text = word.partition("=")
            text = text.replace("HERE", HERE).replace("+", " ")
            if text.startswith("FILE:"):
                path = tmp_path / name
                path.write_text(text[5:].replace("/", "\n").replace("_", " "))
                text = str(path)
            monkeypatch.setenv(name, text)

    return give


@pytest.mark.parametrize(
    ("variables", "cores", "why"),
    [
        ("", None, ""),
        ("SLURM_CPUS_ON_NODE=3", 3, "SLURM_CPUS_ON_NODE=3"),
        # Where cores have two threads, one CPU asked for is two.
        ("SLURM_CPUS_ON_NODE=2 SLURM_CPUS_PER_TASK=1", 1, "SLURM_CPUS_PER_TASK=1"),
        # A batch script of four tasks on this host is one process.
        (
            "SLURM_CPUS_ON_NODE=8 SLURM_CPUS_PER_TASK=2 SLURM_TASKS_PER_NODE=4(x2),1",
            8,
            "SLURM_CPUS_PER_TASK=2, 4 tasks",
        ),
        # And a task that srun has started is one of four.
        (
            "SLURM_CPUS_ON_NODE=8 SLURM_CPUS_PER_TASK=2 SLURM_TASKS_PER_NODE=4(x2),1 "
            "SLURM_STEP_NUM_TASKS=9 SLURM_STEP_TASKS_PER_NODE=4(x2),1 SLURM_NODEID=0",
            2,
            "SLURM_CPUS_PER_TASK=2",
        ),
        (
            "SLURM_CPUS_ON_NODE=8 SLURM_STEP_NUM_TASKS=9 SLURM_NODEID=1 "
            "SLURM_STEP_TASKS_PER_NODE=1,4(x2)",
            2,
            "SLURM_CPUS_ON_NODE=8, divided among 4 ranks",
        ),
        # mpiexec in a batch script.
        (
            "SLURM_CPUS_ON_NODE=8 SLURM_CPUS_PER_TASK=2 SLURM_TASKS_PER_NODE=4 "
            "PMI_RANK=1 PMI_SIZE=4 MPI_LOCALNRANKS=4",
            2,
            "SLURM_CPUS_PER_TASK=2",
        ),
        ("PBS_JOBID=1 NCPUS=4", 4, "NCPUS=4"),
        ("NCPUS=4", None, ""),
        ("PBS_NUM_PPN=6 PBS_NP=12", 6, "PBS_NUM_PPN=6"),
        (
            "PBS_JOBID=1 NCPUS=1 PBS_NODEFILE=FILE:HERE/HERE/other/other/HERE",
            3,
            "lines of PBS_NODEFILE=3",
        ),
        ("LSB_DJOB_NUMPROC=5 LSB_MAX_NUM_PROCESSORS=8", 5, "LSB_DJOB_NUMPROC=5"),
        ("LSB_MAX_NUM_PROCESSORS=8", 8, "LSB_MAX_NUM_PROCESSORS=8"),
        (
            "LSB_DJOB_NUMPROC=7 LSB_MCPU_HOSTS=other+4+HERE+3",
            3,
            f"LSB_MCPU_HOSTS=other 4 {HERE} 3",
        ),
        ("NSLOTS=2", 2, "NSLOTS=2"),
        (
            "NSLOTS=7 PE_HOSTFILE=FILE:other.example_4_q_UNDEFINED/HERE.example_3_q_x",
            3,
            "NSLOTS=7, 3 of them here",
        ),
        ("SLURM_CPUS_ON_NODE=many NSLOTS= OMP_NUM_THREADS=1", None, ""),
    ],
)
def test_cores_are_what_the_batch_system_gave(given, variables, cores, why):
    given(variables)

    assert (batch.cores() or (None, "")) == (cores, why)


@pytest.mark.parametrize(
    ("variables", "size", "why"),
    [
        ("", None, ""),
        ("SLURM_MEM_PER_NODE=0", None, ""),
        ("SLURM_MEM_PER_NODE=600", 600, "SLURM_MEM_PER_NODE=600"),
        (
            "SLURM_MEM_PER_CPU=300 SLURM_CPUS_ON_NODE=4",
            1200,
            "SLURM_MEM_PER_CPU=300, SLURM_CPUS_ON_NODE=4",
        ),
        (
            "SLURM_MEM_PER_GPU=500 SLURM_GPUS_ON_NODE=2 SLURM_CPUS_ON_NODE=4",
            1000,
            "SLURM_MEM_PER_GPU=500, SLURM_GPUS_ON_NODE=2",
        ),
    ],
)
def test_memory_is_what_slurm_gave_on_this_host(given, variables, size, why):
    given(variables)

    assert (batch.memory() or (None, "")) == (size and size * MB, why)


def test_what_this_machine_has_counts_where_a_job_was_given_more(given):
    given("SLURM_CPUS_PER_TASK=10000 SLURM_MEM_PER_NODE=1000000000")

    assert "SLURM" not in machine.core_limit().why + machine.host_memory().why
    assert machine.usable_cores() <= os.cpu_count()


def test_what_a_job_was_given_counts_where_it_is_less(given):
    given("SLURM_CPUS_PER_TASK=1 SLURM_MEM_PER_NODE=600")

    assert machine.core_limit() == (1, "SLURM_CPUS_PER_TASK=1")
    left, why = machine.host_memory()
    assert why == "SLURM_MEM_PER_NODE=600"
    # This process has its part already.
    assert 0 < left < 600 * MB - 20 * MB


def test_all_ranks_of_a_host_have_taken_their_part_of_the_memory(given):
    given("SLURM_MEM_PER_NODE=6000")
    alone = machine.host_memory().amount
    given("PMI_RANK=1 PMI_SIZE=9 MPI_LOCALNRANKS=3")

    three = machine.host_memory().amount

    assert alone - three > 1.5 * machine.resident_memory()


@pytest.mark.parametrize(
    ("variables", "ranks"),
    [
        ("", 1),
        ("SLURM_STEP_TASKS_PER_NODE=2(x3),1 SLURM_NODEID=2", 2),
        ("SLURM_STEP_TASKS_PER_NODE=2(x3),1 SLURM_NODEID=3", 1),
        ("SLURM_STEP_TASKS_PER_NODE=1(x2) SLURM_NODEID=0 MPI_LOCALNRANKS=5", 5),
        ("PMI_RANK=0 PMI_SIZE=4", 4),
        # Only MPI itself knows, and is not asked.
        ("PMIX_RANK=0", 1),
    ],
)
def test_ranks_on_this_host_are_told_by_the_launcher(given, variables, ranks):
    given(variables)

    assert launcher.ranks_on_host(ask_mpi=False) == ranks


@pytest.mark.parametrize(("kind", "option"), [("AS", "v"), ("DATA", "d")])
def test_ulimit_counts_for_this_process(kind, option):
    code = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_{kind}, (3 << 30, -1))\n"
        "from resumable.system import machine\n"
        "print(*machine.process_memory(), machine.available_memory(), sep='|')"
    )

    said = subprocess.check_output([sys.executable, "-c", code], text=True)

    left, why, available = said.strip().split("|")
    assert why == f"ulimit -{option} {3 << 20}"
    assert 0 < int(available) <= int(left) < 3 << 30


def test_without_ulimit_a_process_has_no_limit():
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    assert machine.process_memory() is None
