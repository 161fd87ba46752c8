"""The documentation: what it shows is run, and what there is it names.

Of a page's code blocks, those in Python with a caption become files of that name,
the others are run; what follows ``>>>`` and ``$`` is run and must give what is
printed there. Times, sizes, identities and the like are another every time and are
not compared.
"""

import doctest
import importlib
import inspect
import linecache
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import resumable as rs
from resumable.cli import commands as cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

# Failures and edits warn on purpose in some examples.
pytestmark = pytest.mark.filterwarnings("ignore::resumable.ResumableWarning")

MASKS = [
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?([+-]\d\d:\d\d)?", "<when>"),
    (r"\b[0-9a-f]{64}\b", "<identity>"),
    (r"(?<=[-' ])[0-9a-f]{8}\b", "<id>"),
    (r"\d[\d.,]*(e[-+]?\d+)? (min \d+ s|h \d+ min|us|ms|s|min|kB|MB|GB)\b", "<n>"),
    (r"\bprocess \d+ on \S+", "<process>"),
    (r"\bpickled, [\d,]+ bytes", "pickled"),
    (r"(?<=passed in )\d+\.\d+s", "<n>"),
    (r"\d+ at once", "<n> at once"),
    (r"about [\d,]+$", "about <n>"),
    (r"(?<=limit of 0.2: )[\d,]+ of ([\d,]+) positions done, [\d,]+ pending", "<n>"),
    (r"^continue: [\d,]+ of", "continue: <n> of"),
    (r"[\d,]+ of ([\d,]+) to compute", "<n> to compute"),
    (r"\S+ +\d+ +(auto|local|serial) x \d+", "<where>"),
    (r"^(<when>)? *(Python|CPU|BLAS|h5py|numpy) +[A-Zo\d].*$", r"\2 <version>"),
    (r"\b\d[\d,]* positions at once", "<n> positions at once"),
]


def masked(text):
    """Take out of a text what is another every time, and the layout of tables."""
    for pattern, name in MASKS:
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    lines = [re.sub(r" {2,}", "  ", line).rstrip() for line in text.splitlines()]
    return "\n".join(line for line in lines if line)


class Checker(doctest.OutputChecker):
    """Compares what does not change."""

    def check_output(self, want, got, optionflags):
        return super().check_output(
            masked(want) + "\n", masked(got) + "\n", optionflags
        )


def blocks_of(page):
    """Yield language, caption, text and line of every code block of a page."""
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines):
        match = re.match(r"( *)\.\. code-block:: (\S+)$", line)
        if match is None:
            continue
        body = []
        for below in lines[number + 1 :]:
            if below.strip() and not below.startswith(match[1] + "   "):
                break
            body.append(below)
        caption = None
        while body and body[0].strip().startswith(":"):
            option = body.pop(0).strip()
            if option.startswith(":caption:"):
                caption = option.removeprefix(":caption:").strip()
        yield match[2], caption, textwrap.dedent("\n".join(body)).strip("\n"), number


def expanded(word):
    return [path.name for path in Path().glob(word)] if "*" in word else [word]


