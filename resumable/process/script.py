"""``main``: a Process class makes a script a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resumable.process.process import Process


def main(
    process_class: type[Process], argv: Sequence[str] | None = None, **keywords: Any
) -> NoReturn:
    """Run a Process class as a program, and exit.

    Parameters
    ----------
    process_class : type
        A subclass of :class:`Process`. Its parameters are options of the program,
        their ``doc`` is the help, and the options of ``resumable run`` are there too.
    argv : sequence of str, optional
        Default the arguments of this program.
    **keywords
        Arguments of the constructor, parameters too, and of :meth:`Process.compute`,
        where the command line says nothing.

    Raises
    ------
    SystemExit
        With code 0 when every position is done or recorded as failed, 1 after an
        error, which is told in one message, 2 after wrong usage, 75 when it was
        stopped early: run it again to go on.

    Notes
    -----
    The last lines of ``fit.py``::

        if __name__ == "__main__":
            rs.main(LorentzFit)

    The same run as ``resumable run fit.py:LorentzFit`` computes.
    """
    from resumable.process.program import main_of  # click is not for everybody's import

    main_of(process_class, argv, keywords)
    raise SystemExit(0)
