"""The house: what imports what, what is public, what the documents promise."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

import resumable

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "resumable"

# From the top down. A module may import only from lines below its own.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"demo", "report"},
    {"lorentz"},
    {"resumable"},
    {"checking"},
    {"chain", "loading", "mapping", "script"},
    {"link"},
    {"process"},
    {"inquiry"},
    {"declaration"},
    {"program", "verification"},
    {"comparison", "following"},
    {"observer"},
    {"argument", "driver", "resolve", "running", "state", "trial", "verdict"},
    {"places"},
    {"explain"},
    {"session"},
    {"blame", "decision", "events", "step"},
    {"progress"},
    {"engines"},
    {
        "engines.dask",
        "engines.executor",
        "engines.mpi",
        "engines.serial",
    },
    {"engines.local"},
    {"engines.apart", "engines.crew", "engines.futures", "engines.ranks"},
    {"engines.counter", "engines.guest"},
    {"engines.team"},
    {"operators"},
    {"pool"},
    {"launch", "stream"},
    {"call", "serving"},
    {"parcel", "remote"},
    {"memory", "pickling"},
    {"batch"},
    {"computer", "job"},
    {"ahead", "cursor", "interrupts", "warned", "writer"},
    {"results"},
    {"arrays"},
    {"group"},
    {"packing", "publishing"},
    {"catalogue", "rechunk"},
    {"birth", "copying"},
    {"ledger", "logbook", "reader", "scales", "supply"},
    {"contiguous", "geometry", "ragged"},
    {"fingerprint", "runfile", "source"},
    {"usable"},
    {"opening"},
    {"journal", "packed", "plain"},
    {"header", "heap", "live", "overlay"},
    {"superblock"},
    {"classes", "disk", "machine", "output", "plan", "recipe", "sharing", "stop"},
    {"remainder", "world"},
    {"wanted"},
    {"values"},
    {"identity", "indexing", "listing", "positions", "units"},
    {"compression", "forks", "signals"},
    {"errors"},
    {"text"},
]

# Who may touch HDF5: readers of sources and of packed rows, those that make files,
# the results group. resolve only writes down which version was there.
USES_H5PY = {"birth", "contiguous", "copying", "demo", "group", "opening", "overlay"}
USES_H5PY |= {"packed", "packing", "publishing", "rechunk", "resolve", "source"}
USES_H5PY |= {"usable"}

# What every user has; the rest is imported where it is needed.
ALWAYS_THERE = {"cloudpickle", "h5py", "numpy", "param", "psutil", "threadpoolctl"}
FOR_THE_COMMAND = {name: {"click"} for name in ("argument", "cli", "program")}
FOR_THE_COMMAND["lorentz"] = {"scipy"}

# Values and decisions: no file is read or written there.
PURE = {"decision", "errors", "explain", "identity", "output", "plan", "positions"}
PURE |= {
    "blame",
    "compression",
    "job",
    "recipe",
    "remainder",
    "text",
    "units",
    "values",
    "wanted",
}


def name_of(path):
    """Return a module's name inside the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts) or "resumable"


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module, *, at_import=False):
    """Return the full names a module imports, those for type checkers left out."""
    tree = ast.parse(MODULES[module].read_text())
    found = set()
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not (at_import and isinstance(node, (ast.FunctionDef, ast.Lambda))):
            waiting += ast.iter_child_nodes(node)
    return found


def own(names):
    """Return the modules of the package among imported names."""
    modules = set()
    for name in names:
        top, _, rest = name.partition(".")
        if top != "resumable" or rest == "__version__":
            continue
        parts = rest.split(".") if rest else []
        while parts and ".".join(parts) not in MODULES:
            parts.pop()
        modules.add(".".join(parts) or "resumable")
    return modules


def foreign(names):
    """Return the packages that are neither ours nor Python's among imported names."""
    tops = {name.partition(".")[0] for name in names}
    return tops - {"resumable"} - sys.stdlib_module_names


def test_every_module_has_its_layer():
    """A new module is put into the house on purpose."""
    assert sorted(MODULES) == sorted(name for layer in LAYERS for name in layer)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_only(module):
    """Lower modules know nothing of the higher ones, functions included."""
    level = next(i for i, layer in enumerate(LAYERS) if module in layer)
    below = {name for layer in LAYERS[level + 1 :] for name in layer}

    assert own(imports_of(module)) - {module} <= below


