"""Programs that start at once: forked from one that has imported what they need.

Tests that start many spend most of their time on imports otherwise. The command
``python program_server.py NUMBER MODULE...`` imports modules, and takes requests from
the socket of that number, as :class:`ProgramServer` sends them.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import resumable

ROOT = str(Path(__file__).parents[2])


class ProgramServer:
    """Starts scripts, each in a session of its own; a context manager."""

    def __init__(self, *modules):
        self._modules, self._lock = modules, threading.Lock()

    @classmethod
    def of_package(cls):
        found = pkgutil.walk_packages(resumable.__path__, "resumable.")
        names = [one.name for one in found]
        left_out = ("__main__", "lorentz", "windows")
        return cls(*(name for name in names if not name.endswith(left_out)))

    def __enter__(self):
        self._socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), *self._modules],
            env={**os.environ, "PYTHONPATH": ROOT},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        return self

    def __exit__(self, *exc):
        self._socket.close()
        self._process.wait()

    def start(self, path, *arguments, folder=".", environment=None):
        """Start a script; return the :class:`Program`.

        It starts in a folder, with the environment of this process and what is given.
        """
        pipes = [os.pipe() for _ in range(4)]
        # It reads from the first one, and writes to the others.
        theirs = [pipes[0][0], *(write for _, write in pipes[1:])]
        ours = [pipes[0][1], *(read for read, _ in pipes[1:])]
        whole = {**os.environ, "PYTHONPATH": ROOT, **(environment or {})}
        what = [str(Path(folder).absolute()), whole, str(path), *arguments]
        request = json.dumps(what).encode()
        with self._lock:
            socket.send_fds(self._socket, [request], theirs)
            pid = int(self._socket.recv(100))
        for fd in theirs:
            os.close(fd)
        return Program(pid, ours)


class Program:
    def __init__(self, pid, fds):
        self.pid, self.returncode = pid, None
        self.stdin = os.fdopen(fds[0], "w")
        self.stdout, self.stderr = os.fdopen(fds[1]), os.fdopen(fds[2])
        self._status = os.fdopen(fds[3])

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("program", timeout)
            self.returncode = int(self._status.read())
        return self.returncode

    def communicate(self, timeout=None):
        with ThreadPoolExecutor(2) as readers:
            texts = [readers.submit(s.read) for s in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            return texts[0].result(), texts[1].result()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def close(self):
        self.kill()
        self.wait()
        # What was not read by a program that was killed is of no interest.
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        for stream in (self.stdout, self.stderr, self._status):
            stream.close()


def _serve(requests):
    """Fork a process for each request; returns in the processes, with what to run."""
    ends = {}

    def reap(*_):
        for pid in list(ends):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                os.write(ends[pid], str(os.waitstatus_to_exitcode(status)).encode())
                os.close(ends.pop(pid))

    signal.signal(signal.SIGCHLD, reap)
    while True:
        request, fds, _, _ = socket.recv_fds(requests, 1 << 17, 4)
        if not request:
            sys.exit()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            os.setsid()
            requests.close()
            for number, fd in enumerate(fds[:3]):
                os.dup2(fd, number)
            for fd in [*fds, *ends.values()]:
                os.close(fd)
            return json.loads(request)
        ends[pid] = fds[3]
        for fd in fds[:3]:
            os.close(fd)
        requests.send(str(pid).encode())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


class _Exit:
    """Ends this process after all else that Python does at exit but for one step.

    To take down what was imported would copy nearly all pages of the process, and take
    longer than most programs.
    """

    def __init__(self):
        self._code = None
        # Before other modules register what they do at exit: it is called after that.
        atexit.register(self._leave)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            self._code = 0
        elif issubclass(kind, SystemExit):
            code = error.code
            self._code = code if isinstance(code, int) else int(code is not None)
        elif issubclass(kind, Exception):
            self._code = 1

    def _leave(self):
        if self._code is None:  # such as KeyboardInterrupt, which ends by a signal
            return
        sys.last_value = sys.last_traceback = None
        gc.collect()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        # With what C libraries do at exit, and without other threads.
        ctypes.PyDLL(None).exit(self._code)


def main():
    number, *modules = sys.argv[1:]
    ending = _Exit()
    for name in modules:
        importlib.import_module(name)
    # A garbage collection would copy what no program changes.
    gc.collect()
    gc.freeze()
    folder, environment, path, *arguments = _serve(socket.socket(fileno=int(number)))
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    paths = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv, sys.path[:1] = [path, *arguments], [str(Path(path).parent), *paths]
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.chdir(folder)
    with ending:
        runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    main()
