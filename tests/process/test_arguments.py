"""Parameters of every kind on the command line."""

import datetime as dt

import param
import pytest
from programs import Colour

import resumable as rs

WHEN = dt.datetime(2026, 1, 2, 3)
THEN = dt.datetime(2026, 2, 1)
DAYS = (dt.date(2026, 1, 2), dt.date(2026, 2, 1))
SIZES = {"small": 1.5, "large": (2, 3)}
# Of every kind that param has: how it is declared, what is typed, what is meant.
WRITTEN = [
    (param.Parameter, {}, "[1, 'a']", [1, "a"]),
    (param.Parameter, {}, "two words", "two words"),
    (param.Parameter, {"default": 3}, "None", None),
    (param.Parameter, {}, "{[]: 1}", "{[]: 1}"),
    (param.Dynamic, {"default": 3}, "2.5", 2.5),
    (param.Boolean, {}, True, True),
    (param.Boolean, {"default": True}, False, False),
    (param.Integer, {}, "-3", -3),
    (param.Number, {}, "1e-3", 1e-3),
    (param.Number, {"default": 1.0, "allow_None": True}, "None", None),
    (param.Magnitude, {}, "0.25", 0.25),
    (param.String, {}, "12", "12"),
    (param.String, {"default": "a", "allow_None": True}, "None", None),
    (param.Color, {}, "#ff0000", "#ff0000"),
    (param.Bytes, {}, "b'\\x00\\xff'", b"\0\xff"),
    (param.Bytes, {}, "text", b"text"),
    (param.Date, {"default": WHEN}, "2026-02-01", THEN),
    (param.Date, {"default": WHEN, "allow_None": True}, "None", None),
    (param.Date, {"default": THEN}, "2026-01-02T03:00", WHEN),
    (param.CalendarDate, {"default": DAYS[0]}, "2026-02-01", DAYS[1]),
    (param.DateRange, {}, "2026-01-02T03:00,2026-02-01", (WHEN, THEN)),
    (param.CalendarDateRange, {}, "2026-01-02,2026-02-01", DAYS),
    (param.Tuple, {"default": (1, "a")}, "(2, 'b')", (2, "b")),
    (param.Tuple, {"default": (1, 2)}, "3,4", (3, 4)),
    (param.NumericTuple, {"default": (1, 2)}, "[3, 4.5]", (3, 4.5)),
    (param.XYCoordinates, {}, "3,4", (3, 4)),
    (param.Range, {}, "0.5,2", (0.5, 2)),
    (param.Range, {"default": (0, 1)}, "[2, 3]", (2, 3)),
    (param.List, {"default": [1]}, "[2, 3]", [2, 3]),
    (param.List, {"default": [1], "item_type": int}, "2,3", [2, 3]),
    (param.Dict, {"default": {}}, "{'a': [1]}", {"a": [1]}),
    (param.ClassSelector, {"class_": (int, str), "default": 1}, "2", 2),
    (param.Selector, {"objects": ["min", "max"]}, "max", "max"),
    (param.Selector, {"objects": [1, 2.5, None]}, "2.5", 2.5),
    (param.Selector, {"objects": [1, 2.5, None]}, "None", None),
    (param.Selector, {"objects": list(Colour)}, "BLUE", Colour.BLUE),
    (param.Selector, {"objects": SIZES}, "large", (2, 3)),
    (param.Selector, {"objects": [(1, 2), (3, 4)]}, "(3, 4)", (3, 4)),
    (param.Selector, {"objects": [1], "check_on_set": False}, "7", 7),
    (param.Selector, {"objects": SIZES, "check_on_set": False}, "small", 1.5),
    (param.ObjectSelector, {"objects": ["a", 1]}, "1", 1),
    (param.ListSelector, {"objects": ["a", "b", "c"]}, "a,c", ["a", "c"]),
    (param.ListSelector, {"objects": [1, 2, 3]}, "[3, 1]", [3, 1]),
    (param.ListSelector, {"objects": list(Colour)}, "BLUE,RED", list(Colour)[::-1]),
    (param.ListSelector, {"objects": ["a"], "default": ["a"]}, "[]", []),
    (param.Path, {}, "here.txt", "here.txt"),
    (param.Filename, {}, "here.txt", "here.txt"),
    (param.Foldername, {}, "folder", "folder"),
    (param.FileSelector, {"path": "*.txt"}, "here.txt", "here.txt"),
    (param.MultiFileSelector, {"path": "*.txt"}, "here.txt", ["here.txt"]),
]
ONLY_IN_PYTHON = [
    (param.Action, {}),
    (param.Callable, {}),
    (param.Composite, {"attribs": []}),
    (param.Event, {}),
    (param.HookList, {}),
    (param.ClassSelector, {"class_": rs.Output}),
    (param.ClassSelector, {"class_": int, "is_instance": False}),
    (param.List, {"item_type": rs.Output}),
    (param.Selector, {"objects": [1, "1"]}),
    (param.Number, {"default": 1.0, "readonly": True}),
]
# They need pandas, and are ClassSelectors of what no text can tell.
OF_PANDAS = {param.DataFrame, param.Series}
# It is given as a dataset, see test_shared.
OF_DATASETS = {param.Array}
BASES = {"SelectorBase"}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").touch()
    (tmp_path / "also.txt").touch()
    (tmp_path / "folder").mkdir()


