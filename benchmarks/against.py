"""Compare the speed of this build with that of another revision.

    python benchmarks/against.py REVISION
    python benchmarks/against.py REVISION --rounds 3 --workloads a e

Both trees are checked out into a temporary folder, the current one with its changes to
tracked files, and are used from there by fresh processes, in turns. Timed are:

returned, plan
    On a source of 10,000,000 positions x 8 float32 (320 MB): a finished run that is
    returned, and the plan of one that is half done, from constructing the Process to
    the answer.
import
    ``import resumable``, with numpy, h5py and param.
a to f
    The workloads of ``speed.py``: the call of ``compute`` with two workers. Every
    result is checked against numpy.

Printed are the medians of both and their ratio. Files are in the page cache. Use a
quiet machine and a folder on a real disk.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import rounds
from rounds import Candidate
from workloads import DATASET, TRIVIAL, WORKLOADS

LARGE = replace(TRIVIAL, key="large", shape=(10_000_000, 8))
"""The source of the questions."""

QUESTIONS = ("returned", "plan")
"""What is asked about runs on it."""

_HERE = Path(__file__).resolve().parent


def main() -> int:
    """Measure what the command line asks for and print a table.

    Returns
    -------
    int
        Exit code: 1 if a workload failed or computed something else than numpy.
    """
    options = _parser().parse_args()
    if options.ask:
        _ask(*options.ask)
        return 0
    with tempfile.TemporaryDirectory(prefix="resumable-", dir=options.folder) as name:
        folder = Path(name)
        with _trees(options.revision, folder) as trees:
            load = os.getloadavg()[0]
            print(f"{os.cpu_count()} cores, load {load:.1f} before")
            print(f"{'':12}{options.revision[:12]:>14}{'now':>14}{'ratio':>8}")
            _compare_questions(trees, folder, options.rounds)
            wrong = False
            for key in options.workloads:
                wrong |= _compare_workload(key, trees, folder, options)
    return int(wrong)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision", nargs="?", help="a commit, branch or tag of git")
    parser.add_argument(
        "--rounds", type=int, default=7, help="runs of each (default: 7)"
    )
    parser.add_argument(
        "--workloads",
        nargs="*",
        choices=WORKLOADS,
        default=list(WORKLOADS),
        help="which of speed.py to run (default: all)",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="multiplies their positions"
    )
    parser.add_argument(
        "--folder", type=Path, help="parent of the temporary folder, on a real disk"
    )
    parser.add_argument("--ask", nargs=3, help=argparse.SUPPRESS)
    return parser


@contextlib.contextmanager
def _trees(revision: str, folder: Path) -> Iterator[dict[str, Path]]:
    """Check both builds out; they are gone afterwards."""
    # A commit of the tree as it is, which no branch has; empty where nothing changed.
    commits = {"before": revision, "now": _git("stash", "create") or "HEAD"}
    trees = {name: folder / name for name in commits}
    try:
        for name, commit in commits.items():
            _git("worktree", "add", "--detach", str(trees[name]), commit)
        yield trees
    finally:
        for tree in trees.values():
            if tree.exists():
                _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_HERE), *arguments]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return ended.stdout.strip()


def _compare_questions(trees: dict[str, Path], folder: Path, count: int) -> None:
    source = folder / "large.h5"
    LARGE.create(source)
    for name, tree in trees.items():
        for state in QUESTIONS:
            (folder / f"{name}-{state}").mkdir()
            _ask_in_process(tree, f"make-{state}", source, folder / f"{name}-{state}")
    for question in (*QUESTIONS, "import"):

        def ask(name: str, question: str = question) -> float:
            target = folder / f"{name}-{question}"
            return _ask_in_process(trees[name], question, source, target)

        _in_turns(question, ask, count)


def _in_turns(title: str, ask: Callable[[str], float], count: int) -> None:
    """Ask both builds in turns, once for nothing, and print the medians."""
    seconds: dict[str, list[float]] = {"before": [], "now": []}
    for turn in range(count + 1):
        for name in list(seconds)[:: 1 if turn % 2 else -1]:
            answered = ask(name)
            if turn:
                seconds[name].append(answered)
    _print_row(title, *map(statistics.median, seconds.values()))


def _print_row(title: str, before: float, now: float) -> None:
    print(f"{title:12}{before:12.4f} s{now:12.4f} s{now / before:8.2f}", flush=True)


def _ask_in_process(tree: Path, question: str, source: Path, target: Path) -> float:
    """Ask in a fresh process that uses the build in a tree; return the seconds."""
    ended = subprocess.run(
        [sys.executable, __file__, "--ask", question, source, target],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=rounds.variables(tree),
    )
    return float(ended.stdout.split()[-1])


def _ask(question: str, source: str, target: str) -> None:
    """Answer a question in this process, and print the seconds it took."""
    began = time.perf_counter()
    import resumable as rs

    imported = time.perf_counter() - began

    class First(rs.Process):
        """First number of every spectrum."""

        version = 1

        def outputs(self) -> dict[str, rs.Output]:
            return {"result": rs.Output(dtype="f4")}

        def block_computation(self, spectra: Any) -> Any:
            return spectra[:, 0]

    began = time.perf_counter()
    if question == "import":
        print(imported)
        return
    process = First(f"{source}::/{DATASET}", target=target)
    if question == "plan":
        assert process.plan().action == "continue"
    else:
        half = question == "make-plan"
        part = slice(LARGE.shape[0] // 2) if half else None
        process.compute(positions=part, progress=False)
    print(time.perf_counter() - began)


def _compare_workload(
    key: str, trees: dict[str, Path], folder: Path, options: argparse.Namespace
) -> bool:
    """Measure a workload with both builds; return whether a result was wrong."""
    material = rounds.prepare(WORKLOADS[key], options.scale, folder)
    candidates = [Candidate(name, "ours", tree=tree) for name, tree in trees.items()]
    measured = rounds.run(material, candidates, options.rounds)
    _print_row(key, *(rounds.median(found) for found in measured.values()))
    problems = [text for found in measured.values() for text in rounds.problems(found)]
    print("".join(f"  {text}\n" for text in problems), end="")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
