"""The sums as an app of pydidas: workers import it, so it is a module of its own.

It is written after pydidas's guide for developers, and runs in an environment of its
own: see `environment.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from computations import Array
from pydidas.core import (  # type: ignore[import-not-found]
    BaseApp,
    Parameter,
    ParameterCollection,
)
from pydidas.multiprocessing import AppRunner  # type: ignore[import-not-found]
from qtpy.QtCore import QCoreApplication  # type: ignore[import-not-found]
from workloads import DATASET, WORKERS


class Sums(BaseApp):  # type: ignore[misc]
    """Sum of every spectrum."""

    default_params = ParameterCollection(
        Parameter("source", str, "", name="source file"),
    )
    attributes_not_to_copy_to_slave_app = ("spectra",)

    spectra: Array | None = None

    def multiprocessing_pre_run(self) -> None:
        """Read the source, once in every process: it is small."""
        with h5py.File(self.get_param_value("source"), "r") as file:
            self.spectra = file[DATASET][...]

    def multiprocessing_get_tasks(self) -> Iterable[int]:
        """Return the positions."""
        with h5py.File(self.get_param_value("source"), "r") as file:
            return range(len(file[DATASET]))

    def multiprocessing_func(self, position: int) -> Any:
        """Compute one position."""
        return self.spectra[position].sum()

    def multiprocessing_store_results(self, position: int, *results: Any) -> None:
        """Store nothing: the caller of the app gets the results."""


def compute(source: Path, folder: Path) -> tuple[Callable[[], Array], float]:
    """Compute with two workers; return the reader of the result, and the time.

    The results stay in memory, which costs nothing, and are not durable. The call
    returns when all workers have ended.

    Parameters
    ----------
    source : pathlib.Path
        The source file.
    folder : pathlib.Path
        Not used.

    Returns
    -------
    read : callable
        Returns the sums.
    there : float
        `time.perf_counter()` when the last sum had arrived.
    """
    # The import of pydidas has made the application. Results arrive in its event loop.
    application = QCoreApplication.instance()
    app = Sums()
    app.set_param_value("source", str(source))
    sums: dict[int, Any] = {}
    there = 0.0

    def receive(position: int, result: Any) -> None:
        nonlocal there
        sums[position] = result
        there = time.perf_counter()

    runner = AppRunner(app, n_workers=WORKERS)
    runner.sig_results.connect(receive)
    runner.finished.connect(application.quit)
    runner.start()
    application.exec()
    return lambda: np.array([sums[position] for position in sorted(sums)]), there