def invoke(line):
    """Run a command as a shell would and return what it prints."""
    words = shlex.split(line, comments=True)
    words = [name for word in words for name in expanded(word)]
    if words[0] in ("mpiexec", "python"):
        # The ones beside this Python.
        beside = Path(sys.executable)
        done = subprocess.run(
            [beside.with_name(w) if w in ("mpiexec", "python") else w for w in words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        return done.stdout
    assert words[0] == "resumable", line
    result = CliRunner().invoke(cli.main, words[1:], prog_name="resumable")
    return result.output


def check_console(text, where):
    """Run the commands of a block and compare what they print."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    for part in parts[1:]:
        command, _, expected = part.partition("\n")
        got = invoke(command)

        assert masked(got) == masked(expected), f"{where}: {command}"


def check_page(page):
    """Run all that a page shows, from top to bottom, in one namespace."""
    names = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(Checker(), optionflags=doctest.ELLIPSIS)
    for language, caption, text, line in blocks_of(page):
        where = f"{page.name}, line {line + 1}"
        if language == "python" and caption:
            Path(caption).write_text(text + "\n")
        elif language == "python":
            # As a notebook does, so that functions have their text.
            lines = text.splitlines(keepends=True)
            linecache.cache[where] = (len(text), None, lines, where)
            exec(compile(text, where, "exec"), names)
        elif language == "pycon":
            test = doctest.DocTestParser().get_doctest(
                text + "\n", names, where, str(page), line + 1
            )
            report = []
            result = runner.run(test, out=report.append, clear_globs=False)
            names.update(test.globs)

            assert result.failed == 0, "".join(report)
        elif language == "console":
            check_console(text, where)


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Go to an empty folder, as a user with a base installation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setitem(sys.modules, "rich.box", None)
    yield
    for name in ("fit", "level", "more", "on_device"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "name",
    ["tutorial", "howto", "engines", "gpus", "mpi", "pool", "cli", "format", "testing"],
)
def test_what_a_page_shows_is_what_happens(user, name):
    """Code and commands run in the order of the page and print what it says."""
    check_page(DOCS / f"{name}.rst")


def commands():
    """Yield the group and its commands, with their names as typed."""
    context = click.Context(cli.main)
    yield "resumable", cli.main
    for name in cli.main.list_commands(context):
        yield name, cli.main.get_command(context, name)


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda one: str(one)
)
def test_every_command_and_option_is_documented(name, command):
    """A command has its section, and every option of it is on the page."""
    page = (DOCS / "cli.rst").read_text()
    options = [
        option
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in [*parameter.opts, *parameter.secondary_opts]
    ]

    assert name == "resumable" or f"\n{name}\n{'-' * len(name)}\n" in page
    assert command.help
    assert [option for option in options if option not in page] == []


def test_every_argument_of_compute_is_explained():
    arguments = set(inspect.signature(rs.Process.compute).parameters) - {"self"}
    text = inspect.getdoc(rs.Process.compute)
    explained = re.findall(r"^(\w+) : ", text, re.MULTILINE)

    assert arguments <= set(explained)


@pytest.mark.parametrize(
    "path",
    [p for p in sorted((ROOT / "resumable").rglob("*.py")) if ">>>" in p.read_text()],
    ids=lambda path: f"{path.parent.name}.{path.stem}",
)
def test_the_examples_of_a_docstring_give_what_they_show(path):
    """Here, since pytest's own search for them looks into every module of the tests."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    result = doctest.testmod(importlib.import_module(name))

    assert result.attempted > 0
    assert result.failed == 0


def test_the_example_of_the_readme_runs(user):
    (text,) = (
        text for kind, _, text, _ in blocks_of(ROOT / "README.rst") if kind == "python"
    )
    spectra = np.random.default_rng(0).normal(0, 0.02, (20, 128))
    spectra += 1 / (1 + (np.linspace(-1, 1, 128) / 0.15) ** 2)
    with h5py.File("scan.h5", "w") as file:
        file["Measurement_000/Channel_000/Raw_Data"] = spectra
    names = {"__name__": "__main__"}

    exec(compile(text, "the example of the README", "exec"), names)

    assert names["results"].status.done == 20


def test_the_recipe_for_array_jobs_runs(user, monkeypatch):
    blocks = blocks_of(DOCS / "scale.rst")
    texts = {caption: text for _, caption, text, _ in blocks if caption}
    data = np.random.default_rng(0).normal(size=(5, 2, 3))
    with h5py.File("scan.h5", "w") as file:
        file["data"] = data
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    names = {"__name__": "__main__"}
    for part in "021":
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", part)
        exec(compile(texts["part.py"], "part.py", "exec"), names)

    exec(compile(texts["join.py"], "join.py", "exec"), names)

    np.testing.assert_allclose(names["mean"], data.mean(axis=(1, 2)))


def test_the_words_of_the_guide_are_those_of_the_glossary():
    guide = (ROOT / "CONTRIBUTING.rst").read_text().partition("\nWords\n")[2]
    (listed,) = re.findall(r"\n\n  (position .*?)\.\n\n", guide, re.DOTALL)
    listed = re.sub(r"\([^)]*\)", "", listed)
    words = sorted(" ".join(word.split()) for word in listed.split(","))
    glossary = (DOCS / "glossary.rst").read_text()

    assert words == sorted(re.findall(r"^   (\w[\w ]*)$", glossary, re.MULTILINE))


@pytest.mark.parametrize(
    "page", sorted([*DOCS.glob("*.rst"), *ROOT.glob("*.rst")]), ids=lambda p: p.name
)
def test_no_page_knows_a_machine(page):
    assert not re.search(r"/(home|root|tmp|Users|var|work)/", page.read_text())


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.rst", DOCS / "design.rst"])
def test_modules_that_a_page_names_exist(page):
    """What stands there as ``room/module`` is a file."""
    rooms = {path.parent.name for path in (ROOT / "resumable").glob("*/__init__.py")}
    named = re.findall(r"``(\w+)/(\w+)``", page.read_text())

    modules = {f"{room}/{module}" for room, module in named if room in rooms}
    missing = {m for m in modules if not (ROOT / "resumable" / f"{m}.py").exists()}

    assert modules
    assert missing == set()
