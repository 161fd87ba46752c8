"""The user block of a run file: what it says, and why it can be trusted."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable.errors import RunFileError
from resumable.model import (
    FILTERS,
    MOST_POSITIONS,
    Output,
    PositionSet,
    canonical,
    declared,
    decode_dtype,
    document_digest,
    encode_dtype,
)
from resumable.system import read_at

if TYPE_CHECKING:
    from pathlib import Path

#: Version of the format this library writes; it reads this and all older ones.
FORMAT = 2
#: First bytes of every run file.
MAGIC = b"resumable run file\n"
#: Most bytes of the header's text.
HEADER_LIMIT = 1 << 24
#: Most bytes of what never changes, all of which is digested to open a file.
STRUCTURE_LIMIT = 1 << 32
#: Most rows of a table, which is read whole; we write a thousand.
_MOST_ROWS = 10_000
#: Most axes of a dataset, in HDF5.
_MOST_AXES = 32
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
SESSION_DTYPE = np.dtype(
    [
        *_SESSION_FIELDS,
        ("reading", "<f8"),
        ("computing", "<f8"),
        ("writing", "<f8"),
        ("waiting", "<f8"),
    ]
)
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
#: The tables of each version of the format.
_TABLES = {
    1: {"failures": FAILURE_DTYPE, "sessions": np.dtype(_SESSION_FIELDS)},
    2: {"failures": FAILURE_DTYPE, "sessions": SESSION_DTYPE, "log_lines": LOG_DTYPE},
}


def table_rows(size: int) -> dict[str, int]:
    """Return how many rows the tables of a run of `size` positions have at birth."""
    failures = min(size, FAILURE_ROWS)
    return {"failures": failures, "sessions": SESSION_ROWS, "log_lines": LOG_ROWS}


class Header(NamedTuple):
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
    """Rows of each of the :attr:`tables`."""
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
    format: int = FORMAT
    """Version of the format."""

    @property
    def tables(self) -> dict[str, np.dtype[Any]]:
        """Name and dtype of each table that only the driver writes."""
        return _TABLES[self.format]

    @property
    def size(self) -> int:
        """Number of positions."""
        return math.prod(self.map_shape)

    @property
    def ragged(self) -> list[str]:
        """Names of the ragged outputs."""
        return [name for name, output in self.outputs.items() if output.ragged]

    def parts(self, name: str) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of the datasets of a packed ragged output."""
        output, total, number = self.outputs[name], self.rows[name], np.dtype("<i8")
        return {
            "values": ((total, *output.shape), output.dtype),
            "count": (self.map_shape, number),
            "index": ((total,), number),
        }

    def extents(self) -> dict[str, tuple[int, int]]:
        """Offset and length in bytes of everything that has a fixed place.

        In a plain file that is what changes after birth. In a packed one nothing
        changes; rows are in chunks, and the table ``packed-chunks`` says where.
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
        """Text of the user block, without padding."""
        plain = {
            "format": self.format,
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

        Notes
        -----
        The digest keeps accidents out, not malice: whoever writes a file can digest
        it. So nothing that the text says is used before it has been checked.
        """
        if not block.startswith(MAGIC):
            msg = f"{path} is not a run file; it is left as it is"
            raise RunFileError(msg)
        rest = block[len(MAGIC) :]
        claimed, body = rest[:_DIGEST_LENGTH], rest[_DIGEST_LENGTH + 1 :]
        body = body[: body.find(b"\n")]
        whole = rest[_DIGEST_LENGTH : _DIGEST_LENGTH + 1] == b"\n"
        if not whole or hashlib.sha256(body).hexdigest().encode() != claimed:
            msg = f"{path} is damaged, its header does not match its checksum: {ADVICE}"
            raise RunFileError(msg)
        try:
            plain = json.loads(body)
            if _whole(plain["format"]) > FORMAT:
                msg = (
                    f"{path} has format {plain['format']}, and this version reads up "
                    f"to {FORMAT}: install a newer resumable-hdf5 to use it"
                )
                raise RunFileError(msg)
            _check(plain, body)
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
                packed=plain.get("packed") if plain["format"] > 1 else None,
                format=plain["format"],
            )
            header._check_document()
            header._check_packed()
            header.check_extents(path)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            reason = _brief(error)
            msg = f"{path} is damaged, its header makes no sense ({reason}): {ADVICE}"
            raise RunFileError(msg) from error
        except RecursionError as error:
            msg = f"{path} is damaged, its header is nested too deep: {ADVICE}"
            raise RunFileError(msg) from error
        return header

    def _check_document(self) -> None:
        """Refuse a document of the identity that we do not write.

        Or one that other parts of the header contradict.

        Raises
        ------
        DeclarationError, ValueError, KeyError, TypeError, AttributeError
        """
        outputs, document = declared(self.outputs, "the header"), self.document
        for name, kind in _DOCUMENT.items():
            _hold(isinstance(document[name], kind), f"{name} is no {kind.__name__}")
        read = [document["source"], *document["inputs"].values()]
        for entry in read:
            if "positions" in entry:
                _whole(entry["positions"])
            else:
                _text(entry["dataset"])
        for axes in (document["position_axes"], *(e["axes"] for e in read[1:])):
            whole = isinstance(axes, list) and all(type(axis) is int for axis in axes)
            _hold(whole, f"{axes!r:.40} are no axes")
        _hold(
            document_digest(document) == self.identity,
            "the identity is not that of the document",
        )
        _hold(
            document["outputs"] == {n: o.identity() for n, o in outputs.items()},
            "the outputs are not those of the document",
        )
        source, axes = document["source"], document["position_axes"]
        # None is the length of an axis that can grow.
        lengths = (
            [source["positions"]]
            if "positions" in source
            else [source["shape"][axis] for axis in axes]
        )
        _hold(
            len(lengths) == len(self.map_shape)
            and all(
                n in (None, m) for n, m in zip(lengths, self.map_shape, strict=True)
            ),
            "the map is not that of the document",
        )
        _hold(self.size <= MOST_POSITIONS, f"it has {self.size:,} positions")
        if self.source.get("ready") is not None:
            PositionSet.from_text(self.size, self.source["ready"])
        for output in outputs.values():
            axes_of_output = len(self.map_shape) + len(output.shape)
            _hold(axes_of_output <= _MOST_AXES, f"it has {axes_of_output} axes")

    def _check_packed(self) -> None:
        """Refuse what no packed file says.

        Raises
        ------
        ValueError, TypeError, KeyError
        """
        if self.packed is None:
            return
        rows = [name for name, o in self.outputs.items() if o.per == "position"]
        if sorted(self.packed) != sorted(rows):
            msg = "the outputs are not those that were packed"
            raise ValueError(msg)
        for name in (CHUNKS, *self.ragged):
            _whole(self.rows[name])
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
        extents = sorted(self.extents().values())
        _check_apart(extents, self, path)
        if self.packed is not None:
            return  # how much of it are chunks, their table says
        rest = self.file_bytes - self.user_block - sum(n for _, n in extents)
        if rest > STRUCTURE_LIMIT:
            msg = (
                f"{path} has {rest:,} bytes that are no results, more than "
                f"{STRUCTURE_LIMIT:,}: {ADVICE}"
            )
            raise RunFileError(msg)


