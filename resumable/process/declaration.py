"""What a user writes: parameters, outputs, a method to compute, and what it may use."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import sys
import warnings
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import param

from resumable import identity
from resumable.errors import (
    DeclarationError,
    ParameterError,
    ResumableError,
    ResumableWarning,
    SourceError,
    near_miss,
    option,
    warn_user,
)
from resumable.model import Output, check_choice, declared_outputs, encode
from resumable.process.attributes import (
    added_values,
    aliases_of,
    as_path,
    check_attributes,
    check_signature,
    left_out,
)
from resumable.process.parameters import (
    OF_SHARING,
    as_typed,
    assign,
    copy_parameters,
    fix_defaults,
    given_by_name,
)
from resumable.results import Axis
from resumable.runfile import target_folder
from resumable.session import Request
from resumable.source import (
    align_input,
    axes_of_source,
    measure_source,
    open_reader,
    shared_value,
)
from resumable.system import launcher
from resumable.worker import Positioned, uncached

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from resumable.identity import CodeCheck, Trace, Traced
    from resumable.results import Results

    Array = np.ndarray[Any, np.dtype[Any]]

_DATES = (param.Date, param.CalendarDate, param.DateRange, param.CalendarDateRange)
#: Methods that decide results; what they do not reach does not count.
ROOTS = ("unit_computation", "block_computation", "setup", "finish")
#: Attributes of ours, which are no attributes of the computation.
OWN = (
    "_source",
    "_geometry",
    "_dtype",
    "_inputs",
    "_shared",
    "_folder",
    "_full",
    "_strict",
    "_seconds_per_position",
    "_frozen",
    "_given",
    "_typed",
    "position_axes",
    "_shared_parameters",
    "_arguments",
    "_cursor",
    "name",
)
#: What the constructor takes besides parameters.
ARGUMENTS = (
    "source",
    "target",
    "inputs",
    "shared",
    "position_axes",
    "fingerprint",
    "environment",
)


def _set_by_us() -> bool:
    """Return whether what sets an attribute is in this package, or copies an object."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_code.co_name == "__setattr__":
        frame = frame.f_back
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in ("resumable", "param", "copy")


#: A class that is made again, and the source then: a constructor may make its name of
#: what it is given, and is given the whole name now.
SOURCE_AGAIN: ContextVar[tuple[type, Any] | None] = ContextVar(
    "resumable_source_again", default=None
)


def _trace_sent(process: Declaration, **how: Any) -> Traced:
    """Trace the code of a Process that was sent to a worker."""
    values = {name: getattr(process, name) for name in type(process).param}
    return identity.trace_object(
        process, stop=Declaration, roots=ROOTS, parameters=values, own=OWN, **how
    )


