"""The user block of a run file: its fields, as text with a digest."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable.errors import RunFileError, option
from resumable.model import (
    Output,
    canonical,
    declared_outputs,
    decode_dtype,
    encode_dtype,
)
from resumable.runfile.hdf5 import superblock_of
from resumable.system import disk

if TYPE_CHECKING:
    from pathlib import Path

#: Newest version of the format; this library reads it and all older ones.
FORMAT = 4
#: Runs of at most so many positions have small tables.
FEW_POSITIONS = 32
#: First bytes of every run file.
MAGIC = b"resumable run file\n"
#: Most bytes of the header's text.
HEADER_LIMIT = 1 << 24
#: How it begins what :func:`advice_anew` says.
LEFT = "it is left as it is"
#: What advice to mend a file, or to close it in another program, has in it.
REPAIR, CLOSE = "'resumable repair ", "close it there"
_DIGEST_LENGTH = 64
#: What reading a text raises that has the right digest and is no header.
_NO_HEADER = (TypeError, ValueError, LookupError, AttributeError, RecursionError)

#: Table of where the chunks of a packed file lie. No output can have its name.
CHUNKS = "packed-chunks"
CHUNKS_DTYPE = np.dtype([("offset", "<i8"), ("bytes", "<i8")])
#: Group of the tables, from version 4 on: an NXentry, beside the results group.
ASIDE = "/run"
#: Rows of the table of failures; further failures are only counted.
FAILURE_ROWS = 1000
#: The same in formats 1 and 2.
FAILURE_DTYPE = np.dtype(
    [
        ("used", "u1"),
        ("position", "<i8"),
        ("exception", "S100"),
        ("message", "S500"),
        ("traceback", "S3000"),
    ]
)
#: Rows of the table of sessions; the last row is used again when it is full.
SESSION_ROWS = 1000
_SESSION_FIELDS = [
    ("start", "<f8"),
    ("end", "<f8"),
    ("host", "S64"),
    ("pid", "<i8"),
    ("engine", "S32"),
    ("workers", "<i4"),
    ("computed", "<i8"),
    ("failed", "<i8"),
]
_SECONDS = ("reading", "computing", "writing", "waiting")
SESSION_DTYPE = np.dtype([*_SESSION_FIELDS, *((name, "<f8") for name in _SECONDS)])
#: Rows of the table of log lines: the first half is kept, the second one goes round.
LOG_ROWS = 1000
LOG_DTYPE = np.dtype(
    [
        ("time", "<f8"),
        ("level", "S10"),
        ("logger", "S64"),
        ("pid", "<i8"),
        ("message", "S400"),
    ]
)
#: Rows of the table of environments; the last row is used again when it is full.
ENVIRONMENT_ROWS = 32
ENVIRONMENT_DTYPE = np.dtype([("used", "u1"), ("session", "<i4"), ("text", "S4000")])


def advice_anew() -> str:
    """Say what to do about a file that cannot be trusted."""
    return f"{LEFT}; use {option('override', True)} to compute into a new file"


def with_text(dtype: np.dtype[Any], name: str, size: int) -> np.dtype[Any]:
    """Return the dtype of a table with a text of another size in bytes."""
    fields = [(field, dtype[field]) for field in dtype.names or ()]
    return np.dtype([(n, f"S{size}" if n == name else kind) for n, kind in fields])


#: Name and dtype of the tables that only the driver writes. Some files of version 2
#: have no environments.
_TABLES = {
    "failures": FAILURE_DTYPE,
    "sessions": SESSION_DTYPE,
    "log_lines": LOG_DTYPE,
    "environments": ENVIRONMENT_DTYPE,
}
#: The same of runs of few positions.
_SMALL_TABLES = {
    **_TABLES,
    "failures": with_text(FAILURE_DTYPE, "traceback", 500),
    "environments": with_text(ENVIRONMENT_DTYPE, "text", 1500),
}
#: The same of version 1.
_FIRST_TABLES = {"failures": FAILURE_DTYPE, "sessions": np.dtype(_SESSION_FIELDS)}


def _has_small_tables(size: int, version: int) -> bool:
    # Version 3 was version 2 with small tables.
    return version == 3 or (version > 3 and size <= FEW_POSITIONS)


def as_letters(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype with which HDF5 stores a table: its texts are arrays of letters.

    The bytes are the same. Of a text within a compound, netCDF-C makes a pointer.
    """
    fields = [(name, dtype[name]) for name in dtype.names or ()]
    return np.dtype(
        [(n, "S1", (k.itemsize,)) if k.kind == "S" else (n, k) for n, k in fields]
    )


