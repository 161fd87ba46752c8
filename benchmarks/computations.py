"""The functions for one position, the same for every candidate.

This module needs numpy only (and scipy for the fit), because every worker imports it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

KEPT_FREQUENCIES = 64
"""Frequencies that the low-pass filter lets through."""


def first(spectrum: Array) -> Any:
    """Return the first number of one spectrum."""
    return spectrum[0]


def mean(spectrum: Array) -> Any:
    """Return the mean of one spectrum."""
    return spectrum.mean()


def block_mean(spectra: Array) -> Array:
    """Return the mean of every row of a block, in one numpy call."""
    means: Array = spectra.mean(axis=1)
    return means


def low_pass(spectrum: Array) -> Array:
    """Return one spectrum without its high frequencies."""
    amplitudes = np.fft.rfft(spectrum)
    amplitudes[KEPT_FREQUENCIES:] = 0
    return np.fft.irfft(amplitudes, len(spectrum))


def lorentzian(
    voltage: Array, height: Any, centre: Any, half_width: Any, offset: Any
) -> Array:
    """Return a Lorentzian line over a constant offset; arguments may be arrays."""
    curve: Array = offset + height / (1 + ((voltage - centre) / half_width) ** 2)
    return curve


@functools.cache
def voltages(length: int) -> Array:
    """Return the axis of the spectra to fit, from 0 to 1 V."""
    return np.linspace(0.0, 1.0, length)


def fit_lorentzian(spectrum: Array) -> Array:
    """Fit a Lorentzian by least squares, in somewhat less than a millisecond.

    Parameters
    ----------
    spectrum : numpy.ndarray
        One spectrum over `voltages`, shape (length,), float64.

    Returns
    -------
    numpy.ndarray
        Height, centre (V), half width (V) and offset, shape (4,), float64.
    """
    # Imported here, so that workers of the other workloads do not import scipy.
    from scipy.optimize import least_squares

    voltage = voltages(len(spectrum))
    bottom = spectrum.min()
    guess = (spectrum.max() - bottom, voltage[spectrum.argmax()], 0.1, bottom)
    fit = least_squares(
        lambda parameters: lorentzian(voltage, *parameters) - spectrum,
        guess,
        method="lm",
    )
    parameters: Array = fit.x
    return parameters


def uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return float32 noise between 0 and 1."""
    return rng.random(shape, dtype=np.float32)


def counts(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return uint16 detector counts, which gzip makes about five times smaller."""
    return rng.poisson(1.0, shape).astype(np.uint16)


def lines(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return noisy Lorentzian lines, float64, one in each row."""
    column = (shape[0], 1)
    curves = lorentzian(
        voltages(shape[1]),
        rng.uniform(0.5, 1.5, column),
        rng.uniform(0.3, 0.7, column),
        rng.uniform(0.03, 0.12, column),
        rng.uniform(-0.1, 0.1, column),
    )
    return curves + rng.normal(0.0, 0.05, shape)
