"""Run many scripts, one after the other: ``python edits_runner.py FOLDER...``.

Each ``run.py`` runs in its folder as a program does, with the modules beside it, and
what it prints is left in the file ``told`` there, or its error. A file
``environment.json`` in the folder has environment variables for it.
"""

import contextlib
import importlib
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path


def run_in(folder):
    os.chdir(folder)
    os.environ.update(json.loads(Path("environment.json").read_text()))
    known = set(sys.modules)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            runpy.run_path("run.py", run_name="__main__")
    except Exception:  # whatever it is, the test of this script tells
        output.write(traceback.format_exc())
    sys.path.remove(folder)
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
            del sys.modules[name]
    Path("told").write_text(output.getvalue())


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        run_in(folder)
    os._exit(0)  # at once: taking down what is imported takes long in a fork
