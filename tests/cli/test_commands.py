"""The command, as a user types it."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import compute, data_of
from processes import process_of
from programs import ROOT, invoke

import resumable as rs
from resumable.cli import report
from resumable.cli.commands import main
from resumable.process import find_class
from resumable.runfile.file import RunFile

FIT = """
    import time
    import numpy as np
    import param
    import resumable as rs

    class Scale(rs.Process):
        '''Scale every row.'''

        version = 1
        factor = param.Number(2.0, bounds=(0, 10), doc="what to multiply with")
        count = param.Integer(1)
        upside_down = param.Boolean(False)
        kind = param.Selector(objects=["mean", "sum"])
        pause = param.Number(0.0)
        outputs = {"value": rs.Output(dtype="f8", units="V")}

        def unit_computation(self, spectrum):
            time.sleep(self.pause)
            if self.position == 3:
                raise ValueError("no fit")
            value = getattr(spectrum, self.kind)() * self.factor * self.count
            return -value if self.upside_down else value
"""


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """Write a user's file beside the scan and go there."""
    (tmp_path / "fit.py").write_text(textwrap.dedent(FIT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "fit.py:Scale"
    # The command registers it, and other tests have a fit.py, too.
    sys.modules.pop("fit", None)


def test_a_report_is_one_page_with_its_pictures_inside(tmp_path, monkeypatch):
    class Marked(rs.Process):
        version = 1
        outputs: ClassVar = {"x": rs.Output(units="<b>V</b>"), "n": rs.Output()}

        def unit_computation(self, index):
            if index == 1:
                raise ValueError("<script>alert(1)</script>")
            return {"x": index, "n": np.nan}

    monkeypatch.chdir(tmp_path)
    with pytest.warns(rs.ResumableWarning, match="failed"):
        results = compute(Marked(300, tmp_path))
    printed = invoke("report", results.path.name)
    page = results.path.with_suffix(".html")
    assert printed.startswith(page.name)
    text = page.read_text()
    assert text.count('<img alt="') == text.count('src="data:image/png;base64,') == 2
    assert not re.search(r"<script|<b>|https?://|<link", text)
    assert "299 of 300 positions done, 1 failed" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;</summary>" in text
    assert results.identity in text
    # A page of ours is written anew, a file of the user is kept.
    invoke("report", results.path.name)
    page.write_text("mine")
    refused = invoke("report", results.path.name, code=1)
    assert "is no report; give another name by -o" in refused
    assert page.read_text() == "mine"
    invoke("report", results.path.name, "-o", "other.html")
    assert (tmp_path / "other.html").read_text() == text
    before = results.path.read_bytes()
    invoke("report", results.path.name, "-o", results.path.name, code=1)
    assert results.path.read_bytes() == before


@pytest.mark.filterwarnings("ignore::resumable.ResumableWarning")
def test_programs_read_runs_as_json(fit, scan, tmp_path):
    invoke("run", fit, scan, "--engine", "serial", "--positions", "0:5")
    (tmp_path / "broken.h5").write_bytes(b"resumable run file\n")
    listed = json.loads(invoke("list", "--json"))
    [run] = [each for each in listed if "path" in each]
    [broken] = [each for each in listed if "path" not in each]
    assert "broken.h5" in broken["error"]
    counts = {name: run[name] for name in ("state", "done", "failed", "pending")}
    assert counts == {"state": "stopped", "done": 4, "failed": 1, "pending": 55}
    assert run["parameters"]["factor"] == 2.0
    assert json.loads(invoke("status", "--json", run["path"])) == [run]
    shown = json.loads(invoke("show", "--json", run["path"]))
    assert shown["outputs"]["value"]["units"] == "V"
    assert [failure["position"] for failure in shown["failures"]] == [3]
    assert shown["sessions"][0]["computed"] == 4


@pytest.mark.filterwarnings("ignore::resumable.ResumableWarning")
def test_run_computes_with_parameters_as_options(fit, scan):
    out = invoke(
        "run", fit, scan, "--factor", "3", "--upside-down", "--kind", "sum",
        "--engine", "serial",
    )  # fmt: skip
    (path,) = Path().glob("scan-data-Scale-*.h5")
    expected = data_of(scan).sum(axis=1) * -3.0
    expected[3] = np.nan

    assert "59 of 60 positions done, 1 failed" in out
    np.testing.assert_allclose(rs.open(path)["value"], expected)


def test_run_help_shows_the_parameters_of_the_class(fit):
    out = invoke("run", fit, "--help")

    assert "--factor" in out
    assert "what to multiply with" in out
    assert "--upside-down / --no-upside-down" in out
    assert "[mean|sum]" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit.py:Scal", "scan.h5::/data"], 1, "did you mean 'Scale'"),
        (["fitt.py:Scale", "scan.h5::/data"], 1, "did you mean 'fit.py'"),
        (["fit.py", "scan.h5::/data"], 2, "FILE.py:Class"),
        (["fit.py:Scale", "scan.h5::/dat"], 1, "did you mean '/data'"),
        (["fit.py:Scale", "scan.h5::/data", "--factor", "11"], 1, "factor"),
        (["fit.py:Scale", "scan.h5::/data", "--factr", "1"], 2, "--factor"),
        (["fit.py:Scale", "scan.h5::/data", "--memory", "lots"], 1, "not a size"),
        (["fit.py:Scale", "scan.h5::/data", "--positions", "a"], 2, "5,7,9"),
        (["fit.py:Scale", "scan.h5::/data", "--positions", "1:3,a"], 2, "1:3,2:4"),
        (
            ["fit.py:Scale", "scan.h5::/data", "--positions", "1:3,2:4"],
            1,
            "shape (60,)",
        ),
        (["fit.py:Scale", "scan.h5::/data", "--engine", "locl"], 1, "'local'"),
    ],
)
def test_mistakes_get_one_line_and_a_code(fit, scan, arguments, code, message):
    assert message in invoke("run", *arguments, code=code)


