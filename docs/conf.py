"""Configuration of the documentation."""

import runpy
import sys
from pathlib import Path

from param import parameterized

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the package beside this page, installed or not

# param puts a signature and a table coloured for terminals into the docstring of
# every Parameterized class, and neither is reStructuredText. Sphinx imports the
# package only after this file, so the settings are in time.
parameterized.docstring_signature = False
parameterized.docstring_describe_params = False

project = "resumable"
author = "the resumable developers"
project_copyright = f"2026, {author}"
_version = runpy.run_path(str(ROOT / "resumable" / "version.py"))
release = version = _version["__version__"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "Resumable per-position computation over HDF5"}

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autosummary_generate = False

# Members are listed in api.rst; a Process would show all those of param as well.
numpydoc_show_class_members = False
numpydoc_validation_checks = {
    "GL01",
    "GL05",
    "GL06",
    "GL07",
    "GL08",
    "GL10",
    "PR02",
    "PR03",
    "PR10",
    "SS01",
    "SS02",
    "SS03",
    "SS04",
    "SS06",
}
# Two docstrings are right as they are: "sha256" is written so, and `map` refers to
# Process for several of its arguments at once.
numpydoc_validation_exclude = {r"\.identity$", r"\.map$"}
