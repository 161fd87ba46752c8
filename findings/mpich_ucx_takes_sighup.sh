#!/usr/bin/env bash
# MPICH's wheel: importing MPI replaces a program's handler of SIGHUP.
#
# Versions: mpi4py 4.1.2, mpich 5.0.2 from PyPI, Python 3.11, Linux.
# Expected: a library that is initialised leaves the signals alone which the program handles,
#   SIGHUP above all, by which batch systems and terminals say that they end.
# Seen: UCX, which the wheel holds, installs its own handler of SIGHUP when MPI is
#   initialised. Python's signal.getsignal still names the program's function, which is never
#   called: the signal makes UCX write debugging lines, and the program goes on.
# This script fails when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q mpi4py==4.1.2 mpich==5.0.2

cat > handler.py <<'PY'
import os
import signal
import sys
import time

calls = []


def handler(number, frame):
    calls.append(number)


signal.signal(signal.SIGHUP, handler)
if "mpi" in sys.argv:
    from mpi4py import MPI
os.kill(os.getpid(), signal.SIGHUP)
time.sleep(0.2)
ours = signal.getsignal(signal.SIGHUP) is handler
with open(sys.argv[1], "w") as file:
    print("called" if calls else "not called", ours, file=file)
PY
env/bin/python handler.py plain.txt
env/bin/mpiexec -n 1 env/bin/python handler.py with.txt mpi > output 2>&1
read -r plain < plain.txt
read -r with < with.txt
echo "without MPI: $plain; with MPI: $with"
[ "$plain" = "called True" ] || { echo "changed: not called without MPI"; exit 1; }
[ "$with" = "not called True" ] || { echo "changed: called with MPI"; exit 1; }
echo "as described: the handler is not called"
