"""Programs that write a source, and Processes that compute it meanwhile."""

import contextlib

from helpers import data_of

import resumable as rs

# Appends rows, one every `pause` seconds. `kind`: "swmr"; "reopen", which opens the
# file for every row; "keep", which keeps it open and flushes. It says when the file is
# there; begins, goes on after `rest` rows and closes when it is told so; and says that.
WRITER = """
import sys, time
import h5py
import numpy as np

kind, path, count, pause, most, rest, version = sys.argv[1:]
count, pause, most = int(count), float(pause), int(most) or None
options = {"libver": version} if version else {}
rows = np.random.default_rng(5).normal(size=(count, 8))
file = h5py.File(path, "w", **options)
file.create_dataset("data", (0, 8), "f8", maxshape=(most, 8), chunks=(16, 8))
file.flush()
if kind == "swmr":
    file.swmr_mode = True
if kind == "reopen":
    file.close()
print("there", flush=True)
sys.stdin.readline()
for number, row in enumerate(rows):
    time.sleep(pause)
    if number == int(rest):
        sys.stdin.readline()
    if kind == "reopen":
        file = h5py.File(path, "a", **options)
    data = file["data"]
    data.resize(number + 1, axis=0)
    data[number] = row
    if kind == "reopen":
        file.close()
    else:
        data.flush() if kind == "swmr" else file.flush()
if sys.stdin.readline() != "stay open\\n":
    file.close()
print("closed", flush=True)
sys.stdin.readline()
"""


def run_files(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("live-"))


def serial(source):
    return data_of(source).mean(axis=1)


def done_in(folder):
    done = [0]
    for name in run_files(folder):
        if name.endswith(".h5"):
            with contextlib.suppress(rs.RunFileError):
                done.append(rs.open(folder / name).status.done)
    return max(done)
