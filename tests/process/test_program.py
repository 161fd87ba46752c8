"""State and programs: a Process as JSON, as a command line, and bound to others."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import enum
import gc
import json
import math
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path

import cloudpickle
import h5py
import numpy as np
import param
import pytest
from helpers import data_of
from hypothesis import given
from hypothesis import strategies as st

import resumable as rs
from resumable.model.encoding import canonical, decode, encode

ROOT = str(Path(__file__).parents[2])
LOW = {"low": rs.Output()}


class Colour(enum.Enum):
    """A choice."""

    RED = 1
    BLUE = 2


class Fit(rs.Process):
    """Scale the smallest value."""

    version = 1
    outputs = LOW
    half_width = param.Number(0.1, bounds=(0, 1), doc="first guess (V)")
    order = param.Integer(1)
    upside_down = param.Boolean(False, doc="turn it over")
    kind = param.Selector(objects=["min", "max"])
    window = param.Tuple((1, 2), length=2)
    colour = param.Selector(objects=list(Colour))
    kernel = param.Array(np.ones(3))
    extra = param.Parameter(None)

    def unit_computation(self, spectrum):
        value = getattr(spectrum, self.kind)() * self.half_width * self.order
        return -value if self.upside_down else value


class Narrow(Fit):
    """The same within closer bounds."""

    half_width = param.Number(0.1, bounds=(0, 0.5))


# State.


def again(process, cls=None):
    """Send a Process through JSON text."""
    return rs.load(json.loads(json.dumps(process.state())), cls)


@pytest.mark.parametrize(
    "extra",
    [
        None,
        1,
        1.0,
        True,
        "text",
        float("nan"),
        -math.inf,
        -0.0,
        2 - 1j,
        complex(math.nan, math.inf),
        b"\0\xff",
        Path("a/b"),
        dt.date(2024, 2, 29),
        dt.time(1, 2, 3, 4),
        dt.datetime(2024, 1, 2, 3, 4, tzinfo=dt.UTC),
        dt.timedelta(-1, 2, 3),
        range(1, 9, 2),
        slice(None, 4),
        {1, 2, (3, "x")},
        {"float": "nan", "b": [1, {"c": 2.5}]},
        [[], {}, None],
        np.dtype("f4"),
        np.dtype([("a", "<i4"), ("b", "<f8", 3)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_value_that_can_be_read_back_is_the_same_again(scan, extra):
    """Same value, same type, same identity."""
    process = Fit(scan, extra=extra, window=(3, 4), colour=Colour.BLUE)

    same = again(process, Fit)

    assert type(same.extra) is type(extra)
    assert repr(same.extra) == repr(extra) or same.extra == extra
    assert same.window == (3, 4)
    assert same.colour is Colour.BLUE
    assert same.identity == process.identity


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.binary()
    | st.dates()
    | st.timedeltas()
    | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_encoded_can_be_decoded(value):
    """And is then encoded to the same text."""
    text = canonical(encode(value))

    assert canonical(encode(decode(json.loads(text)))) == text


@pytest.mark.parametrize(
    "document",
    [
        {"bytes": "xyz"},
        {"range": ["a"]},
        {"other": 1},
        {},
        {"a": 1, "b": 2},
        {"float": []},
        {"date": 3},
        {"complex": ["x", 1]},
        {"set": 4},
        {"dtype": "zz"},
    ],
    ids=str,
)
def test_a_document_that_makes_no_sense_is_refused(document):
    """Never a crash of another kind, never another value."""
    with pytest.raises(rs.IdentityError, match="makes no sense"):
        decode(document, "the parameter 'x'")


def test_a_state_that_could_not_be_read_back_is_refused_at_once(scan):
    """Of an array only a digest is written, unless it is the default."""
    assert again(Fit(scan), Fit).kernel is Fit.kernel
    with pytest.raises(rs.IdentityError) as array:
        Fit(scan, kernel=np.zeros(3)).state()
    with pytest.raises(rs.IdentityError) as member:
        Fit(scan, extra=Colour.RED).state()

    assert str(array.value) == (
        "the parameter 'kernel' is an array, and only a digest of it is written down; "
        "make it the default, or give it in Python each time"
    )
    assert str(member.value) == (
        "the parameter 'extra' is an enum, and only its name is written down; declare "
        "the parameter as param.Selector(objects=list(THE_ENUM)), or give it in Python "
        "each time"
    )


def test_source_inputs_axes_target_and_fingerprint_come_back(make_file, tmp_path):
    """All that the constructor was told."""

    class Two(rs.Process):
        version = 1
        outputs = LOW

        def unit_computation(self, spectrum, back, dark):
            return spectrum.min() - back - dark

    path = make_file(data=np.ones((3, 4, 5)), back=np.ones((4, 5)))
    other = make_file("dark.h5", dark=np.zeros((5, 4)))
    (tmp_path / "results").mkdir()
    process = Two(
        f"{path}::/data",
        str(tmp_path / "results"),
        inputs={"back": "::/back", "dark": (f"{other}::/dark", (1, 0))},
        position_axes=(1, 2),
        fingerprint="full",
    )
    results = process.compute(engine="serial")

    for same in (
        again(process, Two),
        rs.load(results, Two),
        rs.load(results.path, Two),
    ):
        assert same.identity == process.identity
        assert same.results == results
        assert same.map_shape == (4, 5)
        assert same._full


def test_a_chained_process_and_one_without_data_come_back(scan, tmp_path):
    """An output is known by its run, a number of positions by itself."""
    first = Fit(scan).compute(engine="serial")
    second = Fit(first["low"], extra=1)
    third = Fit(5, tmp_path)

    assert again(second, Fit).identity == second.identity
    assert again(second, Fit).state() == second.state()
    assert again(third, Fit).identity == third.identity


MODULE = """
    import param
    import resumable as rs

    open("imported", "a").close()

    class Level(rs.Process):
        '''Level of every spectrum.'''

        version = 1
        gain = param.Number(1.0, bounds=(0, 10), doc="of the amplifier")
        tags = param.Parameter({"b", "a", "c"})
        pause = param.Number(0.0)
        outputs = {"level": rs.Output()}

        def unit_computation(self, spectrum):
            if self.pause:
                import time
                time.sleep(self.pause)
            return spectrum.mean() * self.gain
