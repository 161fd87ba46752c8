"""The house: what imports what, what is public, what the documents promise."""

import ast
import configparser
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import resumable

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "resumable"

# What every user has; the rest is imported where it is needed.
ALWAYS_THERE = {"cloudpickle", "h5py", "numpy", "param", "psutil", "threadpoolctl"}
FOR_THE_COMMAND = {name: {"click"} for name in ("cli.commands", "process.program")}
FOR_THE_COMMAND["cli.lorentz"] = {"scipy"}

# Decisions outside of the room `model`: no file is read or written there either.
FILES_NAMED = {"identity.earlier", "model.encoding"}
DECISIONS = {"session.decide", "session.failures", "worker.job"}


def name_of(path):
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


def foreign(names):
    """Return the packages that are neither ours nor Python's among imported names."""
    tops = {name.partition(".")[0] for name in names}
    return tops - {"resumable"} - sys.stdlib_module_names


@pytest.mark.parametrize("module", MODULES)
def test_other_rooms_are_entered_by_their_door(module):
    """What a room does not export may change without a look at the others."""
    room = module.partition(".")[0]
    past = []
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        top, _, rest = node.module.partition(".")
        other, _, inside = rest.partition(".")
        if top != "resumable" or other in ("", "errors", "version", room):
            continue
        door = importlib.import_module(f"resumable.{other}").__all__
        names = {alias.name for alias in node.names}
        if inside or not names <= set(door):
            past.append(ast.unparse(node))

    assert past == []


@pytest.mark.parametrize("module", MODULES)
def test_optional_packages_are_imported_inside_functions(module):
    allowed = ALWAYS_THERE | FOR_THE_COMMAND.get(module, set())

    assert foreign(imports_of(module, at_import=True)) <= allowed


@pytest.mark.parametrize(
    "module",
    sorted(DECISIONS | {m for m in MODULES if m.startswith("model.")} - FILES_NAMED),
)
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
    heavy |= {"hdf5plugin", "pandas", "scipy", "tempfile", "tqdm"}
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


def test_a_run_does_not_import_masked_arrays(tmp_path):
    """They take longer than all else that a short run does before it computes."""
    code = (
        "import sys, h5py, numpy as np, resumable as rs\n"
        "with h5py.File('scan.h5', 'w') as file: file['data'] = np.ones((50, 8))\n"
        "class Mean(rs.Process):\n"
        "    version = 1\n"
        "    outputs = {'mean': rs.Output()}\n"
        "    def unit_computation(self, spectrum): return spectrum.mean()\n"
        "Mean('scan.h5::/data').compute(engine='serial', progress=False)\n"
        "print('numpy.ma' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "False\n"


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
    """Users run the command that developers run."""
    readme = (ROOT / "README.rst").read_text().splitlines()
    (command,) = {line.strip() for line in readme if line.endswith("-m pytest")}

    lines = [line.strip() for line in (ROOT / file).read_text().splitlines()]

    assert command in lines


@pytest.mark.timeout(300)  # mypy reads all libraries where it has no cache
def test_a_type_checker_knows_what_users_get():
    """Run in the project's folder, so that its cache serves the next run of mypy."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "tests/support/typed_use.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def setup_cfg():
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


def test_the_version_is_written_down_in_one_place():
    """Run files carry it. Files that cannot read it from there say the same."""
    assert setup_cfg()["metadata"]["version"] == "attr: resumable.version.__version__"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text())

    assert citation["version"] == resumable.__version__
    assert recipe["context"]["version"] == resumable.__version__


def test_the_conda_recipe_requires_what_the_distribution_requires():
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text())
    required = setup_cfg()["options"]["install_requires"].split()
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    (script,) = setup_cfg()["options.entry_points"]["console_scripts"].split("\n")[1:]

    python, *run = recipe["requirements"]["run"]
    host = recipe["requirements"]["host"][2:]

    versions = setup_cfg()["options"]["python_requires"].replace(" ", "")
    assert python == f"python {versions.replace('3.11', '${{ python_min }}', 1)}"
    assert [line.replace(" ", "") for line in run] == required
    assert [line.replace(" ", "") for line in host] == build["requires"]
    assert recipe["build"]["python"]["entry_points"] == [script]


def test_the_description_for_package_indexes_has_no_link_that_leads_nowhere():
    """There a relative link leads to a page of the index that does not exist."""
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    readme = (ROOT / "README.rst").read_text()
    links = re.findall(r"<([^>]+)>`_", readme)
    files = [link for link in links if "://" not in link]

    plain = setup.description(readme, None)
    complete = setup.description(readme, "https://example.org/tree/")

    assert len(files) > 10
    assert all((ROOT / name).is_file() for name in files)
    assert re.findall(r"<([^>]+)>`_", plain) == [n for n in links if n not in files]
    assert "how-to (``docs/howto.rst``)" in plain
    targets = re.findall(r"<([^>]+)>`_", complete)
    assert targets == [
        n if "://" in n else f"https://example.org/tree/{n}" for n in links
    ]


def test_every_extra_that_a_message_names_exists():
    text = "".join(path.read_text() for path in MODULES.values())

    named = set(re.findall(r"resumable-hdf5\[(\w+)\]", text))

    assert named
    assert named <= set(setup_cfg()["options.extras_require"])


#: Names with an underscore that Python and IPython give to everybody.
EVERYBODYS = {"_asdict", "_exit", "_fields", "_getframe", "_replace", "_repr_html_"}


#: Functions that are given a name as a text.
BY_TEXT = ("setattr", "delattr", "patch")


def private_names(path):
    """Return the private names of others that a test module reaches for."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    own = {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    own |= {n.id for n in nodes if isinstance(n, ast.Name)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own |= {node.attr} if ast.unparse(node.value) == "self" else set()
    found = [n.attr for n in nodes if isinstance(n, ast.Attribute)]
    found = [name for name in found if name not in own]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(BY_TEXT):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            found += [t.rpartition(".")[2] for t in texts if isinstance(t, str)]
    found = [name for name in found if name not in EVERYBODYS]
    return [n for n in found if n.startswith("_") and not n.startswith("__")]


def test_tests_use_few_private_names():
    """What tests reach for cannot be changed without them."""
    modules = sorted((ROOT / "tests").rglob("*.py"))
    found = {path.name: private_names(path) for path in modules}

    assert sum(map(len, found.values())) <= 60, found
