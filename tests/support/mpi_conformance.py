"""The conformance tests under mpiexec: ``mpiexec -n 2 python mpi_conformance.py``.

One launch for all of them: rank 0 runs pytest, and whenever a test computes, it
calls the other ranks, which then call ``compute`` as they would in a user's script.
"""

import contextlib
import sys

import cloudpickle
import pytest
from engine_conformance import EngineConformance
from mpi4py import MPI

import resumable as rs

COMM = MPI.COMM_WORLD


class Calling(rs.MPIEngine):
    """Has the other ranks call compute, too."""

    def together(self, process, request, drive, time_limit):
        asked = request()
        # Kept out of what is sent: it would be rank 0's own.
        COMM.bcast(cloudpickle.dumps((process, asked, time_limit)))
        return super().together(process, lambda: asked, drive, time_limit)


ENGINE = Calling() if COMM.rank == 0 else rs.MPIEngine()


class TestMPI(EngineConformance):
    most_setups = COMM.size

    def engine(self):
        return ENGINE

    # Every rank is a process of the user's, with loggers of its own.
    test_log_records_of_units_reach_the_loggers_here = None
    # And it runs the script, with what this sets.
    test_settings_of_the_script_reach_every_worker = None


def follow():
    """Call compute whenever rank 0 asks for it, until it asks for none."""
    while (call := COMM.bcast(None)) is not None:
        process, asked, time_limit = cloudpickle.loads(call)
        with contextlib.suppress(Exception, SystemExit):
            ENGINE.together(process, lambda asked=asked: asked, None, time_limit)


if __name__ == "__main__":
    if COMM.rank == 0:
        # The module is this one, so that its classes exist only once.
        sys.modules["mpi_conformance"] = sys.modules["__main__"]
        # The settings of the suite name plug-ins that are not needed here.
        options = ["-q", "-o", "addopts=", "-p", "no:cacheprovider"]
        code = pytest.main([__file__, *options, *sys.argv[1:]])
        COMM.bcast(None)
        sys.exit(code)
    follow()
