"""Random numbers that depend on how a run is computed are told of."""

import random
import warnings
from random import gauss
from typing import ClassVar

import numpy as np
import pytest
import scipy.stats
from user_scripts import finished

import resumable as rs

pytestmark = pytest.mark.timeout(60, method="signal")

generator = np.random.default_rng(1)
old_generator = np.random.RandomState(1)
pythons_generator = random.Random(1)


class Holder:
    def __init__(self):
        self.generator = np.random.default_rng(3)


class Draws(rs.Process):
    """Draws as `unit_computation` of a subclass does."""

    version = 1
    outputs: ClassVar = {"number": rs.Output()}


class OfModule(Draws):
    def unit_computation(self, spectrum):
        return generator.normal()


class OldOfModule(Draws):
    def unit_computation(self, spectrum):
        return old_generator.normal()


class PythonsOfModule(Draws):
    def unit_computation(self, spectrum):
        return pythons_generator.gauss(0, 1)


class OfNumpy(Draws):
    def unit_computation(self, spectrum):
        return np.random.normal()


class OfPython(Draws):
    def unit_computation(self, spectrum):
        return gauss(0, 1)


class OfPythonImported(Draws):
    def unit_computation(self, spectrum):
        from random import uniform

        return uniform(0, 1)


class OfAttribute(Draws):
    def unit_computation(self, spectrum):
        return self.given.normal()


class OfSetup(Draws):
    def __init__(self, source):
        super().__init__(source)
        self.made = None

    def setup(self):
        self.made = np.random.default_rng(42)

    def unit_computation(self, spectrum):
        return self.made.normal()


class InsideOfSetup(Draws):
    def setup(self):
        self.held = {"one": Holder()}

    def unit_computation(self, spectrum):
        return self.held["one"].generator.normal()


class OfSetupSeed(Draws):
    def setup(self):
        np.random.seed(42)

    def unit_computation(self, spectrum):
        return np.random.normal()


class OwnOfPosition(Draws):
    def setup(self):
        self.basis = np.random.default_rng(42).normal(size=3)
        self.kept = np.random.default_rng(42)

    def unit_computation(self, spectrum):
        return self.rng.normal() + np.random.default_rng(self.position).normal()


class SeedsForPosition(Draws):
    def unit_computation(self, spectrum):
        np.random.seed(self.position)
        return np.random.normal()


class OfLibrary(Draws):
    def unit_computation(self, spectrum):
        return scipy.stats.norm.rvs()


class WithoutSeed(Draws):
    def unit_computation(self, spectrum):
        return np.random.default_rng().normal()


class OfLibraryForPosition(Draws):
    def unit_computation(self, spectrum, draws=None):
        draws = self.rng if draws is None else np.random.default_rng()
        return scipy.stats.norm.rvs(random_state=draws)


class SeedsForLibrary(Draws):
    def unit_computation(self, spectrum):
        np.random.seed(self.position)
        return scipy.stats.norm.rvs()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (OfLibrary, "a library that .* with the generator of numpy.random, draws"),
        (
            WithoutSeed,
            r"default_rng\(\) at test_random.py:\d+ has no seed",
        ),
        (OfModule, "generator"),
        (OldOfModule, "old_generator"),
        (PythonsOfModule, "pythons_generator"),
        (OfNumpy, "numpy.random.normal"),
        (OfPython, "gauss"),
        (OfPythonImported, "random.uniform"),
        (OfAttribute, "the attribute 'given'"),
        (OfSetupSeed, "numpy.random.normal"),
        (OfSetup, "self.made, which setup"),
        (InsideOfSetup, "self.held, which setup"),
    ],
)
def test_numbers_that_depend_on_the_run_are_told_once(source, kind, name):
    process = kind(source)
    process.given = np.random.default_rng(5)
    with pytest.warns(rs.ResumableWarning, match=name) as caught:
        process.compute(engine="serial")

    assert len(caught) == 1
    assert "self.rng" in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "kind",
    [OwnOfPosition, SeedsForPosition, OfLibraryForPosition, SeedsForLibrary],
)
def test_numbers_that_belong_to_a_position_are_not_told(source, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind(source).compute(engine="serial")


def test_a_draw_from_the_generator_of_python_does_not_change_the_identity(source):
    class Unversioned(OfPython):
        version = None

    before = Unversioned(source).identity
    random.random()

    assert Unversioned(source).identity == before


NOBODY_SEEDS = """
    import time
    import warnings
    import h5py
    import numpy as np
    import scipy.special  # as the server of the workers, which forks, has it then
    import resumable as rs

    class Draws(rs.Process):
        version = 1
        outputs = {"number": rs.Output()}

        def setup(self):
            self.of_worker = np.random.normal()

        def unit_computation(self, spectrum):
            time.sleep(0.01)
            return self.of_worker + np.random.normal()

    warnings.simplefilter("ignore")
    with h5py.File("draws.h5", "w") as file:
        file["data"] = np.ones((60, 2))
    numbers = Draws("draws.h5::/data").compute(engine="local", workers=2)["number"]
    print(len(set(numbers[...].tolist())))
"""


def test_workers_draw_other_numbers_where_nobody_seeds(script):
    assert finished(script(NOBODY_SEEDS)).strip() == "60"