"""


@pytest.fixture
def home(tmp_path, monkeypatch, scan):
    """Go to the folder of the scan, which has a module of the user's."""
    (tmp_path / "levels.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(code, *arguments, seed="1", code_expected=0):
    """Run a script in a fresh interpreter, in this folder."""
    Path("script.py").write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, "script.py", *arguments],
        env={**os.environ, "PYTHONPATH": ROOT, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == code_expected, done.stderr
    return done


def test_a_fresh_interpreter_finds_the_run_again(home):
    """Whatever the hash seed; nothing is computed."""
    python(
        """
        import json
        from levels import Level
        process = Level("scan.h5::/data", gain=3, tags={"x", "y", "z", "w"})
        process.compute(engine="serial")
        json.dump([process.state(), process.identity], open("state.json", "w"))
        """,
        seed="11",
    )
    state, identity = json.loads(Path("state.json").read_text())
    Path("only.json").write_text(json.dumps(state))

    done = python(
        """
        import json, sys
        import resumable as rs
        state, identity = json.load(open("state.json"))
        for given in (state, "only.json"):
            process = rs.load(given)
            assert process.identity == identity
            (found,) = process.duplicates
            assert process.plan().action == "return"
        process = rs.load(found.path, "levels.py:Level")
        assert process.identity == identity and process.gain == 3
        print(repr(process))
        """,
        seed="12",
    )

    assert "gain=3" in done.stdout
    assert state["class"] == "levels:Level"
    assert identity == rs.open(next(home.glob("scan-data-Level-*.h5"))).identity


def test_a_class_that_a_run_file_names_is_never_imported(home):
    """Nor is a file that a state names."""
    python(
        """
        from levels import Level
        Level("scan.h5::/data").compute(engine="serial")
        """
    )
    Path("imported").unlink()
    (path,) = home.glob("scan-data-Level-*.h5")
    state = {**Fit("scan.h5::/data").state(), "class": "levels.py:Level"}

    with pytest.raises(rs.DeclarationError, match=r"rs\.load\(path, Level\)"):
        rs.load(path)
    for name in ("levels.py:Level", "./levels.py:Level", "a/b:Level", "", "levels"):
        with pytest.raises(rs.DeclarationError, match=r"names (the|no) class"):
            rs.load({**state, "class": name})
    assert not Path("imported").exists()


def test_what_is_no_state_is_an_error(scan, tmp_path):
    """It is said what is wrong with it."""
    state = Fit(scan).state()
    text = tmp_path / "x.json"

    with pytest.raises(rs.DeclarationError, match="lacks 'axes'"):
        rs.load({k: v for k, v in state.items() if k != "axes"}, Fit)
    with pytest.raises(rs.DeclarationError, match="version is another"):
        rs.load({**state, "resumable": 2}, Fit)
    with pytest.raises(rs.DeclarationError, match="'Fit', and 'Narrow' was given"):
        rs.load(state, Narrow)
    with pytest.raises(rs.DeclarationError, match="cannot be imported"):
        rs.load({**state, "class": "no_such_module_of_ours:Fit"})
    with pytest.raises(rs.DeclarationError, match="has no Process 'dumps'"):
        rs.load({**state, "class": "json:dumps"})
    with pytest.raises(rs.ParameterError, match="no parameter 'old'"):
        rs.load({**state, "parameters": {"old": 1}}, Fit)
    with pytest.raises(rs.DeclarationError, match="cannot be read"):
        rs.load(text)
    text.write_text("[]")
    with pytest.raises(rs.DeclarationError, match="holds a list"):
        rs.load(text)
    text.write_text("{")
    with pytest.raises(rs.DeclarationError, match="neither a run file nor a state"):
        rs.load(text)


# Precedence.


@pytest.mark.parametrize("by_argv", [False, True])
@pytest.mark.parametrize("by_keyword", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_default_shared_keyword_command_line(scan, shared, by_keyword, by_argv):
    """The last of them that says something wins, for both that share."""
    first = Fit(scan, half_width=0.2) if shared else None
    process = Fit.from_argv(
        [scan, *(["--half-width", "0.4"] if by_argv else [])],
        **({"half_width": 0.3} if by_keyword else {}),
    )
    if shared:
        rs.share_parameter(first, process, "half_width")

    expected = 0.4 if by_argv else 0.3 if by_keyword else 0.2 if shared else 0.1
    assert process.half_width == expected
    if shared:
        assert first.half_width == expected


def test_the_command_line_of_a_script(make_file, tmp_path):
    """Source, target, axes, inputs and parameters, as for the command."""

    class Plus(Fit):
        def unit_computation(self, spectrum, back):
            return spectrum.min() + back

    path = make_file(data=np.ones((2, 3, 4)), back=np.ones((2, 3)))
    words = [f"{path}::/data", "--axes", "0,1", "--input", f"back={path}::/back"]
    words += ["--target", str(tmp_path), "--upside-down", "--kind", "max"]
    process = Plus.from_argv([*words, "--window", "(5, 6)", "--order", "3"])

    assert process.map_shape == (2, 3)
    assert (process.upside_down, process.kind, process.order) == (True, "max", 3)
    assert process.window == (5, 6)
    assert (
        Plus.from_argv(
            ["--no-upside-down"],
            source=f"{path}::/data",
            inputs={"back": "::/back"},
            position_axes=(0, 1),
            upside_down=True,
        ).state()["parameters"]["upside_down"]
        is False
    )
    assert Fit.from_argv(["7"], target=tmp_path).map_shape == (7,)


def test_the_constructor_never_reads_the_command_line(scan, monkeypatch):
    """Only from_argv does, and only when it is called."""
    monkeypatch.setattr(sys, "argv", ["fit.py", scan, "--half-width", "0.9"])

    assert Fit(scan).half_width == 0.1
    assert Fit.from_argv().half_width == 0.9
    assert Fit.from_argv([scan]).half_width == 0.1


def test_help_and_wrong_usage_end_a_script(scan, capsys):
    """Help comes from the parameters' docs; what is not an option is an error."""
    with pytest.raises(SystemExit) as ended:
        Fit.from_argv(["--help"], half_width=0.25)
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert "Scale the smallest value." in out
    assert "first guess (V) [default: 0.25]" in out
    for words in ([scan, "--half-wdth", "1"], [], [scan, "--order", "x"]):
        with pytest.raises(SystemExit) as ended:
            Fit.from_argv(words)
        assert ended.value.code == 2
    assert "--half-width" in capsys.readouterr().err
    with pytest.raises(rs.ParameterError, match="at most 1"):
        Fit.from_argv([scan, "--half-width", "3"])


PROGRAM = textwrap.dedent(MODULE) + textwrap.dedent("""
    if __name__ == "__main__":
        rs.main(Level, gain=2, workers=2, engine="serial", progress=False)
""")


def test_a_script_is_a_program(home):
    """The documented codes, one message, and the run that the command would make."""
    words = ["scan.h5::/data", "--gain", "3"]
    done = python(PROGRAM, *words)
    (path,) = home.glob("scan-data-Level-*.h5")
    np.testing.assert_allclose(
        rs.open(path)["level"], 3 * data_of("scan.h5::/data").mean(axis=1)
    )
    assert done.stdout == f"{path.name}: 60 of 60 positions done\n"

    command = [sys.executable, "-m", "resumable", "run", "script.py:Level", *words]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    same = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert same.stdout == done.stdout

    assert rs.open(path).sessions[0].engine == "serial"
    python(PROGRAM, "scan.h5::/data", "--positions", "0:5", "--engine", "local")
    (default,) = set(home.glob("scan-data-Level-*.h5")) - {path}
    assert rs.open(default).document["parameters"]["gain"] == 2.0
    assert rs.open(default).sessions[0].engine == "local"
    assert rs.open(default).sessions[0].workers == 2
    assert rs.open(default).status.done == 5


def test_the_codes_of_a_program(home):
    """1 an error in one line, 2 wrong usage, 75 not finished."""
    wrong = python(PROGRAM, "scan.h5::/date", code_expected=1)
    assert wrong.stderr.startswith("Error: scan.h5 has no dataset /date; did you mean")
    assert "Traceback" not in wrong.stderr
    python(PROGRAM, "scan.h5::/data", "--gian", "3", code_expected=2)
    python(PROGRAM, code_expected=2)
    assert "of the amplifier [default: 2]" in python(PROGRAM, "--help").stdout
    words = ["scan.h5::/data", "--pause", "0.2", "--time-limit", "0.5"]
    stopped = python(PROGRAM, *words, code_expected=75)
    assert "run the same again to go on" in stopped.stderr


def test_workers_receive_values_not_a_command_line(home):
    """What was assigned after the command line was read counts in them."""
    code = PROGRAM.partition("if __name__")[0] + textwrap.dedent("""
        process = Level.from_argv()
        other = Level("scan.h5::/data")
        rs.share_parameter(process, other, "gain")
        other.gain = 10
        results = process.compute(engine="local", workers=2)
        print(results["level"][0])
    """)
    done = python(code, "scan.h5::/data", "--gain", "6")

    assert float(done.stdout) == pytest.approx(10 * data_of("scan.h5::/data")[0].mean())


# Sharing.


def test_a_change_of_either_is_seen_by_all(scan):
    """In any direction, by assignment or by update, for three of them."""
    a, b, c = Fit(scan), Fit(scan), Narrow(scan)
    rs.share_parameter(a, b, "half_width")
    rs.share_parameter(b, c, "half_width")

    a.half_width = 0.3
    assert (b.half_width, c.half_width) == (0.3, 0.3)
    c.param.update(half_width=0.2, order=5)
    assert (a.half_width, b.half_width, a.order) == (0.2, 0.2, 1)
    assert a.identity == b.identity


def test_a_default_never_wins_when_a_parameter_is_shared(scan):
    """A value that came by sharing counts as given."""
    a, b, c = Fit(scan, half_width=0.3), Fit(scan), Fit(scan)
    rs.share_parameter(b, a, "half_width")
    assert b.half_width == 0.3
    rs.share_parameter(c, b, "half_width")
    assert (a.half_width, c.half_width) == (0.3, 0.3)
    fourth = Fit(scan, half_width=Fit.half_width)
    rs.share_parameter(a, fourth, "half_width")
    assert a.half_width == 0.1


def test_a_value_that_one_refuses_changes_none(scan):
    """Bounds of all count, and watchers see nothing of it."""
    a, b = Fit(scan, half_width=0.2), Narrow(scan)
    rs.share_parameter(a, b, "half_width")
    seen = []
    a.param.watch(lambda event: seen.append(event.new), "half_width")

    for process in (a, b):
        with pytest.raises(ValueError, match=r"at most 0\.5"):
            process.half_width = 0.7
    assert (a.half_width, b.half_width, seen) == (0.2, 0.2, [])
    b.half_width = 0.4
    assert seen == [0.4]

    wide = Fit(scan, half_width=0.9)
    with pytest.raises(ValueError, match=r"at most 0\.5"):
        rs.share_parameter(b, wide, "half_width")
    assert (b.half_width, wide.half_width) == (0.4, 0.9)
    wide.half_width = 0.8
    assert b.half_width == 0.4


def test_what_cannot_be_shared_is_an_error(scan):
    """Names, and what is shared, are checked."""
    a, b = Fit(scan), Fit(scan)
    for wrong in ((a, "order"), (a, b), (), (a, b, 3)):
        with pytest.raises(rs.ParameterError, match="two Processes or more"):
            rs.share_parameter(*wrong)
    with pytest.raises(rs.ParameterError, match="did you mean 'half_width'"):
        rs.share_parameter(a, b, "half_widht")
    with pytest.raises(rs.ParameterError, match="has no parameter 'name'"):
        rs.share_parameter(a, b, "name")
    with pytest.raises(rs.ParameterError, match="no parameter 'order'"):
        rs.share_parameter(a, scan, "order")


def test_sharing_keeps_nothing_alive(scan):
    """A Process that nobody holds is gone, the others go on."""
    a, b, c = Fit(scan), Fit(scan), Fit(scan)
    rs.share_parameter(a, b, c, "order")
    gone = weakref.ref(b)
    del b
    gc.collect()

    assert gone() is None
    a.order = 4
    assert c.order == 4


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda p: cloudpickle.loads(cloudpickle.dumps(p))],
)
def test_a_copy_is_on_its_own(scan, duplicate):
    """It has the value, and no link to the others; what is sent is small."""
    a, b = Fit(scan), Fit(scan, extra="x" * 100_000)
    rs.share_parameter(a, b, "order")
    a.order = 6
    other = duplicate(a)

    assert other.order == 6
    assert len(cloudpickle.dumps(a)) < 50_000
    if duplicate is not copy.copy:  # which shares param's own values
        other.order = 7
        assert (a.order, b.order) == (6, 6)
    assert pickle.loads(pickle.dumps(a)).order == 6


