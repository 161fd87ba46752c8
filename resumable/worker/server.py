"""Starting worker processes, and their exit codes.

::

    this process --- socket ---> server process --- fork, or spawn ---> workers
         `------------------------- pipe, progress words -----------------'

With ``forkserver`` the server has imported this library, the subpackages of scipy that
are loaded here, and no code of the user; it forks workers, in milliseconds. With
``spawn`` it starts a new interpreter for each. Forking the user's own process is not
offered: HDF5, threads and BLAS do not work in the child. Workers end with the server,
and the server with the process it belongs to.

Not that of :mod:`multiprocessing`: other code shares it, it imports ``__main__``, and a
signal to every process of a job ends it, and the workers before they have committed.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import importlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, ClassVar

from resumable.errors import WorkerDied
from resumable.system import (
    WORKER_VARIABLES,
    Uninterrupted,
    find_libraries,
    forks,
    mark_as_worker,
)
from resumable.worker.cursor import shared_progress_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START_METHODS = ("forkserver", "spawn")

#: Modules that every worker needs, imported once by the server that forks them.
_PRELOADED = (
    "resumable.engines.local",
    "resumable.identity.roots",
    "resumable.pool.operators",
    "threadpoolctl",
)
_START, _WAIT = b"s", b"w"
_NUMBER_BYTES = 8
#: Signals that schedulers and terminals send to all processes of a job. The driver
#: alone obeys; workers and server end when the driver does not need them any more.
_LEFT_TO_DRIVER = [
    int(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
    if hasattr(signal, name)
]


def start_server(start_method: str) -> bool:
    """Start the server, unless it runs; return whether it can start workers at once.

    Does not wait: called when workers are likely to be needed, and again until the
    server has imported its modules.
    """
    return WorkerServer.get(start_method).ready()


class WorkerServer:
    """The server process of a start method, kept for the next run."""

    running: ClassVar[dict[str, WorkerServer]] = {}
    _lock = threading.Lock()

    @classmethod
    def get(cls, start_method: str) -> WorkerServer:
        """Return the server of this process, started unless it runs."""
        with cls._lock:
            server = cls.running.get(start_method)
            if server is None or not server.serves(os.getpid()):
                if server is not None and server.process.poll() is not None:
                    server.socket.close()
                server = cls.running[start_method] = cls(start_method)
            return server

    def __init__(self, start_method: str) -> None:
        self._owner = os.getpid()
        self._ready = False
        self._in_step = True
        # One question and its answer at a time, whichever thread asks.
        self.talk = threading.Lock()
        self._killed: collections.deque[int] = collections.deque()
        self._workers: set[int] = set()
        self.socket, theirs = socket.socketpair()
        in_main_thread = threading.current_thread() is threading.main_thread()
        with theirs:
            owner = self._owner if in_main_thread else None
            given = (theirs.fileno(), start_method, owner, _loaded_subpackages())
            # The new interpreter unblocks them when it ignores them.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_DRIVER)
            try:
                self.process = subprocess.Popen(
                    _interpreter(f"_run_server(*{given!r})"),
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **WORKER_VARIABLES},
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        forks.holders.add(self)
        atexit.register(self._end)

    def _end(self) -> None:
        """End it with this process, unless workers that somebody has need it."""
        if self._owner == os.getpid() and not self._workers:
            self.process.kill()
            self.process.wait()
            self.socket.close()

    def close_in_child(self) -> None:
        """Close the socket in a child process, which must not use the server."""
        self.socket.close()

    def ready(self) -> bool:
        """Return whether it has imported its modules; does not wait."""
        with self.talk:
            if not self._ready and self._has_answered(0):
                self.await_ready()
            return self._ready

    def await_ready(self) -> None:
        """Wait until it has imported its modules; the caller holds `talk`."""
        if not self._ready:
            # Ctrl-C may interrupt this wait.
            self._has_answered(None)
            with self._undivided():
                self.receive()
                self._ready = True

    def _has_answered(self, milliseconds: int | None) -> bool:
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(milliseconds))

    def serves(self, pid: int) -> bool:
        """Return whether it belongs to a process, runs and can be asked."""
        return self._owner == pid and self._in_step and self.process.poll() is None

    def start(self, *fds: int) -> int:
        """Start a worker with its pipe and its memory; return its process number."""
        with self.talk:
            self.await_ready()
            self._reap()
            pid = self._ask(_START, fds)
            self._workers.add(pid)
            return pid

    def exitcode(self, pid: int) -> int | None:
        """Wait for a worker's exit code; None where the server has ended, too."""
        try:
            with self.talk:
                return self._ask_exitcode(pid)
        except WorkerDied:
            return None

    def leave(self, pid: int) -> None:
        """Have the server wait for a killed worker, now or at the next start."""
        # Not now where the garbage collector calls this while an answer is waited for.
        self._killed.append(pid)
        if self.talk.acquire(blocking=False):
            try:
                self._reap()
            finally:
                self.talk.release()

    def _reap(self) -> None:
        with contextlib.suppress(WorkerDied):
            while self._killed:
                self._ask_exitcode(self._killed.popleft())

    def _ask_exitcode(self, pid: int) -> int:
        self._workers.discard(pid)
        return self._ask(_WAIT + pid.to_bytes(_NUMBER_BYTES, "big"))

    def _ask(self, question: bytes, fds: tuple[int, ...] = ()) -> int:
        with self._undivided():
            # Where the server has ended, `receive` raises.
            with contextlib.suppress(OSError):
                socket.send_fds(self.socket, [question], fds)
            return self.receive()

    @contextlib.contextmanager
    def _undivided(self) -> Iterator[None]:
        """Have Ctrl-C wait until a question is answered.

        Otherwise every later answer would be that to the question before, and the
        number of another process be taken for that of a worker. Where something else
        interrupts, the server is not used again.
        """
        if not self._in_step:
            msg = "the server that starts workers was interrupted; run again to go on"
            raise WorkerDied(msg)
        with Uninterrupted():
            try:
                yield
            except BaseException:
                # The server has ended, or the handler of another signal raised.
                self._in_step = False
                raise

    def receive(self) -> int:
        """Return the number that answers a question; `talk` is held."""
        data = b""
        while len(data) < _NUMBER_BYTES:
            part = b""
            # Reset: the server was killed before it had read the question.
            with contextlib.suppress(ConnectionResetError):
                part = self.socket.recv(_NUMBER_BYTES - len(data))
            if not part:
                msg = "the server that starts workers has ended; run again to go on"
                raise WorkerDied(msg, self.process.poll())
            data += part
        return int.from_bytes(data, "big", signed=True)


