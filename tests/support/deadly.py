"""Computations that end or stop their worker at some positions."""

import ctypes
import logging
import os
import resource
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import param
from engine_processes import note
from helpers import close_all_hdf5_files

import resumable as rs

POSITIONS = 200


def segfault():
    os.kill(os.getpid(), signal.SIGSEGV)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def left():
    os._exit(3)


def fail():
    raise ValueError("no fit")


def hang():
    """Sleep in C without giving the interpreter's lock back."""
    ctypes.PyDLL(None).sleep(100)


def fork_and_return():
    os.fork()


def fork_and_leave():
    if os.fork() == 0:
        sys.exit(1)


def fork_and_stay():
    if os.fork() == 0:
        # Whoever reads the output of this program does not wait for the copy.
        os.closerange(0, 3)
        time.sleep(4)
        os._exit(0)


def shout():
    sys.stdout.write("x" * 100_000)
    os.write(2, b"y" * 1000)


def change_folder():
    os.chdir("/")


def change_everything():
    os.environ.clear()
    np.seterr(all="raise")
    sys.path.clear()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.disable()
    sys.setrecursionlimit(200)
    warnings.simplefilter("error")


SIDE_EFFECTS = [
    fork_and_return,
    fork_and_leave,
    fork_and_stay,
    close_all_hdf5_files,
    shout,
    change_folder,
    change_everything,
]


class Deadly(rs.Process):
    """Does something bad at some positions, until a file says that it is mended."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output(fill_value=-1.0)}
    bad = param.Dict({})
    mended = param.String("")
    log = param.String("")
    delay_s = param.Number(0.0)

    def unit_computation(self, spectrum):
        if self.log:
            note(self.log, self.position)
        what = self.bad.get(str(self.position))
        if what and not (self.mended and Path(self.mended).exists()):
            globals()[what]()
        if self.delay_s:
            time.sleep(self.delay_s)
        return spectrum.mean()


class DeadlyBlock(rs.Process):
    """Dies or hangs with whatever block some positions are in."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output(fill_value=-1.0)}
    bad = param.Dict({})

    def block_computation(self, spectra):
        for position in np.asarray(self.position).tolist():
            what = self.bad.get(str(position))
            if what:
                globals()[what]()
        return spectra.mean(axis=1)


def check(results, rows, bad):
    """Everything but the bad positions is computed, and nothing else is recorded."""
    failed = np.zeros(len(rows), bool)
    failed[bad] = True
    np.testing.assert_array_equal(results.failed_mask, failed)
    np.testing.assert_array_equal(results.completed_mask, ~failed)
    means = np.array([row.mean() for row in rows])
    means[failed] = -1
    np.testing.assert_array_equal(results["mean"][...], means)
    assert [failure.position for failure in results.failures] == bad
    assert results.status.finished


def raise_memory_error():
    np.empty(1 << 50)


LEAK_BYTES = 1 << 27
MOST = 40


class Leaks(rs.Process):
    """Keeps memory at every position, until its process has no more.

    ``most`` is how many positions a process can compute, in workers a limit of the
    system.
    """

    version = 1
    outputs: ClassVar = {"mean": rs.Output(fill_value=-1.0)}
    most = param.Integer(MOST)
    how = param.String()
    bad = param.List([])
    log = param.String()
    kept: ClassVar = {}

    def setup(self):
        note(self.log, os.getpid())

    def leak(self):
        kept = self.kept.setdefault(os.getpid(), [])
        if self.how == "limit":
            if not kept:
                taken = int(Path("/proc/self/statm").read_text().split()[0])
                room = taken * resource.getpagesize() + self.most * LEAK_BYTES
                resource.setrlimit(resource.RLIMIT_AS, (room, room))
            # Addresses, which is what is limited; nothing is written there.
            kept.append(np.empty(LEAK_BYTES, "u1"))
            return
        kept.append(None)
        if len(kept) > self.most:
            globals()[self.how]()

    def compute_one(self, position, spectrum):
        self.leak()
        if position in self.bad:
            raise_memory_error()
        return spectrum.mean()
