"""Runs in a folder that two hosts see, each with names and attributes in a cache."""

import pytest
from cached_mount import can_mount, run_in_mounts

STORM = """
from lock_storm import storm

print(storm([a, a, b, b], 25, server.parent / "witness"))
"""

pytestmark = pytest.mark.skipif(not can_mount(), reason="/dev/fuse cannot be used")

STALE = pytest.mark.parametrize("stale", [False, True], ids=["opened", "ESTALE"])

TWICE = """
from resumable.system import LockFile

mine, theirs, third = (LockFile(folder / "x.claim") for folder in (a, b, a))
assert mine.acquire(exclusive=True)
# From here on the name is in the cache of b.
assert not theirs.acquire(exclusive=True)
mine.release(remove=True)
assert third.acquire(exclusive=True, patience=10)
print(theirs.acquire(exclusive=True))
third.release(remove=True)
# The kernel tells the server of a closed file some time later.
print(theirs.acquire(exclusive=True, patience=10))
"""


@STALE
def test_one_of_two_hosts_has_the_lock(tmp_path, stale):
    done = run_in_mounts(TWICE, tmp_path, stale=stale)

    assert (done.stdout, done.stderr) == ("False\nTrue\n", "")


@STALE
def test_processes_of_two_hosts_never_hold_a_lock_at_once(tmp_path, stale):
    done = run_in_mounts(STORM, tmp_path, stale=stale)

    assert (done.stdout, done.stderr) == ("(0, 0)\n", "")


RUNS = """
import os, signal
import h5py, numpy as np
from processes import Hooked

class Double(Hooked):
    version = 1
    def unit_computation(self, spectrum):
        if self.position == 3:
            self.watch()
        return 2 * spectrum[0]

with h5py.File(server.parent / "scan.h5", "w") as file:
    file["data"] = np.arange(12.0).reshape(6, 2)

def compute(folder, watch=lambda: None):
    process = Double(f"{server.parent}/scan.h5::/data", folder)
    process.watch = watch
    return process.compute(engine="serial", progress=False)

pid = os.fork()
if not pid:
    compute(a, lambda: os.kill(os.getpid(), signal.SIGKILL))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
print(compute(b)["mean"][:].tolist())
files = sorted(server.iterdir())
print([(path.suffix, path.stat().st_size) for path in files if path.suffix != ".h5"])
times = [path.stat().st_mtime_ns for path in files]
compute(b)
print([path.stat().st_mtime_ns for path in files] == times)
"""


def test_a_run_of_a_killed_process_goes_on_on_another_host(tmp_path):
    done = run_in_mounts(RUNS, tmp_path)

    assert done.stderr == ""
    # Looking at the finished run takes no lock.
    assert done.stdout.splitlines() == [
        "[0.0, 4.0, 8.0, 12.0, 16.0, 20.0]",
        "[('.claim', 0), ('.writers', 0)]",
        "True",
    ]


WORKERS = """
import concurrent.futures as cf, os
import h5py, numpy as np
from processes import Mean

(server / "copy").mkdir()
for folder, first in ((server, 0.0), (server / "copy", {first})):
    with h5py.File(folder / "scan.h5", "w") as file:
        file["data"] = first + np.arange(12.0).reshape(6, 2)
    os.utime(folder / "scan.h5", (1e9, 1e9))
# From here on its time is in the cache of b.
os.stat(b / "copy" / "scan.h5")
os.utime(server / "scan.h5")
os.chdir(a)
with cf.ProcessPoolExecutor(1, initializer=os.chdir, initargs=[b / "copy"]) as executor:
    # Each process finds its own host's folder under this name.
    process = Mean("/proc/self/cwd/scan.h5::/data", server.parent)
    try:
        print(process.compute(engine=executor, progress=False)["mean"][:].tolist())
    except ValueError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("first", "said"), [("0", "[0.5, 2.5, 4.5, 6.5, 8.5, 10.5]"), ("1", "SourceError")]
)
def test_a_source_with_another_time_on_another_host_is_known_by_its_contents(
    tmp_path, first, said
):
    done = run_in_mounts(WORKERS.replace("{first}", first), tmp_path)

    assert (done.stdout, done.stderr) == (f"{said}\n", "")
