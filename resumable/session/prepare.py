"""What a session is given to do: what is computed, how, and into which run file."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from resumable.model import (
    PositionSet,
    class_file,
    class_read_from,
    parse_seconds,
    text_digest,
)
from resumable.runfile import (
    SessionTables,
    WriteTarget,
    create_run_file,
    reserve_rows,
    target_errors,
)
from resumable.source import coordinates_of, rechunked
from resumable.system import disk
from resumable.worker import Job, warning_filters

if TYPE_CHECKING:
    from pathlib import Path

    from resumable.engines import Engine
    from resumable.model import Plan
    from resumable.runfile import RunFile, RunLock
    from resumable.session.computation import Computation, Options


class Assignment(NamedTuple):
    """What a session does: all of it, or until there is more of a followed source."""

    computation: Computation
    """What, of the source as it is now."""
    options: Options
    """How; its positions are those that can be read by now."""
    plan: Plan
    engine: Engine
    lock: RunLock
    """Held by the caller."""

    def run_file(self, run: RunFile | None, *, succeeds: bool = False) -> RunFile:
        """Return the run that is there if it is of full length, else make a new one.

        The new file has room on the disk for what is computed, and the rows that are
        there are copied in. With `succeeds`, this session has made the run that is
        there, and the new file takes its place if it is of the same identity.
        """
        computation, folder = self.computation, self.computation.run_folder
        if run is not None and computation.full_length(run.header):
            return run
        in_place = succeeds and run and run.header.identity == folder.identity
        path = run.path if run and in_place else folder.new_path()
        with computation.open_reader() as reader:
            return create_run_file(
                path,
                computation.spec(),
                coordinates_of(reader),
                self._requested,
                run,
                succeeds=succeeds,
            )

    def tables(self, run: RunFile, *, ended: bool) -> SessionTables:
        """Open the tables of a run that was there, and reserve room for its rows.

        `ended`: the session before came to its end. RunBusy, where another program has
        the file open for writing.
        """
        outputs = self.computation.position_outputs.values()
        needed = sum(o.row_bytes for o in outputs) * self.plan.pending
        with target_errors(run.path.parent, needed):
            if not ended:
                # It may have been killed before the name of the file was durable.
                disk.sync_folder(run.path.parent)
            tables = SessionTables(run)
            try:
                reserve_rows(tables.fileno(), run.header, self._requested)
            except BaseException:
                tables.close()
                raise
        return tables

    @property
    def _requested(self) -> PositionSet:
        if self.options.positions is not None:
            return self.options.positions
        return PositionSet.full(self.computation.geometry.size)

    def job(self, run: RunFile) -> Job:
        """Make the copy in position order, if planned; return what workers get."""
        computation, timeout = self.computation, self.options.position_timeout
        source = computation.source
        if self.plan.rechunk:
            with computation.open_reader() as reader:
                source = rechunked(reader, self.copy_path, self.plan.memory_bytes // 2)
        cls = type(computation.request.process)
        # The text is of the file as it is now, which may be newer than the class.
        same = class_file(cls) == class_read_from(cls)
        text = text_digest(computation.request.source_text()) if same else ""
        return Job(
            computation.request.process,
            computation.position_outputs,
            source,
            computation.inputs,
            self.target(run) if self.plan.writer == "workers" else None,
            stop_on_error=self.options.on_error == "raise",
            geometry=computation.geometry,
            read_from=class_read_from(cls),
            position_timeout_s=None if timeout is None else parse_seconds(timeout),
            filters=warning_filters(),
            text=text,
            may_ship=self.options.writer == "auto",
        )

    def target(self, run: RunFile) -> WriteTarget:
        """Return where rows go, for workers and for the driver."""
        return WriteTarget(
            run.path,
            run.header,
            self.lock.lock_path,
            self.lock.writers_path,
            self.lock.token,
            self.plan.checkpoint_s,
            self.plan.workers if self.plan.writer == "workers" else 1,
        )

    @property
    def copy_path(self) -> Path:
        """Where a copy of the source in position order is, if there is one."""
        run_folder = self.computation.run_folder
        # Where the source can grow, its contents are not part of the identity.
        contents = self.computation.contents or ""
        return run_folder.folder / f"{run_folder.stem}{contents[:8]}.rechunked.h5"