@pytest.mark.filterwarnings("ignore::resumable.ResumableWarning")
def test_positions_and_retry_are_options(fit, scan):
    out = invoke("run", fit, scan, "--positions", "0:10", "--engine", "serial")

    assert "9 of 60 positions done, 1 failed, 50 pending" in out
    out = invoke("run", fit, scan, "--retry-failed", "--engine", "serial")
    assert "9 of 60 positions done, 1 failed, 50 pending" in out


@pytest.mark.filterwarnings("ignore::resumable.ResumableWarning")
def test_list_status_show_explain_tell_of_a_run(fit, scan):
    invoke("run", fit, scan, "--positions", "0:10", "--engine", "serial")
    (path,) = Path().glob("scan-data-Scale-*.h5")

    listed = invoke("list")
    status = invoke("status")
    shown = invoke("show", str(path))
    explained = invoke("explain", fit, scan, "--factor", "4")

    assert "Scale" in listed
    assert "50 pending" in status
    assert "run the same command again" in status
    assert "no fit" in shown
    assert "ValueError" in shown
    assert rs.open(path).identity in shown
    assert "parameters.factor: 2.0 there, 4.0 here" in explained


def test_tree_lists_what_can_be_computed_over(make_file, tmp_path, monkeypatch):
    make_file("x.h5", **{"g/a": np.zeros((7, 2)), "b": np.zeros(5, "u1"), "c": 1.0})
    make_file("x.h5", d=2.0, e=h5py.ExternalLink("away.h5", "/e"))
    make_file("none.h5", a=1.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "rich.box", None)

    assert invoke("tree", "x.h5").splitlines() == [
        "dataset  shape  dtype    size",
        "/g/a     7 x 2  float64  112 bytes",
        "/b       5      uint8    5 bytes",
        "not listed: 2, each is a single value",
        "x.h5::/e is a link to away.h5::/e, which is missing: there is no file away.h5",
    ]
    assert invoke("tree", "x.h5::/g").splitlines()[1:] == [
        "/g/a     7 x 2  float64  112 bytes"
    ]
    assert "none.h5 has no datasets that can be" in invoke("tree", "none.h5")
    assert "x.h5::/b is a dataset" in invoke("tree", "x.h5::/b", code=1)
    assert "there is no file y.h5" in invoke("tree", "y.h5", code=1)


def test_status_of_a_run_in_finish_names_no_time(scan):
    """Nothing is pending, and the time of finish() is not known."""
    seen = []

    def finish(self, results):
        seen.append(report.status_text(RunFile(results.path)))

    Ending = process_of(lambda self, spectrum: spectrum.mean(), finish=finish)
    Ending(scan).compute(engine="serial")

    assert "positions per second, none pending" in seen[0]


@pytest.mark.filterwarnings("ignore::resumable.ResumableWarning")
def test_list_tells_runs_apart_by_what_they_differ_in(fit, scan):
    invoke("run", fit, scan, "--engine", "serial")
    alone = invoke("list")
    invoke("run", fit, scan, "--engine", "serial", "--factor", "4")
    lines = invoke("list").splitlines()

    assert "factor" not in alone
    for factor in ("2.0", "4.0"):
        assert sum(f"factor={factor}" in line for line in lines) == 1
    assert "seed" not in "".join(lines)


