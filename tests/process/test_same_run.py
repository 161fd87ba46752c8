"""What makes two computations the same run, and what does not."""

import importlib.util
import logging
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import compute, data_of
from processes import Mean, Scaled, Weighted, change

import resumable as rs

# Identity of a process.


def load(path, text, monkeypatch, name="usermodule"):
    """Import a module from a file, as a user's script would be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


USERS = '''
import resumable as rs

class Users(rs.Process):
    """Doc."""

    def outputs(self):
        return {"x": rs.Output()}

    def unit_computation(self, spectrum):
        return spectrum.mean() * 2  # twice
'''


@pytest.fixture
def identity_of(tmp_path, monkeypatch, scan):
    def identity_of(text, folder, name="usermodule"):
        module = load(tmp_path / folder / f"{name}.py", text, monkeypatch, name)
        return module.Users(scan).identity

    return identity_of


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("* 2 ", "* 3 ", False),
        ("spectrum.mean()", "spectrum.sum()", False),
        ("  # twice", "  # two times", True),
        ('"""Doc."""', '"""Another text."""', True),
        ("spectrum.mean() * 2", "(spectrum.mean()  *  2)", True),
        ("    def unit", "    x = 1\n\n    def unit", True),
        ("    def unit", "    def draw(self, *of): pass\n\n    def unit", True),
        ("def outputs(self)", "def outputs(self) -> dict", True),
    ],
    ids=[
        "number",
        "method",
        "comment",
        "docstring",
        "layout",
        "unread",
        "draw",
        "note",
    ],
)
def test_without_a_version_the_code_counts(identity_of, old, new, same):
    assert old in USERS
    after = identity_of(USERS.replace(old, new), "b")

    assert (identity_of(USERS, "a") == after) is same


HELPED = """
FACTOR = 10

def helper():
    return 20

def another():
    return 40

""" + USERS.replace(
    "* 2 ",
    """* self.own() * helper() * FACTOR

    @staticmethod
    def own():
        return 30
