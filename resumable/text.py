"""Text that others wrote, made safe to show.

Names, units, messages and everything else that comes out of a file can hold
anything: sequences that steer a terminal, letters that turn the direction of a line,
halves of characters that cannot be printed, markup. It is kept as it is, and passes
through here where it is shown.
"""

from __future__ import annotations

import logging


def shown(text: object, *, lines: bool = False) -> str:
    r"""Return text with every character that does not print escaped, as Python does.

    Parameters
    ----------
    text : object
        What to show; ``str`` of it.
    lines : bool, default False
        Leave line feeds and tabs as they are, for text of several lines.

    Examples
    --------
    >>> print(shown("red: \x1b[31m, end of line: \n"))
    red: \x1b[31m, end of line: \n
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    kept = "\n\t" if lines else ""
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape").decode()
        for c in plain
    )


def as_html(text: object, *, lines: bool = False) -> str:
    """Return text as :func:`shown` gives it, with markup escaped too."""
    import html  # its table of characters costs more than most modules here

    return html.escape(shown(text, lines=lines))


class Plain(logging.Formatter):
    """Writes log messages without what would steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        return shown(super().format(record), lines=True)