def one_of(kind, given):
    """Return a class with one parameter; a selector of files looks for them here."""

    class One(rs.Process):
        version = 1
        value = kind(doc="what it is for", **given)
        outputs = {"x": rs.Output()}  # noqa: RUF012

        def unit_computation(self, position):
            return position

    return One


def named(rows):
    return [f"{row[0].__name__}-{number}" for number, row in enumerate(rows)]


def test_every_kind_of_parameter_is_here():
    kinds = {
        kind
        for kind in vars(param).values()
        if isinstance(kind, type) and issubclass(kind, param.Parameter)
    }

    tested = {row[0] for row in [*WRITTEN, *ONLY_IN_PYTHON]} | OF_PANDAS | OF_DATASETS
    assert {k for k in kinds - tested if k.__name__ not in BASES} == set()


@pytest.mark.parametrize(
    ("kind", "given", "text", "meant"), WRITTEN, ids=named(WRITTEN)
)
def test_what_is_typed_is_what_is_meant(tmp_path, kind, given, text, meant):
    """The value has the same type, and so the run the same identity, as in a script."""
    cls = one_of(kind, given)
    if isinstance(text, bool):
        words = ["--value" if text else "--no-value"]
    else:
        words = ["--value", text]
    process = cls.from_argv(["3", "--target", ".", *words])
    same = cls(3, ".", value=meant)

    assert type(process.value) is type(same.value)
    assert process.value == same.value
    assert process.identity == same.identity


@pytest.mark.parametrize(("kind", "given"), ONLY_IN_PYTHON, ids=named(ONLY_IN_PYTHON))
def test_a_value_that_no_text_can_give_is_refused(capsys, kind, given):
    cls = one_of(kind, given)
    with pytest.raises(SystemExit):
        cls.from_argv(["--help"])
    shown_help = capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cls.from_argv(["3", "--value", "1"])
    error = " ".join(capsys.readouterr().err.split())

    assert "--value (only in Python) what it is for" in " ".join(shown_help.split())
    assert ended.value.code == 2
    assert (
        f"a param.{kind.__name__} cannot be given on the command line; set it in a "
        "script: rs.main(One, value=...)"
    ) in error


@pytest.mark.parametrize(
    ("kind", "given", "text", "words"),
    [
        (param.Selector, {"objects": list(Colour)}, "red", "'RED', 'BLUE'"),
        (param.ListSelector, {"objects": ["a", "b"]}, "a,x", "'x' is not one of"),
        (param.Date, {}, "soon", "Invalid isoformat string: 'soon'"),
        (param.DateRange, {}, "2026-01-02,x", "Invalid isoformat string: 'x'"),
        (param.Integer, {}, "1.5", "not a valid integer"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(capsys, kind, given, text, words):
    with pytest.raises(SystemExit) as ended:
        one_of(kind, given).from_argv(["3", "--value", text])

    assert ended.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("kind", "given", "text"),
    [
        (param.List, {}, "1"),
        (param.DateRange, {}, "2026-01-02"),
        (param.Tuple, {"default": (1, 2)}, "3,4,5"),
        (param.Filename, {}, "no such file"),
    ],
)
def test_a_value_that_the_parameter_refuses_is_a_parameter_error(kind, given, text):
    with pytest.raises(rs.ParameterError, match=r"^One: "):
        one_of(kind, given).from_argv(["3", "--target", ".", "--value", text])


@pytest.mark.parametrize(
    ("kind", "given", "shown"),
    [
        (param.Selector, {"objects": list(Colour)}, "[RED|BLUE] default: RED"),
        (param.Selector, {"objects": SIZES}, "[small|large] default: small"),
        (
            param.ListSelector,
            {"objects": list(Colour), "default": [Colour.BLUE]},
            "[RED|BLUE],... default: BLUE",
        ),
        (
            param.Selector,
            {"objects": ["a", "b"], "allow_None": True},
            "[a|b] default: a",
        ),
        (param.DateRange, {}, "DATETIME,DATETIME default: None"),
        (param.List, {"default": list(range(99))}, "LIST default: [0, 1, 2, 3, 4, 5,"),
    ],
)
def test_help_shows_choices_and_defaults_by_their_names(capsys, kind, given, shown):
    with pytest.raises(SystemExit):
        one_of(kind, given).from_argv(["--help"])
    shown_help = " ".join(capsys.readouterr().out.split())
    metavar, _, default = shown.partition(" default: ")

    assert f"--value {metavar} what it is for [default: {default}" in shown_help
    assert "]" in shown_help.partition("[default: ")[2][:64]


def test_help_of_a_class_without_a_docstring_names_it(capsys):
    with pytest.raises(SystemExit):
        one_of(param.Number, {}).from_argv(["--help"])
    shown_help = capsys.readouterr().out

    assert shown_help.splitlines()[2].strip() == "One"
    assert "--value FLOAT" in shown_help
    assert "Subclass it" not in shown_help


@pytest.mark.parametrize("name", ["help", "input"])
def test_a_parameter_with_the_name_of_an_option_is_refused(capsys, name):
    cls = type("Taken", (one_of(param.Number, {}),), {name: param.Number(1.0)})
    with pytest.raises(SystemExit) as ended:
        cls.from_argv(["3"])

    assert ended.value.code == 1
    assert f"'{name}' of Taken has the name of an option" in capsys.readouterr().err
