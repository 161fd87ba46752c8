"""Holding libraries to one thread, so that each worker uses one core.

So processes times threads do not exceed the cores, and results do not depend on the
number of threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

import threadpoolctl

from resumable.system.machine import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Read by BLAS and OpenMP libraries when they are loaded; PyTorch reads them, too.
_VARIABLES = tuple(
    f"{name}_NUM_THREADS"
    for name in ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB_MAXIMUM")
)
#: Environment of worker processes: one thread each, and an allocator (glibc's) that
#: keeps the memory of a block for the next one. By default it returns megabytes every
#: time, and the page faults for new ones can take as long as the computation.
WORKER_VARIABLES = {
    **dict.fromkeys(_VARIABLES, "1"),
    # Not in a process that goes on: numba refuses that it changes.
    "NUMBA_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class OneThread:
    """A context in which BLAS, OpenMP, numba and PyTorch use one thread.

    The same thread must enter and leave: OpenMP and numba have a number for each
    thread, and in threadpoolctl 3.8 the first one that sets a limit for OpenBLAS
    controls it until it leaves. Libraries that are loaded meanwhile begin with one
    thread where they read it from the environment, which this sets; :meth:`again`
    limits the others. At the end all have the threads that they had, or would have.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._loaded: int | None = None
        self._known: set[str] = set()
        try:
            # The last to be left: what was loaded meanwhile needs to know what was set.
            self._stack.enter_context(_variables.held())
            self.again()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def again(self) -> None:
        """Limit libraries that were loaded since; takes a microsecond if none was."""
        loaded = libraries_loaded()
        if loaded == self._loaded:
            return
        late, self._loaded = self._loaded is not None, loaded
        controller = _controller(loaded)
        for library in controller.lib_controllers:
            if late and library.filepath not in self._known:
                # Before the limit, which is lifted to what it finds.
                library.set_num_threads(_variables.threads_without)
            self._known.add(library.filepath)
        self._stack.enter_context(controller.limit(limits=1))
        for name in ("numba", "torch"):
            package: Any = sys.modules.get(name)
            # While another thread imports it, it may have no such functions yet.
            if name not in self._known and hasattr(package, "set_num_threads"):
                self._known.add(name)
                self._limit(package, late=late)

    def _limit(self, package: Any, *, late: bool) -> None:
        if getattr(getattr(package, "config", None), "NUMBA_NUM_THREADS", 0) == 1:
            return  # asked for its number, it would start its threads
        before = package.get_num_threads()
        if late and before == 1:
            before = _variables.threads_without
        package.set_num_threads(1)
        self._stack.callback(package.set_num_threads, before)


class _Variables:
    """The variables of this process's environment, set while somebody holds them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._before: dict[str, str] = {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            if not self._holders:
                known = [name for name in _VARIABLES if name in os.environ]
                self._before = {name: os.environ[name] for name in known}
                os.environ.update(dict.fromkeys(_VARIABLES, "1"))
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if not self._holders:
                    for name in _VARIABLES:
                        os.environ.pop(name, None)
                    os.environ.update(self._before)

    @property
    def threads_without(self) -> int:
        """How many threads a library would have begun with."""
        numbers = [int(text) for text in self._before.values() if text.isdigit()]
        return min([usable_cores(), *numbers])


_variables = _Variables()


@functools.lru_cache(1)
def _controller(loaded: int) -> threadpoolctl.ThreadpoolController:
    """Find the libraries that are loaded, `loaded` in all; it takes 0.2 ms or more."""
    return threadpoolctl.ThreadpoolController()


def find_libraries() -> None:
    """Find the libraries that are loaded: processes forked from this one know them."""
    _controller(libraries_loaded())


def libraries_loaded() -> int:
    """Return a number that grows when this process loads a library."""
    return _count()


class _LibraryInfo(ctypes.Structure):
    """The struct dl_phdr_info of glibc and musl."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.c_void_p),
        ("header_count", ctypes.c_uint16),
        ("loaded_so_far", ctypes.c_ulonglong),
    )


def _counter() -> Callable[[], int]:
    """Return what counts the libraries, by what the system offers."""
    if sys.platform == "win32":
        return lambda: len(sys.modules)
    program = ctypes.CDLL(None)
    if hasattr(program, "_dyld_image_count"):  # pragma: no cover - macOS
        count: Callable[[], int] = program._dyld_image_count
        return count
    if not hasattr(program, "dl_iterate_phdr"):  # pragma: no cover - other systems
        return lambda: len(sys.modules)
    found = []

    def take_first(info: Any, size: int, data: Any) -> int:
        found.append(info.contents.loaded_so_far)
        return 1

    pointer = ctypes.POINTER(_LibraryInfo)
    kind = ctypes.CFUNCTYPE(ctypes.c_int, pointer, ctypes.c_size_t, ctypes.c_void_p)
    callback = kind(take_first)

    def so_far() -> int:
        program.dl_iterate_phdr(callback, None)
        return int(found.pop())

    return so_far


_count = _counter()
