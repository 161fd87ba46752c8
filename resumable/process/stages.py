"""A link of a chain: a Process that computes one or several stages on each position."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import param

from resumable import identity
from resumable.model import (
    block_rows,
    by_name,
    fitted_array,
    gathered_rows,
    ragged_rows,
    scratch_bytes,
)
from resumable.process.process import Process
from resumable.source import SourceRef
from resumable.worker import (
    WHOLE_BLOCK,
    StageCursor,
    computation_of,
    rows_as_list,
    shallow_copy,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from resumable.model import Output
    from resumable.results import Results
    from resumable.session import Computation, Request

    Array = np.ndarray[Any, np.dtype[Any]]


class Stage(NamedTuple):
    """A stage of a chain, and where its arguments come from."""

    request: Request
    """What its Process asks for, at the positions of the chain."""
    arguments: tuple[str, ...]
    """Names of the source, of inputs, and of outputs of earlier stages."""
    outputs: Mapping[str, Output]
    first: bool
    """It is the stage that reads the source first."""

    @classmethod
    def of(cls, request: Request, arguments: tuple[str, ...], *, first: bool) -> Stage:
        """Make a stage of what its Process asks for."""
        outputs = {n: o for n, o in request.outputs.items() if o.per == "position"}
        return cls(request, arguments, outputs, first)

    @property
    def name(self) -> str:
        """Name of the Process."""
        return self.request.name

    @property
    def in_blocks(self) -> bool:
        """Whether it takes many positions at once."""
        return hasattr(self.request.process, "block_computation")

    def as_part(self) -> Request:
        """Return its request as one of a chain, with the older names that count there.

        A later stage has random numbers of its own by its name.
        """
        drawn = any(
            "rng" in reading.mentions
            for _, reading in self.request.trace.codes.values()
        )
        if self.first or not drawn:
            return self.request
        return self.request._replace(aliases=(), named=None)

    def document(self) -> dict[str, Any]:
        """Everything of it that can change results, as plain JSON."""
        return {
            "process": self.name,
            "version": self.request.version,
            "parameters": self.request.parameters,
            **(
                {"attributes": self.request.attributes}
                if self.request.attributes
                else {}
            ),
            **({"shared": self.request.shared} if self.request.shared else {}),
            "outputs": {n: o.identity() for n, o in self.outputs.items()},
            "arguments": list(self.arguments),
            "first": self.first,
        }


class CheckOfStages:
    """What :class:`identity.CodeCheck` does for a Process, for the stages of a link."""

    def __call__(self, link: Link) -> None:
        """Trace the code of every stage; DeclarationError where it is another."""
        for stage in link._stages:
            stage.request.check(stage.request.process)

    def changed(self, link: Link) -> list[str]:
        """Say which values of stages were changed in a worker."""
        return [
            f"{words} of {stage.name}"
            for stage in link._stages
            for words in stage.request.check.changed(stage.request.process)
        ]


class Link(Process):
    """Computes stages, one after the other, and keeps outputs of the last one.

    Of `head`, the request of the first stage of the chain, it has source, folder and
    geometry. `source_name` is what stages call the source, `inputs` is what else they
    need, by argument name. At the flat positions `lacking` an input has failed.
    """

    version: ClassVar[int] = 1

    def __new__(cls, *arguments: Any) -> Self:
        """Note no arguments: no link is made again from them."""
        return object.__new__(cls)

    def __init__(
        self,
        head: Request,
        source_name: str,
        stages: Sequence[Stage],
        inputs: Mapping[str, SourceRef],
        kept: Mapping[str, Output],
        lacking: Array,
    ) -> None:
        param.Parameterized.__init__(self)  # type: ignore[no-untyped-call]
        shape, dtype = head.geometry.spectrum_shape, head.process.spectrum_dtype
        self._join(head, shape, dtype)
        # Without what a worker does not need.
        self._head = head._replace(
            process=None, check=None, changed=None, earlier=None, named=None
        )
        self._inputs = dict(inputs)
        self._source_name, self._stages, self._lacking = source_name, stages, lacking
        self._asked = _with_last_use(stages, kept)
        self.outputs = dict(kept)

    def _earlier(self) -> dict[str, Any]:
        stages = [
            {**stage.document(), **stage.request.earlier()} for stage in self._stages
        ]
        return {"version": self.version, "parameters": {"stages": stages}}

    def _changed_in_stages(self) -> list[str]:
        return [
            f"{words} of {stage.name}"
            for stage in self._stages
            for words in stage.request.changed()
        ]

    def _request(self) -> Request:
        return self._head._replace(
            process=self,
            name=self._stages[-1].name,
            version=self.version,
            parameters={"stages": [stage.document() for stage in self._stages]},
            shared={},
            arguments={},
            arrays={
                f"{stage.name}.{name}": array
                for stage in self._stages
                for name, array in stage.request.arrays.items()
            },
            outputs=self.outputs,
            inputs=self._inputs,
            geometry=self._geometry,
            asks_ready=False,
            trace=identity.Trace.together(
                {s.name: s.request.trace for s in self._stages}
            ),
            check=CheckOfStages(),
            changed=self._changed_in_stages,
            earlier=self._earlier,
            aliases=self._stages[-1].as_part().aliases,
            left_out=(),
            stages=tuple(stage.as_part() for stage in self._stages),
            source_text="\n\n".join(s.request.source_text for s in self._stages),
            seconds_per_position=self._seconds_per_position,
        )

    def _computation(self, asked: Request | None = None, **how: Any) -> Computation:
        computation = super()._computation(asked, **how)
        if any(self._source_name in stage.arguments for stage in self._stages):
            return computation
        # No stage takes the source: only its positions are used.
        positions = SourceRef("", "", (0,), computation.geometry.size)
        return computation._replace(source=positions)

    def scratch(self, count: int) -> int:
        """Bytes of working memory of the stages, and of what goes between them."""
        total = 0
        for stage in self._stages:
            own = stage.request.process.scratch
            total += scratch_bytes(own, count, stage.name)
            if stage is not self._stages[-1]:
                total += count * sum(o.row_bytes for o in stage.outputs.values())
        return total

    def setup(self) -> None:
        """Set every stage up."""
        self._live: list[tuple[Stage, Any]] = []
        for stage in self._stages:
            own = stage.request.process
            cursor: Any = self._cursor
            if not stage.first:
                digest = hashlib.sha256(stage.name.encode()).digest()
                cursor = StageCursor(cursor, int.from_bytes(digest[:4], "little"))
            # The source may have grown since the chain was made.
            geometry = self._geometry._replace(spectrum_shape=own.spectrum_shape)
            process = shallow_copy(own, cursor, geometry)
            process.setup()
            self._live.append((stage, computation_of(process)))

    def finish(self, results: Results) -> Any:
        """Have the last stage summarise."""
        return self._stages[-1].request.process.finish(results)

    def draw(
        self, axes: Any, position: Any, spectrum: Array, outputs: dict[str, Any]
    ) -> None:
        """Draw as the last stage does."""
        self._stages[-1].request.process.draw(axes, position, spectrum, outputs)

    def _check_there(self, flat: Any) -> None:
        """Refuse positions at which an earlier stage has failed."""
        if len(self._lacking) and np.isin(flat, self._lacking).any():
            msg = "an earlier stage of the chain has failed at this position"
            raise ValueError(msg)

    def _taken(self, number: int, known: dict[str, Any]) -> dict[str, Any]:
        """Take the arguments of a stage, copies of those that are needed again."""
        return {
            name: known[name] if last else copy.deepcopy(known[name])
            for name, last in self._asked[number]
        }


class UnitLink(Link):
    """Of stages that compute one position."""

    def unit_computation(self, spectrum: Any, **inputs: Any) -> dict[str, Any]:
        """Compute the stages, one after the other."""
        self._check_there(self._cursor.flat)
        known = {self._source_name: spectrum, **inputs}
        for number, (stage, compute) in enumerate(self._live):
            known.update(_one(stage, compute, self._taken(number, known)))
        return {name: known[name] for name in self.outputs if name in known}


class BlockLink(Link):
    """Of stages of which some compute many positions at once."""

    def block_computation(self, spectra: Any, **inputs: Any) -> dict[str, Any]:
        """Compute the stages, one after the other, each for all positions."""
        self._check_there(self._cursor.flat)
        known = {self._source_name: spectra, **inputs}
        for number, (stage, compute) in enumerate(self._live):
            taken = self._taken(number, known)
            if stage.in_blocks:
                named = by_name(compute(**taken), stage.outputs)
                rows = {
                    name: block_rows(name, named[name], output, len(spectra))
                    for name, output in stage.outputs.items()
                }
            else:
                rows = self._units(stage, compute, taken, len(spectra))
            known.update({name: rows_as_list(values) for name, values in rows.items()})
        return {name: known[name] for name in self.outputs if name in known}

    def _units(
        self, stage: Stage, compute: Any, taken: dict[str, Any], count: int
    ) -> dict[str, Array]:
        progress_words = self._cursor.progress_words
        found: list[dict[str, Any]] = []
        try:
            for row in range(count):
                progress_words[1] = row
                here = {name: values[row] for name, values in taken.items()}
                found.append(_one(stage, compute, here))
        finally:
            progress_words[1] = WHOLE_BLOCK
        return {
            name: gathered_rows([one[name] for one in found])
            if output.ragged
            else np.array([one[name] for one in found], output.dtype)
            for name, output in stage.outputs.items()
        }


def _one(stage: Stage, compute: Any, taken: dict[str, Any]) -> dict[str, Any]:
    """Compute a stage at one position; what it returns is as if it had been stored."""
    named = by_name(compute(**taken), stage.outputs)
    return {name: _stored(name, named[name], o) for name, o in stage.outputs.items()}


def _stored(name: str, value: Any, output: Output) -> Any:
    if output.ragged:
        return ragged_rows(name, value, output)
    array = fitted_array(name, value, output.dtype, output.shape)
    return np.array(array, output.dtype, order="C")[()]


def _with_last_use(
    stages: Sequence[Stage], kept: Mapping[str, Output]
) -> list[list[tuple[str, bool]]]:
    """Return the arguments of every stage, and whether no later stage needs them."""
    asked = []
    needed = set(kept)
    for stage in reversed(stages):
        asked.append([(name, name not in needed) for name in stage.arguments])
        needed |= set(stage.arguments)
    return asked[::-1]
