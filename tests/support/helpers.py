"""What several tests need."""

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
SUPPORT = ROOT / "tests" / "support"


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def data_of(source):
    path, _, name = source.rpartition("::")
    with h5py.File(path, "r") as file:
        return file[name][...]


def close_all_hdf5_files():
    """Close what a computation may find open, as snippets on the web do it."""
    # Not by h5f.get_obj_ids: what that returns are further references, which keep
    # the files open.
    for found in gc.get_objects():
        if type(found) is h5py.File and found:
            found.close()


def compute(process, **options):
    return process.compute(engine="serial", progress=False, **options)


def golden_under_hash_seeds(module):
    """Return the golden digests of a test module, of two processes and hash seeds."""
    code = f"import json, {module} as t; print(json.dumps(t.golden_now()))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "4242")
    ]
    return [json.loads(process.communicate()[0]) for process in started]
