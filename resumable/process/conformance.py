"""Whether a Process keeps the rules that make its results the same wherever it runs.

And one position given to a call by hand.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import random
import reprlib
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable import identity
from resumable.errors import (
    CheckFailed,
    DeclarationError,
    OutputError,
    PlanError,
    ResumableError,
    ResumableWarning,
    shortened,
    wrong,
)
from resumable.model import canonical, name_of_position, positions_in_order
from resumable.process.declaration import OWN
from resumable.process.parameters import frozen
from resumable.process.process import Process
from resumable.session import Check, opened, read_positions, unlike_rows
from resumable.worker import (
    Cursor,
    UnitLoop,
    kept_settings,
    packed,
    settings_here,
    uncached,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resumable.results import Results
    from resumable.session import Computation
    from resumable.worker import Computer

    Array = np.ndarray[Any, np.dtype[Any]]

#: Positions that are computed where none are given.
_DEFAULT = 5
#: Of positions and names in one message.
_NAMED = 3
_ONE_AT_A_TIME = "computed alone, in another order"


@contextlib.contextmanager
def at(process: Process, position: Any) -> Iterator[Process]:
    """Give a Process a position, for calls of its methods by hand.

    Parameters
    ----------
    process : Process
        With a source, which has the positions.
    position : int, tuple, slice, or list
        A position as :meth:`Process.test` takes it: then ``process.position`` and
        ``process.rng`` are those of this position. Several, for a block computation.

    Yields
    ------
    Process
        The same Process. ``setup`` is not called.

    Raises
    ------
    PlanError
        The position does not exist.
    DeclarationError
        It is no Process.

    Examples
    --------
    >>> import numpy as np
    >>> import resumable as rs
    >>> class Noisy(rs.Process):
    ...     version = 1
    ...     outputs = {"noisy": rs.Output()}
    ...     def unit_computation(self, spectrum):
    ...         return spectrum.sum() + self.rng.normal()
    >>> process = Noisy(np.ones((4, 3)), target=".")
    >>> with rs.testing.at(process, 2):
    ...     process.position, process.unit_computation(np.zeros(3)).round(3)
    (2, np.float64(0.942))
    """
    _check_kind(process, "at")
    flat = positions_in_order(position, process.map_shape)
    if not len(flat):
        raise wrong(PlanError, "position", position, "a position or several")
    cursor = Cursor()
    cursor.enter(flat)
    if isinstance(position, (int, np.integer, tuple)):
        cursor.progress_words[1] = 0
    own = process.__dict__
    before = own.get("_cursor")
    own["_cursor"] = cursor
    try:
        yield process
    finally:
        del own["_cursor"]
        if before is not None:
            own["_cursor"] = before


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Conformance:
    """What :func:`check` found; print it to read it."""

    process: str
    """Name of the class."""
    positions: tuple[str, ...]
    """Where it was computed."""
    checks: tuple[Check, ...]
    """``sent``, ``outputs``, ``alone``, ``state``, ``worker``, as far as they went."""

    @property
    def passed(self) -> bool:
        """No check has failed."""
        return all(one.passed is not False for one in self.checks)

    def __str__(self) -> str:
        verdict = "conforms" if self.passed else "does NOT conform"
        where = ", ".join(self.positions[:_NAMED])
        more = len(self.positions) - _NAMED
        where += f" and {more} more positions" if more > 0 else ""
        return "\n".join(
            [f"{self.process} {verdict} (at {where})", *map(str, self.checks)]
        )

    __repr__ = __str__


def check(process: Process, positions: Any = None) -> Conformance:
    """Check that results of a Process do not depend on how it is run.

    Parameters
    ----------
    process : Process
        With a source; an array of numpy is enough.
    positions : slice, list, index or mask, optional
        Where to compute; default 5 positions spread over all of them.

    Returns
    -------
    Conformance
        Its ``checks`` are

        ``sent``
            the Process can be pickled, for worker processes;
        ``outputs``
            what it returns has the declared names, shapes and dtypes, and not all
            positions raise an exception;
        ``alone``
            a position has the same result alone, in another order and after another
            ``setup`` as in one block with the others: bit for bit, those of a block
            computation within ``rtol``;
        ``state``
            no call changes an attribute, ``np.random`` or ``random``, ``np.geterr()``
            and other settings, the working directory, or ``os.environ``;
        ``worker``
            results in a worker process are those in this one.

    Raises
    ------
    CheckFailed
        A check has failed; its message says which, and where. ``error.report`` is the
        report. An AssertionError.
    SourceError, PlanError
        The Process has no source, or a position does not exist, or there is none.
    DeclarationError
        It is no Process, but a class, say.

    Notes
    -----
    Computes each position three times, and starts a worker process. Writes into a
    temporary folder only. Settings, the working directory and ``os.environ`` are set
    back where a call has changed them.

    Examples
    --------
    ``rs.testing.check(Fit(np.ones((4, 64)), target=tmp_path))``
    """
    _check_kind(process, "check")
    process._check_source()
    size = int(np.prod(process.map_shape))
    if positions is None:
        flat = np.unique(np.linspace(0, size - 1, _DEFAULT).astype(np.int64))
    else:
        flat = np.unique(positions_in_order(positions, process.map_shape))
        if not len(flat):
            msg = f"there are no positions in {shortened(repr(positions))}; give some"
            raise PlanError(msg)
    with frozen(process), kept_settings(), _kept_surroundings():
        report = _Checking(process, flat).report()
    if not report.passed:
        raise CheckFailed(report)
    return report


def _check_kind(process: Any, function: str) -> None:
    if not isinstance(process, Process):
        msg = (
            f"rs.testing.{function} takes a Process, as Fit(source), not "
            f"{shortened(repr(process))}"
        )
        raise DeclarationError(msg)


@contextlib.contextmanager
def _kept_surroundings() -> Iterator[None]:
    folder, environment = Path.cwd(), dict(os.environ)
    try:
        yield
    finally:
        os.chdir(folder)
        if os.environ != environment:
            os.environ.clear()
            os.environ.update(environment)


#: Of a check that compares values.
_NOTHING = "no position was computed"


class _Computed(NamedTuple):
    """Rows of some positions by output, and what was raised instead, by row."""

    values: dict[str, Array]
    errors: dict[int, BaseException]

    @classmethod
    def by(cls, computer: Computer, given: Any, flat: Array) -> _Computed:
        """Compute copies of what is given, in one call or position by position."""
        rows, inputs = copy.deepcopy(given)
        if not hasattr(computer.process, "block_computation"):
            loop = UnitLoop(computer, rows, inputs, flat)
            loop.run(0, len(flat), stop_on_error=False)
            return cls(loop.values, dict(loop.exceptions))
        try:
            return cls(computer.block(rows, inputs, flat), {})
        except Exception as error:
            if len(flat) == 1:
                fills = {n: o.filled(1) for n, o in computer.outputs.items()}
                return cls(fills, {0: error})
        # As in a run: in halves, until the positions are found that raise alone.
        return cls.in_parts(computer, given, flat, max(1, len(flat) // 2))

    @classmethod
    def in_parts(
        cls, computer: Computer, given: Any, flat: Array, step: int
    ) -> _Computed:
        """Compute so many positions in one call, the last ones first."""
        rows, inputs = given
        values = {n: output.empty(len(flat)) for n, output in computer.outputs.items()}
        errors = {}
        for start in reversed(range(0, len(flat), step)):
            own = slice(start, start + step)
            mine = rows[own], {name: part[own] for name, part in inputs.items()}
            part = cls.by(computer, mine, flat[own])
            for name, found in part.values.items():
                values[name][own] = found
            errors.update({start + row: one for row, one in part.errors.items()})
        return cls(values, errors)


class _Checking:
    """The checks of one Process at some flat positions."""

    def __init__(self, process: Process, flat: Array) -> None:
        self._process, self._flat = process, flat
        self._computation: Computation = process._computation()
        self._outputs = self._computation.position_outputs
        blocks = hasattr(process, "block_computation")
        self._rtol = process.rtol if blocks else None
        self._method = "block_computation" if blocks else "unit_computation"

    def report(self) -> Conformance:
        """Do all checks; one that rests on another that failed is not done."""
        sent = self._sent()
        checks = [sent, *self._here()]
        if sent.passed and len(checks) > 2:
            nothing = any(check.passed is None for check in checks)
            checks.append(
                Check("worker", None, _NOTHING) if nothing else self._worker()
            )
        names = tuple(map(self._name, range(len(self._flat))))
        return Conformance(self._computation.request.name, names, tuple(checks))

    def _name(self, row: int) -> str:
        return name_of_position(int(self._flat[row]), self._process.map_shape)

    def _sent(self) -> Check:
        try:
            size = len(packed(self._process))
        except TypeError as error:
            return Check("sent", False, str(error))
        return Check("sent", True, f"pickled, {size:,} bytes")

    def _here(self) -> Iterator[Check]:
        """Compute in this process: all in one block, then each alone."""
        try:
            with opened(self._computation) as computer:
                given = read_positions(computer, self._flat)
                before = _state(computer.process)
                block = _Computed.by(computer, given, self._flat)
                changed = _changed(before, _state(computer.process))
            with opened(self._computation) as computer:
                alone = _Computed.in_parts(computer, given, self._flat, 1)
        except Exception as error:
            words = f"setup() or reading the source raised {_told(error)}"
            yield Check("outputs", False, words)
            return
        self._block = block
        yield self._declared()
        if len(block.errors) == len(self._flat):
            yield Check("alone", None, _NOTHING)
        else:
            yield self._same("alone", alone, _ONE_AT_A_TIME)
        yield self._unchanged(changed)

    def _declared(self) -> Check:
        errors = self._block.errors
        for row, error in errors.items():
            if isinstance(error, OutputError):
                return Check("outputs", False, f"at {self._name(row)}: {error}")
        if errors:
            row, error = next(iter(errors.items()))
            what = f"at {self._name(row)} it raised {_told(error)}"
            if len(errors) == len(self._flat):
                return Check("outputs", False, f"all positions raise: {what}")
            words = f"as declared; {len(errors)} positions raise: {what}"
            return Check("outputs", True, words)
        return Check("outputs", True, f"{', '.join(self._outputs)}: as declared")

    def _same(self, name: str, other: _Computed, how: str) -> Check:
        """Compare with what was computed in one block."""
        block = self._block
        lines = []
        for row in sorted(block.errors.keys() | other.errors.keys()):
            told = [_told(one.errors.get(row)) for one in (block, other)]
            if told[0] != told[1]:
                lines.append(f"at {self._name(row)}: {told[0]}; {how}: {told[1]}")
        both = np.ones(len(self._flat), bool)
        both[[*block.errors, *other.errors]] = False
        for output, kind in self._outputs.items():
            pairs = block.values[output], other.values[output]
            unlike = both & unlike_rows(kind, *pairs, self._rtol)
            for row in np.flatnonzero(unlike)[:_NAMED]:
                left, right = (_brief(values[row]) for values in pairs)
                lines.append(f"{output!r} at {self._name(row)}: {left}; {how}: {right}")
        if lines:
            return Check(name, False, "\n".join(lines))
        exact = "bit for bit" if self._rtol is None else f"within rtol={self._rtol:g}"
        return Check(name, True, f"{how}: the same {exact}")

    def _unchanged(self, changed: list[str]) -> Check:
        if changed:
            return Check(
                "state", False, f"{self._method} changes " + "\n".join(changed)
            )
        return Check("state", True, "no attribute and no setting is changed")

    def _worker(self) -> Check:
        """Compute in a worker process, into a temporary folder."""
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", ResumableWarning)
            twin = copy.copy(self._process)
            twin._folder = Path(folder)
            try:
                results = twin.compute(
                    engine="local",
                    workers=1,
                    positions=self._flat,
                    on_error="record",
                    progress=False,
                )
                there = self._read(results)
            except ResumableError as error:
                return Check("worker", False, f"computing there raised {_told(error)}")
        return self._same("worker", there, "in a worker process")

    def _read(self, results: Results) -> _Computed:
        values = {}
        for name, output in self._outputs.items():
            values[name] = output.empty(len(self._flat))
            for row, found in enumerate(results.rows(name, self._flat)):
                values[name][row] = found
        rows = {int(position): row for row, position in enumerate(self._flat)}
        return _Computed(
            values,
            {rows[one.position]: _Failed(one) for one in results.failures},
        )


class _Failed(Exception):
    """What a position raised in a worker."""

    def __init__(self, failure: Any) -> None:
        super().__init__(failure.message)
        self.kind = failure.exception


def _told(error: BaseException | None) -> str:
    if error is None:
        return "a result"
    kind = error.kind if isinstance(error, _Failed) else type(error).__name__
    return shortened(f"{kind.rpartition('.')[2]}: {error}", 300)


def _brief(value: Any) -> str:
    text = np.array2string(np.asarray(value), threshold=8, precision=17)
    return shortened(" ".join(text.split()), 80)


# What a call must not change.

#: Attributes of ours, those of the stages of a chain too.
_OURS = (*OWN, "_live")
_DRAW = "draw from self.rng"
_SET = "change it within a block of the method, or in setup()"
_MAKE = "make it in setup(), or as a functools.cached_property"


class _Seen(NamedTuple):
    """A value as it was seen."""

    comparable: Any
    text: str
    draws: bool = False
    """It is a generator of random numbers."""

    @classmethod
    def of(cls, value: Any) -> _Seen:
        """Look at a value, which may be changed in place later."""
        draws = identity.is_generator(value)
        return cls(_comparable(value), reprlib.repr(value), draws)


def _state(process: Any) -> dict[str, _Seen]:
    """Return attributes and settings by name."""
    found: dict[str, Any] = {
        "np.random": np.random.get_state(legacy=False),
        "random": random.getstate(),
        "the working directory": str(Path.cwd()),
        **{f"os.environ[{name!r}]": value for name, value in os.environ.items()},
    }
    for name, value in settings_here()._asdict().items():
        # Of a library that is not imported yet there are none.
        if value is not None:
            found[f"the setting {name}"] = value
    for name, value in uncached(process).items():
        if name not in _OURS and not name.startswith("_param__"):
            found[f"self.{name}"] = value
    for cls in type(process).__mro__:
        if cls is Process:
            break
        for name, value in vars(cls).items():
            code = callable(value) or hasattr(value, "__get__")
            if not (name.startswith("__") or code):
                found[f"{cls.__name__}.{name}"] = value
    return {name: _Seen.of(value) for name, value in found.items()}


def _comparable(value: Any) -> Any:
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    try:
        return canonical(identity.write_value(value))
    except Exception:
        return f"{type(value).__name__} object {id(value):#x}"


def _changed(before: dict[str, _Seen], after: dict[str, _Seen]) -> list[str]:
    """Say what is another than it was before, and what to do."""
    none, lines = _Seen(None, "missing"), []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, none), after.get(name, none)
        setting = name.startswith(("the ", "os."))
        if old.comparable == new.comparable or (old is none and "setting" in name):
            continue
        if name in ("np.random", "random") or (old.draws and new.draws):
            lines.append(f"{name}: {_DRAW}")
        else:
            advice = _SET if setting else _MAKE
            lines.append(f"{name} ({old.text} before, {new.text} after): {advice}")
    return lines
