#!/usr/bin/env bash
# HDF5: a virtual dataset of more files than a process may open reads as fill values.
#
# Versions: h5py 3.16.0 with HDF5 2.0.0, and h5py 3.12.1 with HDF5 1.14.4; Python 3.11, Linux.
# Expected: a part that is there but cannot be opened, since the process has no file descriptor
#   left, is an error, as it is when the file is opened by itself.
# Seen: every part file stays open while the dataset is open. From the part on for which no
#   descriptor is left, the rows are the fill value, here 0, and no error is raised.
# This script fails when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat > read.py <<'PY'
import resource

import h5py
import numpy as np

parts = 100
layout = h5py.VirtualLayout((parts, 4), "f8")
for number in range(parts):
    name = f"part_{number:03d}.h5"
    with h5py.File(name, "w") as file:
        file["data"] = np.full(4, number + 1.0)
    layout[number] = h5py.VirtualSource(name, "data", (4,))
with h5py.File("master.h5", "w") as file:
    file.create_virtual_dataset("data", layout)

with h5py.File("master.h5") as file:
    whole = file["data"][:, 0]
assert (whole == np.arange(parts) + 1).all(), "changed: wrong with enough descriptors"

resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
with h5py.File("master.h5") as file:
    few = file["data"][:, 0]
wrong = int((few != whole).sum())
print(f"HDF5 {h5py.version.hdf5_version}: {wrong} of {parts} rows wrong, no error")
assert wrong > 20, "changed: the rows are right"
assert set(few[few != whole]) == {0.0}, "changed: other values"
PY

for version in 3.16.0 3.12.1; do
    python3 -m venv "env-$version"
    "env-$version/bin/pip" install -q "h5py==$version" "numpy==2.2.6"
    rm -f ./*.h5
    "env-$version/bin/python" read.py
done
echo "as described: fill values instead of an error"
