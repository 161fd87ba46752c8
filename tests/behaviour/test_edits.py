"""Edits of scripts: those that change results begin a new run, others do not."""

import contextlib
import functools
import json
import os
import subprocess
import sys

import pytest
from edit_cases import NOTICED
from edits import edit, unit
from edits_harmless import HARMLESS
from helpers import ROOT, SUPPORT
from program_server import ProgramServer

RUNNER = SUPPORT / "edits_runner.py"


@pytest.fixture(scope="module")
def server():
    """Return what starts scripts, each in a process of its own."""
    modules = ("numba", "scipy.sparse", "scipy.interpolate", "h5py", "param")
    with ProgramServer(*modules, "resumable") as made:
        yield made


@pytest.fixture(scope="module")
def run_forked(server, tmp_path_factory):
    """Return a function that runs scripts in folders, all in one forked process."""
    folder = tmp_path_factory.mktemp("forked")

    def run(folders):
        program = server.start(RUNNER, *map(str, folders), folder=folder)
        with contextlib.closing(program):
            _, errors = program.communicate(timeout=100)
        assert program.returncode == 0, errors

    return run


def run_fresh(folders):
    """Run scripts in folders, each in an interpreter that begins anew."""
    for folder in folders:
        environment = json.loads((folder / "environment.json").read_text())
        done = subprocess.run(
            [sys.executable, "run.py"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
        )
        (folder / "told").write_text(done.stdout + done.stderr)


class Seen:
    """What a script told before an edit, again, and after it."""

    def __init__(self, edit, folder):
        self.edit, self.folder, self.told, self.runs = edit, folder, [], []
        folder.mkdir()
        edit.write(folder)

    def take(self):
        *_, last = (self.folder / "told").read_text().splitlines()
        self.told.append(last)
        self.runs.append(len(list(self.folder.glob("scan-*.h5"))))

    def check_noticed(self):
        before, again, after = self.told
        assert after.split()[0] == str(float(self.edit.value))
        assert before.split()[0] != after.split()[0]
        assert before == again
        assert self.runs == [1, 1, 2]

    def check_harmless(self):
        before, again, after = self.told
        assert before.split()[0] == str(float(self.edit.value))
        assert before == again == after
        assert self.runs == [1, 1, 1]


def see_all(edits, folder, run):
    """Run the scripts before their edits, again, and after them."""
    seen = {
        name: Seen(edit, folder / str(number))
        for number, (name, edit) in enumerate(edits.items())
    }
    folders = [one.folder for one in seen.values()]
    for when in ("before", "again", "after"):
        for one in seen.values():
            one.edit.prepare(one.folder, after=when == "after")
        run(folders)
        for one in seen.values():
            one.take()
    return seen


def each(groups):
    """Parametrize a test by all edits of some groups."""
    values = [
        pytest.param(group, name, id=f"{group}: {name}")
        for group, edits in groups.items()
        for name in edits
    ]
    return pytest.mark.parametrize(("group", "name"), values)


@pytest.fixture(scope="module")
def seen(run_forked, tmp_path_factory):
    """Return a function that tells what was seen of a group of edits."""

    @functools.cache
    def seen(group):
        edits = {**NOTICED, **HARMLESS}[group]
        return see_all(edits, tmp_path_factory.mktemp("edits"), run_forked)

    return seen


@each(NOTICED)
def test_an_edit_that_changes_results_begins_a_new_run(seen, group, name):
    seen(group)[name].check_noticed()


@each(HARMLESS)
def test_an_edit_that_changes_no_result_begins_no_new_run(seen, group, name):
    seen(group)[name].check_harmless()


#: What differs between processes: sets, and the addresses and names of things.
MANY = unit(
    "C.k * h(s) if E.A in KNOWN and 'a' in {'a', 'b', 'c'} else 0",
    """
    class E(enum.Enum):
        A = "a"
        B = "b"
    @dataclasses.dataclass(frozen=True)
    class D:
        k: int = 1
        words: frozenset = frozenset({"x", "y", "z"})
    C = D()
    KNOWN = {E.A, E.B, "x", "y"}
    LAMBDAS = {"sum": lambda s: s.sum(), "len": len}
    def h(s): return LAMBDAS["sum"](s)
    """,
    "k = param.Selector(objects={'a': np.sum})\nw = param.Array(np.ones(3))",
)
IMPORTED = """
import run
results = run.compute()
print(float(results["m"][1:2].item()), results.path.name)
"""
WAYS = {
    "another hash seed": ("1", ["run.py"]),
    "one more hash seed": ("2", ["run.py"]),
    "optimised": ("0", ["-O", "run.py"]),
    "no columns": ("0", ["-X", "no_debug_ranges", "run.py"]),
    "imported": ("0", ["imported.py"]),
    "command": ("0", ["-m", "resumable", "run", "run.py:P", "scan.h5::/data"]),
    "from another folder": ("0", ["../there/run.py"]),
}


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """Return a folder where a script was run, and a function that runs it again."""
    folder = tmp_path_factory.mktemp("ways") / "there"
    folder.mkdir()
    edit({"run.py": MANY, "imported.py": IMPORTED}, "", "", 22).write(folder)

    def run(seed, command):
        environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, **environment},
            check=True,
        )
        return [path.name for path in folder.glob("scan-*.h5")]

    assert len(run("0", ["run.py"])) == 1
    return run


@pytest.mark.parametrize("way", WAYS)
def test_the_way_a_script_is_run_does_not_count(first_run, way):
    assert len(first_run(*WAYS[way])) == 1


@pytest.mark.torture
@each(NOTICED)
def test_an_edit_is_noticed_by_fresh_interpreters(tmp_path, group, name):
    edits = {name: NOTICED[group][name]}

    see_all(edits, tmp_path, run_fresh)[name].check_noticed()


@pytest.mark.torture
@each(HARMLESS)
def test_a_harmless_edit_is_so_in_fresh_interpreters(tmp_path, group, name):
    edits = {name: HARMLESS[group][name]}

    see_all(edits, tmp_path, run_fresh)[name].check_harmless()
