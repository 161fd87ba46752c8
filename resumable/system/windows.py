"""What Windows does differently with files, by functions of its own.

Imported on Windows only. Files are opened as others may replace and remove them, and
child processes do not inherit them. Reads and writes take the place from their call:
the one that Windows keeps for a handle belongs to all its duplicates and threads.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from ctypes import wintypes
from typing import TYPE_CHECKING, Any

import numpy as np

assert sys.platform == "win32"
import msvcrt  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

_READ, _WRITE, _DELETE = 0x80000000, 0x40000000, 0x00010000
_SHARE_READ, _SHARE_WRITE, _SHARE_DELETE = 1, 2, 4
_CREATE_NEW, _OPEN_EXISTING, _OPEN_ALWAYS = 1, 3, 4
_NORMAL, _IS_FOLDER = 0x80, 0x02000000
_IMMEDIATELY, _EXCLUSIVE = 1, 2
_END_OF_FILE_INFO, _RENAME_INFO_EX = 6, 22
_REPLACE, _AS_POSIX = 1, 2
_SET_SPARSE = 0x000900C4
_REMOTE = 4
#: Numbers of errors.
_DENIED = 5
_NO_FUNCTION, _NOT_SUPPORTED, _WRONG_PARAMETER = 1, 50, 87
_LOCKED, _AT_END, _PENDING = 33, 38, 997
#: Locks of Windows keep others from reading and writing: they are of a byte that no
#: file has.
_LOCKED_BYTE = 1 << 62

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_INVALID = ctypes.c_void_p(-1).value


class _Overlapped(ctypes.Structure):
    """The struct OVERLAPPED, by which a call is told its place in a file."""

    _fields_ = (
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", wintypes.DWORD),
        ("offset_high", wintypes.DWORD),
        ("event", wintypes.HANDLE),
    )


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_kernel32, name)
    function.restype, function.argtypes = result, arguments
    return function


_bool, _dword, _handle = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE
_pointer, _text = ctypes.c_void_p, wintypes.LPCWSTR
_CreateFile = _function(
    *("CreateFileW", _handle, _text, _dword, _dword, _pointer, _dword, _dword, _handle)
)
_ReOpenFile = _function("ReOpenFile", _handle, _handle, _dword, _dword, _dword)
_CloseHandle = _function("CloseHandle", _bool, _handle)
_ReadFile = _function("ReadFile", _bool, _handle, _pointer, _dword, _pointer, _pointer)
_WriteFile = _function(
    "WriteFile", _bool, _handle, _pointer, _dword, _pointer, _pointer
)
_LockFile = _function(
    "LockFileEx", _bool, _handle, _dword, _dword, _dword, _dword, _pointer
)
_UnlockFile = _function(
    "UnlockFileEx", _bool, _handle, _dword, _dword, _dword, _pointer
)
_FlushFileBuffers = _function("FlushFileBuffers", _bool, _handle)
_SetInformation = _function(
    "SetFileInformationByHandle", _bool, _handle, ctypes.c_int, _pointer, _dword
)
_DeviceIoControl = _function(
    "DeviceIoControl",
    *(_bool, _handle, _dword, _pointer, _dword, _pointer, _dword, _pointer, _pointer),
)
_GetDriveType = _function("GetDriveTypeW", wintypes.UINT, _text)
_GetVolumePathName = _function(
    "GetVolumePathNameW", _bool, _text, wintypes.LPWSTR, _dword
)


def _error(path: Path | None = None, number: int | None = None) -> OSError:
    number = ctypes.get_last_error() if number is None else number
    # Python finds the class and the number of POSIX by that of Windows.
    name = None if path is None else str(path)
    return OSError(0, ctypes.FormatError(number).strip(), name, number)


def _place(offset: int) -> _Overlapped:
    return _Overlapped(offset=offset & 0xFFFFFFFF, offset_high=offset >> 32)


def open_file(path: Path, flags: int, *, alone: bool, keeps_name: bool) -> int:
    """Open a file by the flags of `os.open`; return its descriptor.

    `alone`: no other handle of it is open, nor can be opened meanwhile. `keeps_name`:
    nobody can remove or rename it meanwhile.
    """
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    access = (_READ if writes != os.O_WRONLY else 0) | (_WRITE if writes else 0)
    share = _SHARE_READ | _SHARE_WRITE | (0 if keeps_name else _SHARE_DELETE)
    how = _OPEN_EXISTING
    if flags & os.O_CREAT:
        how = _CREATE_NEW if flags & os.O_EXCL else _OPEN_ALWAYS
    handle = _CreateFile(
        str(path), access, _SHARE_DELETE if alone else share, None, how, _NORMAL, None
    )
    if handle == _INVALID:
        error = _error(path)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise error
    if how == _CREATE_NEW:
        # So that rows which are not written yet take no space and no time. Not every
        # file system can.
        done = _dword()
        _DeviceIoControl(
            handle, _SET_SPARSE, None, 0, None, 0, ctypes.byref(done), None
        )
    return _descriptor(handle, flags)


def _descriptor(handle: int, flags: int) -> int:
    try:
        return msvcrt.open_osfhandle(handle, flags & os.O_RDONLY | os.O_BINARY)
    except OSError:
        _CloseHandle(handle)
        raise


def reopened(fd: int) -> int:
    """Open the file of a descriptor once more for reading, with a place of its own."""
    share = _SHARE_READ | _SHARE_WRITE | _SHARE_DELETE
    handle = _ReOpenFile(msvcrt.get_osfhandle(fd), _READ, share, 0)
    if handle == _INVALID:
        raise _error()
    return _descriptor(handle, os.O_RDONLY)


def is_read_only(fd: int) -> bool:
    """Return whether a descriptor is open for reading only."""
    # Asked for by what needs the right to write, and writes nothing of ours.
    flushed = _FlushFileBuffers(msvcrt.get_osfhandle(fd))
    return not flushed and ctypes.get_last_error() == _DENIED


def write_some(fd: int, view: memoryview, offset: int) -> int:
    """Write bytes at a place; return how many."""
    return _transfer(_WriteFile, fd, view, offset)


def read_some(fd: int, view: memoryview, offset: int) -> int:
    """Read bytes at a place into a view; return how many, 0 at the end of the file."""
    return _transfer(_ReadFile, fd, view, offset)


def _transfer(function: Any, fd: int, view: memoryview, offset: int) -> int:
    count, place = _dword(), _place(offset)
    address = np.frombuffer(view, np.uint8).ctypes.data
    if not function(
        msvcrt.get_osfhandle(fd),
        address,
        view.nbytes,
        ctypes.byref(count),
        ctypes.byref(place),
    ):
        number = ctypes.get_last_error()
        if number != _AT_END:
            raise _error(number=number)
    return int(count.value)


def set_size(fd: int, size: int) -> None:
    """Cut a file, or lengthen it; new bytes read as 0 and are not written."""
    end = ctypes.c_longlong(size)
    handle = msvcrt.get_osfhandle(fd)
    if not _SetInformation(handle, _END_OF_FILE_INFO, ctypes.byref(end), 8):
        raise _error()


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Lock an open file in the place of a lock it has; False: another handle has one.

    OSError with ENOTSUP: the file system has no locks.
    """
    handle, place = msvcrt.get_osfhandle(fd), _place(_LOCKED_BYTE)
    _UnlockFile(handle, 0, 1, 0, ctypes.byref(place))
    kind = _IMMEDIATELY | (_EXCLUSIVE if exclusive else 0)
    if _LockFile(handle, kind, 0, 1, 0, ctypes.byref(place)):
        return True
    number = ctypes.get_last_error()
    if number in (_LOCKED, _PENDING):
        return False
    error = _error(number=number)
    if number in (_NO_FUNCTION, _NOT_SUPPORTED):
        raise OSError(errno.ENOTSUP, error.strerror)
    raise error


