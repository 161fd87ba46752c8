"""The budget holds, measured from outside, for data far larger than it."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import psutil
import pytest
from cached_mount import UNSHARED, can_mount
from helpers import ROOT

import resumable as rs

pytestmark = pytest.mark.timeout(110, method="signal")

MB = 10**6


def bytes_of(pid, file, name):
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0


def pss_of(pid):
    return bytes_of(pid, "smaps_rollup", "Pss:")


def high_water_mark(pid):
    return bytes_of(pid, "status", "VmHWM:")


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a script, which says "ready" before it works."""
    started = []

    def run(text, *arguments):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(text))
        process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
    for file in tmp_path.glob("*.h5"):
        file.unlink()


def peak_use(process):
    """Let a script go on; return the peak of its workers plus its own growth.

    Sampled every few milliseconds: the sum over all processes it starts, and what
    it has itself above what it had when it was ready.
    """
    before = pss_of(process.pid)
    parent = psutil.Process(process.pid)
    process.stdin.write("go\n")
    process.stdin.flush()
    peak = samples = 0
    children = []
    while process.poll() is None:
        if samples % 8 == 0:
            with contextlib.suppress(psutil.NoSuchProcess):
                children = [child.pid for child in parent.children(recursive=True)]
        own = pss_of(process.pid)
        if own:
            used = own - before + sum(map(pss_of, children))
            peak, samples = max(peak, used), samples + 1
        time.sleep(0.005)
    assert process.wait(60) == 0
    assert samples > 50
    return peak


BUDGET = """
    import sys
    import numpy as np
    import resumable as rs
    import threadpoolctl, tqdm

    class Unit(rs.Process):
        version = 1

        def outputs(self):
            return {"copy": rs.Output(self.spectrum_shape, self.spectrum_dtype)}
        def unit_computation(self, spectrum):
            return spectrum[::-1].copy()

    class Block(rs.Process):
        version = 1

        def outputs(self):
            return {"copy": rs.Output(self.spectrum_shape, self.spectrum_dtype)}
        def scratch(self, positions):
            return positions * 4 * 4 * self.spectrum_shape[0]
        def block_computation(self, spectra):
            held = [spectra.astype("f4") for _ in range(4)]
            return held[3].astype(self.spectrum_dtype)

    kind, memory, engine = sys.argv[1:]
    process = {"unit": Unit, "block": Block}[kind]("scan.h5::/data")
    print("ready", flush=True)
    sys.stdin.readline()
    process.compute(engine=engine, workers=2, memory=memory)
"""


