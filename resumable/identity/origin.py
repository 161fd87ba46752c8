"""Where code comes from: Python, an installed distribution, or the user's own files.

User code is what lies in no folder of the standard library and in no installed
distribution. An editable install is user code: its files are edited.
"""

from __future__ import annotations

import functools
import hashlib
import os
import site
import sys
from pathlib import Path
from typing import Any, NamedTuple

#: What cloudpickle calls the file of code that it has sent.
SENT = "<dynamic-code>"
#: These are libraries even where they lie in a folder that a user edits.
_LIBRARIES = ("resumable",)


class Distribution(NamedTuple):
    """An installed distribution."""

    name: str
    version: str
    """Empty where it says none."""
    digest: str
    """First digits of the sha256 of its RECORD, which lists the digests of its files;
    empty where it has none."""


def is_users(module: str, file: str | None = None) -> bool:
    """Return whether a module is the user's own.

    `file` is that of the code; default the one of the module.
    """
    top = module.partition(".")[0]
    if top in _LIBRARIES:
        return False
    if file is None or file == SENT:
        if module == "__main__":
            # Its file can be that of a tool which runs the user's script.
            return True
        file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or file.startswith("<"):
        # Typed at a prompt, executed from text, or built in.
        return module == "__main__" or top not in sys.stdlib_module_names
    return _is_users_file(file, top)


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
    standard = {str(Path(os.__file__).parent)}
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
    """Return the distribution that a top-level module belongs to; None for Python."""
    if top in sys.stdlib_module_names or top in ("builtins", "__main__"):
        return None
    # Imported here: it takes milliseconds that only a new session needs.
    from importlib import metadata

    try:
        found = metadata.distribution(top)
    except (metadata.PackageNotFoundError, ValueError):
        # Those of another name than their module, such as scikit-learn.
        names = _names_by_module().get(top)
        if not names:
            version = getattr(sys.modules.get(top), "__version__", "")
            return Distribution(top, str(version), "")
        found = metadata.distribution(sorted(names)[0])
    record = found.read_text("RECORD") or ""
    digest = hashlib.sha256(record.encode()).hexdigest()[:16] if record else ""
    return Distribution(found.metadata["Name"], found.version, digest)


@functools.cache
def _names_by_module() -> Any:
    from importlib import metadata

    return metadata.packages_distributions()
