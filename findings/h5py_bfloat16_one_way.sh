#!/usr/bin/env bash
# h5py, ml_dtypes: an array of bfloat16 is written without an error, and not as numbers.
#
# Versions: h5py 3.16.0 with HDF5 2.0.0, ml_dtypes 0.5.4, numpy 2.2.6, Python 3.11.
# Expected: either numbers that HDF5 knows (HDF5 2.0 has a type for bfloat16, which h5py reads as
#   float32), or an error as for other dtypes without a type in HDF5.
# Seen: the dataset is of an opaque type with no name of the dtype in it. It reads back as bytes,
#   dtype V2; nothing in the file says what they were.
# This script fails when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q h5py==3.16.0 ml_dtypes==0.5.4 numpy==2.2.6

cat > both.py <<'PY'
import h5py
import ml_dtypes
import numpy as np

values = np.array([1.5, 2.5, -3.0], ml_dtypes.bfloat16)
with h5py.File("a.h5", "w") as file:
    file["written"] = values
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    space = h5py.h5s.create_simple((3,))
    made = h5py.h5d.create(file.id, b"as_hdf5_has_it", kind, space)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, values.astype("f4"))
with h5py.File("a.h5") as file:
    kind = file["written"].id.get_type()
    print("written: tag", kind.get_tag(), "dtype", file["written"].dtype)
    read = file["as_hdf5_has_it"][:]
    print("as HDF5 has it: dtype", read.dtype)
assert isinstance(kind, h5py.h5t.TypeOpaqueID), "changed: no opaque type"
assert b"bfloat" not in kind.get_tag(), "changed: the tag names the dtype"
assert read.dtype == "f4" and (read == values.astype("f4")).all()
PY
env/bin/python both.py
echo "as described: opaque bytes"
