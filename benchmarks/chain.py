"""dcnum's own segmentation and features in a Chain, against dcnum itself.

``python chain.py`` makes frames by repeating dcnum's test images, computes them with
both in dcnum's environment (which it makes on first use), compares all events and
prints the frames per second, start-up included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from environment import dcnum_python

Array = np.ndarray[Any, np.dtype[Any]]

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "tests" / "data" / "cytoshot-test-data.rtdc"
THRESHOLD = -6


def make_frames(path: Path, count: int) -> None:
    """Repeat the test images; both get the same file, which is not compressed."""
    import hdf5plugin  # noqa: F401 - the images are compressed with zstd

    with h5py.File(IMAGES) as images, h5py.File(path, "w") as file:
        file.attrs.update(images.attrs)
        file.attrs["experiment:event count"] = count
        frames = images["events/image"][...]
        # dcnum leaves out a frame that is the same as the one before.
        others = [i for i, frame in enumerate(frames) if (frame != frames[i - 1]).any()]
        repeated = np.resize(others, count)
        for name in ("image", "image_bg"):
            file[f"events/{name}"] = images[f"events/{name}"][...][repeated]
        file["events/frame"] = np.arange(1, count + 1, dtype="u8")
    _, steps = job_of(path, 1).get_ppid(ret_dict=True)
    with h5py.File(path, "a") as file:
        # The background is there: dcnum need not look for it.
        for name, step in (
            ("generation", "gen_id"),
            ("data", "dat_id"),
            ("background", "bg_id"),
        ):
            file.attrs[f"pipeline:dcnum {name}"] = steps[step]


def job_of(path: Path, workers: int) -> Any:
    """Return dcnum's job on a file."""
    from dcnum.logic import DCNumPipelineJob

    return DCNumPipelineJob(
        path,
        path.with_name("theirs.rtdc"),
        background_code="copy",
        segmenter_code="thresh",
        segmenter_kwargs={"thresh": THRESHOLD},
        basin_strategy="tap",
        num_procs=workers,
    )


def compute_theirs(path: Path, workers: int) -> Path:
    """Run dcnum's pipeline."""
    from dcnum.logic import DCNumJobRunner

    job = job_of(path, workers)
    with DCNumJobRunner(job) as runner:
        runner.run()
    return path.with_name("theirs.rtdc")


def read_theirs(path: Path) -> dict[str, Array]:
    """Return the events of dcnum, with the frame each of them is of."""
    import hdf5plugin  # noqa: F401 - it compresses with zstd

    with h5py.File(path) as file:
        found = {name: values[...] for name, values in file["events"].items()}
    return {**found, "position": found.pop("basinmap0")}


def compute_ours(path: Path, workers: int) -> Path:
    """Compute the chain."""
    results = our_chain(path).compute(engine="local", workers=workers, progress=False)
    return Path(results.stages["Features"].path)


def our_chain(path: Path) -> Any:
    """Return the chain of dcnum's functions on a file."""
    import dcnum_stages

    import resumable as rs

    segment = dcnum_stages.Segment(
        f"{path}::/events/image", inputs={"image_bg": "::/events/image_bg"}
    )
    return rs.Chain(segment, dcnum_stages.Features())


def read_ours(path: Path) -> dict[str, Array]:
    """Return the events of the chain, with the frame each of them is of."""
    import resumable as rs

    results = rs.open(path)
    found = {name: results[name].values for name in results}
    return {**found, "position": results["deform"].index}


def timed(what: str, python: Path, path: Path, workers: int) -> tuple[float, Path]:
    """Compute in a process of its own; return seconds and where the events are."""
    began = time.perf_counter()
    done = subprocess.run(
        [python, __file__, "--only", what, str(path), "--workers", str(workers)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    return seconds, Path(done.stdout.splitlines()[-1])


def compare(ours: dict[str, Array], theirs: dict[str, Array]) -> list[str]:
    """Return the features in which events differ; all must be the same bit for bit."""
    names = sorted(ours.keys() & theirs.keys())
    different = []
    for name in names:
        left, right = ours[name], theirs[name]
        if name == "mask":
            right = right > 0
        same = left.shape == right.shape and np.array_equal(
            left, right, equal_nan=left.dtype.kind == "f"
        )
        if not same:
            different.append(name)
    return different


def main() -> None:
    """Compute with both, in turns, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("benchmark-cache"))
    parser.add_argument("--only", nargs=2, metavar=("WHAT", "FILE"))
    options = parser.parse_args()
    if options.only:
        what, path = options.only
        if what == "make":
            make_frames(Path(path), options.frames)
        elif what == "compare":
            compare_in(Path(path))
        else:
            compute = {"ours": compute_ours, "theirs": compute_theirs}[what]
            sys.stdout.write(f"{compute(Path(path), options.workers)}\n")
        return
    python = dcnum_python(options.cache)
    taken: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "frames.rtdc"
            only = [python, __file__, "--only"]
            frames = ["--frames", str(options.frames)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run([*only, "make", path, *frames], check=True, env=environment)
            places = {}
            for what, seconds in taken.items():
                took, places[what] = timed(what, python, path, options.workers)
                seconds.append(took)
            told = Path(folder) / "places.json"
            told.write_text(json.dumps({n: str(p) for n, p in places.items()}))
            subprocess.run([*only, "compare", told], check=True, env=environment)
    for what, seconds in taken.items():
        rates = ", ".join(f"{options.frames / s:,.0f}" for s in seconds)
        best = options.frames / min(seconds)
        sys.stdout.write(f"{what:8} {best:8,.0f} frames/s at best ({rates})\n")


def compare_in(told: Path) -> None:
    """Compare the events of both."""
    places = json.loads(told.read_text())
    ours, theirs = read_ours(Path(places["ours"])), read_theirs(Path(places["theirs"]))
    different = compare(ours, theirs)
    compared = sorted(ours.keys() & theirs.keys())
    missing = sorted(theirs.keys() - ours.keys())
    counts = [f"{len(events['deform']):,}" for events in (ours, theirs)]
    sys.stdout.write(
        f"{counts[0]} events of ours, {counts[1]} of dcnum; {len(compared)} features "
        f"compared, different: {', '.join(different) or 'none'}; only in dcnum's: "
        f"{', '.join(missing)}\n"
    )
    if different:
        sys.exit(1)


if __name__ == "__main__":
    main()