#: What is always in the document of an identity.
_DOCUMENT: dict[str, type] = {
    "process": str,
    "parameters": dict,
    "outputs": dict,
    "position_axes": list,
    "source": dict,
    "inputs": dict,
}


def _hold(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _whole(value: Any, least: int = 0) -> int:
    # Neither True, which is an int, nor 1.0.
    if type(value) is not int or value < least:
        msg = f"{value!r:.40} is not a whole number from {least}"
        raise ValueError(msg)
    return value


def _shape(value: Any) -> None:
    _hold(isinstance(value, list) and len(value) <= _MOST_AXES, "a shape is too long")
    for length in value:
        _whole(length, 1)


def _text(value: Any) -> None:
    if not isinstance(value, str):
        msg = f"{value!r:.40} is not text"
        raise TypeError(msg)


def _check(plain: dict[str, Any], body: bytes) -> None:
    """Refuse a header of the wrong types, before anything is made of it.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError
    """
    # One text for one header: no key twice, no NaN, nothing else that json would
    # read and we would not write.
    _hold(canonical(plain).encode() == body, "it is not in canonical form")
    for name in ("identity", "structure"):
        _hold(
            re.fullmatch("[0-9a-f]{64}", plain[name]) is not None,
            f"{name} is no digest",
        )
    # One group at the root: HDF5 takes no other name for a way through the file.
    group = plain["group"]
    _hold(re.fullmatch("/[^/\0]+", group) is not None, "the group has no plain name")
    _hold(group not in ("/.", "/.."), "the group has no plain name")
    _shape(plain["map_shape"])
    _hold(len(plain["map_shape"]) > 0, "it has no position axes")
    _hold(sorted(plain["order"]) == sorted(plain["outputs"]), "order is not of outputs")
    for offset in plain["offsets"].values():
        _whole(offset)
    for name in _TABLES[_whole(plain["format"], 1)]:
        _hold(_whole(plain["rows"][name], 1) <= _MOST_ROWS, f"{name} is too long")
    _whole(plain["file_bytes"])
    user_block = _whole(plain["user_block"], 512)
    header_bytes = len(MAGIC) + _DIGEST_LENGTH + 1 + len(body) + 1
    _hold(
        user_block & (user_block - 1) == 0 and user_block >= header_bytes,
        f"{user_block} is not the size of a user block",
    )
    source = plain["source"]
    _text(source["source"])
    _text(source["contents"] or "")
    _text(source.get("text", ""))
    _whole(source["length"], 1)
    if source.get("ready") is not None:
        _text(source["ready"])


def _brief(error: Exception) -> str:
    """Name an error without all that a file may have put into its message."""
    return f"{type(error).__name__}: {error!s:.200}"


def _check_apart(extents: list[tuple[int, int]], header: Header, path: Path) -> None:
    previous = header.user_block
    for offset, length in extents:
        if offset < previous or length < 0 or offset + length > header.file_bytes:
            msg = f"{path} is damaged, its parts overlap or lie outside of it: {ADVICE}"
            raise RunFileError(msg)
        previous = offset + length


def _output_to_json(output: Output) -> dict[str, Any]:
    fill = np.asarray(output.fill_value, output.dtype)
    return {
        **output.identity(),
        "units": output.units,
        "labels": output.labels,
        "fill": fill.tobytes().hex(),
        "dtype": encode_dtype(output.dtype),
    }


def _output_from_json(plain: dict[str, Any]) -> Output:
    _shape(plain["shape"])
    _text(plain["units"] or "")
    dtype = decode_dtype(plain["dtype"])
    ragged = plain.get("ragged", False)
    _hold(type(ragged) is bool, "ragged is neither true nor false")
    _hold(2 * dtype.itemsize == len(plain["fill"]), "the fill value has another size")
    fill = np.frombuffer(bytes.fromhex(plain["fill"]), dtype)[0]
    return Output(
        plain["shape"],
        dtype,
        units=plain["units"],
        labels=plain["labels"],
        fill_value=None if ragged else fill,
        per=plain["per"],
        ragged=ragged,
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
