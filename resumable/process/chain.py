"""Chains: stages computed one after the other, of which some outputs are kept."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import (
    DeclarationError,
    PlanError,
    RunFileError,
    near_miss,
    shortened,
    wrong,
)
from resumable.model import parse_seconds
from resumable.process.attributes import NAMED, method_of
from resumable.process.parameters import frozen
from resumable.process.process import Process
from resumable.process.stages import BlockLink, Stage, UnitLink
from resumable.results import reference_to
from resumable.source import SourceRef
from resumable.system import begin_work

if TYPE_CHECKING:
    from resumable.model import Output
    from resumable.results import Results
    from resumable.session import Trial
    from resumable.source import SharedValue

    Array = np.ndarray[Any, np.dtype[Any]]


class Chain:
    """Stages that are computed one after the other, of which some outputs are kept.

    Parameters
    ----------
    *stages : Process
        The first with its source, inputs and target, the later ones without a source.
        Their arguments have the names of outputs of earlier stages, of inputs of the
        first stage, of what is shared, by the first stage or by themselves, or the name
        that the first stage gives to the data of the source.
    keep : str or sequence of str, optional
        Outputs to store: names of outputs, or of stages for all outputs of each.
        Default the last stage.

    Raises
    ------
    DeclarationError
        An argument of a stage is no output or input, two stages or outputs have the
        same name, or a name in `keep` is unknown.

    Notes
    -----
    Each kept stage has a run file of its own, and an identity that includes all stages
    before it: when a stage changes, it and the stages that depend on it are computed
    again. ``chain["Features"]`` is the Process of a kept stage, for
    its ``plan``, ``explain`` and ``verify``.

    Examples
    --------
    ``Chain(Segment("cells.h5::/image", level=5), Features(), keep=("Features",))``
    """

    def __init__(
        self, *stages: Process, keep: str | Sequence[str] | None = None
    ) -> None:
        if not stages:
            msg = "a chain needs at least one stage"
            raise DeclarationError(msg)
        given: tuple[Any, ...] = stages
        for stage in given:
            if not isinstance(stage, Process):
                msg = (
                    "a stage of a chain is a Process, as Fit(...), not "
                    f"{shortened(repr(stage))}"
                )
                raise DeclarationError(msg)
        stages[0]._check_source()
        self._processes = stages
        self._keep = [keep] if isinstance(keep, str) else keep
        named: Any = keep
        if not (named is None or isinstance(named, Sequence)):
            what = "names of stages or outputs"
            raise wrong(DeclarationError, "keep", named, what)
        if self._keep is not None and not len(self._keep):
            msg = "keep= names nothing: a chain stores an output or more"
            raise DeclarationError(msg)
        self._wire()

    def _wire(self) -> None:
        """Find out who gets what of whom, with the parameters as they are now."""
        first = self._processes[0]
        self._head = first._request()
        names = [argument.name for argument in _signature(self._head.process)]
        if not names:
            msg = (
                f"{self._head.name} must name its first argument, for later stages to "
                "ask for it"
            )
            raise DeclarationError(msg)
        self._source_name = names[0]
        named = [name for name in names[1:] if name in self._head.inputs]
        arguments = (names[0], *named)
        self._stages: list[Stage] = []
        self._makers: dict[str, int] = {}
        self._add(Stage.of(copy.copy(first)._request(), arguments, first=True))
        for process in self._processes[1:]:
            self._add(self._bound(process))
        self._kept = self._chosen(self._keep)
        for stage in self._stages:
            if stage.request.asks_ready:
                msg = (
                    f"{stage.name} has a method ready(), which a chain does not ask; "
                    "compute the chain when all is there, or that stage by itself"
                )
                raise DeclarationError(msg)

    def _bound(self, process: Process) -> Stage:
        """Give a later stage the positions, and find its arguments."""
        name = type(process).__name__
        if "_source" in process.__dict__:
            msg = (
                f"the stage {name} has a source of its own; only the first stage of a "
                f"chain has one. Make it without: {name}(...)"
            )
            raise DeclarationError(msg)
        arguments = self._arguments(process)
        if not arguments:
            msg = f"the stage {name} takes nothing of the stages before it"
            raise DeclarationError(msg)
        bound, made_by = copy.copy(process), self._makers.get(arguments[0])
        bound._shared = self._shared_with(process)
        shape: tuple[Any, ...] = self._head.geometry.spectrum_shape
        dtype = self._head.process.spectrum_dtype
        if made_by is not None:
            output = self._stages[made_by].outputs[arguments[0]]
            shape = (None, *output.shape) if output.ragged else output.shape
            dtype = output.dtype
        bound._join(self._head, shape, dtype)
        return Stage.of(bound._request(), arguments, first=False)

    def _shared_with(self, process: Process) -> dict[str, SharedValue]:
        """Return what a later stage shares, and asks for of what the first one does."""
        asked = [argument.name for argument in _signature(process)]
        first = self._processes[0]._shared
        return {**{n: v for n, v in first.items() if n in asked}, **process._shared}

    def _arguments(self, process: Process) -> tuple[str, ...]:
        known = [*self._makers, *self._head.inputs, self._source_name]
        shared = self._shared_with(process)
        names = [*known, *self._head.shared, *process._shared]
        found = []
        for argument in _signature(process):
            if argument.name in shared:
                continue
            if argument.name in known:
                found.append(argument.name)
            elif argument.default is argument.empty:
                name = type(process).__name__
                msg = (
                    f"the stage {name} asks for {argument.name!r}, which is neither an "
                    "output of an earlier stage nor an input, shared or the source"
                    f"{near_miss(argument.name, names)} (there are {', '.join(names)})"
                )
                raise DeclarationError(msg)
        return tuple(found)

    def _add(self, stage: Stage) -> None:
        taken = {*self._head.inputs, *self._head.shared, *self._makers}
        taken.add(self._source_name)
        for name in stage.outputs:
            if name in taken:
                msg = (
                    f"the stage {stage.name} has an output {name!r}, which is the name "
                    "of something before it; rename one of them"
                )
                raise DeclarationError(msg)
        if stage.name in [other.name for other in self._stages]:
            msg = f"two stages are named {stage.name}; make a subclass of one of them"
            raise DeclarationError(msg)
        self._makers.update(dict.fromkeys(stage.outputs, len(self._stages)))
        self._stages.append(stage)

    def _chosen(self, keep: Sequence[str] | None) -> dict[int, dict[str, Output]]:
        """Return the outputs that are kept, by number of the stage."""
        chosen: dict[int, dict[str, Output]] = {}
        numbers = {stage.name: number for number, stage in enumerate(self._stages)}
        for name in keep if keep is not None else [self._stages[-1].name]:
            number = numbers.get(name, self._makers.get(name))
            if number is None:
                known = [*numbers, *self._makers]
                msg = (
                    f"there is no stage and no output {name!r} to keep"
                    f"{near_miss(str(name), known)} (there are {', '.join(known)})"
                )
                raise DeclarationError(msg)
            declared = self._stages[number].request.outputs
            wanted = declared if name in numbers else {name: declared[name]}
            chosen.setdefault(number, {}).update(wanted)
        # In the order of the declaration, whatever the order of keep.
        return {
            number: {n: o for n, o in outputs.items() if n in chosen[number]}
            for number, outputs in enumerate(s.request.outputs for s in self._stages)
            if number in chosen
        }

    # The links.

    def _link(self, number: int, above: Mapping[int, Results]) -> Process:
        """Return the Process that computes a kept stage from what is kept before it."""
        inputs: dict[str, SourceRef] = {}
        lacking: list[Array] = []
        stages = self._needed(number, above, inputs, lacking)
        kept = self._kept[number]
        if stages == [0] and list(kept) == list(self._head.outputs):
            return self._processes[0]
        chosen = [self._stages[index] for index in stages]
        kind = BlockLink if any(stage.in_blocks for stage in chosen) else UnitLink
        failed = np.unique(np.concatenate([np.empty(0, np.int64), *lacking]))
        return kind(self._head, self._source_name, chosen, inputs, kept, failed)

    def _needed(
        self,
        number: int,
        above: Mapping[int, Results],
        inputs: dict[str, SourceRef],
        lacking: list[Array],
    ) -> list[int]:
        """Return the stages that are computed for one; note what is read instead."""
        needed, waiting = {number}, [number]
        while waiting:
            for name in self._stages[waiting.pop()].arguments:
                maker = self._makers.get(name)
                if maker is None:
                    if name in self._head.inputs:
                        inputs[name] = self._head.inputs[name]
                elif maker in above and name in self._kept[maker]:
                    inputs[name] = reference_to(above[maker], name)
                    lacking.append(np.flatnonzero(above[maker].failed_mask))
                elif maker not in needed:
                    needed.add(maker)
                    waiting.append(maker)
        return sorted(needed)

    def __getitem__(self, stage: str) -> Process:
        """Return the Process of a kept stage.

        Raises
        ------
        KeyError
            No output of such a stage is kept.
        RunFileError
            A stage that it reads from has no results yet.
        """
        self._wire()
        names = {self._stages[number].name: number for number in self._kept}
        asked: Any = stage
        if not isinstance(asked, str) or asked not in names:
            msg = f"no output of a stage {stage!r} is kept{near_miss(stage, names)}"
            raise KeyError(msg)
        above: dict[int, Results] = {}
        for number in self._kept:
            link = self._link(number, above)
            if number == names[stage]:
                return link
            results = link.results
            if results is None:
                msg = (
                    f"{stage} reads what {self._stages[number].name} has kept, of "
                    "which there are no results yet; compute the chain"
                )
                raise RunFileError(msg)
            above[number] = results
        raise AssertionError

    # What a user asks.

    def test(self, position: Any = 0) -> Trial:
        """Compute all stages at one or a few positions, as :meth:`Process.test` does.

        Returns
        -------
        Trial
            With the outputs of all stages, and the plan of the first run that the chain
            would make. Writes nothing, and reads no kept results.
        """
        begin_work("test a chain")
        self._wire()
        every = {n: o for stage in self._stages for n, o in stage.outputs.items()}
        kind = BlockLink if any(s.in_blocks for s in self._stages) else UnitLink
        none = np.empty(0, np.int64)
        head = self._head
        link = kind(head, self._source_name, self._stages, head.inputs, every, none)
        with self._frozen():
            trial = link.test(position)
            # No run keeps the outputs of all stages.
            plan = self._link(min(self._kept), {}).plan()
        seconds = trial.seconds_per_position
        plan = dataclasses.replace(plan, seconds_per_position=seconds)
        return dataclasses.replace(trial, plan=plan)

    def compute(self, **options: Any) -> ChainResults:
        """Compute all kept stages, and return their results.

        Parameters
        ----------
        **options
            As those of :meth:`Process.compute`, without ``follow``; ``time_limit`` is
            for all stages together.

        Returns
        -------
        ChainResults

        Raises
        ------
        NotFinished
            The run was stopped; call it again to continue.
        ResumableError
            As :meth:`Process.compute` raises.
        """
        begin_work("compute a chain")
        if options.get("follow") is not None:
            msg = (
                "a chain does not wait for positions: compute it again when there are "
                "more, or let its first stage alone wait"
            )
            raise PlanError(msg)
        limit = options.pop("time_limit", None)
        seconds = None if limit is None else parse_seconds(limit, "time_limit")
        deadline = None if seconds is None else time.monotonic() + seconds
        above: dict[int, Results] = {}
        with self._frozen():
            self._wire()
            for number in self._kept:
                if deadline is not None:
                    # One that has passed stops the rest before its first batch.
                    options["time_limit"] = max(1e-3, deadline - time.monotonic())
                above[number] = self._link(number, above).compute(**options)
        return self._together(above)

    @property
    def results(self) -> ChainResults | None:
        """Results that are there, finished or not, else None; computes nothing."""
        self._wire()
        above: dict[int, Results] = {}
        for number in self._kept:
            found = self._link(number, above).results
            if found is None:
                break
            above[number] = found
        return self._together(above) if above else None

    def _together(self, above: Mapping[int, Results]) -> ChainResults:
        return ChainResults({self._stages[n].name: r for n, r in above.items()})

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for process in self._processes:
                stack.enter_context(frozen(process))
            yield

    def __repr__(self) -> str:
        kept = ", ".join(name for outputs in self._kept.values() for name in outputs)
        stages = ", ".join(stage.name for stage in self._stages)
        return f"<Chain of {stages} on {self._head.source}, keeps {kept}>"


class ChainResults(Mapping[str, Any]):
    """What is kept of a chain: a mapping of output names to arrays on disk.

    Attributes
    ----------
    stages : dict of Results
        Name of the stage -> its results, in a run file of their own.
    """

    def __init__(self, stages: dict[str, Results]) -> None:
        self.stages = stages

    def __getitem__(self, name: str) -> Any:
        for results in self.stages.values():
            if name in results:
                return results[name]
        msg = f"there is no output {name!r}{near_miss(name, self)}"
        raise KeyError(msg + f" (there are {', '.join(self)})")

    def __iter__(self) -> Iterator[str]:
        return (name for results in self.stages.values() for name in results)

    def __len__(self) -> int:
        return sum(map(len, self.stages.values()))

    def __repr__(self) -> str:
        parts = "\n ".join(f"{name}: {r!r}" for name, r in self.stages.items())
        return f"<ChainResults\n {parts}>"


def _signature(process: Process) -> list[inspect.Parameter]:
    method = getattr(process, method_of(process))
    found = inspect.signature(method).parameters.values()
    return [argument for argument in found if argument.kind in NAMED]
