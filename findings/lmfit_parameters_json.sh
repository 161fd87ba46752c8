#!/usr/bin/env bash
# lmfit: the JSON of one and the same Parameters is another text in every process.
#
# Versions: lmfit 1.3.4, asteval 1.0.10, Python 3.11.
# Expected: Parameters.dumps() of parameters made by the same lines is the same text, so that
#   its checksum can tell whether the start values of a fit have changed.
# Seen: beside the parameters the JSON holds the symbols of their interpreter, in the order of
#   a set, which is that of the process's hash seed. The text is the same only where
#   PYTHONHASHSEED is fixed; read as JSON, both are equal.
# This script fails when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q lmfit==1.3.4 asteval==1.0.10

cat > save.py <<'PY'
import sys

import lmfit

parameters = lmfit.models.LorentzianModel().make_params(amplitude=1.0, center=0.5)
with open(sys.argv[1], "w") as file:
    file.write(parameters.dumps())
PY
cat > same.py <<'PY'
import json

one, other = (json.load(open(name)) for name in ("one.json", "other.json"))
raise SystemExit(one != other)
PY

PYTHONHASHSEED=1 env/bin/python save.py one.json
PYTHONHASHSEED=1 env/bin/python save.py again.json
PYTHONHASHSEED=2 env/bin/python save.py other.json
cmp one.json again.json || { echo "changed: one seed gives two texts"; exit 1; }
if cmp -s one.json other.json; then echo "changed: the texts are the same now"; exit 1; fi
env/bin/python same.py || { echo "changed: they are not equal as JSON"; exit 1; }
echo "as described: two texts of equal JSON"
