"""Classes whose constructor has arguments of its own."""

import json
import sys
import textwrap

import cloudpickle
import numpy as np
import param
import pytest
from click.testing import CliRunner
from helpers import compute, data_of
from programs import invoke

import resumable as rs
from resumable.cli.commands import main
from resumable.process.constructor import construct

COUNT = {"count": rs.Output()}


class Above(rs.Process):
    """Count values above a threshold, as a class written for pyUSID does."""

    outputs = COUNT
    step = param.Number(1.0)

    def __init__(self, source, threshold: float, kernel=None, *, dark=False):
        super().__init__(source)
        self.threshold = threshold
        self.kernel = np.ones(1) if kernel is None else kernel
        self.model = lambda n: -n if dark else n

    def unit_computation(self, spectrum):
        count = (spectrum > self.threshold).sum() * self.kernel.sum()
        return self.model(float(count)) * self.step


class Twice(Above):
    """Hands on what it does not know."""

    def __init__(self, *arguments, scale=2.0, **keywords):
        super().__init__(*arguments, **keywords)
        self.scale = scale

    def unit_computation(self, spectrum):
        return self.scale * super().unit_computation(spectrum)


class Doubled(rs.Process):
    """Changes a parameter that it is given."""

    outputs = COUNT
    step = param.Number(1.0)

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.step = 2 * self.step

    def unit_computation(self, spectrum):
        return self.step


class OfFile(rs.Process):
    """Makes the name of its source of that of a file."""

    outputs = COUNT

    def __init__(self, path, power):
        super().__init__(f"{path}::/data", position_axes=0)
        self.power = power

    def unit_computation(self, spectrum):
        return spectrum[0] ** self.power


class OfSource(OfFile):
    def __init__(self, source, power):
        super().__init__(source, power)


class Forgetful(rs.Process):
    outputs = COUNT

    def __init__(self, source):
        self.name_of_source = source

    def unit_computation(self, spectrum):
        return 1.0


def expected(scan, threshold):
    return (data_of(scan) > threshold).sum(axis=1)


def again(process):
    return rs.load(json.loads(json.dumps(process.state())), type(process))


def test_what_a_constructor_makes_of_a_parameter_is_made_once(scan):
    process = Doubled(scan, step=3.0)
    results = compute(process)

    assert (process.step, again(process).step) == (6.0, 6.0)
    assert again(process).results == results
    assert rs.verify(results.path, Doubled, sample="all").passed


@pytest.mark.parametrize("cls", [OfFile, OfSource])
def test_a_constructor_may_make_the_name_of_its_source(scan, cls):
    process = cls(scan.partition("::")[0], power=2)
    results = compute(process)

    assert again(process).results == results
    assert rs.load(results.path, cls).identity == process.identity
    assert rs.verify(results.path, cls, sample="all").passed


def test_the_command_gives_the_source_as_the_first_argument(scan):
    path = scan.partition("::")[0]
    process = OfFile.from_argv([path, "--power", "2"])

    assert process.identity == OfFile(path, power=2).identity


def test_a_constructor_that_does_not_call_that_of_process_is_told(scan):
    with pytest.raises(rs.DeclarationError, match=r"must call super\(\).__init__\("):
        Forgetful(scan).compute()
    with pytest.raises(rs.DeclarationError, match=r"must call super\(\).__init__\("):
        construct(Forgetful, {"source": scan})


def test_load_and_verify_call_the_constructor_as_it_was_called(scan):
    process = Above(scan, 0.5, np.array([1.0, 2.0]), dark=True)
    process.step = 2.0
    results = compute(process)

    np.testing.assert_array_equal(results["count"][...], -6 * expected(scan, 0.5))
    for same in (rs.load(results.path, Above), again(process)):
        assert (same.threshold, same.step) == (0.5, 2.0)
        assert same.identity == process.identity
        assert same.results == results
    report = rs.verify(results.path, Above, sample="all")
    assert report.passed
    assert "60 of 60 positions computed again" in str(report)


def test_values_assigned_later_are_restored(scan):
    process = Above(scan, threshold=0.0)
    process.threshold = 1.0
    results = compute(process)

    np.testing.assert_array_equal(results["count"][...], expected(scan, 1.0))
    for same in (rs.load(results.path, Above), again(process)):
        assert same.threshold == 1.0
        assert same.identity == process.identity


def test_arguments_of_base_classes_are_known(scan):
    process = Twice(scan, 0.5, scale=3.0)

    with pytest.raises(rs.DeclarationError) as error:
        again(process)

    # Nothing says which of the values in *arguments is which.
    assert str(error.value) == (
        "Twice.__init__ asks for 'threshold', which is not known here; declare it as a "
        "parameter instead: threshold = param.Parameter()"
    )
    named = Twice(source=scan, threshold=0.5, scale=3.0)
    assert again(named).identity == named.identity == process.identity


class Positional(Above):
    """Takes what has no name."""

    def __init__(self, source, threshold, /):
        super().__init__(source, threshold)


def test_arguments_without_names_are_told(scan):
    with pytest.raises(
        rs.DeclarationError, match=r"Positional.__init__ cannot be call"
    ):
        again(Positional(scan, 0.5))


class Opened(rs.Process):
    """Is given an object that cannot be written down."""

    outputs = COUNT

    def __init__(self, source, log, **keywords):
        super().__init__(source, **keywords)
        log.append("made")

    def unit_computation(self, spectrum):
        return spectrum.mean()


def test_what_cannot_be_read_back_is_told(scan):
    class Log(list):
        """No plain list."""

    results = compute(Opened(scan, Log()))

    with pytest.raises((rs.DeclarationError, rs.IdentityError), match="'log'"):
        rs.load(results.path, Opened)
    # A worker gets none of it.
    assert b"Log" not in cloudpickle.dumps(Opened(scan, log=Log()))


def test_another_folder_needs_a_constructor_that_takes_it(scan, tmp_path):
    (tmp_path / "there").mkdir()
    path = compute(Above(scan, 0.5)).path
    moved = path.rename(tmp_path / "there" / path.name)

    with pytest.raises(rs.DeclarationError) as error:
        rs.load(moved, Above)

    assert str(error.value) == (
        f"Above.__init__ does not take 'target', which is '{tmp_path / 'there'}'; let "
        "it take **keywords and pass these to super().__init__"
    )


def test_the_command_has_options_for_the_arguments(scan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    text = """
        import numpy as np
        import resumable as rs

        class Near(rs.Process):
            outputs = {"count": rs.Output()}

            def __init__(self, source, threshold: float, names=(), dark=False, **kw):
                super().__init__(source, **kw)
                self.threshold, self.dark, self.names = threshold, dark, names

            def unit_computation(self, spectrum):
                count = (spectrum > self.threshold).sum() * len(self.names)
                return -count if self.dark else count
    """
    (tmp_path / "near.py").write_text(textwrap.dedent(text))

    shown = invoke("run", "near.py:Near", "--help")
    missing = CliRunner().invoke(main, ["run", "near.py:Near", scan])
    options = ["--threshold", "0.5", "--names", "('a', 'b')", "--dark"]
    line = invoke("run", "near.py:Near", scan, *options)

    for words in ("--threshold FLOAT [required]", "--names VALUE", "--dark / --no-"):
        assert words in " ".join(shown.split())
    assert missing.exit_code == 2
    assert "Missing option '--threshold'" in missing.output
    path = line.partition(": ")[0]
    np.testing.assert_array_equal(rs.open(path)["count"][...], -2 * expected(scan, 0.5))
    assert invoke("verify", path, "--class", "near.py:Near").startswith(
        f"{path}: sound"
    )
