"""Processes that any engine computes in tests; no worker imports pytest for them."""

import decimal
import locale
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import param

import resumable as rs

POSITIONS = 60
WIDTH = 32


def note(path, text):
    """Append a line to a file, whole although other processes write, too."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def noted(path):
    path = Path(path)
    return path.read_text().split() if path.exists() else []


class Logged(rs.Process):
    """Notes every position it computes, and every set-up."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output()}
    log = param.String("", doc="file of computed positions")
    delay_s = param.Number(0.0)

    def setup(self):
        note(self.log + ".setup", f"{os.getpid()}:{threading.get_ident()}")

    def unit_computation(self, spectrum):
        note(self.log, self.position)
        note(self.log + ".pid", os.getpid())
        if self.delay_s:
            time.sleep(self.delay_s)
        return spectrum.mean()


class HasSettings(rs.Process):
    """The settings it is computed with; `setup` changes one of them."""

    version = 1
    outputs: ClassVar = {"settings": rs.Output((7,))}

    def setup(self):
        np.seterr(under="raise")

    def unit_computation(self, spectrum):
        import scipy.special  # slow to import, and no other process needs it

        time.sleep(0.002)  # for more workers than one
        errors = np.geterr()
        return [
            errors["divide"] == "raise",
            errors["under"] == "raise",
            len(str(np.float64([1 / 3]))),
            len(str(decimal.Decimal(1) / 3)),
            sys.getrecursionlimit(),
            locale.setlocale(locale.LC_TIME) == "C.UTF-8",
            scipy.special.geterr()["domain"] == "raise",
        ]


class Numbered(Logged):
    """Notes which worker has which number in `setup`; computes the number."""

    outputs: ClassVar = {"number": rs.Output(dtype="i8")}
    dies = param.Boolean(False, doc="whether each worker dies once at position 7")

    def setup(self):
        note(self.log, f"{os.getpid()}:{threading.get_ident()}={self.worker}")

    def unit_computation(self, spectrum):
        time.sleep(0.003)  # for more workers than one
        if self.dies and self.position == 7 and len(noted(self.log)) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.worker


def correct(table):
    """Change a table in place, which a trace of the code does not see to be state."""
    np.multiply(table, 1.5, out=table)


class Drifts(rs.Process):
    """Changes, at one position, an attribute that all positions are computed with."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output()}
    table = None

    def unit_computation(self, spectrum):
        time.sleep(0.002)  # for more workers than one
        if self.position == 30:
            correct(self.table)
        return (spectrum * self.table).mean()


class FailsAt(Logged):
    """Fails at some positions until the file ``<log>.mended`` exists."""

    bad = param.List([3, 30, 59])

    def unit_computation(self, spectrum):
        note(self.log, self.position)
        if self.position in self.bad and not Path(self.log + ".mended").exists():
            raise ValueError(f"no fit at {self.position}")
        return spectrum.mean()


class Weighted(rs.Process):
    version = 1
    outputs: ClassVar = {"sum": rs.Output()}

    def unit_computation(self, spectrum, weight):
        return (spectrum * weight).sum()


class FirstOfInput(Weighted):
    def unit_computation(self, spectrum, weight):
        spectrum *= weight[0]  # which is no part of the array of the user
        return spectrum.sum()


class Interpolated(rs.Process):
    """Takes an axis that all positions share, and writes to no part of it."""

    version = 1
    outputs: ClassVar = {"sum": rs.Output(), "fixed": rs.Output(dtype=bool)}

    def unit_computation(self, spectrum, axis, small, offset):
        same = axis.tobytes() == self.shared["axis"].tobytes()
        fixed = same and not (axis.flags.writeable or small.flags.writeable)
        return {"sum": (spectrum * axis[:WIDTH]).sum() + offset, "fixed": fixed}


class Pools(rs.Process):
    """Computes every block with a pool of forked processes."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output()}

    def block_computation(self, spectra):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return np.array(pool.map(np.mean, list(spectra)))


class OnMap(rs.Process):
    version = 1
    outputs: ClassVar = {"where": rs.Output(2, "i8"), "mean": rs.Output()}

    def unit_computation(self, spectrum):
        return {"mean": spectrum.mean(), "where": np.array(self.position)}