def table_rows(size: int, version: int) -> dict[str, int]:
    """Return how many rows the tables of a run of `size` positions start with."""
    few = _has_small_tables(size, version)
    return {
        "failures": min(size, FAILURE_ROWS),
        "sessions": 32 if few else SESSION_ROWS,
        "log_lines": 14 if few else LOG_ROWS,
        "environments": 3 if few else ENVIRONMENT_ROWS,
    }


class Header(NamedTuple):
    """What the user block of a run file says. Everything else is found by it."""

    identity: str
    """sha256 of the identity document."""
    document: dict[str, Any]
    group: str
    """Name of the results group."""
    map_shape: tuple[int, ...]
    """Lengths of the position axes."""
    outputs: dict[str, Output]
    offsets: dict[str, int]
    """Byte offset in the file of every dataset that is written while it is computed."""
    rows: dict[str, int]
    """Rows of each of the tables."""
    file_bytes: int
    """Size of the file when it was made; a smaller one has been truncated."""
    structure: str
    """sha256 of all bytes behind the user block that never change."""
    user_block: int
    """Bytes before the HDF5 file proper: a power of two, 512 or more."""
    source: dict[str, Any]
    """Where the source was, its length and contents then, for people."""
    packed: dict[str, str | None] | None = None
    """Of a packed file: how the rows of each output are compressed. Else None."""
    format: int = 2

    @property
    def size(self) -> int:
        """Number of positions."""
        return math.prod(self.map_shape)

    @property
    def rows_bytes(self) -> int:
        """Bytes of the rows of all positions, not compressed."""
        return sum(output.row_bytes for output in self.outputs.values()) * self.size

    @property
    def position_outputs(self) -> dict[str, Output]:
        """Outputs per position, with the fill values that the file has."""
        return {n: o for n, o in self.outputs.items() if o.per == "position"}

    @property
    def ragged(self) -> list[str]:
        """Names of the ragged outputs."""
        return [name for name, output in self.outputs.items() if output.ragged]

    @property
    def tables(self) -> dict[str, np.dtype[Any]]:
        """Name and dtype of the tables that the file has."""
        known = _FIRST_TABLES if self.format == 1 else _TABLES
        if _has_small_tables(self.size, self.format):
            known = _SMALL_TABLES
        return {name: dtype for name, dtype in known.items() if name in self.rows}

    @property
    def aside(self) -> str:
        """Name of the group of tables and texts that viewers do not plot."""
        return ASIDE if self.format >= 4 else self.group

    def group_of(self, name: str) -> str:
        """Return the name of the group that has a dataset with a fixed place."""
        beside = name in self.tables or name in ("finished", CHUNKS)
        return self.aside if beside else self.group

    def extents(self) -> dict[str, tuple[int, int]]:
        """Offset and length in bytes of everything that has a fixed place.

        In a file that is not packed these are the bytes that change while it is
        computed. In a packed one nothing changes; rows are in chunks, and the table
        ``packed-chunks`` says where.
        """
        lengths = {
            "completed_positions": self.size,
            "failed_positions": self.size,
            "finished": 1,
        }
        for name, dtype in self.tables.items():
            lengths[name] = self.rows[name] * dtype.itemsize
        for name, output in self.outputs.items():
            if self.packed is None or output.per == "run":
                count = self.size if output.per == "position" else 1
                lengths[name] = count * output.stored.row_bytes
        if self.packed is not None:
            lengths[CHUNKS] = self.rows[CHUNKS] * CHUNKS_DTYPE.itemsize
        return {name: (self.offsets[name], length) for name, length in lengths.items()}

    def to_bytes(self) -> bytes:
        """Return the bytes of the user block, without padding."""
        plain = self._asdict() | {
            "map_shape": list(self.map_shape),
            "outputs": {
                name: {
                    **output.identity(),
                    "units": output.units,
                    "labels": output.labels,
                    "fill": np.asarray(output.fill_value, output.dtype).tobytes().hex(),
                    "dtype": encode_dtype(output.dtype),
                }
                for name, output in self.outputs.items()
            },
            # A list, because the order of outputs is the user's.
            "order": list(self.outputs),
        }
        if self.packed is None:
            del plain["packed"]
        body = canonical(plain).encode()
        return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"

    @classmethod
    def from_bytes(cls, block: bytes, path: Path) -> Header:
        """Read the user block; RunFileError where it is damaged, newer or not ours.

        The digest finds accidents, not malice: whoever writes a file can digest it. So
        nothing in it is executed or unpickled, and names lead nowhere but into it.
        """
        if not block.startswith(MAGIC):
            msg = f"{path} is not a run file{'' if block else ', it is empty'}"
            raise RunFileError(msg)
        rest = block[len(MAGIC) :]
        told, body = rest[:_DIGEST_LENGTH], rest[_DIGEST_LENGTH + 1 :]
        body = body[: body.find(b"\n")]
        whole = rest[_DIGEST_LENGTH : _DIGEST_LENGTH + 1] == b"\n"
        if not whole or hashlib.sha256(body).hexdigest().encode() != told:
            msg = (
                f"{path} is damaged, its header does not match its checksum: "
                f"{advice_anew()}"
            )
            raise RunFileError(msg)
        try:
            plain = json.loads(body)
            if plain["format"] > FORMAT:
                msg = (
                    f"{path} has format {plain['format']}, and this version reads up "
                    f"to {FORMAT}: install a newer resumable-hdf5 to use it"
                )
                raise RunFileError(msg)
            # No name is a way through the file, or by a link out of it.
            if not re.fullmatch("/(?!\\.{1,2}$)[^/\0]+", plain["group"]):
                msg = "the group has no plain name"
                raise ValueError(msg)
            outputs = {}
            for name in plain.pop("order"):
                one = plain["outputs"][name]
                dtype, ragged = decode_dtype(one["dtype"]), one.get("ragged", False)
                fill = np.frombuffer(bytes.fromhex(one["fill"]), dtype)[0]
                outputs[name] = Output(
                    one["shape"],
                    dtype,
                    units=one["units"],
                    labels=one["labels"],
                    fill_value=None if ragged else fill,
                    per=one["per"],
                    ragged=ragged,
                )
            plain["outputs"] = declared_outputs(outputs, "the header")
            plain["map_shape"] = tuple(plain["map_shape"])
            return Header(**plain)
        except _NO_HEADER as error:
            reason = f"{type(error).__name__}: {error!s:.200}"
            msg = (
                f"{path} is damaged, its header makes no sense ({reason}): "
                f"{advice_anew()}"
            )
            raise RunFileError(msg) from error