def test_a_shallow_copy_stays_bound_with_its_model(scan):
    """It has the model's values, as param has it, also when the model is gone."""
    a, b = Fit(scan), Fit(scan)
    rs.share_parameter(a, b, "order")
    other = copy.copy(a)
    del a
    gc.collect()
    other.order = 9

    assert (other.order, b.order) == (9, 9)


# Frozen while computing.


class Held(rs.Process):
    """Calls back at position 0."""

    version = 1
    outputs = LOW
    gain = param.Number(1.0)
    hook = None

    def unit_computation(self, spectrum):
        if self.position == 0:
            type(self).hook(self)
        return spectrum.min() * self.gain


def attempt(process, seen, **values):
    """Try to assign, and note what was said."""
    for name, value in values.items():
        try:
            setattr(process, name, value)
        except rs.ParameterError as error:
            seen.append(str(error))
        else:
            seen.append(None)


@pytest.mark.parametrize("what", ["compute", "test", "verify"])
def test_parameters_stay_while_they_compute(scan, what, monkeypatch):
    """From another thread and from the unit itself, alone and shared."""
    process, other = Held(scan, gain=2.0), Held(scan)
    rs.share_parameter(process, other, "gain")
    if what == "verify":
        monkeypatch.setattr(Held, "hook", lambda _: None)
        process.compute(engine="serial")
    seen = []

    def hook(unit):
        for one in (process, other, unit):
            thread = threading.Thread(
                target=attempt, args=(one, seen), kwargs={"gain": 3}
            )
            thread.start()
            thread.join()

    monkeypatch.setattr(Held, "hook", hook)
    if what == "compute":
        process.compute(engine="serial")
    elif what == "test":
        process.test(0)
    else:
        assert process.verify(sample="all").passed

    assert len(seen) >= 3
    assert all("Held.gain cannot be set to 3 while a Held computes" in s for s in seen)
    process.gain = 4.0
    assert (process.gain, other.gain) == (4.0, 4.0)