def make_source(folder, positions, width, dtype, **options):
    tile = np.random.default_rng(0).integers(0, 200, width).astype(dtype)
    most = max(1, 4_000_000 // width)
    with h5py.File(folder / "scan.h5", "w") as file:
        data = file.create_dataset("data", (positions, width), dtype, **options)
        for begin in range(0, positions, most):
            count = min(most, positions - begin)
            data[begin : begin + count] = np.broadcast_to(tile, (count, width))
    return positions * width * np.dtype(dtype).itemsize


@pytest.mark.parametrize("kind", ["unit", "block"])
def test_peak_stays_under_the_budget(tmp_path, start, kind):
    # Chunks of 32 MB: without a budget, blocks would be as large.
    size = make_source(tmp_path, 100_000, 4096, "u1", chunks=(8_192, 4096))
    budget = 200 * MB
    peak = peak_use(start(BUDGET, kind, str(budget), "local"))
    (path,) = tmp_path.glob("scan-*.h5")
    results = rs.open(path)
    with h5py.File(tmp_path / "scan.h5", "r") as file:
        wanted = file["data"][-7:]
    got = results["copy"][-7:]

    assert results.status.finished
    np.testing.assert_array_equal(got, wanted[:, ::-1] if kind == "unit" else wanted)
    assert 2 * size > 4 * budget
    assert 30 * MB < peak < budget, f"{peak / MB:.0f} MB of {budget / MB:.0f} MB"


@pytest.mark.parametrize("engine", ["serial", "auto", "local"])
def test_growth_of_the_driver_and_large_positions_count(tmp_path, start, engine):
    if engine == "local":
        make_source(tmp_path, 60, 4_000_000, "u1")
    else:
        make_source(tmp_path, 160_000, 1024, "u1", chunks=(65_536, 1024))
    budget = 200 * MB
    peak = peak_use(start(BUDGET, "block", str(budget), engine))

    assert peak < budget, f"{peak / MB:.0f} MB of {budget / MB:.0f} MB"


@pytest.mark.torture
@pytest.mark.timeout(600, method="signal")
@pytest.mark.parametrize("kind", ["unit", "block"])
@pytest.mark.parametrize("options", [{}, {"chunks": (32_768, 1024), "compression": 1}])
def test_peak_stays_under_the_budget_for_gigabytes(tmp_path, start, kind, options):
    make_source(tmp_path, 4_000_000, 1024, "u1", **options)
    budget = 400 * MB
    peak = peak_use(start(BUDGET, kind, str(budget), "local"))

    assert peak < budget, f"{peak / MB:.0f} MB of {budget / MB:.0f} MB"


class Rows(rs.Process):
    version = 1
    outputs: ClassVar = {"first": rs.Output(dtype="u1")}

    def unit_computation(self, spectrum):
        return spectrum[0]


def test_a_budget_too_small_names_the_least_that_works(tmp_path):
    make_source(tmp_path, 6, 30_000_000, "u1")
    process = Rows(f"{tmp_path}/scan.h5::/data")
    with pytest.raises(rs.PlanError, match="give memory=") as caught:
        process.plan(engine="local", workers=2, memory="20 MB")
    least = str(caught.value).partition("memory='")[2].partition("'")[0]
    plan = process.plan(engine="local", workers=2, memory=least)

    assert plan.workers == 1
    assert plan.memory_bytes < 200 * MB


SCATTERED = """
    import sys, time
    import numpy as np
    import resumable as rs

    class Count(rs.Process):
        version = 1
        outputs = {"parity": rs.Output(dtype="u1")}
        def unit_computation(self, position):
            return position & 1

    size, how = int(sys.argv[1]), sys.argv[2]
    count = Count(size, target=".")
    positions = slice(0, None, 2)
    if how == "mask":
        positions = np.zeros(size, bool)
        positions[::2] = True
    print("ready", flush=True)
    sys.stdin.readline()
    times = []
    for turn in range(2):
        began = time.perf_counter()
        plan = count.plan(positions=positions, engine="local", workers=1)
        times.append(time.perf_counter() - began)
        run = count.start(positions=positions, engine="local", workers=1)
        next(iter(run))
        run.cancel()
        try:
            run.wait()
        except rs.NotFinished as stopped:
            done = stopped.results.status.done
    print(plan.pending, done, max(times), flush=True)
"""


@pytest.mark.parametrize(
    "how", ["slice", pytest.param("mask", marks=pytest.mark.torture)]
)
def test_a_hundred_million_scattered_positions_take_little_memory(start, how):
    process = start(SCATTERED, str(10**8), how)
    process.stdin.write("go\n")
    process.stdin.flush()
    peak = 0
    while process.poll() is None:
        peak = max(peak, high_water_mark(process.pid))
        time.sleep(0.01)
    pending, done, seconds = process.stdout.read().split()

    assert process.returncode == 0
    assert 0 < int(pending) < 5 * 10**7
    assert 0 < int(done) < 5 * 10**7
    assert float(seconds) < 30
    assert 0 < peak < 500 * MB, f"{peak / MB:.0f} MB"


WITHOUT_ROOM = """
mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/full
exec "$@"
"""
COMPUTES = """
import sys
import numpy as np
import resumable as rs

class Wide(rs.Process):
    version = 1
    outputs = {"x": rs.Output((20_000,))}
    def unit_computation(self, index):
        return np.full(20_000, index)

wide = Wide(100, sys.argv[1])
options = {"engine": "local", "workers": 2, "writer": "driver", "progress": False}
print(wide.compute(**options)["x"][:, -1].sum())
with rs.Pool(2) as pool:
    print(*pool.imap(np.sum, [rs.shared_array(np.ones(100_000)), np.ones(100_000)]))
"""


@pytest.mark.skipif(not can_mount(), reason="needs a /dev/shm of its own")
def test_workers_need_no_room_in_dev_shm(tmp_path):
    words = ["sh", "-c", WITHOUT_ROOM, "sh", sys.executable, "-c", COMPUTES, tmp_path]
    done = subprocess.run(
        [*UNSHARED, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("4950.0\n100000.0 100000.0\n", "")
