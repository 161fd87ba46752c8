"""Processes that several tests compute, and what they look at afterwards."""

import hashlib

import h5py
import numpy as np
import param

import resumable as rs

MEAN = {"mean": rs.Output()}


class Mean(rs.Process):
    """The mean of every spectrum; ``calls`` collects the positions computed."""

    version = 1
    outputs = MEAN
    calls = None

    def unit_computation(self, spectrum):
        if self.calls is not None:
            self.calls.append(self.position)
        return spectrum.mean()


class Scaled(rs.Process):
    """A spectrum times a factor, and what is left over for parameters."""

    version = 1
    factor = param.Number(2.0, bounds=(0, 10), doc="what to multiply by")
    count = param.Integer(3)
    kind = param.Selector(objects=["linear", "square"])
    table = param.Array(None)
    anything = param.Parameter(None)

    def outputs(self):
        return {"scaled": rs.Output(self.spectrum_shape, self.spectrum_dtype)}

    def unit_computation(self, spectrum):
        return spectrum * self.factor


class Untraced:
    """A function that is no part of the identity: tests change it between sessions."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def __resumable_identity__(self):
        return None


class Hooked(rs.Process):
    """Base class of those that call ``watch``, or raise what ``raises`` returns.

    Tests set these at any time.
    """

    version = 1
    outputs = MEAN

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.watch = self.raises = lambda *of: None

    def __setattr__(self, name, value):
        hook = name in ("watch", "raises")
        super().__setattr__(name, Untraced(value) if hook else value)


class Failing(Hooked):
    """Raises what ``raises`` returns for a position."""

    version = 1

    def unit_computation(self, spectrum):
        error = self.raises(self.position)
        if error is not None:
            raise error
        return np.mean(spectrum)


class Same(rs.Process):
    """What comes in."""

    version = 1

    def outputs(self):
        return {"x": rs.Output(self.spectrum_shape, self.spectrum_dtype)}

    def unit_computation(self, spectrum):
        return spectrum


def process_of(unit=None, outputs=MEAN, *, block=None, name="Unit", **body):
    """Return a class that computes each position, or a block, by a function."""
    body |= {"version": 1, "outputs": outputs}
    method = "unit_computation" if block is None else "block_computation"
    return type(name, (rs.Process,), {**body, method: unit or block})


def with_an_edit(*, edit):
    """Return a class without a version, before or after an edit of its method."""
    if edit:

        class Edited(rs.Process):
            outputs = MEAN
            calls = None

            def unit_computation(self, spectrum):
                self.calls.append(self.position)
                return 2 * spectrum.mean()

    else:

        class Edited(rs.Process):
            outputs = MEAN
            calls = None

            def unit_computation(self, spectrum):
                self.calls.append(self.position)
                return spectrum.mean()

    return Edited


def listing(folder):
    """Name, contents and modification time of everything in a folder, and its own."""
    found = {".": folder.stat().st_mtime_ns}
    for path in sorted(folder.rglob("*")):
        content = (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        )
        found[str(path)] = (content, path.stat().st_mtime_ns, path.stat().st_size)
    return found


class Weighted(rs.Process):
    """Spectrum and two inputs, side by side."""

    version = 1
    outputs = MEAN

    def unit_computation(self, spectrum, weight, offset):
        return (spectrum * weight).sum() + np.sum(offset)


def change(path, name, key, value):
    with h5py.File(path, "r+") as file:
        file[name][key] = value
