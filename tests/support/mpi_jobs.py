"""Scripts of ranks, and what they left behind."""

import json
import os
import signal
import textwrap
import time

from engine_processes import Logged, noted

import resumable as rs

POSITIONS = 60

#: What every script begins with.
HEAD = """
import contextlib, json, os, signal, sys, time
from pathlib import Path
import numpy as np
import resumable as rs
from resumable.system import launcher as world
from engine_processes import *

RANK = world.rank()
OPTIONS = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}

def tell(**what):
    # A file and not the output, where ranks' lines can be mixed.
    path = Path(f"told-{RANK}-{time.time_ns()}")
    path.write_text(json.dumps({"rank": RANK, **what}))

@contextlib.contextmanager
def telling(kind, what):
    # Tells what a function says of an error, which is raised on.
    try:
        yield
    except kind as error:
        tell(**what(error))
        raise

def ended(stopped):
    return {"code": stopped.code, "done": stopped.results.status.done}
"""


def with_head(text):
    return HEAD + textwrap.dedent(text)


def told(folder):
    """Return what ranks told, in the order of ranks."""
    found = [json.loads(path.read_text()) for path in folder.glob("told-*")]
    return sorted(found, key=lambda one: one["rank"])


def only_run(folder):
    (path,) = folder.glob("scan-*.h5")
    return rs.open(path)


def of_log(folder):
    """Return the positions that were computed, sorted."""
    return sorted(map(int, noted(folder / "log")))


class Halts(Logged):
    """Is stopped when so many positions are noted as the file ``<log>.most`` says.

    By a signal, or by a time limit of less than 0.5 s, as the file says, too.
    """

    def unit_computation(self, spectrum):
        value = super().unit_computation(spectrum)
        most, how = noted(self.log + ".most") or (POSITIONS + 1, "")
        if len(noted(self.log)) >= int(most):
            if how == "signal":
                os.kill(os.getpid(), signal.SIGUSR1)
            else:
                time.sleep(0.5)
        return value
