"""Fit one Lorentzian to every spectrum: the example, and what the demo runs.

Try it on one spectrum in a notebook::

    process = LorentzFit("scan.h5::/Measurement_000/Channel_000/Raw_Data")
    process.test(42)

or run it over all of them, here or anywhere, as often as it is interrupted::

    python fit.py scan.h5::/Measurement_000/Channel_000/Raw_Data
"""

import sys

import numpy as np
import param
from scipy.optimize import curve_fit

import resumable as rs


def lorentzian(x, height, centre, half_width, offset):
    return height / (1 + ((x - centre) / half_width) ** 2) + offset


class LorentzFit(rs.Process):
    """Fit one Lorentzian to every spectrum."""

    version = 1  # raise it when the algorithm changes
    half_width = param.Number(
        0.1, bounds=(0, None), doc="first guess of the half width (V)"
    )

    def outputs(self):
        labels = ("height", "centre", "half width", "offset")
        return {"fit": rs.Output(shape=(4,), dtype="f8", labels=labels)}

    def unit_computation(self, spectrum):
        x = np.linspace(-1, 1, spectrum.size)
        guess = (
            np.ptp(spectrum),
            x[spectrum.argmax()],
            self.half_width,
            spectrum.min(),
        )
        return curve_fit(lorentzian, x, spectrum, guess)[0]


if __name__ == "__main__":
    results = LorentzFit(sys.argv[1]).compute()
    results["fit"]  # numpy-like, read when indexed
