"""What code carries in objects of libraries, and files that it reads."""

import importlib.util
import itertools

import pytest

from resumable.identity import trace_function

MODULE = """
import contextlib, decimal, enum, functools
import numba, numpy as np, pandas as pd

VALUE = {value}


@contextlib.contextmanager
def precision():
    with decimal.localcontext() as context:
        context.prec = {value}
        yield


@contextlib.contextmanager
def held(number):
    yield number


class Manager(contextlib.ContextDecorator):
    def __init__(self, number):
        self.number = number

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


class Called:
    __level__ = VALUE

    def __call__(self, number):
        return number * self.__level__


class Partly:
    __call__ = functools.partialmethod(lambda self, number, k: number * k, k=VALUE)


class Kind(enum.Enum):
    ONE = 1


Kind.ONE.level = VALUE
ERRORS = dict(divide=["ignore", "warn"][VALUE - 1])
SIGNATURE = ["float64(float64)", "float32(float32)"][VALUE - 1]
ORDER = [["a", "b"], ["b", "a"]][VALUE - 1]
called, partly = Called(), Partly()
vectorized = np.vectorize(lambda number: number, otypes=[[float, int][VALUE - 1]])
universal = np.frompyfunc(functools.partial(lambda a, k: a * k, k=VALUE), 1, 1)
compiled = numba.njit(SIGNATURE)(lambda number: number)
event = functools.partial(lambda number: number)
event.level = VALUE
categories = pd.Categorical(["a", "b"], categories=ORDER)
series = pd.Series(categories)

CODE = [
    precision()(lambda s: s),
    held(VALUE)(lambda s: s),
    Manager(VALUE)(lambda s: s),
    np.errstate(**ERRORS)(lambda s: s),
    lambda s: called(s),
    lambda s: partly(s),
    lambda s: Kind.ONE.level,
    lambda s: vectorized(s),
    lambda s: universal(s),
    lambda s: compiled(s),
    lambda s: event(s),
    lambda s: categories.codes,
    lambda s: series,
]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the functions of the module, made with 1, with 1 again, and with 2."""
    found = []
    for number, value in enumerate((1, 1, 2)):
        path = tmp_path_factory.mktemp("carried") / f"carried_{number}.py"
        path.write_text(MODULE.format(value=value))
        spec = importlib.util.spec_from_file_location("carried", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.append(module.CODE)
    return list(zip(*found, strict=True))


@pytest.mark.parametrize("number", range(13))
def test_what_is_carried_counts(made, number):
    one, again, other = (trace_function(f, {})[0].trace for f in made[number])

    assert one.digest == again.digest
    assert one.digest != other.digest
    assert not list(itertools.chain(one.not_followed, other.not_followed))


def test_files_of_one_name_in_two_folders_both_count(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "table.txt").write_text("1")
    path = tmp_path / "reads.py"
    path.write_text(
        "from pathlib import Path\n\nHERE = Path(__file__).parent\n\n\n"
        "def read(s):\n"
        "    first = (HERE / 'a' / 'table.txt').read_text()\n"
        "    return float(first) + float((HERE / 'b' / 'table.txt').read_text())\n"
    )
    spec = importlib.util.spec_from_file_location("reads", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    seen = {trace_function(module.read, {})[0].trace.digest}
    for folder in ("a", "b"):
        (tmp_path / folder / "table.txt").write_text("22")
        seen.add(trace_function(module.read, {})[0].trace.digest)

    assert len(seen) == 3
