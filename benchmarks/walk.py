"""Count what a run of 50 positions goes through: calls, files opened, status scans.

    python benchmarks/walk.py [--json] [--calls]

Three runs with the serial engine, each in a fresh process: ``new``, one that starts;
``continued``, one that was stopped half way; ``returned``, one that is complete. All is
counted from constructing the Process to the return of ``compute``:

calls, functions, modules
    Calls of functions of this package, how many different functions these are, and in
    how many modules. Generators count once; imports and comprehensions do not count.
opens, h5py
    Files opened in the folder of the run (the source, the run file, lock files, the
    folder itself to sync it), and how many of them through ``h5py.File``.
scans
    Reads of the whole status of the run file.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, ClassVar

import h5py
import numpy as np

import resumable as rs
from resumable.runfile import RunFile

POSITIONS = 50
"""Length of the source."""

CASES = ("new", "continued", "returned")
"""The runs that are counted."""

#: Newer versions of Python make no functions of comprehensions.
_NOT_COUNTED = ("<module>", "<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")
_PACKAGE = str(Path(rs.__file__).resolve().parent)


class Sums(rs.Process):
    """Sum of every spectrum."""

    version = 1
    outputs: ClassVar = {"sum": rs.Output()}

    def unit_computation(self, spectrum: Any) -> Any:
        """Compute one position."""
        return spectrum.sum()


class Walk:
    """Counts calls, opened files and positioned reads while it is entered.

    Parameters
    ----------
    folder : str
        Files in it count, others do not.
    """

    def __init__(self, folder: str) -> None:
        self._folder = os.path.realpath(folder)
        self.calls: collections.Counter[CodeType] = collections.Counter()
        self.opens: list[str] = []
        self.h5py_opens: list[str] = []
        self.reads: list[tuple[int, int]] = []
        self._seen: set[int] = set()
        self._on = False
        sys.addaudithook(self._audit)

    def __enter__(self) -> Walk:
        self._plain = h5py.File.__init__, os.preadv
        h5py.File.__init__ = self._counted_init  # type: ignore[method-assign]
        os.preadv = self._counted_preadv  # type: ignore[assignment]
        self._on = True
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        self._on = False
        h5py.File.__init__, os.preadv = self._plain  # type: ignore[method-assign]

    @property
    def _counted_init(self) -> Any:
        plain, opens = self._plain[0], self.h5py_opens

        def __init__(file: Any, name: Any, *args: Any, **keywords: Any) -> None:  # noqa: N807
            # h5py.File made from an object in an open file opens nothing.
            if isinstance(name, (str, bytes, os.PathLike)):
                opens.append(str(name))
            plain(file, name, *args, **keywords)

        return __init__

    def _counted_preadv(self, fd: int, buffers: Any, offset: int, *rest: Any) -> int:
        self.reads.append((offset, sum(len(part) for part in buffers)))
        return self._plain[1](fd, buffers, offset, *rest)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if (
            self._on
            and event == "open"
            and isinstance(arguments[0], (str, os.PathLike))
        ):
            path = os.path.realpath(arguments[0])
            if path.startswith(self._folder):
                self.opens.append(path)

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        # A generator that is entered again has left off at an instruction.
        if (
            event == "call"
            and code.co_filename.startswith(_PACKAGE)
            and code.co_name not in _NOT_COUNTED
            and not (code.co_flags & 0x20 and frame.f_lasti > 8)
        ):
            self.calls[code] += 1

    def counts(self, status_offset: int) -> dict[str, int]:
        """Return the numbers by name; the status begins at an offset in the file."""
        scans = [
            offset
            for offset, length in self.reads
            if offset <= status_offset and offset + length >= status_offset + POSITIONS
        ]
        return {
            "calls": self.calls.total(),
            "functions": len(self.calls),
            "modules": len({code.co_filename for code in self.calls}),
            "opens": len(self.opens) + len(self.h5py_opens),
            "h5py": len(self.h5py_opens),
            "scans": len(scans),
        }


def count(case: str, *, show: bool = False) -> dict[str, int]:
    """Count one of the runs, in this process; `show` prints the calls and the files."""
    with tempfile.TemporaryDirectory(prefix="resumable-") as folder:
        source = Path(folder, "source.h5")
        with h5py.File(source, "w") as file:
            file["data"] = np.ones((POSITIONS, 8), np.float32)
        # One that was written this moment would be looked at again.
        os.utime(source, (1_000_000_000, 1_000_000_000))
        options = {"engine": "serial", "progress": False}
        if case != "new":
            part = slice(POSITIONS // 2) if case == "continued" else None
            Sums(f"{source}::/data").compute(positions=part, **options)
        with Walk(folder) as walk:
            results = Sums(f"{source}::/data").compute(**options)
        assert results.status.finished
        if show:
            _show(walk, folder)
        header = RunFile(results.path).header
        return walk.counts(header.offsets["completed_positions"])


def _show(walk: Walk, folder: str) -> None:
    for code, number in walk.calls.most_common():
        place = f"{os.path.relpath(code.co_filename, _PACKAGE)}:{code.co_firstlineno}"
        print(f"{number:6} {place:32} {code.co_qualname}")
    for path in walk.opens:
        print("  open     ", os.path.relpath(path, os.path.realpath(folder)))
    for path in walk.h5py_opens:
        print("  h5py.File", os.path.relpath(path, folder))


def main() -> None:
    """Count every run in a process of its own and print a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--calls", action="store_true", help="print every call, too")
    parser.add_argument("--case", choices=CASES, help="only this one, in this process")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(count(options.case, show=options.calls)))
        return
    found: dict[str, dict[str, int]] = {}
    for case in CASES:
        command = [sys.executable, __file__, "--case", case]
        command += ["--calls"] * options.calls
        ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        *lines, last = ended.stdout.splitlines()
        print("\n".join(lines), end="\n" * bool(lines))
        found[case] = json.loads(last)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{Path(_PACKAGE).parent}: {POSITIONS} positions, serial")
    print(f"{'':12}" + "".join(f"{name:>11}" for name in found["new"]))
    for case, numbers in found.items():
        print(f"{case:12}" + "".join(f"{number:11,}" for number in numbers.values()))


if __name__ == "__main__":
    main()
