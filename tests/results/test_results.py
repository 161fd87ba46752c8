"""Results: numpy-like arrays on disk, a mapping, a picture of their state."""

import math
import re
from typing import ClassVar

import h5py
import hypothesis
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from helpers import compute
from hypothesis import strategies as st
from processes import process_of

import resumable as rs

CALM = hypothesis.settings(
    max_examples=80,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
MAP = (4, 5)
FIELDS = np.dtype([("a", "<f8"), ("b", "<i4", (2,))])
CUBE = np.random.default_rng(5).normal(size=(*MAP, 6))
PENDING = np.zeros(MAP, bool)
PENDING[3, 2:] = True
FAILING = np.zeros(MAP, bool)
FAILING[1, 1] = FAILING[2, 4] = True


class Many(rs.Process):
    """Several kinds of outputs on a map; two positions fail."""

    version = 1

    def outputs(self):
        return {
            "line": rs.Output(3, units="V"),
            "whole": rs.Output(dtype="i4", fill_value=-7),
            "fields": rs.Output(dtype=FIELDS),
            "flag": rs.Output(dtype="?"),
            "text": rs.Output(dtype="S4"),
            "total": rs.Output((2,), per="run"),
        }

    def unit_computation(self, spectrum):
        if FAILING[self.position]:
            raise ValueError("<b>bad & ugly</b>")
        first = float(spectrum[0])
        return {
            "line": spectrum[:3],
            "whole": int(first * 100),
            "fields": np.array((first, [1, 2]), FIELDS)[()],
            "flag": first > 0,
            "text": f"{first:.1f}",
        }

    def finish(self, results):
        return {"total": [results["line"][...][~FAILING].sum(), 1.0]}


def expected():
    """What the outputs read as, pending and failed positions as fill values."""
    hidden = PENDING | FAILING
    line = CUBE[..., :3].copy()
    line[hidden] = np.nan
    whole = (CUBE[..., 0] * 100).astype("i4")
    whole[hidden] = -7
    fields = np.zeros(MAP, FIELDS)
    fields["a"] = CUBE[..., 0]
    fields["b"] = [1, 2]
    fields["a"][hidden], fields["b"][hidden] = np.nan, 0
    flag = (CUBE[..., 0] > 0) & ~hidden
    text = np.array([f"{v:.1f}" for v in CUBE[..., 0].flat], "S4").reshape(MAP)
    text[hidden] = b""
    return {"line": line, "whole": whole, "fields": fields, "flag": flag, "text": text}


EXPECTED = expected()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "map.h5"
    with h5py.File(path, "w") as file:
        file["data"] = CUBE
    return f"{path}::/data"


@pytest.fixture(scope="module")
def results(source):
    """An unfinished run: 15 done, 2 failed, 3 pending, on a map of 4 x 5."""
    with pytest.warns(rs.ResumableWarning, match="2 of 20"):
        return compute(Many(source, position_axes=(0, 1)), positions=~PENDING)


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    target = tmp_path_factory.mktemp("finished")
    with pytest.warns(rs.ResumableWarning, match="2 of 20"):
        return compute(Many(source, target, position_axes=(0, 1)))


def same(found, wanted):
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    # A single text in numpy has its own length, not its array's.
    assert found.dtype == wanted.dtype or (found.dtype.kind == "S" and not found.shape)
    for name in wanted.dtype.names or ():
        same(found[name], wanted[name])
    if wanted.dtype.names is None:
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", EXPECTED)
def test_pending_and_failed_rows_read_as_the_fill_value(results, name):
    same(results[name][...], EXPECTED[name])
    same(np.asarray(results[name]), EXPECTED[name])
    assert isinstance(results[name][...], np.ndarray)


@pytest.mark.parametrize("name", EXPECTED)
@CALM
@hypothesis.given(data=st.data())
def test_basic_indexing_is_numpys(results, name, data):
    wanted = EXPECTED[name]
    key = data.draw(
        arrays.basic_indices(wanted.shape, allow_newaxis=True, allow_ellipsis=True)
    )

    same(results[name][key], wanted[key])


@CALM
@hypothesis.given(data=st.data())
def test_fancy_indexing_is_numpys(results, data):
    wanted = EXPECTED["line"]
    key = data.draw(arrays.integer_array_indices(MAP))

    same(results["line"][key], wanted[key])


@CALM
@hypothesis.given(data=st.data())
def test_masks_are_numpys(results, data):
    shape = data.draw(st.sampled_from([MAP, MAP[:1], (*MAP, 3)]))
    mask = data.draw(arrays.arrays(bool, shape))

    same(results["line"][mask], EXPECTED["line"][mask])


@pytest.mark.parametrize(
    "key",
    [
        (slice(None), [0, 2]),
        ([3, 1], slice(None), 0),
        (Ellipsis, [0, 1]),
        (0, [1, 1], None),
        ([[0], [3]], [[0, 1]]),
        np.int64(2),
        [],
    ],
    ids=str,
)
def test_mixed_indexing_is_numpys(results, key):
    same(results["line"][key], EXPECTED["line"][key])


@pytest.mark.parametrize("field", ["a", "b", ["a", "b"], ["b"]], ids=str)
def test_field_names_are_numpys(results, field):
    same(results["fields"][field], EXPECTED["fields"][field])


@pytest.mark.parametrize("key", [99, (0, 0, 0, 0), (0, 99)], ids=str)
def test_an_index_beyond_the_end_is_numpys_error(results, key):
    with pytest.raises(IndexError, match="ind"):
        results["line"][key]


def test_arrays_are_writable_copies(results):
    line = results["line"][...]
    line[...] = 0

    same(results["line"][...], EXPECTED["line"])


def test_arrays_look_like_arrays(results):
    line = results["line"]

    assert (line.shape, line.ndim, line.size, len(line)) == ((4, 5, 3), 3, 60, 4)
    assert (line.dtype, line.units, line.labels, line.name) == ("f8", "V", None, "line")
    same(np.stack(list(line)), EXPECTED["line"])
    same(np.asarray(line, dtype="f4"), EXPECTED["line"].astype("f4"))
    with pytest.raises(ValueError, match="makes a copy"):
        np.asarray(line, copy=False)


def test_operators_and_functions_of_numpy_work_as_with_arrays(results):
    line = results["line"]
    plain = line[...]

    np.testing.assert_array_equal(line * 2 - 1, plain * 2 - 1)
    np.testing.assert_array_equal(1 - line / line, 1 - plain / plain)
    np.testing.assert_array_equal(line == plain, plain == plain)
    np.testing.assert_array_equal(-line, -plain)
    np.testing.assert_array_equal(np.hypot(line, 3), np.hypot(plain, 3))
    np.testing.assert_array_equal(np.mean(line, axis=-1), plain.mean(axis=-1))
    np.testing.assert_array_equal(np.add(line, 1, out=np.empty(line.shape)), plain + 1)
    np.testing.assert_array_equal(
        np.add.reduce(line, axis=0), np.add.reduce(plain, axis=0)
    )
    assert type(line + line) is np.ndarray


def test_results_are_never_written_to(results):
    line = results["line"]
    with pytest.raises(TypeError, match=r"change a copy, results\['line'\]\[...\]"):
        line += 1
    with pytest.raises(TypeError, match="results are read-only"):
        np.add(line[...], 1, out=line)


def test_outputs_per_run_are_hidden_until_the_run_is_finished(results, finished):
    total = CUBE[..., :3][~FAILING].sum()

    same(results["total"][...], np.full(2, np.nan))
    np.testing.assert_allclose(finished["total"][...], [total, 1.0])
    assert finished["total"][1] == 1.0
    assert finished["total"].shape == (2,)


def test_results_are_a_mapping_in_the_declared_order(results):
    assert list(results) == ["line", "whole", "fields", "flag", "text", "total"]
    assert len(results) == 6
    assert "line" in results
    assert "lime" not in results
    with pytest.raises(
        KeyError, match="there is no output 'lime'; did you mean 'line'"
    ):
        results["lime"]


def test_status_counts_done_failed_and_pending(results, finished):
    status = results.status

    assert (status.positions, status.done, status.failed) == (20, 15, 2)
    assert (status.pending, status.finished) == (3, False)
    assert str(status) == "15 of 20 positions done, 2 failed, 3 pending"
    assert finished.status.finished
    assert str(finished.status) == "18 of 20 positions done, 2 failed"


def test_completed_and_failed_have_the_maps_shape(results):
    same(results.completed_mask, ~(PENDING | FAILING))
    same(results.failed_mask, FAILING)


def test_failures_tell_position_exception_message_and_traceback(results):
    first, second = results.failures

    assert (first.position, second.position) == (6, 14)
    assert first.exception == "ValueError"
    assert first.message == "<b>bad & ugly</b>"
    assert "unit_computation" in first.traceback
    assert first.traceback.rstrip().endswith("ValueError: <b>bad & ugly</b>")


# A single output, which has a loop of its own, and a block; one position fails.
One = process_of(lambda self, position: math.sqrt(1 - position))
Block = process_of(block=lambda self, some: [math.sqrt(1 - one) for one in some])


@pytest.mark.parametrize("kind", [One, Many, Block])
def test_a_traceback_has_no_lines_but_the_users(source, tmp_path, kind):
    """The loop around a computation is the same for all, and not to blame."""
    given = (
        {"source": source, "position_axes": (0, 1)} if kind is Many else {"source": 3}
    )
    process = kind(target=tmp_path, **given)
    with pytest.warns(rs.ResumableWarning, match="positions failed"):
        results = compute(process)

    files = [set(re.findall('File "(.*)"', f.traceback)) for f in results.failures]

    assert files
    assert all(names == {__file__} for names in files)


def test_repr_says_what_is_there(results):
    text = repr(results)

    assert text.startswith(f"<Results {results.path.name}: 15 of 20 positions done")
    assert "<line: (4, 5, 3) float64, V>" in text
    assert repr(results["whole"]) == "<whole: (4, 5) int32>"
    assert repr(results.status) == f"<Status: {results.status}>"


def test_html_escapes_what_others_wrote(tmp_path):
    class Nasty(rs.Process):
        version = 1
        outputs: ClassVar = {"x": rs.Output(units="<script>alert(1)</script>")}

        def unit_computation(self, index):
            if index == 1:
                raise ValueError("<img src=x onerror=alert(2)>")
            return index

    with pytest.warns(rs.ResumableWarning):
        results = compute(Nasty(3, tmp_path))
    path = results.path.rename(tmp_path / "<i>name.h5")
    html = rs.open(path)._repr_html_()

    assert "&lt;script&gt;" in html
    assert "&lt;img src=x" in html
    assert "&lt;i&gt;name.h5" in html
    # One picture, which is ours.
    ours = html.replace('<img alt="maps of the outputs" src="data:image/png;', "", 1)
    assert not any(tag in ours for tag in ("<script", "<img", "<i>"))


def test_group_opens_the_results_group_for_reading(finished):
    group = finished.group()
    try:
        assert isinstance(group, h5py.Group)
        assert group.name == "/data-Many_000"
        assert group.file.mode == "r"
        assert group["completed_positions"].shape == (20,)
    finally:
        group.file.close()


def test_open_gives_the_same_results_by_path(finished):
    for path in (finished.path, str(finished.path)):
        again = rs.open(path)
        assert again == finished
        assert hash(again) == hash(finished)
        assert again.identity == finished.identity
        assert again.source == finished.source
        np.testing.assert_array_equal(again["line"], finished["line"])


def test_an_unfinished_run_is_no_source(results):
    with pytest.raises(rs.SourceError, match="is not finished; compute it before"):
        Many(results["line"], position_axes=(0, 1))


def test_results_are_read_at_the_moment_of_indexing(source, tmp_path):
    process = Many(source, tmp_path, position_axes=(0, 1))
    results = compute(process, positions=[0])
    before = results["whole"][0, 2]
    compute(process, positions=[2])

    assert before == -7
    assert results["whole"][0, 2] == EXPECTED["whole"][0, 2]
