"""Which edits of a user's code do tools notice that keep results between runs?

    python benchmarks/edits.py resumable
    python benchmarks/edits.py joblib marimo redun numba dask executorlib
    python benchmarks/edits.py joblib --only decorator --show
    python benchmarks/edits.py joblib redun --table

Every edit of ``edit_cases.py`` and ``edit_classes.py`` is a script of a few lines that
computes one number. A fresh interpreter runs the script, a second one runs it again,
the edit is made, and a third one runs it. Every tool gets the script as its users write
it: a function with the tool's decorator, or given to the tool's call. Where a class
computes, that function calls its method; ``resumable`` gets the class itself. The store
is on disk, in a folder of its own for every edit.

noticed
    The third run is right, and the second used what the first had stored.
stale
    The third run gives the number from before the edit. "warned": with a warning.
refused
    An error in place of a number.
always
    The third run is right, but the second recomputed as well.
n/a
    The tool has nothing like it: ``numba`` compiles functions and runs no other code,
    and only ``redun`` and ``resumable`` let users declare a version.

Edits that change nothing are "kept" where the third run used what was stored, and
"again" where it recomputed.

``dask`` itself stores nothing between runs. Asked is ``dask.base.tokenize`` of the
function and its argument, by which dask knows what is the same. ``numba`` stores
machine code and not numbers: a stale number is computed again by the old code.

Needs the tools that are named, with pip: joblib, marimo, redun, numba, dask,
executorlib, and numpy, numba and param for the scripts. Nothing is timed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import edit_cases
import edit_classes
from edit_cases import Edit

IMPORTS = """\
import functools
import json
import math
import os

import numpy as np
import param
"""

ARGUMENT = "np.array([4.0, 5.0, 6.0, 7.0])"

SOURCE = """\
import h5py
import numpy as np
with h5py.File("source.h5", "w") as file:
    file["d"] = np.arange(12.0).reshape(3, 4)
"""
"""Position 1 of the source of ``resumable`` has the four numbers."""

EDITS = edit_cases.EDITS + edit_classes.EDITS + edit_cases.HARMLESS_EDITS

NOT_APPLICABLE = "n/a"

VERDICTS = (
    *("noticed", "always", "refused", "stale, warned", "stale", "wrong"),
    *("kept", "again", NOT_APPLICABLE),
)
"""In the order in which they are printed."""


def main() -> None:
    """Try the tools that the command line names."""
    options = _parser().parse_args()
    found: dict[str, list[tuple[Edit, str]]] = {}
    for tool in options.tools:
        print(f"{tool} {_version(tool)}")
        found[tool] = []
        for edit in _chosen(options.only):
            verdict, why = _verdict(tool, edit)
            found[tool].append((edit, verdict))
            print(f"  {edit.kind + ': ' + edit.name:76} {verdict}", flush=True)
            if options.show and why:
                print(textwrap.indent(why, "      "))
        print(f"{tool}: {_total(found[tool])}", flush=True)
    if options.table:
        print(_table(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tools", nargs="+", choices=SCRIPTS, metavar="TOOL")
    parser.add_argument("--only", default="", help="part of the name of edits to try")
    parser.add_argument(
        "--show", action="store_true", help="print errors and warnings of the tools"
    )
    parser.add_argument(
        "--table", action="store_true", help="print a table for the documentation"
    )
    return parser


def _chosen(part: str) -> Iterable[Edit]:
    return (edit for edit in EDITS if part in f"{edit.kind}: {edit.name}")


# Running -----------------------------------------------------------------------------


def _verdict(tool: str, edit: Edit) -> tuple[str, str]:
    """Run a script three times; return what was found, and errors and warnings."""
    before, after = edit.variable or ("", "")
    try:
        files = _files(tool, edit)
    except NotImplementedError:
        return NOT_APPLICABLE, ""
    edited = _files(tool, edit.made())
    if edited == files and before == after:
        raise ValueError(f"{edit.kind}: {edit.name}: nothing to edit")
    with tempfile.TemporaryDirectory(prefix="edits-") as name:
        folder = Path(name)
        if tool == "resumable":
            subprocess.run([sys.executable, "-c", SOURCE], cwd=folder, check=True)
        first = _run(folder, files, before)
        if "error" in first:
            return "refused", first["error"]
        second = _run(folder, files, before)
        if "error" in second:
            return "refused", second["error"]
        third = _run(folder, edited, after)
    if (first["value"], second["value"]) != (edit.first, edit.first):
        return "wrong", f"{first['value']}, {second['value']} before the edit"
    if "error" in third:
        return "refused", third["error"]
    return _compared(edit, second, third), third["warnings"]


def _compared(edit: Edit, second: dict, third: dict) -> str:
    if third["value"] not in (edit.first, edit.right):
        return "wrong"
    if edit.harmless:
        return "kept" if third["kept"] else "again"
    if third["value"] == edit.right:
        return "noticed" if second["kept"] else "always"
    return "stale, warned" if third["warnings"] else "stale"


def _run(folder: Path, files: Mapping[str, str], gain: str) -> dict:
    """Run the script in a fresh interpreter; return what it printed last, or an error.

    Python must not keep bytecode: it takes a file for the same when size and second of
    the change are the same.
    """
    for name, text in files.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "GAIN": gain}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    if done.returncode or not lines:
        return {"error": (done.stderr.strip() or "no output").splitlines()[-1]}
    return json.loads(lines[-1].removeprefix("FOUND "))


# Scripts -----------------------------------------------------------------------------

ENDING = """

