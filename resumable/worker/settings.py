"""Settings of the user's script that decide what a computation does, in any process.

Python and numpy keep them by thread, by context or by process, so a worker has not the
script's: a division by zero would fail where the script runs and give inf elsewhere.
"""

from __future__ import annotations

import contextlib
import locale
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Parts of a decimal context that decide what is computed.
_DECIMAL = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
#: Parts of the locale that programs set. Python itself sets LC_CTYPE as the environment
#: says: where a host has not that one, its own stays.
_LOCALE = ("LC_NUMERIC", "LC_COLLATE", "LC_TIME", "LC_MONETARY", "LC_CTYPE")


class Settings(NamedTuple):
    """Settings of a thread and of its process; None: what has them is not imported."""

    numpy_errors: Any
    """As np.seterr takes them."""
    numpy_call: Any
    """What np.seterr calls, where it calls something."""
    numpy_buffer: int
    """Elements that numpy converts at once, by which sums are divided."""
    print_options: Any
    """Of numpy: outputs and messages may be made of text."""
    recursion_limit: int
    locale: dict[str, str]
    decimal: dict[str, Any] | None
    scipy_errors: dict[str, Any] | None
    """As scipy.special.seterr takes them."""

    def apply(self) -> None:
        """Set them in this thread and this process, where they are others.

        RuntimeError: this host has not the script's locale.
        """
        now = settings_here()
        if self[:2] != now[:2]:
            np.seterr(**self.numpy_errors)
            np.seterrcall(self.numpy_call)
        if self.numpy_buffer != now.numpy_buffer:
            np.setbufsize(self.numpy_buffer)
        if self.print_options != now.print_options:
            np.set_printoptions(**self.print_options)
        if self.recursion_limit != now.recursion_limit:
            # More than this is in use here already: as high as it can be.
            with contextlib.suppress(RecursionError):
                sys.setrecursionlimit(self.recursion_limit)
        for part, name in self.locale.items():
            if name != now.locale[part]:
                _set_locale(part, name)
        if self.decimal is not None and self.decimal != now.decimal:
            from decimal import getcontext

            # In place: others may hold it.
            for part, value in self.decimal.items():
                setattr(getcontext(), part, value)
        errors = self.scipy_errors or {}
        others = {"ignore"} != {how for kind, how in errors.items() if kind != "memory"}
        # Where it is not loaded it has its defaults, and need not be loaded for them.
        if errors and errors != now.scipy_errors and (others or now.scipy_errors):
            import scipy.special

            scipy.special.seterr(**errors)


def _set_locale(part: str, name: str) -> None:
    try:
        locale.setlocale(getattr(locale, part), name)
    except locale.Error as error:
        if part != "LC_CTYPE":
            import platform

            msg = (
                f"{platform.node()} has no locale {name!r}, which the script has set "
                f"for {part}: install it there, or set one that all hosts have"
            )
            raise RuntimeError(msg) from error


def settings_here() -> Settings:
    """Return the settings of this thread and this process."""
    errors = np.geterr()
    calls = not {"call", "log"}.isdisjoint(errors.values())
    decimal: Any = sys.modules.get("decimal")
    special: Any = sys.modules.get("scipy.special")
    parts = None
    if decimal is not None:
        context = decimal.getcontext()
        parts = {part: getattr(context, part) for part in _DECIMAL}
        parts["traps"] = dict(context.traps)
    return Settings(
        errors,
        np.geterrcall() if calls else None,
        np.getbufsize(),
        np.get_printoptions(),
        sys.getrecursionlimit(),
        {part: locale.setlocale(getattr(locale, part)) for part in _LOCALE},
        parts,
        # While scipy.special is being imported by another thread it has no geterr yet.
        special.geterr() if hasattr(special, "geterr") else None,
    )


@contextlib.contextmanager
def kept_settings() -> Iterator[None]:
    """Set at the end of a block what was set at its beginning."""
    before = settings_here()
    try:
        yield
    finally:
        before.apply()
