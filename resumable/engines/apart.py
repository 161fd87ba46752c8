"""A batch that may end its process, in one of its own: a child of the executor's.

A worker of dask is not ours to lose. Its cluster counts how often it ends, and may not
start it again; what else is at work in it is lost with it; and nobody tells how it
ended, or at which position.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from resumable.engines import guest
from resumable.worker import IDLE, Death, Loss, WorkerProcesses, cause_of, died

if TYPE_CHECKING:
    from resumable.engines.guest import Task
    from resumable.worker import Line

#: Where a child is that has not begun any position.
_NOWHERE = (-1, IDLE)


def do(order: Task) -> bytes:
    """Do a batch as :func:`guest.do` does; where it ends its process, say at what."""
    if not guest.begin(order):
        return guest.packed(guest.TaskResult())
    # Of blocks of one position the start says which one is at work.
    order = order._replace(batch=dataclasses.replace(order.batch, block=1))
    with WorkerProcesses(1) as pool:
        pool.place(0, "child", _Child)
        pool.send(0, "child", "do", order)
        is_there = False
        while True:
            for event in pool.wait():
                if isinstance(event, Death):
                    pulse = pool.pulse(0) if is_there else _NOWHERE
                    return guest.packed(_outcome(event, order, pulse))
                if event.error is not None:
                    return guest.packed(guest.TaskResult(error=event.error))
                if isinstance(event.value, bytes):
                    return event.value
                is_there = True


class _Child:
    """The child's side."""

    def __init__(self, line: Line) -> None:
        self._pulse = line.pulse
        self._pulse[0], self._pulse[1] = _NOWHERE

    def do(self, order: Task) -> bytes:
        """Do the batch."""
        return guest.do(order, self._pulse)


def _outcome(death: Death, order: Task, pulse: tuple[int, int]) -> guest.TaskResult:
    start, row = pulse
    if pulse == _NOWHERE:
        return guest.TaskResult(error=died(death, "before its first position"))
    cause, message = cause_of(death)
    position = None if row == IDLE else start
    return guest.TaskResult(loss=Loss(order.batch, position, False, cause, message))