def test_parameters_are_free_again_after_an_error_and_inside_another(scan, monkeypatch):
    """Counted, so that the end of an inner computation frees nothing."""
    process = Held(scan)
    seen = []

    def inner(unit):
        monkeypatch.setattr(Held, "hook", lambda _: None)
        process.test(0)
        attempt(process, seen, gain=3)
        msg = "broken"
        raise RuntimeError(msg)

    monkeypatch.setattr(Held, "hook", inner)
    with pytest.raises(rs.UnitFailed, match="broken"):
        process.compute(engine="serial", on_error="raise")

    assert len(seen) == 1
    assert seen[0]
    process.gain = 3
    assert process.gain == 3


class Resolved(Held):
    """Calls back while it is resolved."""

    hook = staticmethod(lambda _: None)

    def outputs(self):
        type(self).hook(self)
        return LOW

    def unit_computation(self, spectrum):
        return spectrum.min() * self.gain


@pytest.mark.parametrize("in_background", [False, True])
def test_parameters_stay_from_before_they_are_resolved(
    scan, in_background, monkeypatch
):
    """So what is computed has the identity that it was given."""
    process, seen = Resolved(scan, gain=2.0), []

    def hook(resolved):
        thread = threading.Thread(
            target=attempt, args=(process, seen), kwargs={"gain": 3}
        )
        thread.start()
        thread.join()

    monkeypatch.setattr(Resolved, "hook", hook)
    if in_background:
        run = process.start(engine="serial")
        attempt(process, seen, gain=4)
        results = run.wait(30)
    else:
        results = process.compute(engine="serial")

    assert len(seen) >= 1
    assert all("while a Resolved computes" in said for said in seen)
    assert results.document["parameters"]["gain"] == process.gain == 2.0
    process.gain = 3.0
    assert process.gain == 3.0


