"""What several tests need."""

import gc
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
