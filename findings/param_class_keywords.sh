#!/usr/bin/env bash
# param, cloudpickle: keywords of a class statement, which __init_subclass__ takes.
#
# Versions: param 2.3.0, cloudpickle 3.1.1, Python 3.11.
# Expected: class B(A, unit="nm") works where A.__init_subclass__ takes `unit`, as with any
#   class; and a class that is sent by value to another process arrives.
# Seen: where A is Parameterized, the metaclass of param gets the keyword as well and raises a
#   TypeError, after __init_subclass__ has used it. cloudpickle makes the class anew without
#   its keywords, so that one which needs them cannot be loaded.
# This script fails when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q param==2.3.0 cloudpickle==3.1.1

cat > classes.py <<'PY'
import pickle

import cloudpickle
import param


def base(*bases):
    class A(*bases):
        def __init_subclass__(cls, *, unit, **rest):
            super().__init_subclass__(**rest)
            cls.unit = unit

    return A


class B(base(), unit="nm"):
    pass


assert B.unit == "nm"
try:

    class C(base(param.Parameterized), unit="nm"):
        pass
except TypeError as error:
    print("param:", error)
else:
    raise SystemExit("changed: param takes the keyword")
try:
    pickle.loads(cloudpickle.dumps(B))
except TypeError as error:
    print("cloudpickle:", error)
else:
    raise SystemExit("changed: cloudpickle keeps the keyword")
PY
env/bin/python classes.py
echo "as described: both raise a TypeError"
