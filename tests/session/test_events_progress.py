"""A progress bar on terminals and in notebooks, and nowhere else."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
import textwrap

import numpy as np
import pytest

from resumable.session.events import ProgressBar

pytestmark = pytest.mark.timeout(60, method="signal")

SCRIPT = """
    import os, sys, time, warnings
    import resumable as rs
    if sys.argv[1:]:
        os.dup2(os.open(sys.argv[1], os.O_RDWR), 2)
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
def run(make_file, script):
    """Return a function that runs a script on a terminal, or not."""
    make_file(data=np.ones((120, 4)))

    def run(*, terminal, options="", bad=(), before="", after=""):
        given = {"options": options, "bad": list(bad)}
        text = textwrap.dedent(SCRIPT).format(**given, before=before, after=after)
        if not terminal:
            process = script(text)
            output, shown = process.communicate(timeout=40)
        else:
            ours, theirs = pty.openpty()
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
            process, parts = script(text, os.ttyname(theirs)), [os.read(ours, 65536)]
            os.close(theirs)
            # A terminal whose other end is closed is an error on Linux.
            with contextlib.suppress(OSError):
                while part := os.read(ours, 65536):
                    parts.append(part)
            os.close(ours)
            output, _ = process.communicate(timeout=40)
            shown = b"".join(parts).decode()
        assert process.returncode == 0, shown
        assert output == ""
        return shown

    return run


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
    bar = ProgressBar(show=False, total=9, initial=2, label="x")
    bar.update(3, 1)
    bar.close()
    captured = capsys.readouterr()

    assert captured.out == captured.err == ""
