"""PyUSID's Process. It runs in an environment of its own: see `environment.py`.

Its source is a copy of the common source, as a USID main dataset; the copy is made
before and is not timed. The exception is the stack of
images: pyUSID can count positions along the first axis only, so its user has to write
a position-first copy first, which is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import output
import pyUSID  # type: ignore[import-not-found]
from computations import Array
from workloads import DATASET, WORKERS, Workload

_PIECE_ROWS = (
    64  # Images of the stack that are read at once for the position-first copy.
)


def prepare(workload: Workload, source: Path) -> Path:
    """Make the USID copy of a source, unless it is there.

    Returns
    -------
    pathlib.Path
        The copy; the source itself where positions are not on the first axis.
    """
    if workload.position_axes[0]:
        return source
    path = source.with_suffix(".usid.h5")
    if not path.exists():
        partial = path.with_suffix(".partial")
        with h5py.File(source, "r") as plain, h5py.File(partial, "w") as file:
            plain.copy(DATASET, file)
            _make_main(file[DATASET])
        partial.rename(path)
    return path


def compute(workload: Workload, source: Path, folder: Path) -> Callable[[], Array]:
    """Compute with the same number of cores as the others, and pyUSID's own batches."""
    path = folder / "pyusid.h5"
    with h5py.File(path, "w") as target:
        if workload.position_axes[0]:
            main = _position_first(workload, source, target)
            WorkloadProcess(main, workload, target).compute()
        else:
            with h5py.File(source, "r") as file:
                WorkloadProcess(file[DATASET], workload, target).compute()
    return output.reader(path, workload)


class WorkloadProcess(pyUSID.Process):  # type: ignore[misc]
    """The smallest subclass that computes, writes and resumes."""

    def __init__(
        self, main: h5py.Dataset, workload: Workload, target: h5py.File
    ) -> None:
        """Set up a process for a workload whose results go into `target`."""
        self.workload = workload
        self._map_function = workload.unit
        super().__init__(
            main,
            f"workload_{workload.key}",
            parms_dict={"version": 1},
            cores=WORKERS,
            h5_target_group=target,
        )

    def _create_results_datasets(self) -> None:
        """Create the group, its parameters and the one output."""
        self.h5_results_grp = pyUSID.hdf_utils.create_results_group(
            self.h5_main, self.process_name, h5_parent_group=self._h5_target_group
        )
        self.h5_results_grp.attrs.update(self.parms_dict)
        shape = (self.h5_main.shape[0], *self.workload.output_shape)
        self._results_dataset = self.h5_results_grp.create_dataset(
            output.NAME, shape, self.workload.output_dtype
        )
        self._h5_target_group[output.NAME] = self._results_dataset

    def _get_existing_datasets(self) -> None:
        """Find the output of a run to continue."""
        self._results_dataset = self.h5_results_grp[output.NAME]

    def _unit_computation(self, *args: Any, **kwargs: Any) -> None:
        """Compute a batch: at once if the workload can, else by position."""
        if self.workload.block is None:
            super()._unit_computation(*args, **kwargs)
        else:
            self._results = self.workload.block(self.data)

    def _write_results_chunk(self) -> None:
        """Write the results of a batch."""
        positions = self._get_pixels_in_current_batch()
        rows = np.asarray(self._results, self.workload.output_dtype)
        self._results_dataset[positions[0] : positions[-1] + 1] = rows


def _position_first(workload: Workload, source: Path, target: h5py.File) -> Any:
    """Write the position-first copy of a stack and return it as a main dataset."""
    width = workload.map_shape[1]
    positions = workload.rows * width
    length = int(np.prod(workload.shape)) // positions
    main = target.create_dataset(DATASET, (positions, length), workload.dtype)
    with h5py.File(source, "r") as file:
        for start in range(0, workload.rows, _PIECE_ROWS):
            stop = min(start + _PIECE_ROWS, workload.rows)
            spectra = workload.read(file[DATASET], start, stop)
            main[start * width : stop * width] = spectra
    _make_main(main)
    return main


def _make_main(dataset: h5py.Dataset) -> None:
    """Add to a dataset and its file what makes it a USID main dataset."""
    positions, length = dataset.shape
    shapes = {"Position": (positions, 1), "Spectroscopic": (1, length)}
    dataset.attrs.update({"quantity": "Intensity", "units": "a.u."})
    for axis, shape in shapes.items():
        for kind, dtype in (("Indices", "u4"), ("Values", "f4")):
            indices = np.arange(max(shape), dtype=dtype).reshape(shape)
            ancillary = dataset.parent.create_dataset(f"{axis}_{kind}", data=indices)
            ancillary.attrs["labels"] = np.array([axis], "S")
            ancillary.attrs["units"] = np.array(["a.u."], "S")
            dataset.attrs[ancillary.name.strip("/")] = ancillary.ref
