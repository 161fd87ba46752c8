"""The journal of a file that is published into, after a kill and from others."""

import fcntl
import hashlib
import json
import os
import signal

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import compute
from kill_matrix import in_fork
from kill_pack import before_steps
from published import Level, fill, left_over
from run_files import digest

import resumable as rs
from resumable.cli import commands
from resumable.runfile.journal import mend_user_file
from resumable.source.files import open_file

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*positions failed:resumable.ResumableWarning"
)


@pytest.fixture
def source(tmp_path):
    return fill(tmp_path / "scan.h5")


@pytest.fixture
def results(source):
    return compute(Level(f"{source}::/data"))


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    """Return what kills leave, when it is decided and before, and how it should be."""
    path = fill(tmp_path_factory.mktemp("killed") / "scan.h5")
    results = compute(Level(f"{path}::/data"))
    old = path.read_bytes()
    results.publish(f"{path}::/deep/fit")
    new = path.read_bytes()
    path.write_bytes(old)
    journal = path.with_name("scan.h5.resumable-journal")

    def note(*_):
        """Keep the last moment before it is decided, and be killed at the next."""
        if journal.exists() and path.stat().st_size > len(old):
            decided = b'"decided":true' in journal.read_bytes()
            for left in (path, journal):
                left.with_suffix(f".{decided}").write_bytes(left.read_bytes())
            if decided:
                os.kill(os.getpid(), signal.SIGKILL)

    def publish():
        before_steps(note)
        results.publish(f"{path}::/deep/fit")

    assert in_fork(publish) == -signal.SIGKILL
    found = {
        decided: [p.with_suffix(f".{decided}").read_bytes() for p in (path, journal)]
        for decided in (True, False)
    }
    return found, old, new


@pytest.fixture
def killed(source, moments):
    found, old, new = moments
    journal = source.with_name("scan.h5.resumable-journal")

    def kill(*, decided=True):
        torn, text = found[decided]
        source.write_bytes(torn)
        journal.write_bytes(text)
        return journal, old, new

    return kill


def test_a_journal_that_is_not_decided_is_undone(killed, source):
    _, old, _ = killed(decided=False)
    assert source.read_bytes() != old
    mend_user_file(source)

    assert source.read_bytes() == old
    assert left_over(source) == []


def test_a_journal_that_is_not_whole_is_removed(killed, source):
    """It can change nothing: none of ours has its name before it is whole."""
    journal, _, _ = killed()
    before, whole = source.read_bytes(), journal.read_bytes()
    chance = np.random.default_rng(3)
    for place in chance.integers(0, len(whole), 30).tolist():
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(chance.integers(8))
        for damaged in (whole[:place], bytes(flipped), flipped + b"more"):
            journal.write_bytes(damaged)
            assert mend_user_file(source) == "mended"
            assert source.read_bytes() == before
            assert left_over(source) == []


def forge(journal, change):
    """Change what a journal says, and make its digest fit."""
    magic, _, rest = journal.read_bytes().split(b"\n", 2)
    text, _, payload = rest.partition(b"\n")
    plain = json.loads(text)
    payload = change(plain, bytearray(payload)) or payload
    body = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    body += b"\n" + bytes(payload)
    digest_text = hashlib.sha256(body).hexdigest().encode()
    journal.write_bytes(magic + b"\n" + digest_text + b"\n" + body)


def other_old_bytes(plain, payload):
    payload[10] ^= 1
    return payload


FORGERIES = [
    lambda j, _: j.update(name="other.h5"),
    lambda j, _: j.update(name="../scan.h5"),
    lambda j, _: j.update(name=None),
    lambda j, _: j.update(format=2),
    lambda j, _: j.pop("format"),
    lambda j, _: j.update(new_bytes=j["new_bytes"] + 1),
    lambda j, _: j.update(new_bytes=0),
    lambda j, _: j.update(new_bytes=-1),
    lambda j, _: j.update(new_bytes=float(j["new_bytes"])),
    lambda j, _: j.update(old_bytes=str(j["old_bytes"])),
    lambda j, _: j.update(old_bytes=j["old_bytes"] - 4096),
    lambda j, _: j.update(old_bytes=1 << 60, new_bytes=1 << 60),
    lambda j, _: j.update(beyond="0" * 64),
    lambda j, _: j.update(extra=1),
    lambda j, _: j["changes"].reverse(),
    lambda j, _: j["changes"][0].__setitem__(0, 4096 * 50),
    lambda j, _: j["changes"][0].__setitem__(0, -4096),
    lambda j, _: j["changes"][0].__setitem__(1, 1 << 40),
    lambda j, _: j["changes"][0].__setitem__(1, -5),
    lambda j, _: j.update(changes=7),
    other_old_bytes,
]