def test_a_start_that_is_refused_leaves_the_parameters_free(scan):
    """An option that does not exist, a file that is gone."""
    process = Held(scan)
    # The traceback, which is kept, has the call's variables.
    with pytest.raises(rs.PlanError, match="nonsense") as told:
        process.start(nonsense=1)
    process.gain = 3.0
    Path(scan.partition("::")[0]).unlink()
    with pytest.raises(rs.SourceError):
        process.start()
    process.gain = 4.0

    assert told.traceback
    assert process.gain == 4.0


def test_setup_that_raises_leaves_the_parameters_free(scan):
    """The way out is the same wherever the error is."""

    class Broken(Held):
        def setup(self):
            raise OSError

    process = Broken(scan)
    for call in (process.test, lambda: process.compute(engine="serial")):
        with contextlib.suppress(OSError):
            call()
        process.gain += 1
    assert process.gain == 3


def test_the_source_stays_as_it_is(scan):
    """Nothing here writes into it."""
    before = Path(scan.partition("::")[0]).read_bytes()
    rs.load(Fit(scan).state(), Fit).compute(engine="serial")

    with h5py.File(scan.partition("::")[0]) as file:
        assert list(file) == ["data"]
    assert Path(scan.partition("::")[0]).read_bytes() == before


class Odd(rs.Process):
    """Parameters that may be None, and a date."""

    version = 1
    outputs = {"x": rs.Output()}  # noqa: RUF012
    mode = param.Selector(default="a", objects=["a", None])
    mask = param.List([1], allow_None=True)
    cut = param.Number(1.0, allow_None=True)
    day = param.CalendarDate(dt.date(2026, 1, 2))
    when = param.Date(dt.datetime(2026, 1, 2, 3))
    span = param.DateRange((dt.datetime(2026, 1, 2), dt.datetime(2026, 2, 1)))

    def unit_computation(self, position):
        return position


def test_none_on_the_command_line_is_a_value(tmp_path):
    """It is not the same as nothing said."""
    argv = ["3", "--target", str(tmp_path), "--mode", "None"]
    argv += ["--mask", "None", "--cut", "None"]
    said, unsaid = Odd.from_argv(argv), Odd.from_argv(argv[:3])

    assert (said.mode, said.mask, said.cut) == (None, None, None)
    assert (unsaid.mode, unsaid.mask, unsaid.cut) == ("a", [1], 1.0)
    assert Odd.from_argv([*argv[:3], "--cut", "2"]).cut == 2.0


def test_dates_are_parameters(tmp_path):
    """They are part of the identity, and no numbers."""
    one = Odd(3, target=tmp_path)
    other = Odd(3, target=tmp_path, day=dt.date(2026, 1, 3))

    assert one.identity != other.identity
    assert one.compute(engine="serial").status.finished
