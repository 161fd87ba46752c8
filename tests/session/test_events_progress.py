"""A progress bar on terminals and in notebooks, and nowhere else."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

from resumable.session.events import ProgressBar

pytestmark = pytest.mark.timeout(60, method="signal")

SCRIPT = """
    import sys, time, warnings
    import resumable as rs
    {before}

    warnings.simplefilter("ignore")

    class Mean(rs.Process):
        version = 1
        outputs = {{"mean": rs.Output()}}
        def unit_computation(self, spectrum):
            time.sleep(0.002)
            if self.position in {bad}:
                raise ValueError("no")
            return spectrum.mean()

    process = Mean("scan.h5::/data")
    process.compute({options})
    sys.stderr.write("DONE")
    {after}
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a script on a terminal, or not."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = np.ones((120, 4))

    def start(*, terminal, options="", bad=(), before="", after=""):
        script = tmp_path / "script.py"
        text = textwrap.dedent(SCRIPT)
        script.write_text(
            text.format(options=options, bad=list(bad), before=before, after=after)
        )
        ours, theirs = pty.openpty() if terminal else os.pipe()
        if terminal:
            size = struct.pack("HHHH", 40, 120, 0, 0)
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        return process, ours

    def whole(**options):
        process, ours = start(**options)
        parts = []
        # A terminal whose other end is closed is an error on Linux.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65536):
                parts.append(part)
        os.close(ours)
        output, _ = process.communicate(timeout=40)
        text = b"".join(parts).decode()
        assert process.returncode == 0, text
        assert output == b""
        return text

    return whole


@pytest.mark.parametrize("engine", ["serial", "local", "auto"])
def test_a_terminal_sees_positions_rate_and_failures(run, engine):
    text = run(terminal=True, options=f"engine='{engine}', workers=2", bad=[7, 90])

    assert "scan-data-Mean" in text
    assert "120/120" in text
    assert "100%" in text
    assert "pos/s" in text
    assert "failed=2" in text
    assert text.rstrip().endswith("DONE")


def test_a_bar_begins_where_the_run_was(run):
    run(terminal=False, options="positions=slice(0, 60), engine='serial'")
    text = run(terminal=True, options="engine='serial'")
    counts = [float(n) for n in re.findall(r"([\d.]+)/120 ", text)]

    assert min(counts) >= 60
    assert max(counts) == 120


def test_a_bar_can_be_asked_for(run):
    text = run(terminal=False, options="engine='serial', progress=True")

    assert "120/120" in text


@pytest.mark.parametrize(
    ("terminal", "options", "before"),
    [
        (False, "engine='local', workers=2", ""),
        (True, "engine='serial', progress=False", ""),
        # A library of Jupyter in memory does not make a program a notebook.
        (False, "engine='serial'", "import ipykernel"),
    ],
    ids=["no terminal", "refused", "no notebook"],
)
def test_no_bar_is_shown(run, terminal, options, before):
    assert run(terminal=terminal, options=options, before=before) == "DONE"


def test_nothing_is_shown_when_nothing_is_pending(run):
    run(terminal=False, options="engine='serial'")
    text = run(
        terminal=True,
        options="engine='serial', progress=True",
        after="process.compute()",
    )

    assert text == "DONE"


def test_a_bar_that_shows_nothing_takes_the_same_calls(capsys):
    with ProgressBar(show=False, total=9, initial=2, label="x") as bar:
        bar.update(3, 1)
    captured = capsys.readouterr()

    assert captured.out == captured.err == ""
