"""Positioned reads and writes, names of files, space and mounts."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from resumable.system import disk


@pytest.fixture
def fd(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with disk.opened(path, os.O_RDWR) as descriptor:
        yield descriptor


@pytest.mark.parametrize(
    "data",
    [
        b"abc",
        bytearray(b"abc"),
        np.array([1.5, -2.5]),
        np.array([1.5, -2.5], ">f4"),
        np.array([[1, 2], [3, 4]], "i2"),
        np.array([1 + 2j]),
        np.array([True, False]),
        np.array([(1, 2.5)], [("a", "i1"), ("b", "f8")]),
        np.array([b"ab", b"c"]),
        np.array(3.5),
    ],
    ids=lambda data: str(getattr(data, "dtype", type(data).__name__)),
)
def test_all_bytes_of_any_fixed_size_data_are_written_at_the_offset(fd, data):
    plain = data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
    os.ftruncate(fd, 64)
    before = disk.read_at(fd, 64, 0)

    disk.write_at(fd, data, 5)

    assert disk.read_at(fd, 64, 0) == before[:5] + plain + before[5 + len(plain) :]


def test_a_write_that_the_system_cuts_short_goes_on(fd, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda f, data, at: real(f, data[:3], at))

    disk.write_at(fd, b"abcdefgh", 1)

    assert disk.read_at(fd, 10, 0) == b"0abcdefgh9"


def test_a_read_that_the_system_cuts_short_goes_on(fd, monkeypatch):
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda f, size, at: real(f, min(size, 3), at))

    assert disk.read_at(fd, 8, 1) == b"12345678"


def test_a_read_is_shorter_only_at_the_end_of_the_file(fd):
    assert [disk.read_at(fd, 4, at) for at in (0, 8, 10)] == [b"0123", b"89", b""]


def test_reserved_space_is_taken_and_changes_no_byte(tmp_path):
    path = tmp_path / "sparse"
    path.write_bytes(b"head")
    os.truncate(path, 1 << 20)
    assert path.stat().st_blocks * 512 < 1 << 20

    with disk.opened(path, os.O_RDWR) as fd:
        disk.reserve(fd, 0, 1 << 20)

    assert path.stat().st_blocks * 512 >= 1 << 20
    assert path.read_bytes() == b"head" + bytes((1 << 20) - 4)


def test_an_opened_descriptor_is_closed_after_an_error(tmp_path):
    path = tmp_path / "file"
    path.touch()

    with pytest.raises(KeyError), disk.opened(path, os.O_RDONLY) as fd:
        raise KeyError

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.fixture(params=["links", "no links"])
def _links(request, monkeypatch):
    """Run with hard links, and as on a file system that has none (exFAT)."""

    def refuse(*_):
        raise OSError(errno.EPERM, "no hard links here")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("_links")
def test_a_finished_file_gets_its_name(tmp_path):
    new, path = tmp_path / "new", tmp_path / "run.h5"
    new.write_text("new")

    assert disk.link_new(new, path) is True
    assert path.read_text() == "new"


@pytest.mark.usefixtures("_links")
def test_a_name_that_is_taken_is_never_replaced(tmp_path):
    new, path = tmp_path / "new", tmp_path / "run.h5"
    new.write_text("new")
    path.write_text("old")

    assert disk.link_new(new, path) is False
    assert (path.read_text(), new.read_text()) == ("old", "new")


def test_an_error_other_than_missing_links_is_raised(tmp_path):
    new = tmp_path / "new"
    new.touch()

    with pytest.raises(FileNotFoundError):
        disk.link_new(new, tmp_path / "gone" / "run.h5")


def test_free_space_is_what_an_ordinary_user_may_still_write(tmp_path):
    stat = os.statvfs(tmp_path)

    free = disk.free_bytes(tmp_path)

    assert 0 < free <= stat.f_blocks * stat.f_frsize
    assert free <= stat.f_bfree * stat.f_frsize


MOUNTS = """\
22 27 0:21 / /proc rw - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:30 / /data rw shared:1 master:2 - nfs4 host:/export rw
31 30 0:31 / /data/my\\040scans rw - fuse.sshfs host: rw
32 27 0:32 / /mnt rw - ext4 /dev/vdb rw
33 32 0:33 / /mnt rw - cifs //host/share rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", "ext4"),
        ("/data", "nfs4"),
        ("/data/a/b", "nfs4"),
        ("/database", "ext4"),
        ("/data/my scans/a", "fuse.sshfs"),
        ("/mnt/a", "cifs"),
    ],
)
def test_the_file_system_is_that_of_the_deepest_and_last_mount(path, kind):
    assert disk.type_of_mount(disk.mounts_in(MOUNTS), Path(path)) == kind


def test_the_file_system_of_a_folder_is_found(tmp_path):
    found = disk.file_system(tmp_path)

    assert (found == "unknown") == (not Path("/proc/self/mountinfo").exists())
