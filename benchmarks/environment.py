"""The environment of the candidate that cannot live with today's numpy."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = ("pyUSID==0.0.12", "sidpy==0.12.3", "numpy<2", "h5py", "scipy")
"""PyPI's pyUSID calls functions that numpy 2 removed."""


def pyusid_python(cache: Path) -> Path:
    """Return the Python of pyUSID's environment; make it on first use.

    Parameters
    ----------
    cache : pathlib.Path
        Folder that keeps the environment between runs.

    Raises
    ------
    subprocess.CalledProcessError
        If pip cannot install the packages, for example without a network. What pip
        says goes to stderr.

    Notes
    -----
    An environment that was not finished is made anew. It is about 700 MB large and
    takes a minute to make.
    """
    version = "{}.{}".format(*sys.version_info)
    folder = cache.absolute() / f"pyusid-python{version}"
    python = folder / "bin" / "python"
    finished = folder / "finished"
    if not finished.exists():
        venv.create(folder, clear=True, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS]
        subprocess.run(install, check=True, stdout=sys.stderr)
        finished.touch()
    return python
