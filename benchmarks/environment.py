"""Environments of candidates whose requirements conflict with those of the others."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

PYUSID = ("pyUSID==0.0.12", "sidpy==0.12.3", "numpy<2", "h5py", "scipy")
"""PyPI's pyUSID calls functions that numpy 2 removed."""

REGPY = ("regpy==1.1.0",)
"""regpy asks for packages that nothing else here needs."""

DCNUM = ("dcnum==0.31.0", "cloudpickle", "param", "psutil", "threadpoolctl")
"""dcnum brings OpenCV, numba and more; the rest is what this library needs."""

PYDIDAS = ("pydidas==26.5.19",)
"""pydidas brings Qt and much more, and sets things for the whole interpreter."""


def pyusid_python(cache: Path) -> Path:
    """Return the Python of pyUSID's environment; about 700 MB and a minute to make."""
    return _python("pyusid", PYUSID, cache)


def dcnum_python(cache: Path) -> Path:
    """Return the Python of dcnum's environment."""
    return _python("dcnum", DCNUM, cache)


def regpy_python(cache: Path) -> Path:
    """Return the Python of regpy's environment."""
    return _python("regpy", REGPY, cache)


def pydidas_python(cache: Path) -> Path:
    """Return the Python of pydidas's environment; about 2 GB and minutes to make."""
    return _python("pydidas", PYDIDAS, cache)


def _python(name: str, requirements: tuple[str, ...], cache: Path) -> Path:
    """Return the Python of an environment; make it on first use.

    Parameters
    ----------
    name : str
        Name of the environment.
    requirements : tuple of str
        Packages to install.
    cache : pathlib.Path
        Folder that keeps the environment between runs.

    Raises
    ------
    subprocess.CalledProcessError
        If pip cannot install the packages, for example without a network. The output of
        pip goes to stderr.

    Notes
    -----
    An unfinished environment is made again.
    """
    version = "{}.{}".format(*sys.version_info)
    folder = cache.absolute() / f"{name}-python{version}"
    python = folder / "bin" / "python"
    finished = folder / "finished"
    if not finished.exists():
        venv.create(folder, clear=True, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *requirements]
        subprocess.run(install, check=True, stdout=sys.stderr)
        finished.touch()
    return python