if __name__ == "__main__":
    import warnings

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)
{call}
    found = {{
        "value": float(value),
        "kept": bool(kept),
        "warnings": "\\n".join(str(warning.message) for warning in said),
    }}
    print("FOUND", json.dumps(found))
"""


def _ending(call: str) -> str:
    return ENDING.format(call=textwrap.indent(call.strip(), " " * 8))


def _function(edit: Edit) -> tuple[str, str]:
    """Return the code above the function ``unit``, and that of the function."""
    if edit.version:
        raise NotImplementedError
    if not edit.is_class:
        return edit.above, edit.unit
    above = _plain(f"{edit.above}\n{edit.unit}")
    prepare = "    made.setup()\n" if "def setup" in edit.unit else ""
    unit = "def unit(s):\n    made = Unit()\n" + prepare
    return above, unit + "    return made.unit_computation(s)\n"


def _plain(code: str) -> str:
    """Let classes derive from what they need without ``resumable``."""
    base = "param.Parameterized" if "param." in code else "object"
    return code.replace("Base)", f"{base})")


def _decorated(unit: str, decorator: str) -> str:
    """Put a decorator on a function; give it other callables."""
    if unit.startswith(("def ", "@")):
        return f"@{decorator}\n{unit}"
    return f"{unit}\nunit = {decorator}(unit)\n"


def _files(tool: str, edit: Edit) -> dict[str, str]:
    """Return the script and the files beside it, as the tool's users write them."""
    files = {"script.py": SCRIPTS[tool](edit)}
    for name, text in edit.files.items():
        if name.endswith(".py"):
            if tool == "numba":
                text = f"import numba\n\n{_compiled(text, edit)}"
            elif tool == "resumable":
                text = f"import resumable as rs\n\n{_process(text)}"
            else:
                text = _plain(text)
        files[name] = text
    return files


def _joblib(edit: Edit) -> str:
    above, unit = _function(edit)
    call = f"s = {ARGUMENT}\nkept = unit.check_call_in_cache(s)\nvalue = unit(s)"
    return (
        f"{IMPORTS}import joblib\n\nmemory = joblib.Memory('cache', verbose=0)\n\n"
        f"{above}\n{_decorated(unit, 'memory.cache')}{_ending(call)}"
    )


def _marimo(edit: Edit) -> str:
    """Return a notebook: the function has a cell, and what it uses another."""
    above, unit = _function(edit)
    show = f"""\
value = unit({ARGUMENT})
found = {{"value": float(value), "kept": unit.hits > 0, "warnings": ""}}
print("FOUND", json.dumps(found))
"""
    cells = (
        f"{IMPORTS}import marimo as mo",
        above,
        _decorated(unit, "mo.persistent_cache"),
        show,
    )
    text = "import marimo\n\napp = marimo.App()\n"
    for cell in filter(str.strip, cells):
        body = textwrap.indent(cell.strip(), "    ")
        text += f"\n\n@app.cell\ndef _():\n{body}\n    return\n"
    return f'{text}\n\nif __name__ == "__main__":\n    app.run()\n'


def _redun(edit: Edit) -> str:
    decorator = "redun.task(namespace='edits')"
    if edit.version:
        above, unit = edit.above, edit.unit
        decorator = "redun.task(namespace='edits', version='1')"
    else:
        above, unit = _function(edit)
    call = f"""
scheduler = redun.Scheduler(
    config=Config({{"backend": {{"db_uri": "sqlite:///redun.db"}}}})
)
scheduler.load()
value = scheduler.run(unit({ARGUMENT}))
report = scheduler.get_job_status_report()
_, _, pending, running, failed, kept, *_ = next(x for x in report if "ALL" in x).split()
kept = int(kept)
"""
    return (
        f"{IMPORTS}import redun\nfrom redun.config import Config\n\n"
        f"{above}\n{_decorated(unit, decorator)}{_ending(call)}"
    )