def _interpreter(call: str) -> list[str]:
    """Return the command that makes a call in a new interpreter like this one."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    # Signals first: those that came were blocked, and more may come during the imports.
    # SIGCHLD may be ignored here, in which case waitpid would give no exit codes.
    code = (
        f"import signal, sys; sys.path[:] = {sys.path!r}; "
        f"[signal.signal(s, signal.SIG_IGN) for s in {_LEFT_TO_DRIVER!r}]; "
        f"signal.pthread_sigmask(signal.SIG_UNBLOCK, {_LEFT_TO_DRIVER!r}); "
        "signal.signal(signal.SIGCHLD, signal.SIG_DFL); "
        f"import resumable.worker.server as server; server.{call}"
    )
    return [sys.executable, *flags, "-c", code]


def _loaded_subpackages() -> list[str]:
    """Return the subpackages of scipy that are loaded here: slow to import."""
    return [
        name for name in list(sys.modules) if re.fullmatch(r"scipy\.[^._]\w*", name)
    ]


def _run_server(
    fd: int, start_method: str, owner: int | None, further: list[str]
) -> None:
    """Start workers on request until the owner closes the socket or ends."""
    if owner is not None:
        forks.die_with(owner)
    start: Callable[[list[int], socket.socket], int] = _spawn
    if start_method == "forkserver":
        for name in _PRELOADED:
            importlib.import_module(name)
        for name in further:
            # Here a user's file of the same name may be found, and raise anything.
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        find_libraries()
        start = _fork
    os.set_inheritable(fd, False)
    with socket.socket(fileno=fd) as control:
        with contextlib.suppress(OSError):
            number = 0
            while True:
                answer = number.to_bytes(_NUMBER_BYTES, "big", signed=True)
                control.sendall(answer)
                command, fds, _, _ = socket.recv_fds(control, 1, 2)
                if not command:
                    break
                if command == _START:
                    number = start(fds, control)
                    for worker_fd in fds:
                        os.close(worker_fd)
                else:
                    pid = int.from_bytes(control.recv(_NUMBER_BYTES), "big")
                    number = 0
                    with contextlib.suppress(ChildProcessError):
                        _, status = os.waitpid(pid, 0)
                        number = os.waitstatus_to_exitcode(status)
        # Not sys.exit, which would run exit handlers of the imported modules.
        os._exit(0)


def _fork(fds: list[int], control: socket.socket) -> int:
    """Fork a worker and return its number; in the worker it does not return."""
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        numpys = sys.modules.get("numpy.random")
        if numpys is not None:
            # Else all workers would draw the same numbers. Python's own sees to it.
            numpys.seed()
        _run_worker(server, *fds)
    return pid


def _spawn(fds: list[int], control: socket.socket) -> int:
    """Start a worker in an interpreter of its own."""
    for fd in fds:
        os.set_inheritable(fd, True)
    command = _interpreter(f"_run_worker({os.getpid()}, *{fds})")
    return os.posix_spawn(command[0], command, os.environ)


def _run_worker(server: int, fd: int, shared: int) -> None:
    """Serve as a worker, and end."""
    code = 1
    try:
        forks.die_with(server)
        from resumable.worker.serving import serve

        mark_as_worker()
        # Not SIG_IGN: programs that the computation starts, and ends by SIGTERM, would
        # inherit it, and so would the processes of a multiprocessing.Pool.
        signal.signal(signal.SIGTERM, _ignore_signal)
        signal.siginterrupt(signal.SIGTERM, False)
        progress_words = shared_progress_words(shared)
        for passed in (fd, shared):
            os.set_inheritable(passed, False)
        os.close(shared)
        serve(Connection(fd), progress_words)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ignore_signal(number: int, frame: object) -> None:
    """Ignore a signal that the driver obeys."""
