"""The user block of a run file: what it says, and why it can be trusted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.compression import FILTERS
from resumable.disk import read_at
from resumable.errors import RunFileError
from resumable.identity import canonical, decode_dtype, encode_dtype
from resumable.output import Output

if TYPE_CHECKING:
    from pathlib import Path

#: Newest version of the format; this library reads it and all older ones. A plain
#: file is still written as version 1, which older readers understand; a packed one
#: has no offsets of rows, which they would ask for, and so is of version 2.
FORMAT = 2
#: First bytes of every run file.
MAGIC = b"resumable run file\n"
HEADER_LIMIT = 1 << 24
#: What to do about a file that cannot be trusted.
ADVICE = "it is left as it is; use override=True to compute into a new file"
_DIGEST_LENGTH = 64

#: Table of where the chunks of a packed file lie. No output can have its name.
CHUNKS = "packed-chunks"
CHUNKS_DTYPE = np.dtype([("offset", "<i8"), ("bytes", "<i8")])
#: Rows of the table of failures; further failures are only counted.
FAILURE_ROWS = 1000
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
SESSION_DTYPE = np.dtype(
    [
        ("start", "<f8"),
        ("end", "<f8"),
        ("host", "S64"),
        ("pid", "<i8"),
        ("engine", "S32"),
        ("workers", "<i4"),
        ("computed", "<i8"),
        ("failed", "<i8"),
    ]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What the user block of a run file says. Everything else is found by it."""

    identity: str
    """sha256 of the identity document."""
    document: dict[str, Any]
    """The identity document."""
    group: str
    """Name of the results group."""
    map_shape: tuple[int, ...]
    """Lengths of the position axes."""
    outputs: dict[str, Output]
    """What is computed."""
    offsets: dict[str, int]
    """Byte offset in the file of every dataset that is written after birth."""
    rows: dict[str, int]
    """Rows of each of the tables ``failures`` and ``sessions``."""
    file_bytes: int
    """Size of the file at birth; a smaller one has been truncated."""
    structure: str
    """sha256 of all bytes behind the user block that never change."""
    user_block: int
    """Bytes before the HDF5 file proper: a power of two, 512 or more."""
    source: dict[str, Any]
    """Where the source was, its length and contents at birth, for people."""
    packed: dict[str, str | None] | None = None
    """Of a packed file: how the rows of each output are compressed. Else None."""

    @property
    def size(self) -> int:
        """Number of positions."""
        return int(np.prod(self.map_shape, dtype=np.int64))

    def extents(self) -> dict[str, tuple[int, int]]:
        """Offset and length in bytes of everything that has a fixed place.

        In a plain file that is what changes after birth. In a packed one nothing
        changes; rows are in chunks, and the table ``packed-chunks`` says where.
        """
        lengths = {
            "completed_positions": self.size,
            "failed_positions": self.size,
            "finished": 1,
            "failures": self.rows["failures"] * FAILURE_DTYPE.itemsize,
            "sessions": self.rows["sessions"] * SESSION_DTYPE.itemsize,
        }
        for name, output in self.outputs.items():
            if self.packed is None or output.per == "run":
                count = self.size if output.per == "position" else 1
                lengths[name] = count * output.row_bytes
        if self.packed is not None:
            lengths[CHUNKS] = self.rows[CHUNKS] * CHUNKS_DTYPE.itemsize
        return {name: (self.offsets[name], length) for name, length in lengths.items()}

    def to_bytes(self) -> bytes:
        """Text of the user block, without padding."""
        plain = {
            "format": 1 if self.packed is None else 2,
            "identity": self.identity,
            "document": self.document,
            "group": self.group,
            "map_shape": list(self.map_shape),
            "outputs": {n: _output_to_json(o) for n, o in self.outputs.items()},
            # A list, because the order of outputs is the user's.
            "order": list(self.outputs),
            "offsets": self.offsets,
            "rows": self.rows,
            "file_bytes": self.file_bytes,
            "structure": self.structure,
            "user_block": self.user_block,
            "source": self.source,
            **({} if self.packed is None else {"packed": self.packed}),
        }
        body = canonical(plain).encode()
        return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"

    @classmethod
    def from_bytes(cls, block: bytes, path: Path) -> Header:
        """Read the user block, refusing what is damaged, newer or not ours.

        Raises
        ------
        RunFileError
            With what is wrong.
        """
        if not block.startswith(MAGIC):
            msg = f"{path} is not a run file: {ADVICE}"
            raise RunFileError(msg)
        rest = block[len(MAGIC) :]
        claimed, body = rest[:_DIGEST_LENGTH], rest[_DIGEST_LENGTH + 1 :]
        body = body[: body.find(b"\n")]
        if hashlib.sha256(body).hexdigest().encode() != claimed:
            msg = f"{path} is damaged, its header does not match its checksum: {ADVICE}"
            raise RunFileError(msg)
        try:
            plain = json.loads(body)
            if plain["format"] > FORMAT:
                msg = (
                    f"{path} has format {plain['format']}, and this version reads up "
                    f"to {FORMAT}: install a newer resumable-hdf5 to use it"
                )
                raise RunFileError(msg)
            header = cls(
                identity=plain["identity"],
                document=plain["document"],
                group=plain["group"],
                map_shape=tuple(plain["map_shape"]),
                outputs={
                    name: _output_from_json(plain["outputs"][name])
                    for name in plain["order"]
                },
                offsets=plain["offsets"],
                rows=plain["rows"],
                file_bytes=plain["file_bytes"],
                structure=plain["structure"],
                user_block=plain["user_block"],
                source=plain["source"],
                packed=plain["packed"] if plain["format"] > 1 else None,
            )
            header.check_packed()
            header.check_extents(path)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"{path} is damaged, its header makes no sense ({error!r}): {ADVICE}"
            raise RunFileError(msg) from error
        return header

    def check_packed(self) -> None:
        """Refuse what no packed file says.

        Raises
        ------
        ValueError, TypeError, KeyError
        """
        if self.packed is None:
            return
        rows = [name for name, o in self.outputs.items() if o.per == "position"]
        if sorted(self.packed) != sorted(rows) or type(self.rows[CHUNKS]) is not int:
            msg = "the outputs are not those that were packed"
            raise ValueError(msg)
        for method in self.packed.values():
            if method is not None and method not in FILTERS:
                msg = f"an unknown compression {method!r:.40}"
                raise ValueError(msg)

    def check_extents(self, path: Path) -> None:
        """Refuse parts that overlap, or lie outside of the file or in the header.

        Raises
        ------
        RunFileError
        """
        _check_apart(sorted(self.extents().values()), self, path)


