"""Starting worker processes, and knowing how they ended.

``forkserver``: a server process that has imported this library, and nothing of
the user's, forks workers on request; a worker is there in milliseconds.
``spawn``: every worker is a fresh interpreter. fork of the user's own process is
not offered: HDF5, threads and BLAS do not survive it.

The server of :mod:`multiprocessing` is not used. It is shared with all other code
of the process, it imports ``__main__`` (so scripts would need a guard), and a
signal that a batch scheduler sends to every process of a job ends it, and with it
the workers, before they have committed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Protocol

from resumable.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[[Connection], None]

START_METHODS = ("forkserver", "spawn")

#: What every worker needs, imported once by the server.
_PRELOADED = ("resumable.engines.crew", "threadpoolctl")
_FORK, _WAIT = b"f", b"w"
_NUMBER_BYTES = 8
_SERVER_CODE = "from resumable.launch import _run_server; _run_server({fd}, {dies})"
_WORKER_CODE = "from resumable.launch import _run_worker; _run_worker({fd})"
_PATH_CODE = "import sys; sys.path[:] = {path!r}; "
#: Signals that schedulers and terminals send to all processes of a job. The
#: driver alone obeys; workers and their server end when it is done with them.
_LEFT_TO_DRIVER = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")


class Child(Protocol):
    """A worker process as its parent sees it."""

    pid: int
    connection: Connection

    def exitcode(self) -> int | None:
        """Wait for its end; negative for a signal, None when nobody knows."""


def start_child(start_method: str) -> Child:
    """Start a worker process that serves the other end of ``connection``.

    Raises
    ------
    PlanError
        There is no such start method.
    """
    if start_method not in START_METHODS:
        msg = f"start_method must be one of {START_METHODS}, not {start_method!r}"
        raise PlanError(msg)
    if start_method == "spawn":
        return _Spawned()
    return _Forked(_Server.get())


def start_server(start_method: str) -> bool:
    """Begin to start what ``start_child`` needs; does not wait.

    Called as soon as workers are likely to be needed, and then again, so that the
    caller does something else while the server imports.

    Returns
    -------
    bool
        Workers can be started at once now.
    """
    return start_method != "forkserver" or _Server.get().ready()


def _interpreter(code: str, fd: int) -> subprocess.Popen[bytes]:
    """Start this Python with one open file descriptor and the same import path."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return subprocess.Popen(
        [sys.executable, *flags, "-c", _PATH_CODE.format(path=sys.path) + code],
        pass_fds=(fd,),
        stdin=subprocess.DEVNULL,
    )


class _Spawned:
    """A worker in an interpreter of its own."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            code = _WORKER_CODE.format(fd=theirs.fileno())
            self._process = _interpreter(code, theirs.fileno())
        self.pid = self._process.pid
        self.connection = Connection(ours.detach())

    def exitcode(self) -> int | None:
        return self._process.wait()


class _Forked:
    """A worker forked from the server."""

    def __init__(self, server: _Server) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.pid = server.fork(theirs.fileno())
        self._server = server
        self.connection = Connection(ours.detach())

    def exitcode(self) -> int | None:
        return self._server.exitcode(self.pid)


class _Server:
    """The server of this process: one, kept for the next run."""

    _instance: _Server | None = None
    _lock = threading.Lock()

    @classmethod
    def get(cls) -> _Server:
        """Return the running server of this process, started when there is none."""
        with cls._lock:
            server = cls._instance
            # A forked copy of this process must not talk to its parent's server.
            if server is None or not server.serves(os.getpid()):
                server = cls._instance = cls()
            return server

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._ready = False
        # One question and its answer at a time, whichever thread asks.
        self._talk = threading.Lock()
        self._socket, theirs = socket.socketpair()
        main_thread = threading.current_thread() is threading.main_thread()
        with theirs:
            code = _SERVER_CODE.format(fd=theirs.fileno(), dies=main_thread)
            self._process = _interpreter(code, theirs.fileno())

    def ready(self) -> bool:
        """Return whether it has imported all it needs; does not wait."""
        with self._talk:
            if not self._ready and select.select([self._socket], [], [], 0)[0]:
                self._await_ready()
            return self._ready

    def _await_ready(self) -> None:
        if not self._ready:
            self._receive()
            self._ready = True

    def serves(self, pid: int) -> bool:
        """Return whether it belongs to this process and is alive."""
        return self._owner == pid and self._process.poll() is None

    def fork(self, fd: int) -> int:
        """Have a worker forked that serves `fd`; return its process number."""
        with self._talk:
            self._await_ready()
            socket.send_fds(self._socket, [_FORK], [fd])
            return self._receive()

    def exitcode(self, pid: int) -> int | None:
        """Wait for a worker's end; None when the server is gone, too."""
        try:
            with self._talk:
                self._socket.sendall(_WAIT + pid.to_bytes(_NUMBER_BYTES, "big"))
                return self._receive()
        except OSError:
            return None

    def _receive(self) -> int:
        data = b""
        while len(data) < _NUMBER_BYTES:
            part = self._socket.recv(_NUMBER_BYTES - len(data))
            if not part:
                msg = "the server that forks workers has ended"
                raise ConnectionResetError(msg)
            data += part
        return int.from_bytes(data, "big", signed=True)


def _run_server(fd: int, dies_with_parent: bool) -> None:
    """Fork workers on request until the owner is gone."""
    _leave_signals_to_driver()
    if dies_with_parent:
        die_with_parent()
    for name in _PRELOADED:
        importlib.import_module(name)
    from resumable.pool import serve

    with socket.socket(fileno=fd) as control:
        _answer(control, 0)
        while True:
            command, fds, _, _ = socket.recv_fds(control, 1, 1)
            if not command:
                # Not sys.exit: the exit handlers of what is imported may hang.
                os._exit(0)
            if command == _FORK:
                pid = os.fork()
                if pid == 0:
                    control.close()
                    _run_forked(fds[0], serve)
                os.close(fds[0])
                answer = pid
            else:
                number = int.from_bytes(control.recv(_NUMBER_BYTES), "big")
                answer = _wait_for(number)
            _answer(control, answer)


def _answer(control: socket.socket, number: int) -> None:
    control.sendall(number.to_bytes(_NUMBER_BYTES, "big", signed=True))


def _wait_for(pid: int) -> int:
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status)


def _run_forked(fd: int, serve: Serve) -> None:
    code = 1
    try:
        die_with_parent()
        serve(Connection(fd))
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run_worker(fd: int) -> None:
    """Serve as a spawned worker."""
    _leave_signals_to_driver()
    from resumable.pool import serve

    serve(Connection(fd))


def _leave_signals_to_driver() -> None:
    for name in _LEFT_TO_DRIVER:
        with contextlib.suppress(AttributeError):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def die_with_parent() -> None:
    """Have the kernel end this process when the thread that made it ends.

    It reaches a process whose computation holds the interpreter, too. Linux only;
    elsewhere :func:`resumable.pool.serve` notices by its pipe.
    """
    if sys.platform == "linux":
        import ctypes

        parent = os.getppid()
        set_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            # It ended before the call.
            os._exit(1)
