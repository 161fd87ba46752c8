"""Code and values whose identity never changes: edit nothing here but add to it.

A digest that changes makes every run of users unknown that has such code or values.
"""

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
from pathlib import PurePosixPath
from typing import Any, ClassVar, NamedTuple

import h5py
import numpy as np
import param

import resumable as rs

LIMIT = 3
TABLE = np.arange(4, dtype="<f4")
NAMES = {"a": (1, 2.5), "b": [None, True]}


class Window(enum.Enum):
    HANN = "hann"
    FLAT = "flat"


class Pair(NamedTuple):
    a: int = 1
    b: str = "x"


@dataclasses.dataclass
class Peak:
    """Where it is."""

    centre: float = 0.5
    widths: list = dataclasses.field(default_factory=list)

    def area(self, height=2.0):
        return height * sum(self.widths)


def limited(number, power=2):
    """Uses constants of the module."""
    return min(number**power, LIMIT) + TABLE.sum() + len(NAMES)


def halved(function):
    @functools.wraps(function)
    def half(*arguments):
        return function(*arguments) / 2

    return half


@halved
def scaled(number, factor=2.0):
    return limited(number) * factor


def unused(number):
    return -number


class Versioned(rs.Process):
    """Do nothing, always the same."""

    version = 1
    outputs: ClassVar = {
        "fit": rs.Output(shape=(4,), dtype="f8", labels=tuple("abcd"), units="nm")
    }

    def unit_computation(self, spectrum):
        return np.zeros(4)


class Base(rs.Process):
    """What a base class brings."""

    offset = 1.5
    width = param.Number(0.25)
    count = param.Integer(3)
    outputs: ClassVar = {"result": rs.Output()}

    def moved(self, number):
        return number + self.offset


class Plain(Base):
    """Code of every kind, and no version."""

    def setup(self):
        self.window = [Window.HANN, Window.FLAT][self.count % 2]

    @functools.cached_property
    def peak(self):
        return Peak(self.width, [1.0, 2.0])

    @property
    def total(self):
        return self.peak.area()

    @staticmethod
    def sign(number):
        return 1 if number > 0 else -1

    def unit_computation(self, spectrum):
        import math

        text = f"{spectrum.size:>4} of {LIMIT!r}"
        found = [self.moved(x) for x in spectrum if not math.isnan(x)]
        with np.errstate(all="ignore"):
            try:
                value = scaled(sum(found)) * self.sign(found[0]) + self.total
            except (ValueError, ZeroDivisionError) as error:
                raise RuntimeError(text) from error
        return {"result": value if (n := len(found)) else float(n)}

    def draw(self, axes, position, spectrum, outputs):
        axes[0].plot(unused(spectrum))


def closing(power):
    """Return a class and a function that use a variable from outside."""

    class Closing(rs.Process):
        outputs: ClassVar = {"result": rs.Output()}

        def unit_computation(self, spectrum):
            return spectrum[0] ** power

    def closed(spectrum, factor=2.0, *, offset=0):
        return spectrum[0] ** power * factor + offset

    return Closing, closed


MASKED = np.ma.masked_array([1.0, 2.0, 3.0], [False, True, False])
ALIGNED = np.dtype([("a", "i1"), ("b", "f8")], align=True)
VALUES: dict[str, Any] = {
    "nothing": None,
    "true": True,
    "integer": -3,
    "large integer": 2**80,
    "float": 0.1,
    "negative zero": -0.0,
    "not a number": float("nan"),
    "complex": complex(1.5, float("nan")),
    "text": "Höhe in µm",
    "bytes": b"\x00\xff",
    "list": [1, 2.0, "x", None],
    "tuple": (1, (2.0, "x")),
    "dict": {"b": [1], "a": {"c": None}},
    "dict of numbers": {1: "a", 2.5: "b", (1, 2): "c"},
    "set": {1, "a", 2.5, None, (1, 2), b"z"},
    "frozen set": frozenset({"a", "b"}),
    "dates": [dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 12, 30), dt.time(1, 2)],
    "duration": dt.timedelta(days=1, microseconds=5),
    "decimal": decimal.Decimal("1.10"),
    "fraction": fractions.Fraction(1, 3),
    "path": PurePosixPath("a/b.h5"),
    "ranges": [range(0, 9, 2), slice(None, 5)],
    "enum": Window.HANN,
    "named tuple": Pair(2, "y"),
    "dataclass": Peak(1.5, [0.5]),
    "numpy float": np.float64(1.0),
    "numpy small float": np.float32(0.5),
    "numpy integer": np.uint8(3),
    "numpy date": np.datetime64("2024-02-29", "D"),
    "dtype": np.dtype([("x", ">f4"), ("n", "i8", (2,))]),
    "float array": np.array([[1.0, -0.0], [np.nan, np.inf]], "f4"),
    "array of no axes": np.array(1.5),
    "swapped array": np.arange(6, dtype=">i2").reshape(2, 3),
    "complex array": np.array([1 + 2j, complex(np.nan, 0)]),
    "text array": np.array(["ab", "c"]),
    "records": np.array([(1, np.nan), (2, 0.5)], ALIGNED),
    "date array": np.array(["2024-02-29", "NaT"], "M8[D]"),
    "object array": np.array([1, "a", None], object),
    "masked array": MASKED,
    "generator": np.random.default_rng(5),
    "function": limited,
    "wrapped function": scaled,
    "partial": functools.partial(limited, power=3),
    "method": Peak(1.0, [1.0]).area,
    "class": Peak,
    "of numpy": np.add.reduce,
    "of python": len,
}


def doubled(number):
    return 2.0 * number


class Doubles(rs.Process):
    """What has made ``schema_1.h5``, finished, and ``schema_1_part.h5``."""

    outputs: ClassVar = {"double": rs.Output(), "total": rs.Output(per="run")}

    def unit_computation(self, position):
        return doubled(position)

    def finish(self, results):
        return results["double"][...].sum()


class Sums(rs.Process):
    """What has made ``schema_1_growing.h5``, of the source that `growing` writes."""

    outputs: ClassVar = {"sum": rs.Output()}

    def unit_computation(self, spectrum):
        return doubled(spectrum.sum())


def growing(folder, length):
    """Write a source that can grow; return its name."""
    with h5py.File(folder / "scan.h5", "w") as file:
        data = np.arange(4.0 * length).reshape(length, 4)
        file.create_dataset("data", data=data, chunks=(5, 4), maxshape=(None, 4))
    return f"{folder}/scan.h5::/data"


class Peaks(rs.Process):
    """What has made ``unpacked.h5``, of the source that `frames` writes."""

    version = 1
    outputs: ClassVar = {"peak": rs.Output()}

    def unit_computation(self, frame):
        return frame.max()


def frames(folder, length):
    """Write frames of 4 numbers, each a compressed chunk, that can grow in number."""
    with h5py.File(folder / "scan.h5", "w") as file:
        data = np.arange(4.0 * length).reshape(length, 4)
        stored = {"chunks": (1, 4), "maxshape": (None, 4), "compression": "gzip"}
        file.create_dataset("data", data=data, **stored)
    return f"{folder}/scan.h5::/data"