class Block(rs.Process):
    """A whole batch at once; fails where a value is NaN."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output(), "first": rs.Output(2)}
    scratch = WIDTH * 8

    def block_computation(self, spectra):
        if np.isnan(spectra).any():
            raise ValueError("NaN")
        return {"mean": spectra.mean(axis=1), "first": spectra[:, :2].copy()}


class Peaks(rs.Process):
    """Ragged: what is above 0, and where it is; after any other stage, too."""

    version = 1
    outputs: ClassVar = {
        "places": rs.Output(dtype="i8", ragged=True),
        "heights": rs.Output(ragged=True),
    }

    def unit_computation(self, spectrum):
        places = np.flatnonzero(spectrum > 0)
        return {"places": places, "heights": spectrum[places]}


class Sums(rs.Process):
    """A stage of blocks that takes ragged rows."""

    version = 1
    outputs: ClassVar = {"sums": rs.Output()}

    def block_computation(self, heights, spectrum):
        pairs = zip(heights, spectrum, strict=True)
        return [height.sum() - row[0] for height, row in pairs]


class Several(rs.Process):
    """Outputs of many kinds, and random numbers."""

    version = 1
    pair = np.dtype([("low", "f4"), ("count", "i2")])
    outputs: ClassVar = {
        "random": rs.Output(3),
        "pair": rs.Output((), pair),
        "text": rs.Output((), "S8"),
        "flag": rs.Output((2, 2), "bool"),
        "total": rs.Output(per="run"),
    }

    def unit_computation(self, spectrum):
        return {
            "random": self.rng.normal(size=3) + spectrum[:3],
            "pair": np.array((spectrum.min(), len(spectrum)), self.pair),
            "text": b"p%d" % self.position,
            "flag": spectrum[:4].reshape(2, 2) > 0,
        }

    def finish(self, results):
        return results["random"][...].sum()


class Holder(rs.Process):
    version = 1
    outputs: ClassVar = {"mean": rs.Output()}
    delay_s = param.Number(0.0)

    def setup(self):
        self.held = threading.Lock()

    def unit_computation(self, spectrum):
        time.sleep(self.delay_s)
        with self.held:
            return spectrum.mean()


class Wrong(rs.Process):
    version = 1
    outputs: ClassVar = {"mean": rs.Output()}

    def unit_computation(self, spectrum):
        return spectrum.no_such_method()


class Fits(rs.Process):
    """A fit with no result where nothing was measured: at `blank`, or everywhere."""

    version = 1
    outputs: ClassVar = {"line": rs.Output(2)}
    blank = param.List([0, 1, 59])

    def unit_computation(self, spectrum):
        if self.blank and self.position not in self.blank:
            return spectrum[:2].copy()
        return None


class WrongShape(rs.Process):
    version = 1
    outputs: ClassVar = {"mean": rs.Output(3)}

    def unit_computation(self, spectrum):
        return spectrum[:2]


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class TwoArguments(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


class RaisesOdd(rs.Process):
    version = 1
    outputs: ClassVar = {"mean": rs.Output()}
    kind = param.Selector(objects=["lock", "arguments"])

    def unit_computation(self, spectrum):
        if self.position == 40:
            if self.kind == "lock":
                raise Unpicklable("a lock inside")
            raise TwoArguments("two", "arguments")
        return spectrum.mean()


def blas_threads():
    import threadpoolctl

    pools = threadpoolctl.threadpool_info()
    return max((pool["num_threads"] for pool in pools), default=0)


class Threads(rs.Process):
    """Says how many threads BLAS would take; slowly, so that two workers compute."""

    version = 1
    outputs: ClassVar = {"threads": rs.Output(dtype="i8")}

    def unit_computation(self, spectrum):
        time.sleep(0.002)
        return blas_threads()


class Talks(rs.Process):
    version = 1
    outputs: ClassVar = {"mean": rs.Output()}

    def unit_computation(self, spectrum):
        logging.getLogger("conformance.unit").info("at %d", self.position)
        return spectrum.mean()
