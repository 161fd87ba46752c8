"""Loading: names of a package when they are used, a script for its class alone."""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from resumable.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def lazily(package: str, **modules: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package: name -> the module that has or is it."""

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name not in modules:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        module = importlib.import_module(f"{package}.{modules[name]}")
        value = module if modules[name] == name else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__


_loading: ContextVar[bool] = ContextVar("resumable_loading", default=False)


class WorkBegins(BaseException):
    """A script that is loaded for its class begins to compute.

    No Exception: a script that records errors of its work must not record this one.
    """


@contextlib.contextmanager
def loading(script: str) -> Iterator[None]:
    """Load a script within a block, without arguments: its work is not done.

    Neither in this thread nor in one that the script starts, which ends at its work.
    """
    token, arguments, start = _loading.set(True), sys.argv, threading.Thread.start

    def start_alike(thread: threading.Thread) -> None:
        if _loading.get():
            context, run = copy_context(), thread.run

            def run_alike() -> None:
                with contextlib.suppress(WorkBegins):
                    context.run(run)

            thread.run = run_alike  # type: ignore[method-assign]
        start(thread)

    sys.argv = [script]
    threading.Thread.start = start_alike  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
        sys.argv = arguments
        _loading.reset(token)


def begin_work(what: str) -> None:
    """Go on, but for WorkBegins where a script is being loaded; `what` would be done.

    Whatever computes, writes or reads the command line begins with it. PlanError where
    a new process of a pool imports the script: it would do the work, too.
    """
    if _loading.get():
        raise WorkBegins(what)
    # Where it was not imported this is no process of it.
    processes: Any = sys.modules.get("multiprocessing.process")
    if processes and getattr(processes.current_process(), "_inheriting", False):
        msg = (
            f"a new process of a pool imports this script, and would {what}, too: put "
            "what the script does below  if __name__ == '__main__':"
        )
        raise PlanError(msg)
