"""Changing an HDF5 file of the user in one transaction, and mending it after a kill.

A kill while HDF5 writes metadata can leave a file that cannot be read. So HDF5 writes
to a `SafeFile`, and what it wrote reaches the file in this order:

1. a journal beside the file, with the length of the file; durable;
2. all bytes beyond the old end of the file, which nothing refers to yet; durable;
3. a second journal in the place of the first, with the old and new bytes of all that
   changes before the old end; durable. From here on the change is decided;
4. these changes; durable. Then the journal is removed.

After a kill before 3 the file is cut to its old length and is what it was, byte for
byte. After a later kill the changes are written once more, which gives the same file.

A journal is applied only to the file whose name it holds, and only where every sector
of that file is the old or the new one. The module is here, not in ``results``, because
``source`` mends a file before it reads it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resumable.errors import RunBusy, TargetError
from resumable.model import canonical
from resumable.runfile.hdf5 import MOST_CHANGED_BYTES, SafeFile, superblock_of
from resumable.runfile.header import digest_of
from resumable.system import disk, open_alone

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("resumable")

#: What follows the name of the file, and of a journal that is not in place yet.
_SUFFIX, _NEW_SUFFIX = ".resumable-journal", ".resumable-journal-new"
_MAGIC = b"resumable journal\n"
_FORMAT = 1
#: A journal is not larger: old and new bytes, and the text that lists them.
_MOST_BYTES = 2 * MOST_CHANGED_BYTES + (64 << 20)
#: A disk writes at least this many bytes whole.
_SECTOR = 512
#: Seconds to wait for another program that has the file open.
PATIENCE_S = 2.0


class _Journal(NamedTuple):
    """What is about to happen to a file."""

    name: str
    decided: bool
    """The changes are to be made; else what was written is to be undone."""
    old_bytes: int
    """Size of the file before the change."""
    new_bytes: int
    """Size of the file after the change; the old size until it is decided."""
    beyond: str
    """sha256 of the bytes beyond the old end."""
    changes: tuple[tuple[int, bytes, bytes], ...] = ()
    """Offset, old and new bytes of every change before the old end."""

    def to_bytes(self) -> bytes:
        plain = self._asdict()
        plain["changes"] = [[offset, len(old)] for offset, old, _ in self.changes]
        text = canonical({**plain, "format": _FORMAT}).encode() + b"\n"
        parts = [part for _, old, new in self.changes for part in (old, new)]
        body = b"".join([text, *parts])
        return _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, data: bytes) -> _Journal | None:
        """Read a journal; None where its digest is not right.

        ValueError, TypeError or KeyError: it is of another version.
        """
        start = len(_MAGIC) + 65
        body = data[start:]
        digest = hashlib.sha256(body).hexdigest().encode()
        if data[:start] != _MAGIC + digest + b"\n":
            return None
        text, _, payload = body.partition(b"\n")
        plain = json.loads(text)
        if plain.pop("format") != _FORMAT:
            msg = "it is of another version of resumable-hdf5"
            raise ValueError(msg)
        stream, changes = io.BytesIO(payload), []
        for offset, length in plain.pop("changes"):
            changes.append((offset, stream.read(length), stream.read(length)))
        return cls(**plain, changes=tuple(changes))


# Making a change.


@contextlib.contextmanager
def user_file_locked(
    path: str | Path, *, new: bool = False
) -> Iterator[tuple[Path, int]]:
    """Open a file that nobody else has open, mended when it needs to be.

    Yields its path, past links, and a descriptor to read and write; `new` makes an
    empty file where there is none. Raises TargetError where it cannot be written or its
    journal does not fit it, RunBusy where it is open elsewhere.
    """
    real = Path(os.path.realpath(path))
    try:
        fd = open_alone(real, os.O_RDWR | (os.O_CREAT if new else 0), PATIENCE_S)
    except TargetError:
        raise
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); give another file"
        raise TargetError(msg) from error
    if fd is None:
        msg = (
            f"{path} is open, in this program or in another one; close it there, "
            "then try again"
        )
        raise RunBusy(msg)
    try:
        named = False
        with contextlib.suppress(FileNotFoundError):
            named = os.path.samestat(os.fstat(fd), real.stat())
        if not named:
            msg = f"{path} was removed or replaced at this moment; try again"
            raise RunBusy(msg)
        _mend(real, fd)
        yield real, fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def user_file_transaction(path: Path, fd: int) -> Iterator[SafeFile]:
    """Let HDF5 change a file; all of its changes are made, or none.

    On any error, such as OSError where the disk is full, the file is what it was.
    """
    old_bytes = os.fstat(fd).st_size
    begun = _Journal(path.name, False, old_bytes, old_bytes, "")
    try:
        _write(path, begun)
        safe = SafeFile(fd, old_bytes)
        with safe.checked():
            yield safe
        disk.sync(fd)
        end = safe.size
        decided = begun._replace(
            decided=True,
            new_bytes=end,
            beyond=digest_of(fd, [(old_bytes, end)]),
            # Where the file gets shorter, changes behind its end are left out.
            changes=tuple(
                (offset, old[: end - offset], new[: end - offset])
                for offset, old, new in safe.changes()
                if offset < end
            ),
        )
        for offset, old, _ in decided.changes:
            # The file may have holes there, or share blocks with a copy.
            disk.reserve(fd, offset, len(old))
        _write(path, decided)
    except BaseException:
        # The second journal may be in place already.
        with contextlib.suppress(OSError):
            _write(path, begun)
        _undo(path, fd, begun)
        raise
    _apply(path, fd, decided)


def _write(path: Path, journal: _Journal) -> None:
    """Write a journal in the place of an earlier one, whole or not at all."""
    new = path.with_name(path.name + _NEW_SUFFIX)
    new.unlink(missing_ok=True)
    with disk.opened(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600) as fd:
        disk.write_at(fd, journal.to_bytes(), 0)
        disk.sync(fd)
    disk.replace(new, path.with_name(path.name + _SUFFIX))


def _undo(path: Path, fd: int, journal: _Journal) -> None:
    if os.fstat(fd).st_size > journal.old_bytes:
        disk.set_size(fd, journal.old_bytes)
        disk.sync(fd)
    _remove(path)


def _apply(path: Path, fd: int, journal: _Journal) -> None:
    for offset, _, new in journal.changes:
        disk.write_at(fd, new, offset)
    if os.fstat(fd).st_size != journal.new_bytes:
        disk.set_size(fd, journal.new_bytes)
    disk.sync(fd)
    _remove(path)


def _remove(path: Path) -> None:
    for suffix in (_NEW_SUFFIX, _SUFFIX):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    disk.sync_folder(path.parent)


# Mending.


def user_file_needs_mending(path: str | Path) -> bool:
    """Return whether a journal lies beside a file; the file is not looked at."""
    real = os.path.realpath(path)
    return os.path.lexists(real + _SUFFIX) or os.path.lexists(real + _NEW_SUFFIX)


def mend_user_file(path: str | Path) -> str:
    """Finish or undo a change of a file that was interrupted by a kill.

    Raises what :func:`user_file_locked` raises.
    """
    before = user_file_needs_mending(path)
    with user_file_locked(path):
        return "mended" if before else "nothing to mend"


def _mend(path: Path, fd: int) -> None:
    """Finish or undo what the journal beside a locked file describes."""
    if not user_file_needs_mending(path):
        return
    where = path.with_name(path.name + _SUFFIX)
    if not os.path.lexists(where):
        # Killed before the first journal was in place: nothing has changed.
        _remove(path)
        return
    try:
        journal = _Journal.from_bytes(_read(where))
        if journal is None:
            # No kill leaves this: a journal is put in place when it is whole.
            logger.warning("%s is not whole, it was removed; nothing else was", where)
            _remove(path)
            return
        _check_fits(path, fd, journal)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        msg = (
            f"{where} cannot be used to mend {path.name} ({error}); nothing was "
            "changed. If that file is whole, or another one by now, delete the journal"
        )
        raise TargetError(msg) from error
    if journal.decided:
        _apply(path, fd, journal)
        logger.warning("what had been begun on %s was finished", path)
        return
    superblock = superblock_of(fd)
    if superblock is not None and superblock.end <= journal.old_bytes:
        _undo(path, fd, journal)
        logger.warning("what had been begun on %s was undone", path)
    else:
        # Another program has written since, and the bytes beyond the old end are its.
        _remove(path)


def _read(where: Path) -> bytes:
    if where.is_symlink():
        msg = "it is a link, not a journal of ours"
        raise ValueError(msg)
    with disk.opened(where, os.O_RDONLY) as fd:
        size = os.fstat(fd).st_size
        if size > _MOST_BYTES:
            msg = "it is not a journal of ours"
            raise ValueError(msg)
        return disk.read_at(fd, size, 0)


def _check_fits(path: Path, fd: int, journal: _Journal) -> None:
    """Refuse a journal of another file, or of a file that was changed since."""
    size = os.fstat(fd).st_size
    if journal.name != path.name:
        msg = f"it is of {journal.name!r:.80}"
        raise ValueError(msg)
    if not journal.decided:
        return
    longest = max(journal.old_bytes, journal.new_bytes)
    if size not in (longest, journal.new_bytes):
        msg = f"the file has {size:,} bytes, not {longest:,}"
        raise ValueError(msg)
    added = (journal.old_bytes, journal.new_bytes)
    if digest_of(fd, [added]) != journal.beyond:
        msg = "what was added to the file is not there"
        raise ValueError(msg)
    for offset, old, new in journal.changes:
        found = disk.read_at(fd, len(old), offset)
        sectors = [slice(a, a + _SECTOR) for a in range(0, len(old), _SECTOR)]
        mixed = all(found[s] in (old[s], new[s]) for s in sectors)
        if not len(found) == len(old) == len(new) or not mixed:
            msg = f"the file was changed since, at {offset:,}"
            raise ValueError(msg)
