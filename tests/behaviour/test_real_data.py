"""The brightness of real cells, as the instrument's own software computed it."""

import contextlib
import hashlib
import os
import shutil
import signal

import h5py
import numpy as np
import pytest
from helpers import DATA
from kill_matrix import wait_until

import resumable as rs

pytest.importorskip("hdf5plugin")

pytestmark = pytest.mark.timeout(60, method="signal")

FILE = "cytoshot-test-data.rtdc"

SCRIPT = """
    import os, sys, time
    import resumable as rs

    class Brightness(rs.Process):
        version = 1
        outputs = {"bright_avg": rs.Output()}

        def unit_computation(self, image, mask):
            time.sleep(float(os.environ.get("DELAY_S", 0)))
            return image[mask > 0].mean()

    process = Brightness(
        "cytoshot-test-data.rtdc::/events/image",
        inputs={"mask": "::/events/mask"},
    )
    process.compute(engine=sys.argv[1], workers=2, checkpoint=0.05)
"""


@pytest.fixture
def cells(tmp_path):
    """Copy the file and return the brightness it holds."""
    shutil.copy(DATA / FILE, tmp_path / FILE)
    with h5py.File(tmp_path / FILE, "r") as file:
        return file["events/bright_avg"][...]


def done_in(folder):
    """Return the positions done by now, as anybody can read them."""
    for path in folder.glob("*.h5"):
        with contextlib.suppress(rs.RunFileError):
            return np.flatnonzero(rs.open(path).completed_mask)
    return np.empty(0, int)


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_the_brightness_is_reproduced_after_a_kill_in_the_middle(
    tmp_path, cells, script, engine, monkeypatch
):
    digest = hashlib.sha256((tmp_path / FILE).read_bytes()).digest()
    monkeypatch.setenv("DELAY_S", "0.08")
    killed = script(SCRIPT, engine)
    assert wait_until(lambda: len(done_in(tmp_path)) >= 10, 30)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    after_kill = done_in(tmp_path)
    monkeypatch.setenv("DELAY_S", "0")
    again = script(SCRIPT, engine)
    _, errors = again.communicate(timeout=40)
    (path,) = tmp_path.glob("*.h5")
    results = rs.open(path)

    assert killed.returncode == -signal.SIGKILL
    assert 10 <= len(after_kill) < 40
    assert again.returncode == 0, errors
    np.testing.assert_allclose(results["bright_avg"][...], cells, rtol=0, atol=1e-9)
    assert results.sessions[1].computed <= 40 - len(after_kill)
    assert hashlib.sha256((tmp_path / FILE).read_bytes()).digest() == digest
    assert {p.name for p in tmp_path.iterdir()} == {FILE, path.name, "script.py"}


def test_without_the_plugin_the_error_says_what_to_install(tmp_path, cells, script):
    process = script(
        SCRIPT.replace(
            "import resumable", "sys.modules['hdf5plugin'] = None; import resumable"
        ),
        "serial",
    )
    _, errors = process.communicate(timeout=40)

    assert process.returncode == 1
    assert "hdf5plugin" in errors
    assert "SourceError" in errors or "pip install" in errors
