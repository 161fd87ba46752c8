"""Objects as bytes for another process, classes and functions by value."""

from __future__ import annotations

import collections
import functools
import io
import pickle
from typing import TYPE_CHECKING, Any, ClassVar

import cloudpickle

if TYPE_CHECKING:
    from collections.abc import Callable


class Unsendable(TypeError):
    """A message cannot be pickled."""


def _reduce_cached(descriptor: functools.cached_property[Any]) -> tuple[Any, ...]:
    state = {name: vars(descriptor)[name] for name in ("attrname", "__doc__")}
    return functools.cached_property, (descriptor.func,), state


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Takes classes with a ``cached_property``, too.

    Before Python 3.12 each of these has a lock, and a class of ``__main__`` is sent
    with all that it has.
    """

    dispatch_table: ClassVar[Any] = collections.ChainMap(
        {functools.cached_property: _reduce_cached}, cloudpickle.Pickler.dispatch_table
    )


def pickled(
    message: Any, take: Callable[[pickle.PickleBuffer], Any] | None = None
) -> bytes:
    """Pickle a message.

    Parameters
    ----------
    message : object
    take : callable, optional
        Takes the buffers, which then are not in what is returned.

    Raises
    ------
    Unsendable
        It cannot be pickled.
    """
    with io.BytesIO() as file:
        try:
            _Pickler(file, protocol=5, buffer_callback=take).dump(message)
        except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
            raise Unsendable(str(error)) from error
        return file.getvalue()


def not_sent(error: Unsendable) -> TypeError:
    """Return what is told of a computation that cannot be pickled."""
    return TypeError(
        f"the computation cannot be sent to a worker process ({error}); make what "
        "cannot be sent, such as open files, locks and models, in setup(), which runs "
        "in every worker, or use engine='serial'"
    )


def packed(computation: Any) -> bytes:
    """Return a computation as bytes that can be sent to a worker.

    Raises
    ------
    TypeError
        It holds what cannot be sent.
    """
    try:
        return pickled(computation)
    except Unsendable as error:
        raise not_sent(error) from error
