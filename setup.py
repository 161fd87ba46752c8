"""The description for package indexes, where links into the repository lead nowhere.

Everything else about the distribution is in ``setup.cfg``.
"""

import re
from pathlib import Path

from setuptools import setup

#: Where the files of the repository can be read, ending in a slash. None: the project
#: has no public address yet. With one, links are complete, and it is the project's URL.
REPOSITORY: str | None = None


def description(readme: str, repository: str | None) -> str:
    """Return a README whose links to files are complete, or are names of files."""
    target = rf"`\1 <{repository}\2>`_" if repository else r"\1 (``\2``)"
    return re.sub(r"`([^`<]+?)\s+<(?!\w+:)([^>]+)>`_", target, readme)


if __name__ == "__main__":
    setup(
        long_description=description(Path("README.rst").read_text(), REPOSITORY),
        project_urls={"Repository": REPOSITORY} if REPOSITORY else {},
    )
