"""Jobs of a real Slurm: what they are given, and how they are stopped and go on."""

import shlex
import sys

import pytest
from engine_processes import noted
from helpers import ROOT, SUPPORT, until
from mpi_jobs import POSITIONS, of_log, only_run, told, with_head
from slurm import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(200)]

COMPUTE = with_head("""
    Logged("scan.h5::/data", log=os.path.abspath("log"), delay_s=0.2).compute()
    """)
RANKS = ("--ntasks=2", "--mem-per-cpu=300M")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    started = Slurm(tmp_path_factory.mktemp("slurm"))
    yield started
    started.end()


def script_of(folder, text, launcher=""):
    """Return a batch script that runs a Python script, and requeues it after 75."""
    (folder / "script.py").write_text(text)
    python = shlex.join([sys.executable, "script.py"])
    return f"""
    export PYTHONPATH={ROOT}:{SUPPORT} PYTHONUNBUFFERED=1
    {launcher} {python}
    code=$?
    echo "code $code"
    [ $code -eq 75 ] && scontrol requeue $SLURM_JOB_ID
    exit $code
    """


def test_a_job_keeps_to_what_it_was_given(slurm, scan, tmp_path):
    text = with_head("""
        plan = Logged("scan.h5::/data", log="log").plan()
        print(plan.workers, plan.memory_bytes < 300 << 20, *plan.limits, sep="|")
        """)
    options = ("--ntasks=1", "--cpus-per-task=1", "--mem=600M")
    job = slurm.submit(tmp_path, script_of(tmp_path, text), *options)
    slurm.wait(job)

    workers, fits, cores, memory = (
        (tmp_path / "out").read_text().split("\n")[0].split("|")
    )
    assert (workers, fits, cores) == ("1", "True", "1 core: SLURM_CPUS_PER_TASK=1")
    assert memory.endswith("SLURM_MEM_PER_NODE=600")


def test_tasks_of_a_step_divide_what_it_was_given(slurm, scan, tmp_path):
    text = with_head("""
        plan = Logged("scan.h5::/data", log="log").plan(engine="local")
        tell(workers=plan.workers, memory=plan.memory_bytes)
        """)
    text = text.replace("RANK =", "RANK = int(os.environ['SLURM_PROCID']) #")
    script = script_of(tmp_path, text, "srun --mpi=none")
    slurm.wait(slurm.submit(tmp_path, script, *RANKS))

    one, two = told(tmp_path)
    assert (one["workers"], two["workers"]) == (1, 1)
    assert max(one["memory"], two["memory"]) < 150 << 20


def test_a_job_that_is_to_stop_is_queued_again_and_goes_on(slurm, scan, tmp_path):
    script = script_of(tmp_path, COMPUTE, "srun")
    job = slurm.submit(tmp_path, script, *RANKS, "--requeue")
    until(lambda: len(noted(tmp_path / "log")) > 6, 60)
    slurm.run("scancel", "--signal=USR1", job)
    slurm.wait(job, 120)

    out = (tmp_path / "out").read_text()
    assert "stopped by SIGUSR1" in out
    assert [line for line in out.splitlines() if "code" in line[:4]] == [
        "code 75",
        "code 0",
    ]
    assert of_log(tmp_path) == list(range(POSITIONS))
    sessions = only_run(tmp_path).sessions
    assert [(s.engine, s.workers) for s in sessions] == [("mpi", 2)] * 2


def test_a_job_that_is_cancelled_keeps_its_rows(slurm, scan, tmp_path):
    script = script_of(tmp_path, COMPUTE, "srun")
    job = slurm.submit(tmp_path, script, *RANKS)
    until(lambda: len(noted(tmp_path / "log")) > 6, 60)
    slurm.run("scancel", job)
    slurm.wait(job)
    done = only_run(tmp_path).status.done
    again = slurm.submit(tmp_path, script, *RANKS)
    slurm.wait(again)

    assert "stopped by SIGTERM" in (tmp_path / "out").read_text()
    assert done == only_run(tmp_path).sessions[0].computed > 6
    assert of_log(tmp_path) == list(range(POSITIONS))
