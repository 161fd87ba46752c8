"""What of a real package's history begins a new run, and what does not.

    python benchmarks/history.py
    python benchmarks/history.py --packages miepython --folder there

Consecutive releases of packages of the field are downloaded by pip and laid beside a
script, as a user does who copies a package to edit it: no installed distribution. The
script computes functions of the package with ``resumable``, release after release, each
in an interpreter of its own. Then it computes the last release once more, formatted by
black and ruff, without comments and docstrings, and with new line numbers.

What is printed of each function is whether a new run began, beside two checks that know
nothing of ``resumable``: whether the results differ in any bit, and how many of the
functions of the package that were called have another syntax tree (docstrings and
annotations left out). Where a new run began though no function that was called differs,
what the trace says follows: code that could be called, on other data. Where either
differs and no new run began, that is a miss, and the exit code is 1.

Needs numba, and network for pip.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

POSITIONS, POINTS = 6, 200
TOOLS = ("black==26.10.1", "ruff==0.17.6", "pyupgrade==3.22.0")


class Package(NamedTuple):
    """A package, three consecutive releases of it, and what is called of it."""

    name: str
    versions: tuple[str, ...]
    functions: dict[str, str]
    """Name of a function -> expression with it; `y` is the spectrum, `x` its axis."""


PACKAGES = (
    Package(
        "miepython",
        ("2.5.3", "2.5.4", "2.5.5"),
        {
            "ez_mie": "[miepython.ez_mie(1.5 - 0.1j, d, 0.6)[0] for d in y]",
            "i_unpolarized": "miepython.i_unpolarized(1.5 - 0.1j, 5 * y[0], x)",
            "mie_S1_S2": "miepython.mie_S1_S2(1.5 - 0.1j, 5 * y[0], x)[0].real",
            "mie_cdf": "miepython.mie_cdf(1.5 - 0.1j, 5 * y[0], 200)[1]",
        },
    ),
    Package(
        "nmrglue",
        ("0.10", "0.11", "0.12"),
        {
            "proc_base.em": "nmrglue.proc_base.em(y, 0.02)",
            "proc_base.ls": "nmrglue.proc_base.ls(y, 3)",
            "proc_base.zf_auto": "nmrglue.proc_base.zf_auto(y)[:200]",
            "proc_autophase.autops": (
                "nmrglue.process.proc_autophase.autops(y + 0j, 'acme').real"
            ),
            "peakpick.pick": (
                "[len(nmrglue.peakpick.pick(y, 1.0, algorithm='downward'))] * 200"
            ),
        },
    ),
    Package(
        "pybaselines",
        ("1.1.0", "1.2.0", "1.2.1"),
        {
            "Baseline.airpls": "pybaselines.Baseline(x).airpls(y)[0]",
            "Baseline.pspline_asls": "pybaselines.Baseline(x).pspline_asls(y)[0]",
            "smooth.snip": "pybaselines.smooth.snip(y, 20)[0]",
            "utils.gaussian": "pybaselines.utils.gaussian(x, 1.0, y[0], 0.2)",
        },
    ),
)


class Function(NamedTuple):
    """What was seen of one function with one state of a package."""

    run: str
    """Name of the run file."""
    rows: str
    """sha256 of its results."""
    called: dict[str, str]
    """Functions of the package that were called -> digests of their syntax trees."""
    trace: dict[str, Any]
    """The trace of the run, as in its file."""


def main() -> int:
    """Go through the packages; return 1 if a change of results began no new run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [package.name for package in PACKAGES]
    parser.add_argument("--packages", nargs="*", choices=names, default=names)
    parser.add_argument("--folder", type=Path, help="keep everything there")
    parser.add_argument("--compute", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--call", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compute or options.call:
        _in_child(options.compute or options.call, bool(options.call))
        return 0
    with tempfile.TemporaryDirectory(prefix="resumable-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        tools = _install_tools(folder / "tools")
        misses = 0
        for package in PACKAGES:
            if package.name in options.packages:
                misses += _history(package, folder / package.name, tools)
    return int(misses > 0)


def _history(package: Package, folder: Path, tools: Path) -> int:
    """Compute with every release and every rewriting; return the number of misses."""
    (folder / "user").mkdir(parents=True, exist_ok=True)
    _write_source(folder / "source.h5")
    (folder / "user" / "computation.py").write_text(_script(package))
    releases = [_download(package.name, v, folder / v) for v in package.versions]
    seen = [_compute(package, folder, release) for release in releases]
    misses = 0
    for n in range(1, len(releases)):
        there, here = package.versions[n - 1 : n + 1]
        _announce(f"{package.name} {there} -> {here}", releases[n - 1], releases[n])
        misses += _compare(seen[n - 1], seen[n])
    for how, rewrite in REWRITINGS.items():
        again = folder / how.replace(" ", "-") / package.name
        shutil.rmtree(again, ignore_errors=True)
        shutil.copytree(releases[-1], again)
        rewrite(again, tools)
        _announce(f"{package.name} {package.versions[-1]}, {how}", releases[-1], again)
        misses += _compare(seen[-1], _compute(package, folder, again))
    return misses


def _announce(what: str, there: Path, here: Path) -> None:
    """Print what is compared, and in how many files the text differs."""
    files = {p.relative_to(root) for root in (there, here) for p in root.rglob("*.py")}
    texts = [[_bytes(root / name) for root in (there, here)] for name in files]
    changed = sum(old != new for old, new in texts)
    print(f"\n{what}: {changed} of {len(files)} files changed")


def _compare(before: dict[str, Function], now: dict[str, Function]) -> int:
    """Print a line for each function; return how many changes were missed."""
    from resumable.identity import Trace

    misses = 0
    for name, there in before.items():
        here = now[name]
        noticed, results = there.run != here.run, there.rows != here.rows
        called = [
            key
            for key in {**there.called, **here.called}
            if there.called.get(key) != here.called.get(key)
        ]
        missed = not noticed and (results or bool(called))
        misses += missed
        print(
            f"  {name:28}{'new run' if noticed else 'same run':10}"
            f"results {'differ' if results else 'alike':8}"
            f"{len(called)} of {len(here.called)} functions called differ"
            f"{'  MISSED' if missed else ''}"
        )
        if noticed and not called:
            told = Trace.from_json(there.trace).differences(Trace.from_json(here.trace))
            for line in told[:8]:
                print(textwrap.indent(line, " " * 6))
            if len(told) > 8:
                print(f"      and {len(told) - 8} more")
    return misses


def _compute(package: Package, folder: Path, release: Path) -> dict[str, Function]:
    """Lay a release beside the script, and compute with it."""
    place = folder / "user" / package.name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(release, place)
    with tempfile.TemporaryDirectory() as cache:
        # Neither compiled files of Python nor those of numba tell a change of a file
        # that it calls, or of a file that changed within a second.
        settings = {"PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": cache}
        computed = _child("--compute", folder, settings)
        called = _child("--call", folder, {**settings, "NUMBA_DISABLE_JIT": "1"})
    return {
        name: Function(run, rows, called[name], trace)
        for name, (run, rows, trace) in computed.items()
    }


def _child(what: str, folder: Path, settings: dict[str, str]) -> Any:
    command = [sys.executable, __file__, what, str(folder)]
    environment = {**os.environ, **settings}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _in_child(folder: Path, call: bool) -> None:
    sys.path.insert(0, str(folder / "user"))
    script = importlib.import_module("computation")
    source = f"{folder / 'source.h5'}::/spectra"
    found = {
        name: _called(cls(source), folder / "user") if call else _computed(cls(source))
        for name, cls in script.CLASSES.items()
    }
    print(json.dumps(found))


def _computed(process: Any) -> Any:
    from resumable.results import trace_of
    from resumable.runfile import RunFile

    results = process.compute(engine="serial", progress=False)
    rows = hashlib.sha256(results["result"][...].tobytes()).hexdigest()
    trace = trace_of(RunFile(results.path))
    return results.path.name, rows, trace and trace.to_json()


def _called(process: Any, folder: Path) -> dict[str, str]:
    """Call the computation; return digests of the functions in `folder` it called."""
    import h5py

    codes = {}

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(folder)):
            codes[frame.f_code] = None

    with h5py.File(folder.parent / "source.h5") as file:
        spectra = file["spectra"][...]
    sys.setprofile(note)
    for spectrum in spectra:
        process.unit_computation(spectrum)
    sys.setprofile(None)
    digests = {}
    for code in codes:
        file_name = Path(code.co_filename)
        tree = _plain(ast.parse(file_name.read_text()))
        for node in ast.walk(tree):
            lines = [d.lineno for d in getattr(node, "decorator_list", ())]
            named = getattr(node, "name", None) == code.co_name
            if named and min([node.lineno, *lines]) == code.co_firstlineno:
                key = f"{file_name.relative_to(folder)}:{code.co_qualname}"
                digests[key] = hashlib.sha256(ast.dump(node).encode()).hexdigest()
    return digests


def _plain(tree: ast.Module) -> ast.Module:
    """Take docstrings and annotations out of a syntax tree."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and not isinstance(node, ast.Lambda):
            kept = [s for s in body if not _is_text(s)]
            node.body = kept or [ast.Pass()]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return tree


def _is_text(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _script(package: Package) -> str:
    lines = ["import numpy as np", f"import {package.name}"]
    lines += ["import resumable as rs", f"x = np.linspace(-1, 1, {POINTS})"]
    for number, expression in enumerate(package.functions.values()):
        lines += [
            f"class Computation{number}(rs.Process):",
            "    def outputs(self):",
            f"        return {{'result': rs.Output(({POINTS},), 'f8')}}",
            "    def unit_computation(self, y):",
            f"        return np.asarray({expression}, float)",
        ]
    classes = ", ".join(
        f"{name!r}: Computation{number}"
        for number, name in enumerate(package.functions)
    )
    return "\n".join([*lines, f"CLASSES = {{{classes}}}", ""])


def _write_source(path: Path) -> None:
    import h5py
    import numpy as np

    random = np.random.default_rng(1)
    x = np.linspace(-1, 1, POINTS)
    rows = [
        0.5
        + (1 + number) / (1 + ((x - 0.1 * number) / 0.05) ** 2)
        + 0.3 * x**2
        + 0.05 * random.random(POINTS)
        for number in range(POSITIONS)
    ]
    with h5py.File(path, "w") as file:
        file["spectra"] = np.array(rows)


def _download(name: str, version: str, folder: Path) -> Path:
    """Return the folder of a package as it is in a release; its record is left out."""
    if not (folder / name).is_dir():
        arguments = ["--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        _pip("download", *arguments, f"{name}=={version}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            members = archive.namelist()
            archive.extractall(folder, [m for m in members if m.startswith(f"{name}/")])
        shutil.rmtree(folder / name / "tests", ignore_errors=True)
    return folder / name


def _install_tools(folder: Path) -> Path:
    if not folder.is_dir():
        _pip("install", "--target", str(folder), *TOOLS)
    return folder


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet"]
    subprocess.run([*command, "--disable-pip-version-check"], check=True)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


# Rewritings that change no result.


def _black(folder: Path, tools: Path) -> None:
    _tool(tools, "black", "--quiet", "--line-length", "60", str(folder))


def _ruff(folder: Path, tools: Path) -> None:
    _tool(tools, "ruff", "format", "--quiet", "--isolated", str(folder))


def _pyupgrade(folder: Path, tools: Path) -> None:
    files = map(str, folder.rglob("*.py"))
    _tool(tools, "pyupgrade", "--py38-plus", "--exit-zero-even-if-changed", *files)


def _strip(folder: Path, tools: Path) -> None:
    """Leave nothing but the code: no comment, no docstring, no layout."""
    for path in folder.rglob("*.py"):
        tree = _plain(ast.parse(path.read_text()))
        path.write_text(ast.unparse(ast.fix_missing_locations(tree)))


def _move(folder: Path, tools: Path) -> None:
    """Give every line another number."""
    for path in folder.rglob("*.py"):
        path.write_text("# A comment.\n" * 7 + path.read_text())


def _add(folder: Path, tools: Path) -> None:
    """Add a function that nothing calls."""
    for path in folder.rglob("*.py"):
        unused = "\n\ndef _unused(value):\n    return value + 1\n"
        path.write_text(path.read_text() + unused)


def _tool(tools: Path, module: str, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tools)}
    command = [sys.executable, "-m", module, *arguments]
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)


REWRITINGS = {
    "black": _black,
    "ruff format": _ruff,
    "without comments and docstrings": _strip,
    "moved lines": _move,
    "an unused function": _add,
    "pyupgrade": _pyupgrade,
}

if __name__ == "__main__":
    sys.exit(main())
