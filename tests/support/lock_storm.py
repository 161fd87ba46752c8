"""Processes that take and release a lock of ours as fast as they can.

While a process has the lock, it locks a second file, the witness, which is on a local
file system and stays: that fails where two have the lock at once.
"""

import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def run_lock(folder, number):
    """Take the lock on computing a run, as the driver does."""
    from resumable.runfile import RunLock
    from resumable.runfile.folder import RunFolder

    with RunLock(RunFolder(folder, "storm", "0" * 64)).held():
        yield True


@contextmanager
def writers_lock(folder, number):
    """Take the lock of the writers, in turn as a worker and as a driver do."""
    from resumable.errors import RunBusy
    from resumable.system import LockFile

    lock, exclusive = LockFile(folder / "storm.writers"), number % 3 == 0
    if not lock.acquire(exclusive=exclusive, patience=0.2):
        raise RunBusy("taken")
    try:
        yield exclusive
    finally:
        lock.release(remove=exclusive)


LOCKS = (run_lock, writers_lock)


def main(count, witness, folder):
    """Take each lock `count` times; print how often it was held twice, or an error."""
    from resumable.errors import RunBusy

    sees = os.open(witness, os.O_RDWR | os.O_CREAT)
    found = {"twice": 0, "errors": 0}
    for lock in LOCKS:
        taken = 0
        while taken < int(count):
            try:
                with lock(Path(folder), taken) as exclusive:
                    taken += 1
                    how = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
                    try:
                        fcntl.flock(sees, how | fcntl.LOCK_NB)
                    except BlockingIOError:
                        found["twice"] += 1
                    # Long enough for another process to come between.
                    time.sleep(0.001)
                    fcntl.flock(sees, fcntl.LOCK_UN)
            except RunBusy:
                pass
            except OSError as error:
                taken, found["errors"] = taken + 1, found["errors"] + 1
                sys.stderr.write(f"{error}\n")
        # The others may still be at this lock, whose witness this is.
        os.close(sees)
        sees = os.open(f"{witness}2", os.O_RDWR | os.O_CREAT)
    sys.stdout.write(json.dumps(found))


def storm(folders, count, witness):
    """Let a process for each folder take each lock `count` times.

    The folders are one folder, seen through several mounts. Returns how often a lock
    was held by two, and how often there was an error.
    """
    command = [sys.executable, __file__, str(count), str(witness)]
    started = [
        subprocess.Popen(
            [*command, str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for folder in folders
    ]
    said = [json.loads(process.communicate()[0]) for process in started]
    assert [process.returncode for process in started] == [0] * len(started)
    return tuple(sum(one[what] for one in said) for what in ("twice", "errors"))


if __name__ == "__main__":
    main(*sys.argv[1:])