class Declaration(Positioned, param.Parameterized):
    """What is computed: all of a :class:`Process` that workers need.

    Construction checks it.
    """

    seed = param.Integer(
        0, bounds=(0, None), doc="seed of self.rng; every position has its own stream"
    )

    version: ClassVar[int | str | None] = None
    aliases: ClassVar[tuple[str, ...]] = ()
    added_parameters: ClassVar[Mapping[str, Any]] = {}
    outputs: Any = None
    scratch: Any = 0
    rtol: ClassVar[float] = 1e-5
    position_axes: int | tuple[int, ...] | None = None

    def __new__(cls, *positional: Any, **named: Any) -> Self:
        """Note what a constructor of the user's is given."""
        made = super().__new__(cls)
        # Not where it is copied or unpickled.
        if cls.__init__ is not Declaration.__init__ and (positional or named):
            from resumable.process.constructor import given_arguments

            vars(made)["_arguments"] = given_arguments(cls, positional, named)
        return made

    def __init__(
        self,
        source: Any = None,
        target: str | Path | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        shared: Mapping[str, Any] | None = None,
        position_axes: int | tuple[int, ...] | None = None,
        fingerprint: str = "sample",
        environment: str = "record",
        **parameters: Any,
    ) -> None:
        # Again: where only MPI knows how many ranks there are, and for classes that
        # were there before each rank computed for itself.
        launcher.end_all_on_error()
        known = [name for name in type(self).param if name != "name"]
        for name in parameters:
            if name not in known:
                hint = near_miss(name, [*known, *ARGUMENTS])
                msg = (
                    f"{type(self).__name__} has no parameter {name!r}{hint} "
                    f"(there are {', '.join(known)})"
                )
                raise ParameterError(msg)
        super().__init__(**parameters)  # type: ignore[no-untyped-call]
        fix_defaults(self)
        check_choice(ParameterError, "fingerprint", fingerprint, ("sample", "full"))
        check_choice(ParameterError, "environment", environment, ("record", "strict"))
        check_attributes(self)
        inputs = given_by_name("inputs", inputs)
        shared = given_by_name("shared", shared)
        self._full, self._strict = fingerprint == "full", environment == "strict"
        if source is None:
            if target is not None or inputs or np.any(position_axes):
                msg = (
                    f"{type(self).__name__} is given no source, and yet target, inputs "
                    "or position_axes; only a later stage of a Chain has no source"
                )
                raise SourceError(msg)
            # A later stage of a chain, which brings the rest.
            self._share(shared)
            return
        again = SOURCE_AGAIN.get()
        if again is not None and again[0] is type(self):
            source = again[1]
        # Without a lock, so that a measurement that is under way is not disturbed.
        if position_axes is None:
            position_axes = type(self).position_axes
        measured = measure_source(source, position_axes)
        self._source, self._geometry, self._dtype, taken = measured
        self.position_axes = self._source.position_axes
        if taken:
            axes = self.position_axes
            warn_user(
                f"{type(self).__name__} is given no position_axes; {axes} are taken, "
                f"as {taken}. Give {option('position_axes', axes)}, or declare it in "
                f"the class, to say so; {option('position_axes', 0)} takes the first "
                "axis alone"
            )
        self._inputs = {
            name: align_input(name, value, self._source, self._geometry)
            for name, value in inputs.items()
        }
        self._share(shared, self._source.path)
        self._folder = target_folder(target, self._source.path)
        self._seconds_per_position: float | None = None
        check_signature(self, self._inputs, self._shared)
        self._outputs()
        identity.write_values(self._parameter_values())

    def _share(self, shared: Mapping[str, Any], same_file: str = "") -> None:
        """Read what all positions share."""
        self._shared = {
            name: shared_value(name, value, same_file=same_file)
            for name, value in shared.items()
        }

    # What help shows of a class: Python looks at __new__ first.
    __new__.__signature__ = inspect.signature(__init__)  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: Any) -> None:
        known = name in self.__dict__ or hasattr(type(self), name)
        if name[0] != "_" and not known:
            hint = near_miss(name, [n for n in type(self).param if n != "name"])
            if hint:
                warnings.warn(
                    f"{type(self).__name__} has no parameter {name!r}{hint} A plain "
                    "attribute was set, and all parameters have the values they had",
                    ResumableWarning,
                    stacklevel=2,
                )
        if name != "name" and name in type(self).param:
            assign(self, name, value)
        elif name in OWN[:-1] and not _set_by_us():
            msg = (
                f"{type(self).__name__} sets self.{name}, a name that resumable keeps "
                "for itself; give the attribute another name"
            )
            raise DeclarationError(msg)
        else:
            super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return uncached(self)

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        copy_parameters(self, made)
        own, found = vars(made), uncached(self)
        own.update({n: v for n, v in found.items() if n not in (*own, *OF_SHARING)})
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = copy.copy(self)
        memo[id(self)] = memo[id(made)] = made
        vars(made).update(copy.deepcopy(vars(made), memo))
        return made

    def _outputs(self) -> dict[str, Output]:
        value = self.outputs() if callable(self.outputs) else self.outputs
        if value is None:
            msg = (
                f"{type(self).__name__} declares no outputs; add "
                "outputs = {name: Output(...)}"
            )
            raise DeclarationError(msg)
        return declared_outputs(value, f"{type(self).__name__}.outputs")

    # What a user may override.

    def ready(self, positions: Array) -> Any:
        """Say which positions of a source that is being written may be read now.

        Override it for a dataset that has its full size from the beginning and is
        filled in; where a dataset grows, a position may be read once it is there.

        Parameters
        ----------
        positions : ndarray of int64
            Flat positions, ascending, that were not ready before.

        Returns
        -------
        bool or ndarray of bool
            One for all positions, or one for each.

        Notes
        -----
        The process that called :meth:`compute` calls it again and again while it waits;
        workers never call it. Open files without a lock and close them, for example
        ``h5py.File(path, "r", locking=False)``.
        """
        return True

    def setup(self) -> None:
        """Prepare a worker: load tables and models. Called once in each worker."""

    def finish(self, results: Results) -> Any:
        """Summarise a complete run; called once, after the last position.

        Parameters
        ----------
        results : Results
            All positions, done or failed.

        Returns
        -------
        dict or value
            Values of the outputs declared with ``per="run"``, if there are any.
        """

    def draw(
        self, axes: Any, position: Any, spectrum: Array, outputs: dict[str, Any]
    ) -> None:
        """Draw one tested position; override it for another picture.

        The data are drawn over their axis, with outputs of their shape over them;
        outputs of a few numbers are a table with labels and units.

        Parameters
        ----------
        axes : tuple of two matplotlib.axes.Axes
            For the data and for the result.
        position : int or tuple
            Which position.
        spectrum : ndarray
            Its data.
        outputs : dict
            Its outputs by name.
        """
        from resumable.session import draw_default

        coords: list[Axis] = []
        if np.ndim(spectrum):
            with contextlib.suppress(ResumableError):  # it has moved meanwhile, say
                coords = list(self.coords.values())[-np.ndim(spectrum) :]
        draw_default(axes, position, spectrum, outputs, self._outputs(), coords)

    # What the user's methods may use.

    @property
    def coords(self) -> dict[str, Axis]:
        """Axes of the source by name: of the map, then of a spectrum; read now.

        Each has ``values``, ``units`` and further ``attributes``. They come from
        dimension scales, from the NXdata group of which the source is a signal, or from
        USID, where the positions have one for each dimension of the map. An axis of
        which the file says nothing counts from 0. Results have those of the map, and
        outputs of a spectrum's shape those of the spectrum.

        Raises
        ------
        SourceError
            The source cannot be opened.
        """
        found: dict[str, Axis] = {}
        ref = dataclasses.replace(self._source, live=bool(self._source.path))
        with open_reader(ref) as reader:
            for scale, number in axes_of_source(reader):
                name = scale.name
                if name in found:
                    name = f"{name}_{number}"
                found[name] = Axis(name, np.asarray(scale.values), scale.attributes)
        return found

    @property
    def spectrum_dtype(self) -> np.dtype[Any]:
        """Dtype of the data."""
        return self._dtype

    def _traced(self, codes: Any = None, name: str | None = None) -> Traced:
        """Trace the code of this Process, its parameters and its other attributes.

        `name` is an older one of the class: the trace is what it was then.
        """
        return identity.trace_object(
            self,
            stop=Declaration,
            roots=ROOTS,
            parameters=self._parameter_values(),
            own=OWN,
            codes=codes,
            lenient=codes is not None or self.version is not None,
            older_name=name,
        )

    def _attributes(self) -> dict[str, Any]:
        """Return attributes that the computation reads, as plain JSON."""
        others = [name for name in vars(self) if not name.startswith("_param__")]
        return self._traced().attributes if {*others} - {*OWN} else {}

    def _source_text(self) -> str:
        """Return the text of the class, for people; empty where there is none."""
        return identity.class_text(type(self)) or ""

    def _changed_since(self, then: Traced) -> list[str]:
        """Say which parameters and attributes, and what code, are not as they were."""
        now = self._traced(then.trace.codes)
        return then.changed(now, code=self.version is None)

    def _check_source(self) -> None:
        name = type(self).__name__
        if "_full" not in vars(self):
            msg = f"{name}.__init__ must call super().__init__(source, ...)"
            raise DeclarationError(msg)
        if "_source" not in vars(self):
            msg = (
                f"{name} was made without a source; give it one, or compute the "
                "chain where it is a stage of a Chain"
            )
            raise SourceError(msg)

    def _request(self) -> Request:
        """Return what is asked for; reads no data."""
        self._check_source()
        traced = self._traced()
        return Request(
            process=self,
            name=type(self).__name__,
            version=self._version_document(traced),
            parameters=traced.parameters,
            attributes=traced.attributes,
            shared={name: one.document for name, one in self._shared.items()},
            places={n: one.place for n, one in self._shared.items() if one.place},
            arguments=self._written_arguments(),
            arrays=identity.arrays_in(self._held(traced.attributes)),
            outputs=self._outputs(),
            source=self._source,
            inputs=self._inputs,
            geometry=self._geometry,
            folder=self._folder,
            full=self._full,
            strict=self._strict,
            # All of an array is there.
            asks_ready=type(self).ready is not Declaration.ready
            and self._source.array is None,
            trace=traced.trace,
            check=self._code_check(traced),
            changed=functools.partial(self._changed_since, traced),
            earlier=self._earlier_document,
            aliases=aliases_of(type(self)),
            added=identity.write_values(added_values(type(self))),
            left_out=left_out(type(self), traced.parameters),
            named=self._named,
            source_text=self._source_text(),
            seconds_per_position=self._seconds_per_position,
        )

    def _named(self, name: str) -> tuple[Any, Trace]:
        """Return version and trace as they were when the class had another name."""
        traced = self._traced(name=name)
        return self._version_document(traced), traced.trace

    def _code_check(self, traced: Traced) -> CodeCheck:
        """Return what makes sure that a worker has the same code."""
        return identity.CodeCheck(
            self,
            traced,
            _trace_sent,
            values=self.version is None,
            name=type(self).__name__,
        )

    def _join(
        self, head: Request, shape: tuple[Any, ...], dtype: np.dtype[Any]
    ) -> None:
        """Compute at the positions of the first stage of a chain, on such data."""
        self._source, self._inputs = head.source, {}
        self.position_axes = head.source.position_axes
        self._folder, self._full = head.folder, head.full
        self._strict = head.strict
        self._geometry = head.geometry._replace(spectrum_shape=shape)
        self._dtype, self._seconds_per_position = dtype, None

    def _version_document(self, traced: Traced) -> Any:
        """Return the version, or the digest of all code that is reached, as JSON."""
        if self.version is not None:
            return encode(self.version, "version")
        return {"code": traced.trace.digest}

    def _parameter_values(self) -> dict[str, Any]:
        """Return the values of the parameters; of files their paths."""
        values = {}
        for name in type(self).param:
            if name != "name":
                values[name] = as_path(self.param[name], getattr(self, name))
        return values

    def _written_arguments(self) -> dict[str, Any]:
        """Return what the constructor was given besides what we know, as JSON."""
        given = self.__dict__.get("_arguments", {})
        return {name: identity.write_value(value) for name, value in given.items()}

    def _held(self, attributes: Iterable[str]) -> dict[str, Any]:
        """Return all values whose arrays a run file or a state keeps, by name."""
        shared = {name: one.value for name, one in self._shared.items()}
        kept = dict(self.__dict__.get("_arguments", {}))
        kept.update((name, getattr(self, name)) for name in attributes)
        refs = {"source": self.__dict__.get("_source"), **self._inputs}
        sources = {n: ref.array for n, ref in refs.items() if ref is not None}
        return {**kept, **self._parameter_values(), **shared, **sources}

    def _earlier_document(self) -> dict[str, Any]:
        """Return version and parameters as a document of schema 1 has them."""
        document = {}
        for name in type(self).param:
            if name != "name":
                declared, value = self.param[name], as_typed(self, name)
                # As declared: 1 was 1.0 where it is a float. Dates are no such numbers.
                if value is None or isinstance(declared, _DATES):
                    pass
                elif isinstance(declared, param.NumericTuple):
                    value = [float(item) for item in value]
                elif isinstance(declared, param.Number) and not isinstance(
                    declared, param.Integer
                ):
                    value = float(value)
                document[name] = encode(value, f"the parameter {name!r}")
        version = identity.earlier_version_of_class(
            type(self), self.version, param.Parameterized
        )
        return {"version": version, "parameters": document}

    def __repr__(self) -> str:
        values = "".join(
            f", {name}={getattr(self, name)!r}"
            for name in type(self).param
            if name not in ("name", "seed")
        )
        source = self.__dict__.get("_source")
        return f"{type(self).__name__}({str(source or 'no source')!r}{values})"
