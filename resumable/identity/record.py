"""The record of a trace: what a computation is made of, and how two of them differ."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.errors import shown
from resumable.model import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resumable.identity.reading import Reading

#: Ends the name of an entry that says what sets state when it is made.
AT_FIRST = " at first"
#: Kinds of entries that are code.
CODE_KINDS = ("function", "class", "module")
#: Most characters of text that a record keeps of one function.
_LONGEST_TEXT = 20_000
#: Lines told of an edited function.
_LINES_TOLD = 6


class Entry(NamedTuple):
    """One thing that a computation is made of."""

    kind: str
    """``"function"``, ``"class"``, ``"value"``, ``"module"``, ``"file"`` or
    ``"environment"``."""
    digest: str
    """Of its code or value, and of the names of what it refers to."""
    text: str = ""
    """Its text, or a short form of its value."""
    place: str = ""
    """File and line."""


@dataclasses.dataclass(frozen=True, repr=False)
class Trace:
    """All that a computation reaches of the user's own code; print it to read it."""

    digest: str
    """Of everything in it but the distributions; the same on every Python."""
    entries: Mapping[str, Entry]
    """What is reached, by its name in the code."""
    modules: tuple[str, ...] = ()
    """Modules of Python and of installed distributions at which it stops."""
    not_followed: tuple[str, ...] = ()
    """What is read and could not be followed, in words."""
    random: tuple[str, ...] = ()
    """What draws random numbers that are not those of a position, by its name; it is
    not written into run files."""
    unseeded: tuple[str, ...] = ()
    """Where generators are made without a seed, which draw others in each run; neither
    this nor the next one is written into run files."""
    seeds: tuple[str, ...] = ()
    """Modules whose generator its code seeds while it computes."""
    codes: Mapping[str, tuple[str, Reading]] = dataclasses.field(default_factory=dict)
    """Digest of compiled code -> digest of its syntax tree, and what it reads: for
    processes that have no text."""

    @property
    def code_digest(self) -> str:
        """Digest of its code alone, without values: these may differ among ranks."""
        digests = {
            key: entry.digest
            for key, entry in self.entries.items()
            if entry.kind in CODE_KINDS
        }
        return digest_of(digests)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, for a run file."""
        return {
            "digest": self.digest,
            "entries": {
                key: {name: part for name, part in entry._asdict().items() if part}
                for key, entry in self.entries.items()
            },
            "modules": list(self.modules),
            "not_followed": list(self.not_followed),
        }

    @classmethod
    def from_json(cls, document: Any) -> Trace:
        """Read what :meth:`to_json` wrote; else a Type-, Value- or KeyError."""
        return cls(
            str(document["digest"]),
            {
                str(key): Entry(**{str(k): str(v) for k, v in parts.items()})
                for key, parts in document["entries"].items()
            },
            tuple(map(str, document["modules"])),
            tuple(map(str, document["not_followed"])),
        )

    def __str__(self) -> str:
        lines = [f"{len(self.entries):,} parts, with the digest {self.digest[:8]}"]
        above: list[list[str]] = []
        for key in sorted(self.entries, key=lambda key: key.split(".")):
            entry, parts = self.entries[key], key.split(".")
            # What a function has of its own, such as a default, stands below it.
            while above and parts[: len(above[-1])] != above[-1]:
                above.pop()
            value = "" if entry.kind == "function" else f" = {entry.text}"
            place = f"  ({entry.place})" if entry.place else ""
            lines.append(
                f"{'  ' * (len(above) + 1)}{key}{value * bool(entry.text)}{place}"
            )
            above.append(parts)
        if self.modules:
            lines.append(f"It stops at {', '.join(self.modules)}.")
        lines += [f"Not followed: {note}" for note in self.not_followed]
        return "\n".join(shown(line) for line in lines)

    __repr__ = __str__

    def differences(self, now: Trace) -> list[str]:
        """Say in words how `now` differs from this trace, which was there before."""
        told = []
        for key in sorted({*self.entries, *now.entries}):
            before, after = self.entries.get(key), now.entries.get(key)
            if before is None or after is None:
                place = (after or before or Entry("", "")).place
                where = f" ({place})" if place else ""
                told.append(f"{key}{where}: {'new' if before is None else 'gone'}")
            elif before.digest != after.digest:
                told.append(_difference(key, before, after))
        return told

    @classmethod
    def together(cls, traces: Mapping[str, Trace]) -> Trace:
        """Return the traces of several computations as one."""
        modules = {module for trace in traces.values() for module in trace.modules}
        notes = [note for trace in traces.values() for note in trace.not_followed]
        of_all = [(t.random, t.unseeded, t.seeds) for t in traces.values()]
        random, unseeded, seeds = (
            tuple(dict.fromkeys(itertools.chain(*parts)))
            for parts in zip(*of_all, strict=True)
        )
        return cls(
            digest_of([trace.digest for trace in traces.values()]),
            {
                f"{name}: {key}": entry
                for name, trace in traces.items()
                for key, entry in trace.entries.items()
            },
            tuple(sorted(modules)),
            tuple(dict.fromkeys(notes)),
            random,
            unseeded,
            seeds,
        )


def _difference(key: str, before: Entry, after: Entry) -> str:
    where = f" ({after.place})" if after.place else ""
    if "function" not in (before.kind, after.kind):
        if before.text != after.text:
            return f"{key}{where}: {before.text} there, {after.text} here"
        return f"{key}{where}: another {after.kind}"
    # Imported here: it costs a millisecond that only an edit needs.
    import difflib

    lines = [
        line
        for line in difflib.unified_diff(
            before.text.splitlines(), after.text.splitlines(), n=0, lineterm=""
        )
        if not line.startswith(("---", "+++", "@@"))
    ]
    if not lines:
        return f"{key}{where}: what it uses is another"
    return "\n    ".join([f"{key}{where}:", *lines[:_LINES_TOLD]])


def digest_of(document: Any) -> str:
    """Return the first digits of the sha256 of plain JSON."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()[:24]


def kept_text(text: str) -> str:
    """Return a text as a record keeps it."""
    return text[:_LONGEST_TEXT]
