"""Compute on a disk that is full, and again when there is room.

``python full_disk.py CASE FOLDER HOW`` does it and prints what happened as JSON. The
disk is a small one of its own (``disk``: a tmpfs that lives in a namespace of this
process and ends with it) or the limit of the size of files (``limit``).
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

import resumable as rs

POSITIONS = 100
WIDTH = 1000
#: In the environment: how the disk gets full, and when.
HOW, WHEN = "RESUMABLE_TEST_HOW", "RESUMABLE_TEST_WHEN"
#: Case -> bytes of the disk (of which the source takes 0.8 MB, or 3.2), or of a file.
SIZES = {
    "creation": (1_400_000, 500_000),
    "lock file": (3_000_000, 0),
    "copy": (5_300_000, 2_000_000),
    "rows": (6_000_000, 4_000_000),
    "failures": (6_000_000, 4_000_000),
    "finish": (6_000_000, 4_000_000),
}


def fill_up(folder):
    """Leave no byte free, or let no file grow and no hole be filled."""
    if os.environ[HOW] == "limit":
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        return
    with (folder / "filler").open("ab", 0) as file:
        for size in (1 << 16, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


class Wide(rs.Process):
    """Fills the disk at the moment that it is told to."""

    version = 1
    outputs: ClassVar = {"wide": rs.Output(WIDTH), "total": rs.Output(WIDTH, per="run")}

    def _fill(self, moment):
        if os.environ.get(WHEN) == moment:
            fill_up(Path.cwd())

    def unit_computation(self, spectrum):
        if self.position == 30:
            self._fill("rows")
        if self.position == 41:
            self._fill("failures")
            raise ValueError("no row here")
        return spectrum[:WIDTH] * 2

    def finish(self, results):
        self._fill("finish")
        return np.nansum(results["wide"][...], axis=0)


def compute(when, case):
    os.environ[WHEN] = when
    axes = (1,) if case == "copy" else (0,)
    process = Wide("scan.h5::/data", position_axes=axes)
    process.compute(
        # A limit is one of a process: it must be the one that computes.
        engine="local" if case == "rows" and os.environ[HOW] == "disk" else "serial",
        workers=2,
        rechunk=case == "copy",
        progress=False,
    )


def attempt(case, when, limit):
    """Compute in a copy of this process; return its exit code and its errors."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        os.dup2(theirs, 2)
        warnings.simplefilter("ignore")
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
        try:
            compute(when, case)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(theirs)
    with os.fdopen(ours) as errors:
        text = errors.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def look(truth):
    found = {}
    for path in Path.cwd().glob("*.h5"):
        if path.name.startswith("scan-") and "rechunked" not in path.name:
            results = rs.open(path)
            done = results.completed_mask
            wrong = int((results["wide"][...][done] != truth[done]).any(axis=1).sum())
            found = {
                "done": int(done.sum()),
                "failed": results.status.failed,
                "wrong": wrong,
                "finished": results.status.finished,
                "total": bool(
                    (results["total"][...] == np.delete(truth, 41, 0).sum(0)).all()
                ),
            }
    return found


def supervise(case, how):
    """Compute while there is no room, and then again; return what happened."""
    os.environ[HOW] = how
    data = np.arange(POSITIONS * WIDTH).reshape(POSITIONS, WIDTH) * 1.0
    with h5py.File("scan.h5", "w") as file:
        file["data"] = np.tile(data, 4).T if case == "copy" else data
    source = Path("scan.h5").read_bytes()
    limit = SIZES[case][1] if how == "limit" else None
    if case == "lock file" and how == "disk":
        fill_up(Path.cwd())
    code, errors = attempt(case, case, limit)
    first = {"code": code, "errors": errors[-8000:], "status": look(2 * data)}
    first["left"] = sorted(p.name for p in Path.cwd().iterdir())
    Path("filler").unlink(missing_ok=True)
    if how == "disk":
        subprocess.run(["mount", "-o", "remount,size=20M", "."], check=True)
    code, errors = attempt(case, "", None)
    second = {"code": code, "errors": errors[-8000:], "status": look(2 * data)}
    second["left"] = sorted(p.name for p in Path.cwd().iterdir())
    same = Path("scan.h5").read_bytes() == source
    return {"first": first, "second": second, "source": same}


def namespace():
    """Return the command that gives a namespace with mounts of its own, or None."""
    for command in (["unshare", "-m"], ["unshare", "-r", "-m"]):
        with tempfile.TemporaryDirectory() as folder:
            try:
                done = subprocess.run(
                    [*command, "mount", "-t", "tmpfs", "none", folder],
                    capture_output=True,
                    check=False,
                )
            except OSError:
                continue
            if done.returncode == 0:
                return command
    return None


def run(program_server, case, folder, how):
    enter = namespace() if how == "disk" else None
    if enter is None:
        program = program_server.start(__file__, case, str(folder), "limit")
        with contextlib.closing(program):
            output, errors = program.communicate(timeout=100)
        assert program.returncode == 0, errors
        return json.loads(output)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [*enter, sys.executable, __file__, case, str(folder), how]
    return json.loads(subprocess.check_output(command, env=environment, timeout=100))


def main():
    case, folder, how = sys.argv[1:]
    if how == "disk":
        size = SIZES[case][0]
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
        subprocess.run(command, check=True)
    os.chdir(folder)
    sys.stdout.write(json.dumps(supervise(case, how)))


if __name__ == "__main__":
    main()
