"""Where code comes from: Python, an installed distribution, or the user's own files.

User code is what lies in no folder of the standard library and in no installed
distribution. An editable install is user code: its files are edited.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import site
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import threadpoolctl

from resumable.system import machine

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What cloudpickle calls the file of code that it has sent.
SENT = "<dynamic-code>"
#: These are libraries even where they lie in a folder that a user edits.
_LIBRARIES = ("resumable",)
#: What Python names as the module of a class that is made by a call: by exec() in a
#: dict without ``__name__``, types.new_class() or abc.ABCMeta().
_CALLED_MAKERS = ("builtins", "types", "abc")
_IS_MADE_AT_RUN_TIME = 1 << 9  # Py_TPFLAGS_HEAPTYPE


class Distribution(NamedTuple):
    """An installed distribution."""

    name: str
    version: str
    """Empty where it says none."""
    digest: str
    """First digits of the sha256 of its RECORD, which lists the digests of its files;
    empty where it has none."""


def is_users(module: Any, file: str | None = None) -> bool:
    """Return whether a module is the user's own.

    `file` is that of the code; default the one of the module.
    """
    if not isinstance(module, str):  # a class may have anything for its module
        return False
    top = module.partition(".")[0]
    if top in _LIBRARIES:
        return False
    if file and top in sys.stdlib_module_names and not os.path.isabs(file):  # noqa: PTH117
        # The embeddable Python of Windows has its library compiled, in a zip, with
        # relative names of files.
        file = file if file.startswith("<") else None
    if file is None or file == SENT:
        if module == "__main__":
            # Its file can be that of a tool which runs the user's script.
            return True
        file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or file.startswith("<"):
        # Typed at a prompt, executed from text, or built in.
        return module == "__main__" or top not in sys.stdlib_module_names
    return _is_users_file(file, top)


def home_of(cls: type) -> Any:
    """Return the name of the module of a class; "__main__" where none has its text."""
    module = cls.__module__
    if module not in _CALLED_MAKERS or not cls.__flags__ & _IS_MADE_AT_RUN_TIME:
        return module
    known = vars(sys.modules[module]).get(cls.__name__) is cls
    return module if known else "__main__"


@functools.lru_cache(4096)
def _is_users_file(file: str, top: str) -> bool:
    path = os.path.realpath(file)
    standard, installed = _folders()
    if path.startswith(installed):
        return False
    if path.startswith(standard) and top in {*sys.stdlib_module_names, "_pytest"}:
        return False
    # A package installed elsewhere, in a folder of PYTHONPATH, has its record beside.
    parts = Path(path).parts
    if top in parts:
        root = Path(*parts[: len(parts) - 1 - parts[::-1].index(top)])
        return not _has_record(str(root), top)
    return not _has_record(str(Path(path).parent), top)


@functools.cache
def _folders() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the folders of the standard library and those of installed packages."""
    # sysconfig, which knows them too, takes milliseconds to import.
    # `os` is frozen, and tells another folder than a library in a zip.
    files = filter(None, (os.__file__, functools.__file__))
    standard = {str(Path(file).parent) for file in files}
    installed = set(site.getsitepackages())
    if site.ENABLE_USER_SITE:
        installed.add(site.getusersitepackages())

    def real(folders: set[str]) -> tuple[str, ...]:
        return tuple(sorted(os.path.realpath(name) + os.sep for name in folders))

    return real(standard), real(installed)


@functools.lru_cache(256)
def _has_record(folder: str, top: str) -> bool:
    wanted = top.lower().replace("_", "-") + "-"
    try:
        return any(
            path.name.lower().replace("_", "-").startswith(wanted)
            and (path / "RECORD").exists()
            for path in Path(folder).glob("*.dist-info")
        )
    except OSError:
        return False


@functools.cache
def distribution_of(top: str) -> Distribution | None:
    """Return the distribution that a top-level module belongs to; None for Python.

    By the folder beside the module that its installer has written: `importlib.metadata`
    would read the folders of all distributions.
    """
    if top in sys.stdlib_module_names or top in ("builtins", "__main__"):
        return None
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None)
    if file is not None:
        path = Path(file)
        folder = path.parent.parent if path.stem == "__init__" else path.parent
        infos = _infos_in(str(folder))
        info = infos.get(_plain(top)) or _owner(str(folder), top)
        if info is not None:
            name, _, version = info.stem.partition("-")
            return Distribution(name.replace("_", "-"), version, _record_digest(info))
    return Distribution(top, str(getattr(module, "__version__", "")), "")


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


@functools.cache
def _infos_in(folder: str) -> dict[str, Path]:
    """Return the folders of installed distributions in a folder, by plain name."""
    try:
        found = sorted(Path(folder).glob("*.dist-info"))
    except OSError:
        return {}
    return {_plain(info.name.partition("-")[0]): info for info in found}


def _owner(folder: str, top: str) -> Path | None:
    """Return the distribution that has a module of another name, as scikit-learn."""
    begins = (f"{top}/__init__.py,", f"{top}.py,")
    for info in _infos_in(folder).values():
        with contextlib.suppress(OSError):
            record = (info / "RECORD").read_text(errors="replace")
            if any(record.startswith(b) or f"\n{b}" in record for b in begins):
                return info
    return None


def _record_digest(info: Path) -> str:
    try:
        record = (info / "RECORD").read_text(errors="replace")
    except OSError:
        return ""
    # Its own folder and scripts are others with every installer.
    lines = [
        line
        for line in record.splitlines()
        if ",sha256=" in line and not line.startswith((f"{info.name}/", "../"))
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def environment_of(modules: Iterable[str]) -> dict[str, str]:
    """Say what decides results besides code and values: name -> version.

    Python, the kind of CPU, the BLAS of numpy, and the distributions of the modules,
    each with the first digits of a digest of the list of its files.
    """
    distributions: dict[str, str] = {}
    for top in sorted({*(name.partition(".")[0] for name in modules), "numpy", "h5py"}):
        found = distribution_of(top)
        if found is not None and top not in _LIBRARIES:
            known = " ".join(filter(None, [found.version or "unknown", found.digest]))
            distributions[found.name] = known
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return {
        "Python": python,
        "CPU": machine.cpu_name(),
        "BLAS": _blas(),
        **distributions,
    }


@functools.cache
def _blas() -> str:
    """Return the BLAS that numpy has loaded; those in other wheels are of these."""
    found = {
        " ".join(str(part) for part in parts if part)
        for lib in threadpoolctl.threadpool_info()
        if lib["user_api"] == "blas"
        and ("numpy" in lib["filepath"] or "site-packages" not in lib["filepath"])
        for parts in [(lib["internal_api"], lib["version"], lib.get("architecture"))]
    }
    return ", ".join(sorted(found)) or "unknown"