def structure_digest(fd: int, header: Header, *, unmarked: bool = False) -> str:
    """sha256 of all bytes behind the user block that never change, chunks left out.

    With `unmarked` the mark of a program that has the file open counts as not set.
    """
    skipped = header.extents().values()
    if header.packed is not None:
        # These have checksums of their own.
        offset, length = header.extents()[CHUNKS]
        chunks = np.frombuffer(disk.read_at(fd, length, offset), CHUNKS_DTYPE)
        skipped = chunks.tolist()
    spans, position = [], header.user_block
    for offset, length in sorted(skipped):
        spans.append((position, offset))
        position = offset + length
    spans.append((position, header.file_bytes))
    block = superblock_of(fd) if unmarked else None
    return digest_of(fd, spans, zero_at=None if block is None else block.marks_at)


def digest_of(
    fd: int, spans: list[tuple[int, int]], *, zero_at: int | None = None
) -> str:
    """sha256 of spans of bytes of a file, as far as there are any.

    The byte at `zero_at` is taken for 0.
    """
    result = hashlib.sha256()
    for start, stop in spans:
        for place in range(start, stop, 1 << 20):
            part = disk.read_at(fd, min(1 << 20, stop - place), place)
            if not part:
                break
            if zero_at is not None and 0 <= zero_at - place < len(part):
                inside = zero_at - place
                part = part[:inside] + b"\0" + part[inside + 1 :]
            result.update(part)
    return result.hexdigest()