@pytest.mark.filterwarnings("ignore::resumable.ResumableWarning")
def test_remove_asks_first(fit, scan):
    invoke("run", fit, scan, "--engine", "serial")
    (path,) = Path().glob("scan-data-Scale-*.h5")

    invoke("remove", str(path), input="n\n", code=1)
    assert path.exists()
    invoke("remove", str(path), input="y\n")
    assert not path.exists()


def test_no_arguments_help():
    out = CliRunner().invoke(main, []).output

    for command in ("run", "list", "status", "show", "explain", "remove", "demo"):
        assert command in out
    assert "75" in out


def test_stopped_run_exits_75_and_status_sees_it_run(fit, scan, tmp_path):
    command = [sys.executable, "-m", "resumable"]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    run = subprocess.Popen(
        [*command, "run", fit, scan, "--pause", "0.5", "--checkpoint", "0.2"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    status = ""
    while "running" not in status and time.monotonic() < deadline:
        time.sleep(0.1)
        status = subprocess.run(
            [*command, "status"], env=environment, capture_output=True, text=True
        ).stdout
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=30)

    assert f"process {run.pid}" in status
    assert run.returncode == 75
    assert "run the same again to go on" in err


def test_demo_is_killed_and_continued_with_equal_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    out = invoke("demo", "here")
    said = re.search(r"([\d,]+) were kept, ([\d,]+) computed now", out)

    assert "killed (SIGKILL)" in out
    assert sum(int(each.replace(",", "")) for each in said.groups()) == 48 * 48
    assert "agree bit for bit" in out
    # What is to be typed next fits into a line.
    assert str(tmp_path) not in out
    assert len(list(Path("here").glob("scan-Raw_Data-LorentzFit-*.h5"))) == 1
    others = {path.name for path in Path("here").iterdir() if path.suffix != ".h5"}
    assert others - {"__pycache__"} == {"fit.py", "make_scan.py", "uninterrupted"}


def test_demo_overwrites_nothing(tmp_path, monkeypatch):
    from resumable.cli.demo import _unused

    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").touch()

    assert _unused(tmp_path / "d") == tmp_path / "d-2"
    assert _unused(tmp_path / "e") == tmp_path / "e"


def test_tables_do_without_rich(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.box", None)

    assert report.table(["a", "b"], [["xxx", "[red]y"]]) == "a    b\nxxx  [red]y"


def test_advice_is_worded_for_a_shell(fit, scan, make_file):
    """What a script is told in Python's words, with what is typed instead."""
    run = ("run", fit, scan, "--engine", "serial")
    stack = make_file("stack.h5", data=np.ones((3, 4, 5))) + "::/data"
    told = {
        "(0, 3)": invoke("run", fit, stack, "--axes", "0,3", code=1),
        "time": invoke(*run, "--time-limit", "soon", code=1),
        "memory": invoke(*run, "--memory", "1", code=1),
        "target": invoke("run", fit, "3", code=1),
        "input": invoke(*run, "--input", "back=nothing.h5::/back", code=1),
        "twice": invoke(*run, "--shared", "a=1", "--shared", "a=2", code=2),
        "address": invoke("tree", f"file://{scan.partition('::')[0]}", code=1),
    }

    assert "--axes 0,3 do not exist in " in told["(0, 3)"]
    assert "--time-limit soon is not a duration; write" in told["time"]
    assert re.search(r"give --memory '\S+ \w+' or more", told["memory"])
    assert "lies in no folder; give --target, a folder" in told["target"]
    assert "an energy axis, is given by --shared)" in told["input"]
    assert "--shared a= is given twice, '1' and '2'" in told["twice"]
    assert "is an address, which is not read: give the name of" in told["address"]
    # Python's words for arguments end with the sign.
    assert not re.search(r"(?<![-\w])[a-z_]{4,}=", "".join(told.values()))
    with pytest.raises(rs.PlanError, match=r"time_limit='soon' is not"):
        rs.map(np.sum, scan, options={"time_limit": "soon"})


def test_a_program_words_advice_for_a_shell_until_it_ends(fit, scan, capsys):
    """Then the process words it for Python again."""
    cls = find_class(fit, rs.Process)
    with pytest.raises(SystemExit):
        rs.main(cls, [scan, "--engine", "serial", "--position-timeout", "2m"])
    assert "does not have; use --engine local" in capsys.readouterr().err
    with pytest.raises(rs.PlanError, match="use engine='local'"):
        cls(scan).compute(engine="serial", position_timeout="2m")
