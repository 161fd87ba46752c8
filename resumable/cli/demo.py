"""The demo: a fit that is killed half way and continued."""

from __future__ import annotations

import importlib.util
import inspect
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resumable.errors import ResumableError
from resumable.runfile import RunFile, find_runs

if TYPE_CHECKING:
    from collections.abc import Callable

_SIDE = 48
_CHANNELS = 256
_DATASET = "/Measurement_000/Channel_000/Raw_Data"
#: Written into the folder and run there, as the user's own script would be.
_MAKE_SCAN = f'''"""Write a map of spectra: a resonance that drifts, with noise."""

import sys

import h5py
import numpy as np

rng = np.random.default_rng(0)
y, x = np.mgrid[0 : 1 : {_SIDE}j, 0 : 1 : {_SIDE}j]
centre = 0.4 * np.sin(3 * x) * np.cos(2 * y)
half_width = 0.08 + 0.06 * x * y
height = 1 + 0.5 * np.cos(5 * (x - y))
bias = np.linspace(-1, 1, {_CHANNELS})
distance = (bias - centre[..., None]) / half_width[..., None]
spectra = height[..., None] / (1 + distance**2)
spectra += 0.3 + 0.03 * rng.standard_normal(spectra.shape)

name = "{_DATASET}"
with h5py.File(sys.argv[1], "w") as file:
    data = file.create_dataset(
        name,
        data=spectra.reshape(-1, {_CHANNELS}),
        chunks=(64, {_CHANNELS}),
        compression="gzip",
    )
    data.attrs["quantity"], data.attrs["units"] = "Amplitude", "nm"
    file[f"{{name}}_bias"] = bias
    file[f"{{name}}_bias"].make_scale("bias")
    file[f"{{name}}_bias"].attrs["units"] = "V"
    data.dims[1].attach_scale(file[f"{{name}}_bias"])
'''
#: Longest the demo waits for the fit to be half way, in seconds.
_PATIENCE_S = 120.0


def run_demo(folder: Path, say: Callable[[str], object]) -> None:
    """Run the demo in a folder, or the next free name where that is not empty.

    Raises
    ------
    ResumableError
        scipy is missing, or the results differ, which they must not.
    """
    if importlib.util.find_spec("scipy") is None:
        msg = "the demo fits with scipy: pip install 'resumable-hdf5[demo]'"
        raise ResumableError(msg)
    from resumable.cli import lorentz

    folder = _unused(folder)
    scan, script, make_scan = (
        folder / n for n in ("scan.h5", "fit.py", "make_scan.py")
    )
    source = f"{scan}::{_DATASET}"
    whole = folder / "uninterrupted"
    whole.mkdir(parents=True, exist_ok=True)
    make_scan.write_text(_MAKE_SCAN)
    script.write_text(inspect.getsource(lorentz))
    subprocess.run([sys.executable, str(make_scan), str(scan)], check=True)
    say(f"1. {scan}: {_SIDE * _SIDE:,} spectra of {_CHANNELS} values")

    say("\n2. Fit a Lorentzian to every spectrum, and kill the fit half way")
    _kill_half_way(source, folder)
    say("\n   killed (SIGKILL)")

    say("\n3. The same command again: it continues the run")
    _fit(source).wait()
    run = _runs(folder)[-1]
    # Not counted right after the kill: workers may still write what they have.
    now = run.sessions()[-1].computed
    say(f"   {run.progress()[0] - now:,} were kept, {now:,} computed now")

    say("\n4. The whole fit once more, uninterrupted, elsewhere, to compare")
    _fit(source, "--target", str(whole)).wait()
    other = _runs(whole)[-1]
    same = np.array_equal(run.array("fit"), other.array("fit"))
    if not (same and run.finished and other.finished):
        msg = f"{run.path} and {other.path} differ; please report it"
        raise ResumableError(msg)
    say("   the interrupted and the uninterrupted results agree bit for bit")

    typed = Path(sys.argv[0])
    there = shutil.which("resumable") is None and typed.name == "resumable"
    resumable = str(typed) if there else "resumable"
    say("\nWhat to type next:")
    for command in (
        f"{resumable} status {folder}",
        f"{resumable} show {folder / run.path.name}",
        f"{resumable} run {script}:LorentzFit {source}    # at once: it is done",
        f"{resumable} run {script}:LorentzFit {source} --half-width 0.2",
    ):
        say(f"   {command}")
    say(f"Then put your own computation in the place of the one in {script}.")


def _unused(folder: Path) -> Path:
    """Return the folder, or the next name that is free: nothing is overwritten."""
    chosen, number = folder, 1
    while chosen.exists() and any(chosen.iterdir()):
        number += 1
        chosen = folder.with_name(f"{folder.name}-{number}")
    return chosen


def _fit(source: str, *options: str) -> subprocess.Popen[bytes]:
    """Start the command a user would type."""
    script = Path(source.partition("::")[0]).with_name("fit.py")
    command = [sys.executable, "-m", "resumable", "run", f"{script}:LorentzFit", source]
    return subprocess.Popen([*command, "--checkpoint", "0.2", "--progress", *options])


def _kill_half_way(source: str, folder: Path) -> None:
    process = _fit(source)
    deadline = time.monotonic() + _PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        runs = _runs(folder)
        if runs and runs[-1].progress()[0] >= _SIDE * _SIDE // 2:
            break
        time.sleep(0.01)
    if process.poll() is not None:
        msg = (
            f"the fit ended with exit code {process.returncode} before it was half way"
        )
        raise ResumableError(msg)
    process.kill()
    process.wait()


def _runs(folder: Path) -> list[RunFile]:
    found = find_runs(folder.glob("scan-Raw_Data-LorentzFit-*.h5"))
    return [run for run in found if isinstance(run, RunFile)]