def _numba(edit: Edit) -> str:
    above, unit = _function(edit)
    if edit.compiled is None:
        raise NotImplementedError
    call = f"value = unit({ARGUMENT})\nkept = not unit.stats.cache_misses"
    return (
        f"{IMPORTS}import numba\n\n{_compiled(above, edit)}\n"
        f"{_decorated(unit, 'numba.njit(cache=True)')}{_ending(call)}"
    )


def _compiled(code: str, edit: Edit) -> str:
    """Compile the helpers: a compiled function calls no others."""
    for name in edit.compiled or ():
        code = code.replace(f"def {name}(", f"@numba.njit\ndef {name}(")
    return code


def _dask(edit: Edit) -> str:
    above, unit = _function(edit)
    call = f"""
s = {ARGUMENT}
stored = pathlib.Path("cache", tokenize(unit, s))
kept = stored.exists()
stored.parent.mkdir(exist_ok=True)
value = float(stored.read_text()) if kept else unit(s)
stored.write_text(str(float(value)))
"""
    return (
        f"{IMPORTS}import pathlib\n\nfrom dask.base import tokenize\n\n"
        f"{above}\n{unit}{_ending(call)}"
    )


def _executorlib(edit: Edit) -> str:
    above, unit = _function(edit)
    call = f"""
before = set(pathlib.Path("cache").glob("*.h5"))
with SingleNodeExecutor(max_workers=1, cache_directory="cache") as executor:
    value = executor.submit(unit, {ARGUMENT}).result()
kept = set(pathlib.Path("cache").glob("*.h5")) == before
"""
    return (
        f"{IMPORTS}import pathlib\n\nfrom executorlib import SingleNodeExecutor\n\n"
        f"{above}\n{unit}{_ending(call)}"
    )


def _resumable(edit: Edit) -> str:
    where = '"source.h5::/d"'
    version = ", version=1" if edit.version else ""
    compute = f"results = rs.map(unit, {where}{version})"
    if edit.is_class:
        compute = f"results = Unit({where}).compute()"
    call = f"""
before = set(pathlib.Path().rglob("*.h5"))
{compute}
value = results["result"][1]
kept = set(pathlib.Path().rglob("*.h5")) == before
"""
    code = _process(f"{edit.above}\n{edit.unit}")
    return f"{IMPORTS}import pathlib\n\nimport resumable as rs\n\n{code}{_ending(call)}"


def _process(code: str) -> str:
    """Let classes derive from Process, with an output below the docstring."""
    derived = r"\1\2rs.Process):\3\n\1    outputs = {'result': rs.Output()}"
    pattern = r"^( *)(class .*)Base\):(\n *\'\'\'.*\'\'\'$)?"
    return re.sub(pattern, derived, code, flags=re.MULTILINE)


SCRIPTS: dict[str, Callable[[Edit], str]] = {
    "joblib": _joblib,
    "marimo": _marimo,
    "redun": _redun,
    "numba": _numba,
    "dask": _dask,
    "executorlib": _executorlib,
    "resumable": _resumable,
}

# Printing ----------------------------------------------------------------------------


def _version(tool: str) -> str:
    if tool == "resumable":
        return importlib.import_module(tool).__version__  # perhaps not installed
    return importlib.metadata.version(tool)


def _total(found: list[tuple[Edit, str]]) -> str:
    """Return one line: of how many edits, how many of each verdict."""
    parts = []
    for harmless, words in ((False, "edits that count"), (True, "that do not")):
        verdicts = [
            verdict
            for edit, verdict in found
            if edit.harmless is harmless and verdict != NOT_APPLICABLE
        ]
        parts.append(f"{len(verdicts)} {words}: {_cell(verdicts) or 'none'}")
    return "; ".join(parts)


def _table(found: dict[str, list[tuple[Edit, str]]]) -> str:
    """Return a table in reStructuredText, a row per kind of edit."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    row = ["edit of"] + [f"{tool} {_version(tool)}" for tool in found]
    rows = [row]
    kinds = dict.fromkeys(edit.kind for edit, _ in next(iter(found.values())))
    for kind in kinds:
        row = [kind]
        for tried in found.values():
            row.append(_cell([verdict for edit, verdict in tried if edit.kind == kind]))
        rows.append(row)
    counting = [
        [verdict for edit, verdict in tried if not edit.harmless]
        for tried in found.values()
    ]
    rows.append(["all that change the result", *map(_cell, counting)])
    for row in rows:
        lines += [
            f"   {'* -' if number == 0 else '  -'} {text}"
            for number, text in enumerate(row)
        ]
    return "\n".join(lines)


def _cell(verdicts: list[str]) -> str:
    """Return how many of each verdict there are."""
    distinct = [verdict for verdict in VERDICTS if verdict in verdicts]
    if len(distinct) == 1:
        return verdicts[0]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in distinct)


if __name__ == "__main__":
    main()