def _check_apart(extents: list[tuple[int, int]], header: Header, path: Path) -> None:
    previous = header.user_block
    for offset, length in extents:
        if offset < previous or length < 0 or offset + length > header.file_bytes:
            msg = f"{path} is damaged, its parts overlap or lie outside of it: {ADVICE}"
            raise RunFileError(msg)
        previous = offset + length


def _output_to_json(output: Output) -> dict[str, Any]:
    fill = np.asarray(output.fill, output.dtype)
    return {
        **output.identity(),
        "units": output.units,
        "labels": output.labels,
        "fill": fill.tobytes().hex(),
        "dtype": encode_dtype(output.dtype),
    }


def _output_from_json(plain: dict[str, Any]) -> Output:
    dtype = decode_dtype(plain["dtype"])
    fill = np.frombuffer(bytes.fromhex(plain["fill"]), dtype)[0]
    return Output(
        plain["shape"],
        dtype,
        units=plain["units"],
        labels=plain["labels"],
        fill=fill,
        per=plain["per"],
    )


def structure_digest(fd: int, header: Header, path: Path) -> str:
    """sha256 of all bytes behind the user block that never change, chunks left out.

    Raises
    ------
    RunFileError
        The chunks of a packed file overlap or lie outside of it.
    """
    result = hashlib.sha256()
    position = header.user_block
    for offset, length in _not_digested(fd, header, path):
        _digest_range(fd, position, offset, result)
        position = offset + length
    _digest_range(fd, position, header.file_bytes, result)
    return result.hexdigest()


def _not_digested(fd: int, header: Header, path: Path) -> list[tuple[int, int]]:
    """Return what can change, or of a packed file its chunks: these have checksums."""
    extents = sorted(header.extents().values())
    if header.packed is None:
        return extents
    offset, length = header.extents()[CHUNKS]
    table = np.frombuffer(read_at(fd, length, offset), CHUNKS_DTYPE)
    chunks: list[tuple[int, int]] = table.tolist()
    # Sorted together, so that no chunk lies over the status or the tables either.
    _check_apart(sorted([*chunks, *extents]), header, path)
    return sorted(chunks)


def _digest_range(fd: int, start: int, stop: int, result: Any) -> None:
    while start < stop:
        part = read_at(fd, min(1 << 20, stop - start), start)
        if not part:
            return
        result.update(part)
        start += len(part)
