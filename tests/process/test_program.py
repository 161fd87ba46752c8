"""A Process as a program: its command line, its exit codes."""

import datetime as dt
import os
import subprocess
import sys
import textwrap

import numpy as np
import param
import pytest
from helpers import data_of
from programs import MODULE, ROOT, Fit

import resumable as rs

# Precedence.


@pytest.mark.parametrize("by_argv", [False, True])
@pytest.mark.parametrize("by_keyword", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_the_last_source_of_a_parameters_value_wins(scan, shared, by_keyword, by_argv):
    """In this order: default, shared, keyword, command line; for all that share it."""
    first = Fit(scan, half_width=0.2) if shared else None
    process = Fit.from_argv(
        [scan, *(["--half-width", "0.4"] if by_argv else [])],
        **({"half_width": 0.3} if by_keyword else {}),
    )
    if shared:
        rs.share_parameter(first, process, "half_width")

    expected = 0.4 if by_argv else 0.3 if by_keyword else 0.2 if shared else 0.1
    assert process.half_width == expected
    if shared:
        assert first.half_width == expected


def test_the_command_line_of_a_script(make_file, tmp_path):
    class Plus(Fit):
        def unit_computation(self, spectrum, back):
            return spectrum.min() + back

    path = make_file(data=np.ones((2, 3, 4)), back=np.ones((2, 3)))
    words = [f"{path}::/data", "--axes", "0,1", "--input", f"back={path}::/back"]
    words += ["--target", str(tmp_path), "--upside-down", "--kind", "max"]
    process = Plus.from_argv([*words, "--window", "(5, 6)", "--order", "3"])

    assert process.map_shape == (2, 3)
    assert (process.upside_down, process.kind, process.order) == (True, "max", 3)
    assert process.window == (5, 6)
    assert (
        Plus.from_argv(
            ["--no-upside-down"],
            source=f"{path}::/data",
            inputs={"back": "::/back"},
            position_axes=(0, 1),
            upside_down=True,
        ).state()["parameters"]["upside_down"]
        is False
    )
    assert Fit.from_argv(["7"], target=tmp_path).map_shape == (7,)


def test_the_constructor_never_reads_the_command_line(scan, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fit.py", scan, "--half-width", "0.9"])

    assert Fit(scan).half_width == 0.1
    assert Fit.from_argv().half_width == 0.9
    assert Fit.from_argv([scan]).half_width == 0.1


def test_help_and_wrong_usage_end_a_script(scan, capsys):
    with pytest.raises(SystemExit) as ended:
        Fit.from_argv(["--help"], half_width=0.25)
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert "Scale the smallest value." in out
    assert "first guess (V) [default: 0.25]" in out
    for words in ([scan, "--half-wdth", "1"], [], [scan, "--order", "x"]):
        with pytest.raises(SystemExit) as ended:
            Fit.from_argv(words)
        assert ended.value.code == 2
    assert "--half-width" in capsys.readouterr().err
    with pytest.raises(rs.ParameterError, match="at most 1"):
        Fit.from_argv([scan, "--half-width", "3"])


PROGRAM = textwrap.dedent(MODULE) + textwrap.dedent("""
    if __name__ == "__main__":
        rs.main(Level, gain=2, workers=2, engine="serial", progress=False)
""")


@pytest.fixture
def python(script):
    """Return a function that runs a script, and returns its output and errors."""

    def run(code, *arguments, code_expected=0):
        program = script(code, *arguments)
        output, errors = program.communicate(timeout=100)
        assert program.returncode == code_expected, errors
        return output, errors

    return run


def test_a_script_is_a_program(home, python):
    """The documented codes, one message, and the run that the command would make."""
    words = ["scan.h5::/data", "--gain", "3"]
    printed, _ = python(PROGRAM, *words)
    (path,) = home.glob("scan-data-Level-*.h5")
    np.testing.assert_allclose(
        rs.open(path)["level"], 3 * data_of("scan.h5::/data").mean(axis=1)
    )
    assert printed == f"{path.name}: 60 of 60 positions done\n"

    command = [sys.executable, "-m", "resumable", "run", "script.py:Level", *words]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    same = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert same.stdout == printed

    assert rs.open(path).sessions[0].engine == "serial"
    python(PROGRAM, "scan.h5::/data", "--positions", "0:5", "--engine", "local")
    (default,) = set(home.glob("scan-data-Level-*.h5")) - {path}
    assert rs.open(default).document["parameters"]["gain"] == 2.0
    assert rs.open(default).sessions[0].engine == "local"
    assert rs.open(default).sessions[0].workers == 2
    assert rs.open(default).status.done == 5


def test_the_codes_of_a_program(home, python):
    """1 an error in one line, 2 wrong usage, 75 not finished."""
    _, wrong = python(PROGRAM, "scan.h5::/date", code_expected=1)
    assert wrong.startswith("Error: scan.h5 has no dataset /date; did you mean")
    assert "Traceback" not in wrong
    python(PROGRAM, "scan.h5::/data", "--gian", "3", code_expected=2)
    python(PROGRAM, code_expected=2)
    assert "of the amplifier [default: 2]" in python(PROGRAM, "--help")[0]
    words = ["scan.h5::/data", "--pause", "0.2", "--time-limit", "0.5"]
    _, stopped = python(PROGRAM, *words, code_expected=75)
    assert "run the same again to go on" in stopped


def test_workers_receive_values_not_a_command_line(home, python):
    code = PROGRAM.partition("if __name__")[0] + textwrap.dedent("""
        process = Level.from_argv()
        other = Level("scan.h5::/data")
        rs.share_parameter(process, other, "gain")
        other.gain = 10
        results = process.compute(engine="local", workers=2)
        print(results["level"][0])
    """)
    printed, _ = python(code, "scan.h5::/data", "--gain", "6")

    assert float(printed) == pytest.approx(10 * data_of("scan.h5::/data")[0].mean())


class Odd(rs.Process):
    """Parameters that may be None, and a date."""

    version = 1
    outputs = {"x": rs.Output()}  # noqa: RUF012
    mode = param.Selector(default="a", objects=["a", None])
    mask = param.List([1], allow_None=True)
    cut = param.Number(1.0, allow_None=True)
    day = param.CalendarDate(dt.date(2026, 1, 2))
    when = param.Date(dt.datetime(2026, 1, 2, 3))
    span = param.DateRange((dt.datetime(2026, 1, 2), dt.datetime(2026, 2, 1)))

    def unit_computation(self, position):
        return position


def test_none_on_the_command_line_is_a_value(tmp_path):
    argv = ["3", "--target", str(tmp_path), "--mode", "None"]
    argv += ["--mask", "None", "--cut", "None"]
    said, unsaid = Odd.from_argv(argv), Odd.from_argv(argv[:3])

    assert (said.mode, said.mask, said.cut) == (None, None, None)
    assert (unsaid.mode, unsaid.mask, unsaid.cut) == ("a", [1], 1.0)
    assert Odd.from_argv([*argv[:3], "--cut", "2"]).cut == 2.0


def test_dates_are_parameters(tmp_path):
    one = Odd(3, target=tmp_path)

    assert one.identity != Odd(3, target=tmp_path, day=dt.date(2026, 1, 3)).identity
    assert one.compute(engine="serial").status.finished