@pytest.mark.parametrize("change", FORGERIES)
def test_a_forged_journal_changes_nothing(killed, source, change):
    """One that is whole and does not fit is left, with what to do about it."""
    journal, _, _ = killed()
    forge(journal, change)
    before = source.read_bytes(), journal.read_bytes()
    with pytest.raises(rs.TargetError, match="nothing was changed"):
        mend_user_file(source)
    with pytest.raises(rs.SourceError, match="resumable repair"):
        Level(f"{source}::/data")

    assert (source.read_bytes(), journal.read_bytes()) == before


@pytest.mark.parametrize("old_bytes", [0, 96, 4096, -1, 1 << 50])
def test_a_forged_journal_cuts_no_file(killed, source, old_bytes):
    """One that is not decided takes away what lies behind the end, and no more."""
    journal, old, _ = killed(decided=False)
    forge(journal, lambda j, _: j.update(old_bytes=old_bytes, new_bytes=old_bytes))
    mend_user_file(source)

    assert source.read_bytes()[: len(old)] == old


def test_a_journal_that_is_no_file_changes_nothing(source, tmp_path):
    journal = source.with_name("scan.h5.resumable-journal")
    precious = tmp_path / "precious"
    precious.write_text("precious")
    before = digest(source)

    def huge():
        with journal.open("wb") as file:
            file.truncate(1 << 40)

    for make in (
        lambda: os.mkfifo(journal),
        lambda: journal.symlink_to(precious),
        journal.mkdir,
        huge,
    ):
        make()
        with pytest.raises(rs.TargetError, match="cannot be used to mend"):
            mend_user_file(source)
        journal.rmdir() if journal.is_dir() else journal.unlink()

    assert precious.read_text() == "precious"
    assert digest(source) == before


def test_a_journal_beside_a_restored_file_is_not_applied(killed, source):
    """Neither to a backup of it, nor to another file of its name."""
    _, old, _ = killed()
    source.write_bytes(old)
    with pytest.raises(rs.TargetError, match=r"not [\d,]+\); nothing was changed"):
        mend_user_file(source)
    assert source.read_bytes() == old
    fill(source, libver="latest")
    other = source.read_bytes()
    with pytest.raises(rs.TargetError, match="nothing was changed"):
        mend_user_file(source)

    assert source.read_bytes() == other


def test_another_writer_after_the_kill_is_respected(killed, source):
    killed(decided=False)
    with h5py.File(source, "r+") as file:
        file["theirs"] = np.arange(1000)
    before = source.read_bytes()
    mend_user_file(source)

    assert source.read_bytes() == before
    assert left_over(source) == []


@pytest.mark.parametrize("decided", [True, False])
def test_whatever_of_ours_opens_the_file_mends_it(killed, source, decided):
    """A Process on it, a reader, a virtual part, a publishing, the command."""
    virtual = source.with_name("virtual.h5")
    layout = h5py.VirtualLayout((50, 16), "f8")
    layout[...] = h5py.VirtualSource("scan.h5", "data", (50, 16))
    with h5py.File(virtual, "w") as file:
        file.create_virtual_dataset("data", layout)
    openers = (
        lambda: Level(f"{source}::/data"),
        lambda: open_file(str(source)).close(),
        lambda: Level(f"{virtual}::/data"),
        lambda: CliRunner().invoke(commands.main, ["repair", str(source)]),
    )
    for opens in openers:
        _, old, new = killed(decided=decided)
        opens()
        assert source.read_bytes() == (new if decided else old)
        assert left_over(source) == []


def test_a_file_that_cannot_be_mended_now_is_not_read(killed, source, impatient):
    """Where somebody else has it open, an error names the command that mends it."""
    killed()
    before = digest(source)
    with source.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(
            rs.SourceError, match=r"'resumable repair .*scan\.h5' mends"
        ):
            Level(f"{source}::/data")
    assert digest(source) == before
    Level(f"{source}::/data")

    assert left_over(source) == []


def test_the_command_publishes_and_repairs(killed, source, results):
    def invoke(*words):
        return CliRunner().invoke(commands.main, [*words])

    killed()
    mended = invoke("repair", str(source))
    nothing = invoke("repair", str(source))
    again = invoke("publish", str(results.path), f"{source}::/deep/fit")
    anew = invoke("publish", str(results.path), f"{source}::/deep/fit", "--overwrite")

    assert (mended.exit_code, mended.output) == (0, f"{source}: mended\n")
    assert (nothing.exit_code, nothing.output) == (
        0,
        f"{source}: nothing to mend; it is not a run file\n",
    )
    assert again.exit_code == 1
    assert "or --overwrite to replace it" in again.output
    assert (anew.exit_code, anew.output) == (
        0,
        f"{results.path}: published as {source}::/deep/fit\n",
    )
