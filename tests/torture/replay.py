"""Build what a kill or a power cut can leave of a recorded run.

A :class:`Disk` takes the events of a recording one after the other. Between any two
of them it says what would be there

* after a **kill**: everything that was written; of the write that is going on, the
  part up to any page;
* after a **power cut**: of every page of a file (4 KiB; 512 and 16 bytes in further
  modes) any version it had since the last completed sync of that file, each page for
  itself; any size the file had since; and of the changes of names since the last
  sync of the folder any subset.

That is more than a real disk does: it reorders freely. What holds here holds there.
"""

import dataclasses
import os
from pathlib import Path

from recorder import file_key

PAGE = 4096
SECTOR = 512
#: As if every few bytes lay on a page of their own: in a run of many positions the
#: status is that long, and the byte ``finished`` is far from it.
GRAIN = 16


@dataclasses.dataclass(frozen=True)
class _Write:
    when: int
    offset: int
    data: bytes


class File:
    def __init__(self, durable=b""):
        self.durable = durable
        self.syncs = 0
        self.writes = []
        self.sizes = []

    def write(self, when, offset, data):
        self.writes.append(_Write(when, offset, data))
        end = offset + len(data)
        if end > self.size:
            self.sizes.append((when, end))

    def resize(self, when, size):
        self.sizes.append((when, size))

    @property
    def size(self):
        return self.sizes[-1][1] if self.sizes else len(self.durable)

    def synced(self, began):
        """Take what was there when a sync began for durable."""
        self.syncs += 1
        before = [w for w in self.writes if w.when < began]
        sizes = [s for s in self.sizes if s[0] < began]
        size = sizes[-1][1] if sizes else len(self.durable)
        self.durable = _apply(self.durable, before, size)
        self.writes = [w for w in self.writes if w.when >= began]
        self.sizes = [s for s in self.sizes if s[0] >= began]

    def now(self):
        """Return what any process reads."""
        return (
            _apply(self.durable, self.writes, self.size)
            if self.dirty
            else (self.durable)
        )

    @property
    def dirty(self):
        return bool(self.writes or self.sizes)

    def torn(self):
        """Return what is there when the last write stops at one of its pages."""
        last, offset = self.writes[-1], self.writes[-1].offset
        edges = range(offset // PAGE * PAGE + PAGE, offset + len(last.data), PAGE)
        for edge in {*edges[:1], *edges[-1:]}:
            part = _Write(last.when, offset, last.data[: edge - offset])
            yield _apply(self.durable, [*self.writes[:-1], part], self.size)

    def mixture(self, unit, choose, size=None):
        """Return one mixture of versions."""
        versions = {}
        for write in self.writes:
            last = (write.offset + len(write.data) - 1) // unit
            for number in range(write.offset // unit, last + 1):
                versions.setdefault(number, []).append(write)
        result = bytearray(self.durable)
        result.extend(bytes(max(0, self.size - len(result))))
        for number, writes in versions.items():
            start = number * unit
            for write in writes[: choose(len(writes) + 1)]:
                first = max(start, write.offset)
                last = min(start + unit, write.offset + len(write.data))
                part = write.data[first - write.offset : last - write.offset]
                result[first:last] = part
        return _resized(result, self.size if size is None else size)

    def sizes_since(self):
        """Return all sizes it had since the last sync."""
        return [len(self.durable), *(size for _, size in self.sizes)]


def _apply(durable, writes, size):
    result = bytearray(durable)
    for write in writes:
        end = write.offset + len(write.data)
        result.extend(bytes(max(0, end - len(result))))
        result[write.offset : end] = write.data
    return _resized(result, size)


def _resized(content, size):
    if len(content) < size:
        return bytes(content) + bytes(size - len(content))
    return bytes(content[:size])


@dataclasses.dataclass(frozen=True)
class State:
    """What is found in the folder: names, and what each leads to."""

    how: str
    names: dict
    """name -> File"""
    contents: dict
    """id of a File -> its bytes; the current ones where it is missing."""

    def read(self, name):
        file = self.names[name]
        content = self.contents.get(id(file))
        return file.now() if content is None else content


class Disk:
    """A folder, as the events of a recording leave it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self._key = file_key(self.folder.stat())
        self.names = {}
        self.durable_names = {}
        self._changes = []
        self._files = {}
        self._begun = {}
        self._when = 0

    def meet(self, before=None):
        """Take what is in the folder for durable; the recording begins here."""
        for path in (before or self.folder).iterdir():
            file = self.names[path.name] = File(path.read_bytes())
            self._files[file_key((self.folder / path.name).stat())] = file
        self.durable_names = dict(self.names)

    def move(self, folder):
        """Put what is there now into another folder, where a recording goes on.

        What was not durable stays so: a session after a kill finds the page cache
        of the one before.
        """
        self.folder = Path(folder)
        self._key = file_key(self.folder.stat())
        self._files, self._begun = {}, {}
        firsts = {}
        for name, file in self.names.items():
            path = self.folder / name
            if id(file) in firsts:
                os.link(firsts[id(file)], path)
            else:
                path.write_bytes(file.now())
            firsts.setdefault(id(file), path)
            self._files[file_key(path.stat())] = file

    def take(self, event):
        self._when += 1
        kind = event.kind
        if kind in ("begin", "sync"):
            self._take_sync(event)
            return None
        if event.name and Path(event.name).parent != self.folder:
            return None
        if kind in ("open", "link", "rename", "unlink"):
            self._take_name(event)
            return None
        if kind == "contents":
            # Of a file that HDF5 has made the name is new, too.
            self._take_name(event)
        file = self._files.get(event.file)
        if file is None:
            return None
        if kind == "size":
            file.resize(self._when, event.number)
        elif kind == "contents":
            if event.data != file.now():
                file.write(self._when, 0, event.data)
                file.resize(self._when, len(event.data))
        else:
            file.write(self._when, event.number, event.data)
        return file

    def _take_sync(self, event):
        call = (event.pid, event.number)
        if event.kind == "begin":
            self._begun[call] = self._when
            return
        began = self._begun.pop(call)
        if event.file == self._key:
            keep = [c for c in self._changes if c[0] >= began]
            for change in self._changes:
                if change[0] < began:
                    _change(self.durable_names, change)
            self._changes = keep
        elif event.file in self._files:
            self._files[event.file].synced(began)

    def _take_name(self, event):
        name, other = Path(event.name).name, Path(event.other).name
        if event.kind in ("open", "contents"):
            if name in self.names:
                return
            file = self._files[event.file] = File()
            change = (self._when, "set", name, file)
        elif event.kind == "link":
            change = (self._when, "set", name, self.names[other])
        elif event.kind == "rename":
            change = (self._when, "move", name, self.names[other], other)
        else:
            change = (self._when, "remove", name, None)
        self._changes.append(change)
        _change(self.names, change)

    # What can be found.

    def killed(self, written=None):
        """Return the states that a kill at this moment can leave."""
        yield State("kill", dict(self.names), {})
        if written is not None and written.writes:
            for content in written.torn():
                yield State("torn", dict(self.names), {id(written): content})

    def cut(self, chance, count):
        """Return states that a power cut at this moment can leave.

        Besides `count` random ones of each mode: the extremes, where nothing that is
        not durable, only the last or all but the first versions are there.
        """
        if not (self._changes or any(f.dirty for f in self._known())):
            return
        extremes = {"nothing": lambda n: 0, "all": lambda n: n - 1, "one": lambda n: 1}
        for content, choose in extremes.items():
            for every in (False, True):
                yield self._one(content, PAGE, choose, lambda e=every: e, None)
        for unit in (PAGE, SECTOR, GRAIN):
            for _ in range(count):
                yield self._one(
                    f"cut {unit}",
                    unit,
                    chance.randrange,
                    lambda: chance.random() < 0.5,
                    chance,
                )
        # One page is early and the others are late, or the other way round.
        for _ in range(count):
            rare = chance.random() < 0.5

            def choose(n, rare=rare):
                return n - 1 if (chance.random() < 0.1) == rare else 0

            yield self._one("cut rare", GRAIN, choose, lambda: True, None)

    def after(self, state, folder):
        """Return the disk after a cut, where everything found is durable."""
        for name in state.names:
            (folder / name).write_bytes(state.read(name))
        disk = Disk(folder)
        disk.meet()
        return disk

    def _known(self):
        return {
            id(f): f for f in (*self.names.values(), *self._files.values())
        }.values()

    def _one(self, how, unit, choose, take, chance):
        names = dict(self.durable_names)
        for change in self._changes:
            if take():
                _change(names, change)
        contents = {}
        for name, file in names.items():
            if id(file) in contents or not file.dirty or name.startswith("."):
                continue
            size = chance.choice(file.sizes_since()) if chance else None
            contents[id(file)] = file.mixture(unit, choose, size)
        return State(how, names, contents)


def _change(names, change):
    _, kind, name, file, *other = change
    if kind == "set":
        names[name] = file
    elif kind == "move":
        names.pop(other[0], None)
        names[name] = file
    else:
        names.pop(name, None)