""",
)


@pytest.mark.parametrize(
    ("what", "same"),
    [("30", False), ("20", False), ("10", False), ("40", True)],
    ids=["method", "helper", "constant", "not reached"],
)
def test_what_the_computation_reaches_outside_of_the_class_counts(
    identity_of, what, same
):
    assert HELPED.count(what) == 1
    after = identity_of(HELPED.replace(what, "99"), "b")

    assert (identity_of(HELPED, "a") == after) is same


def test_the_text_of_a_users_base_class_counts(identity_of):
    text = (
        USERS.replace("class Users", "class Base") + "\nclass Users(Base):\n    pass\n"
    )

    assert identity_of(text, "a") != identity_of(text.replace("* 2 ", "* 3 "), "b")


def test_with_a_version_an_edit_only_warns(tmp_path, monkeypatch, scan):
    text = USERS.replace('"""Doc."""', '"""Doc."""\n    version = 1')
    first = load(tmp_path / "a" / "m.py", text, monkeypatch, "m").Users(scan)
    results = compute(first)
    edited = text.replace("* 2 ", "* 3 ")
    second = load(tmp_path / "b" / "m.py", edited, monkeypatch, "m").Users(scan)
    with pytest.warns(rs.ResumableWarning, match="(?s)was edited.*raise it.*mean") as c:
        again = second.compute(engine="serial", progress=False)

    assert again == results
    assert len(c) == 1
    assert c[0].filename == __file__


def test_the_name_of_the_module_does_not_count(identity_of):
    assert identity_of(USERS, "a", "one") == identity_of(USERS, "b", "two")


@pytest.mark.parametrize("version", [2, "1", 1.5, None])
def test_the_version_counts(scan, version):
    made = type("Mean", (Mean,), {"version": version, "__module__": Mean.__module__})

    assert made(scan).identity != Mean(scan).identity


@pytest.mark.parametrize(
    "given",
    [
        {"factor": 2.0000000000000004},
        {"count": 4},
        {"kind": "square"},
        {"table": np.zeros(3)},
        {"anything": 0},
        {"anything": False},
        {"anything": ""},
        {"anything": []},
        {"seed": 1},
    ],
    ids=str,
)
def test_each_parameter_counts(scan, given):
    assert Scaled(scan, **given).identity != Scaled(scan).identity


def test_a_default_that_is_given_does_not_count(scan):
    assert Scaled(scan, kind="linear", factor=2.0).identity == Scaled(scan).identity


@pytest.mark.parametrize(
    "given", [{"factor": 2}, {"factor": np.float32(2)}, {"count": np.int64(3)}], ids=str
)
def test_the_type_of_a_number_counts(scan, given):
    """A computation gets what is given: 2 times uint8 data is not 2.0 times them."""
    assert Scaled(scan, **given).identity != Scaled(scan).identity


def test_the_contents_of_the_source_count(scan, caplog):
    path = scan.partition("::")[0]
    process = Mean(scan)
    first = compute(process)
    old = data_of(scan)[59, 31]
    change(path, "data", (59, 31), old + 1)
    with caplog.at_level(logging.WARNING, "resumable"):
        second = compute(Mean(scan))
    change(path, "data", (59, 31), old)

    assert first.path != second.path
    np.testing.assert_array_equal(second["mean"][:59], first["mean"][:59])
    assert second["mean"][59] != first["mean"][59]
    assert f"the source has changed since {first.path.name}" in caplog.text
    assert "source.contents" in caplog.text
    assert compute(Mean(scan)) == first


def halves(first, second):
    return np.repeat([first, second], 4).reshape(2, 4).astype("f4")


STORED = {
    "chunks swapped": (
        {"data": halves(1, 2), "chunks": (1, 4), "compression": "gzip"},
        {"data": halves(2, 1), "chunks": (1, 4), "compression": "gzip"},
    ),
    "one number": (
        {"data": halves(1, 2), "chunks": (2, 4), "compression": "gzip"},
        {"data": halves(1, 3), "chunks": (2, 4), "compression": "gzip"},
    ),
    "fill value of chunks never written": (
        {"shape": (2, 4), "dtype": "f4", "compression": "gzip", "fillvalue": 1},
        {"shape": (2, 4), "dtype": "f4", "compression": "gzip", "fillvalue": 2},
    ),
    "scale of stored integers": (
        {"data": halves(0.1, 0.2), "chunks": (2, 4), "scaleoffset": 1},
        {"data": halves(0.01, 0.02), "chunks": (2, 4), "scaleoffset": 2},
    ),
}


@pytest.mark.parametrize("kind", STORED)
def test_contents_of_filtered_sources_count_however_they_are_stored(make_file, kind):
    one, two = (
        make_file(f"{name}.h5", data=made) + "::/data"
        for name, made in zip(("one", "two"), STORED[kind], strict=True)
    )

    assert not np.array_equal(data_of(one), data_of(two))
    assert Mean(one).identity != Mean(two).identity


def test_position_axes_count_and_so_does_their_order(make_file):
    source = make_file(data=np.ones((3, 3, 3))) + "::/data"
    choices = [0, 1, (0, 1), (1, 0), (0, 1, 2)]

    assert len({Mean(source, position_axes=a).identity for a in choices}) == 5


def test_inputs_count_by_name_contents_and_axes(make_file):
    path = make_file(
        data=np.ones((4, 4)), a=np.ones((4, 4)), b=np.ones((4, 4)), c=np.zeros((4, 4))
    )
    source = f"{path}::/data"

    def of(weight, offset):
        return Weighted(source, inputs={"weight": weight, "offset": offset}).identity

    same = of("::/a", "::/b")

    assert same == of(f"{path}::/a", ("::/b", 0))
    assert same != of("::/b", "::/a")
    assert same != of("::/a", "::/c")
    assert same != of("::/a", ("::/b", 1))


class Declares(rs.Process):
    """Outputs as a test wants them."""

    version = 1
    declared = staticmethod(dict)

    def outputs(self):
        return self.declared()

    def unit_computation(self, spectrum):
        return spectrum[:2]


def test_outputs_count_by_name_shape_dtype_and_per_only(scan, monkeypatch):
    def declaring(**outputs):
        monkeypatch.setattr(Declares, "declared", staticmethod(lambda: outputs))
        return Declares(scan).identity

    same = declaring(x=rs.Output(2))
    others = [
        declaring(y=rs.Output(2)),
        declaring(x=rs.Output(3)),
        declaring(x=rs.Output((2, 1))),
        declaring(x=rs.Output(2, "f4")),
        declaring(x=rs.Output(2), z=rs.Output(per="run")),
        declaring(x=rs.Output(2), z=rs.Output()),
    ]
    equal = [
        declaring(x=rs.Output((2,), float)),
        declaring(x=rs.Output(2, units="V", labels=("a", "b"))),
        declaring(x=rs.Output(2, fill_value=-1)),
    ]

    assert len({same, *others}) == 7
    assert set(equal) == {same}


@pytest.mark.parametrize(
    "options",
    [
        {"engine": "serial", "memory": "1 MB"},
        {"engine": "local", "workers": 1},
        {"engine": "serial", "checkpoint": 0.5, "on_error": "raise"},
    ],
    ids=str,
)
def test_the_way_of_computing_does_not_count(scan, options):
    part = compute(Mean(scan), positions=slice(0, 30))
    results = Mean(scan).compute(progress=False, **options)

    assert results == part
    assert results.sessions[-1].computed == 30


def test_the_folder_and_the_name_of_the_source_file_do_not_count(
    scan, tmp_path, monkeypatch
):
    before = Mean(scan).identity
    path = Path(scan.partition("::")[0])
    monkeypatch.chdir(tmp_path)
    relative = Mean(f"{path.name}::data").identity
    path.rename(tmp_path / "moved.h5")

    assert relative == before
    assert Mean(f"{tmp_path}/moved.h5::/data").identity == before


def test_a_source_that_only_grew_goes_on(growing):
    process = Mean(growing)
    process.calls = []
    compute(process)
    with h5py.File(growing.partition("::")[0], "r+") as file:
        file["data"].resize((55, 8))
        file["data"][40:] = 7.0
    results = compute(process)

    assert sorted(process.calls) == list(range(55))
    assert results["mean"].shape == (55,)
    np.testing.assert_array_equal(results["mean"], data_of(growing).mean(axis=1))
    assert results.status.finished
    assert compute(Mean(growing)) == results


@pytest.mark.parametrize(("done", "changed"), [(None, 30), (slice(0, 20), 10)])
def test_changed_contents_of_a_growable_source_are_noticed(growing, done, changed):
    first = compute(Mean(growing), positions=done)
    change(growing.partition("::")[0], "data", (changed, 0), 99.0)
    second = compute(Mean(growing))

    assert second.path != first.path
    np.testing.assert_array_equal(second["mean"], data_of(growing).mean(axis=1))


def test_a_growable_source_that_shrank_is_a_new_run(growing):
    compute(Mean(growing))
    with h5py.File(growing.partition("::")[0], "r+") as file:
        file["data"].resize((25, 8))
    results = compute(Mean(growing))

    assert results["mean"].shape == (25,)
    np.testing.assert_array_equal(results["mean"], data_of(growing).mean(axis=1))
