"""Run files as somebody who means harm would make them: all their digests agree."""

import contextlib
import hashlib
import json
import os

from resumable.model import document_digest
from resumable.runfile.header import MAGIC, Header, structure_digest
from resumable.system.disk import opened, write_at


def plain_of(path):
    """Read the header of a run file as plain JSON."""
    body = path.read_bytes()[len(MAGIC) + 65 :]
    return json.loads(body[: body.find(b"\n")])


def write_body(path, body):
    """Write a header's text, whatever it is, with its digest; zeros behind it."""
    block = MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"
    old = path.read_bytes()
    user_block = old.find(b"\x89HDF")
    if len(block) > user_block:
        # A longer one pushes the HDF5 file back.
        user_block = 1 << (len(block) - 1).bit_length()
        path.write_bytes(block.ljust(user_block, b"\0") + old[old.find(b"\x89HDF") :])
        return
    path.write_bytes(block.ljust(user_block, b"\0") + old[user_block:])


def rewritten(path, change, *, identify=True):
    """Write the header anew, changed by a function."""
    plain = plain_of(path)
    change(plain)
    if identify:
        with contextlib.suppress(Exception):
            plain["identity"] = document_digest(plain["document"])
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    write_body(path, text.encode())


def restructured(path):
    """Give a file whose structure was changed the digest of what it is now."""
    header = Header.from_bytes(path.read_bytes()[: 1 << 20], path)
    with opened(path, os.O_RDWR) as fd:
        digest = structure_digest(fd, header)
        old, new = header.structure.encode(), digest.encode()
        block = os.pread(fd, header.user_block, 0)
        write_at(fd, block.replace(old, new), 0)
    rewritten(path, lambda plain: None, identify=False)
