"""Text of unknown origin in a run file: a terminal and a notebook show it tamed."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from forged_files import rewritten
from helpers import compute
from run_files import PACKAGE, Mean, assert_printable

import resumable as rs
from resumable.cli import report
from resumable.cli.commands import main
from resumable.errors import shown
from resumable.runfile.file import RunFile
from resumable.runfile.header import FAILURE_DTYPE, SESSION_DTYPE

EVIL = "\x1b[31mred\x1b[0m \x07 \u202eright to left \ud800 \x9b1m <b>bold</b>\r\n"


def poison(path):
    """Put what steers a terminal into every text of a run file."""

    def change(plain):
        plain["document"].update(process=EVIL, version=EVIL)
        plain["document"]["parameters"] = {EVIL: EVIL, "\x7f": "\x7f"}
        plain["document"]["source"][EVIL] = EVIL
        plain["source"]["source"] = EVIL
        plain["outputs"]["mean"]["units"] = EVIL
        plain["group"] = "/" + EVIL.replace("/", "")

    rewritten(path, change)
    header = RunFile(path).header
    failures = np.zeros(header.rows["failures"], FAILURE_DTYPE)
    failures["used"] = 1
    failures["position"] = np.arange(len(failures)) - 5
    sessions = np.zeros(header.rows["sessions"], SESSION_DTYPE)
    sessions["start"][:6] = [1.7e9, np.nan, np.inf, 1e300, -1, 1.7e9]
    sessions["end"][:6] = [np.nan, 1, 1, 1, 1, np.inf]
    sessions["computed"] = sessions["workers"] = -1
    evil = EVIL.encode(errors="surrogatepass")
    for name in ("exception", "message", "traceback"):
        failures[name] = evil
    sessions["host"] = sessions["engine"] = evil
    with path.open("r+b") as file:
        for name, data in (
            ("failures", failures),
            ("sessions", sessions),
            ("completed_positions", np.arange(header.size, dtype="u1") % 3),
            ("failed_positions", np.arange(header.size, dtype="u1") % 4),
        ):
            file.seek(header.offsets[name])
            file.write(data.tobytes())


@pytest.fixture
def poisoned(run_path):
    """A run file with an evil name that is full of evil texts."""
    poison(run_path)
    name = run_path.name.partition("-")[0]
    return run_path.rename(run_path.with_name(f"{name}\x1b]0;evil\x07\n<i>.h5"))


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("command", ["list", "status", "show"])
def test_a_terminal_gets_only_printable_characters(
    poisoned, monkeypatch, command, rich
):
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.table", None)
    where = poisoned if command == "show" else poisoned.parent
    done = CliRunner().invoke(main, [command, str(where)])

    assert done.exit_code == 0, done.exception
    assert_printable(done.output)
    assert "\\x1b]0;evil\\x07\\n" in done.output


def test_explain_and_errors_show_only_printable_characters(poisoned, scan):
    """Differences have the keys and values of a stranger's document in them."""
    name = Path(Mean(scan).plan().path).name
    path = poisoned.rename(poisoned.with_name(name.replace(name[-11:-3], "0" * 8)))
    text = str(Mean(scan).explain())
    assert_printable(text)
    assert "process: " in text
    rewritten(path, lambda plain: plain.update(group="\x1b[31m"))
    with pytest.raises(rs.RunFileError) as info:
        rs.open(path.rename(path.with_name("\x1b[32m.h5")))

    assert_printable(str(info.value))


def test_a_notebook_gets_no_markup_and_no_control_characters(poisoned):
    results = rs.open(poisoned)
    page = results._repr_html_()

    assert_printable(repr(results))
    assert_printable(repr(results["mean"]))
    assert_printable(page)
    assert "<b>bold" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;bold" in page


def test_the_text_of_a_lock_file_is_shown_without_control_characters(scan, run_path):
    path = run_path.with_suffix(".claim")
    evil = {"pid": EVIL, "host": EVIL, "since": EVIL}
    path.write_text(json.dumps(evil))
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert_printable(report.status_text(RunFile(run_path)))
        path.write_text("[" * 100_000)
        assert_printable(report.status_text(RunFile(run_path)))


def test_logs_and_warnings_reach_the_terminal_without_control_characters(tmp_path):
    module = tmp_path / "evil.py"
    module.write_text(
        "import logging, warnings\n"
        "import resumable as rs\n"
        "class Evil(rs.Process):\n"
        "    version = 1\n"
        "    outputs = {'x': rs.Output()}\n"
        "    def unit_computation(self, index):\n"
        "        if index == 3:\n"
        "            raise ValueError('\\x1b[31m\\ud800')\n"
        "        logging.getLogger('resumable').warning('\\x1b[32m')\n"
        "        return index\n"
    )
    arguments = ["run", f"{module}:Evil", "8", "--target", ".", "--engine", "serial"]
    done = subprocess.run(
        [sys.executable, "-m", "resumable", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert_printable(done.stdout + done.stderr)
    assert "ValueError: \\x1b[31m" in done.stderr
    assert "\\x1b[32m" in done.stderr


def test_a_warning_of_failures_has_no_control_characters(tmp_path):
    class Evil(Mean):
        version = 1

        def unit_computation(self, index):
            if index == 3:
                raise ValueError(EVIL)
            return index

    with pytest.warns(rs.ResumableWarning, match="1 of 8 positions failed") as caught:
        compute(Evil(8, tmp_path))

    assert_printable(str(caught[0].message))


def test_printable_characters_are_left_alone():
    """Umlauts and signs are no danger, and what is escaped stays readable."""
    assert shown("Größe µV 電圧 'x' \\n") == "Größe µV 電圧 'x' \\n"
    assert shown("a\nb\tc") == "a\\nb\\tc"
    assert shown("a\nb\tc", lines=True) == "a\nb\tc"
    assert shown(shown(EVIL)) == shown(EVIL)
    assert_printable(shown(EVIL))