def replace(temporary: Path, path: Path) -> None:
    """Rename a file over another one, which may be open.

    Where the file system cannot (FAT, network drives), that one must be closed.
    """
    share = _SHARE_READ | _SHARE_WRITE | _SHARE_DELETE
    handle = _CreateFile(
        str(temporary), _DELETE, share, None, _OPEN_EXISTING, _NORMAL, None
    )
    if handle == _INVALID:
        raise _error(temporary)
    name = str(path.absolute())
    data = name.encode("utf-16-le")

    class Rename(ctypes.Structure):  # FILE_RENAME_INFO
        _fields_ = (
            ("flags", _dword),
            ("root", _handle),
            ("name_bytes", _dword),
            ("name", ctypes.c_char * (len(data) + 2)),
        )

    rename = Rename(_REPLACE | _AS_POSIX, None, len(data), data)
    size = ctypes.sizeof(rename)
    done = _SetInformation(handle, _RENAME_INFO_EX, ctypes.byref(rename), size)
    number = ctypes.get_last_error()
    _CloseHandle(handle)
    if done:
        return
    if number not in (_NO_FUNCTION, _NOT_SUPPORTED, _WRONG_PARAMETER):
        raise _error(path, number)
    os.replace(temporary, path)  # noqa: PTH105


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the file system can be asked to."""
    share = _SHARE_READ | _SHARE_WRITE | _SHARE_DELETE
    handle = _CreateFile(
        str(folder), _WRITE, share, None, _OPEN_EXISTING, _IS_FOLDER, None
    )
    if handle != _INVALID:
        _FlushFileBuffers(handle)
        _CloseHandle(handle)


def is_on_network(path: Path) -> bool:
    """Return whether a path is on a network drive."""
    root = ctypes.create_unicode_buffer(1 << 15)
    found = _GetVolumePathName(str(path), root, len(root))
    return bool(found) and _GetDriveType(root.value) == _REMOTE