def test_the_layers_are_those_of_the_design_page():
    """What is written for people is in the order that is held here, and complete."""
    text = (ROOT / "docs" / "design.rst").read_text().partition("point down only")[2]
    table = re.search(r"={4,}  ={4,}\n(.*?)\n={4,}", text, re.DOTALL).group(1)
    rows = [re.findall(r"``(\w+)``", line[:48]) for line in table.splitlines()]
    levels = {name: i for i, layer in enumerate(LAYERS) for name in layer}

    order = [max(levels[name] for name in row if name in levels) for row in rows if row]
    missing = {m for m in MODULES if "." not in m} - {n for row in rows for n in row}

    assert len(order) >= 6
    assert order == sorted(order)
    assert missing <= {"__main__", "resumable"}


def test_hdf5_is_used_in_few_modules():
    """Everything else reads and writes bytes, or nothing."""
    assert {m for m in MODULES if "h5py" in foreign(imports_of(m))} == USES_H5PY


def test_what_resolves_a_process_asks_hdf5_only_for_its_version():
    """The class a user writes opens no file by itself."""
    tree = ast.parse(MODULES["resolve"].read_text())

    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "h5py"
    }

    assert used == {"__version__", "version"}


@pytest.mark.parametrize("module", MODULES)
def test_optional_packages_are_imported_inside_functions(module):
    """An import of the library costs what everybody has."""
    allowed = ALWAYS_THERE | FOR_THE_COMMAND.get(module, set())

    assert foreign(imports_of(module, at_import=True)) <= allowed


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_module_that_decides_does_no_input_or_output(module):
    """So that a decision can be tested without a file."""
    names = imports_of(module)
    tree = ast.parse(MODULES[module].read_text())

    tops = {name.partition(".")[0] for name in names}
    calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}

    assert not tops & {"h5py", "io", "os", "shutil", "socket", "subprocess", "tempfile"}
    assert not names & {"pathlib", "pathlib.Path"}
    assert "open" not in calls


def test_the_public_names_are_few_sorted_and_there():
    """What is not listed may change without notice."""
    names = resumable.__all__

    assert names == sorted(set(names))
    errors = [n for n in names if isinstance(getattr(resumable, n), type)]
    errors = [n for n in errors if issubclass(getattr(resumable, n), BaseException)]
    assert len(names) - len(errors) <= 22
    assert all(hasattr(resumable, name) for name in names)


def test_the_public_names_are_those_of_the_documentation():
    """Each is on the page of the API, and the page promises no other."""
    text = (ROOT / "docs" / "api.rst").read_text()

    documented = re.findall(
        r"^\.\. auto(?:class|function|exception):: (\w+)$", text, re.M
    )

    assert sorted(documented) == resumable.__all__


def test_nothing_else_is_public():
    """A name without an underscore in the package is listed, or a module."""
    names = {name for name in vars(resumable) if not name.startswith("_")}

    typing = {"Any", "TYPE_CHECKING"}
    assert names - set(resumable.__all__) <= {*MODULES, *typing, "annotations"}


def test_an_import_costs_only_what_it_must():
    """Silent, quick, and without the packages that only some users need."""
    heavy = {"IPython", "dask", "distributed", "matplotlib", "mpi4py", "rich"}
    heavy |= {"hdf5plugin", "pandas", "scipy", "tqdm"}
    code = (
        "import sys, resumable\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stdout.splitlines()

    assert set(ast.literal_eval(line)) & heavy == set()
    assert done.stderr == ""


def test_an_import_sets_nothing():
    """No logging handler that prints, no start method, no signal handler."""
    code = (
        "import logging, multiprocessing, signal, threading, warnings\n"
        "import h5py, param, numpy\n"
        "def state():\n"
        "    return (\n"
        "        logging.getLogger().handlers[:], logging.getLogger().level,\n"
        "        multiprocessing.get_start_method(allow_none=True),\n"
        "        signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM),\n"
        "        threading.active_count(), warnings.filters[:],\n"
        "    )\n"
        "before = state()\n"
        "import resumable\n"
        "assert state() == before, (before, state())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file", [".ci/run", "CONTRIBUTING.rst"])
def test_the_command_of_the_readme_that_runs_the_tests_is_the_one_that_is_run(file):
    """Letter for letter, so that what is promised is what is checked."""
    readme = (ROOT / "README.rst").read_text().splitlines()
    (command,) = {line.strip() for line in readme if line.endswith("-m pytest")}

    lines = [line.strip() for line in (ROOT / file).read_text().splitlines()]

    assert command in lines


def test_the_version_is_the_one_of_the_distribution():
    """Run files carry it, so there is only one."""
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")

    assert metadata["metadata"]["version"] == resumable.__version__


def test_every_extra_that_a_message_names_exists():
    """What an error tells the user to install can be installed."""
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    text = "".join(path.read_text() for path in MODULES.values())

    named = set(re.findall(r"resumable-hdf5\[(\w+)\]", text))

    assert named
    assert named <= set(metadata["options.extras_require"])
