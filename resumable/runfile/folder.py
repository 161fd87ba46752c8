"""The run files of a computation, found by name.

All runs of one identity share a stem: ``<source>-<dataset>-<process>-<first 8 of
the identity>``. The first is ``<stem>.h5``, the ones after it ``<stem>_001.h5`` and
on. Looking for them writes nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resumable.errors import RunFileError, TargetError
from resumable.runfile.file import RunFile, find_runs, try_open
from resumable.system import disk

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterator

#: Names the folder for run files where ``target=`` is not given.
_TARGET_VARIABLE = "RESUMABLE_TARGET"
#: What follows the stem in the name of a run file, and the prefix.
_AFTER_STEM = re.compile(r"(?:_(\d{3,}))?\.h5")
_AFTER_PREFIX = re.compile(r"-[0-9a-f]{8}(_\d{3,})?\.h5")


class RunFolder(NamedTuple):
    """The folder and the names of all runs of one identity. None of them need exist."""

    folder: Path
    """The target folder."""
    prefix: str
    """``<source>-<dataset>-<process>``, without the identity."""
    identity: str
    """sha256 of the identity document."""

    @property
    def stem(self) -> str:
        """The common part of the names of all runs of this identity."""
        return f"{self.prefix}-{self.identity[:8]}"

    def runs(self, files: contextlib.ExitStack | None = None) -> list[RunFile]:
        """Return the sound run files of this identity, the oldest first.

        They stay open until `files` is closed.
        """
        return [
            run
            for _, run in self.opened(files)
            if isinstance(run, RunFile) and run.header.identity == self.identity
        ]

    def opened(
        self, files: contextlib.ExitStack | None = None
    ) -> list[tuple[Path, RunFile | RunFileError]]:
        """Return the files of this identity's names, opened, or why they are not."""
        return [(path, try_open(path, files)) for _, path in sorted(self._numbered())]

    def _numbered(self) -> Iterator[tuple[int, Path]]:
        """Yield number and path of the files with names of this identity."""
        stem = self.stem
        for path in disk.files_in(self.folder, stem, ".h5"):
            match = _AFTER_STEM.fullmatch(path.name, len(stem))
            if match:
                yield int(match[1] or 0), path

    def others(self) -> list[RunFile]:
        """Return the sound runs of this process and dataset with other identities."""
        found = find_runs(
            path
            for path in disk.files_in(self.folder, self.prefix, ".h5")
            if _AFTER_PREFIX.fullmatch(path.name, len(self.prefix))
        )
        return [
            run
            for run in found
            if isinstance(run, RunFile) and run.header.identity != self.identity
        ]

    def new_path(self) -> Path:
        """Return the path of the next run: later runs have higher numbers."""
        number = max((number for number, _ in self._numbered()), default=-1) + 1
        suffix = f"_{number:03d}" if number else ""
        return self.folder / f"{self.stem}{suffix}.h5"

    def leftovers(self) -> list[Path]:
        """Return temporary files of this identity that a kill has left."""
        return disk.files_in(self.folder, f".{self.stem}", ".birth", ".part", ".pack")

    def copies(self) -> list[Path]:
        """Return copies of the source in position order, made for this identity."""
        return disk.files_in(self.folder, self.stem, ".rechunked.h5")


def run_folder_of(run: RunFile) -> RunFolder:
    """Return folder and names of the runs of this one's identity."""
    identity = run.header.identity
    stem = re.sub(r"_\d{3,}$", "", run.path.stem)
    return RunFolder(run.path.parent, stem.removesuffix(f"-{identity[:8]}"), identity)


def target_folder(target: str | Path | None, source_path: str) -> Path:
    """Return the folder for run files: given, of the environment, or of the source."""
    chosen = target if target is not None else os.environ.get(_TARGET_VARIABLE)
    if chosen is None:
        if not source_path:
            msg = (
                "a source without data has no folder; give target=, a folder for the "
                "results"
            )
            raise TargetError(msg)
        return Path(source_path).parent
    folder = Path(chosen)
    if not folder.is_dir():
        if folder.exists():
            msg = f"the target folder {folder} is not a folder; give another target="
        else:
            msg = f"the target folder {folder} does not exist; make it first"
        raise TargetError(msg)
    return folder
