"""Sources and inputs that a Process takes, and scratch copies of them."""

import contextlib
import itertools
import os
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import compute, data_of
from processes import MEAN, Mean, Scaled, Weighted, process_of

import resumable as rs

# Sources and inputs.


@pytest.mark.parametrize("form", ["text", "dataset", "path object"])
def test_a_source_has_several_forms(scan, form):
    path, _, name = scan.partition("::")
    with h5py.File(path, "r") as file:
        forms = {"text": scan, "dataset": file[name], "path object": Path(scan)}
        results = compute(Mean(forms[form]))

    assert results.identity == Mean(scan).identity
    np.testing.assert_array_equal(results["mean"], data_of(scan).mean(axis=1))


@pytest.mark.parametrize(
    ("method", "kind"), [("unit_computation", int), ("block_computation", np.ndarray)]
)
def test_a_number_of_positions_is_a_source(tmp_path, method, kind):
    kinds = set()

    def square(self, index):
        kinds.add(type(index))
        return index**2

    outputs = {"x": rs.Output(dtype="i8")}
    body = {"version": 1, "outputs": outputs, method: square}
    Squares = type("Squares", (rs.Process,), body)
    results = compute(Squares(9, tmp_path))

    np.testing.assert_array_equal(results["x"], np.arange(9) ** 2)
    assert kinds == {kind}
    with pytest.raises(rs.TargetError, match="give target="):
        Squares(9)


def test_inputs_are_aligned_position_by_position(make_file):
    rng = np.random.default_rng(4)
    cube, weight, stack = map(rng.random, ((3, 4, 6), (3, 4, 6), (5, 4, 3)))
    path = make_file(cube=cube, weight=weight)
    other = make_file("other.h5", stack=stack, flat=rng.random((3, 4)))
    expected = (cube * weight).sum(axis=-1)

    def with_offset(offset):
        inputs = {"weight": "::/weight", "offset": offset}
        process = Weighted(f"{path}::/cube", position_axes=(0, 1), inputs=inputs)
        return compute(process)["mean"]

    stacked = with_offset((f"{other}::/stack", (2, 1)))
    flat = with_offset(f"{other}::/flat")

    np.testing.assert_allclose(stacked, expected + stack.sum(axis=0).T)
    np.testing.assert_allclose(flat, expected + data_of(f"{other}::/flat"))


Guessed = process_of(lambda self, spectrum, guess: spectrum.sum() + np.sum(guess))


@pytest.mark.parametrize("shape", [(3, 4), (3, 3)])
def test_the_axes_of_an_input_do_not_depend_on_their_lengths(make_file, shape):
    """As in the source where it has as many, else the first: in the map's order."""
    rng = np.random.default_rng(4)
    stack, dark, guess = (rng.random(s) for s in ((6, *shape), (5, *shape), shape))
    cube = np.moveaxis(stack, 0, 2)
    path = make_file(stack=stack, cube=cube, dark=dark, guess=guess, turned=guess.T)

    def computed(name, axes, source="stack"):
        inputs = {"guess": f"::/{name}"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a square fits in two ways
            process = Guessed(f"{path}::/{source}", position_axes=axes, inputs=inputs)
        return compute(process)["mean"][...]

    mean = stack.sum(axis=0)
    np.testing.assert_allclose(computed("dark", (1, 2)), mean + dark.sum(axis=0))
    np.testing.assert_allclose(computed("dark", (2, 1)), (mean + dark.sum(axis=0)).T)
    np.testing.assert_allclose(computed("guess", (1, 2)), mean + guess)
    np.testing.assert_allclose(computed("turned", (2, 1)), (mean + guess).T)
    np.testing.assert_allclose(computed("turned", (1, 0), "cube"), (mean + guess).T)


@pytest.mark.parametrize("shape", [(3, 4), (3, 3)])
def test_axes_of_an_input_that_are_stated_are_taken(make_file, shape):
    rng = np.random.default_rng(5)
    cube, guess, params = (rng.random((*shape, *end)) for end in ((6,), (), (2,)))
    stack = np.moveaxis(cube, 2, 0)
    path = make_file(cube=cube, stack=stack, guess=guess, params=params)

    def computed(source, axes, name, stated):
        inputs = {"guess": (f"::/{name}", stated)}
        process = Guessed(f"{path}::/{source}", position_axes=axes, inputs=inputs)
        return compute(process)["mean"][...]

    wanted = cube.sum(axis=2) + guess
    np.testing.assert_allclose(computed("cube", (1, 0), "guess", (1, 0)), wanted.T)
    summed = cube.sum(axis=2) + params.sum(axis=2)
    np.testing.assert_allclose(computed("stack", (1, 2), "params", (0, 1)), summed)


@pytest.mark.parametrize(
    ("axes", "name", "taken", "other"),
    [((1, 0), "guess", (0, 1), (1, 0)), ((1, 2), "params", (1, 2), (0, 1))],
)
def test_an_input_that_fits_in_two_ways_says_which_is_taken(
    make_file, axes, name, taken, other
):
    """On a square map; where only the other one fits, the error says what to give."""

    def make(lengths):
        cube, more = np.zeros((*lengths, 3)), np.zeros(lengths)
        named = f"{'x'.join(map(str, lengths))}.h5"
        path = make_file(named, cube=cube, guess=more, params=cube)
        inputs = {"guess": f"::/{name}"}
        return Guessed(f"{path}::/cube", position_axes=axes, inputs=inputs)

    with pytest.warns(rs.ResumableWarning) as caught:
        process = make((3, 3))
    text = str(caught[0].message)

    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert f"{taken} are taken" in text
    assert f"(source, {taken})}} to say so, or (source, {other})" in text
    assert process.state()["inputs"]["guess"][1] == list(taken)
    if name == "guess":
        with pytest.raises(rs.SourceError, match="must agree") as refused:
            make((4, 5))
        assert f"on its axes {other} they do" in str(refused.value)
        assert f"inputs={{'guess': (source, {other})}}" in str(refused.value)


def test_inputs_come_as_blocks_in_a_block_computation(make_file):
    class Block(rs.Process):
        version = 1
        outputs = MEAN

        def block_computation(self, spectra, weight):
            assert len(spectra) == len(weight)
            return (spectra * weight[:, None]).sum(axis=1)

    rng = np.random.default_rng(4)
    data, weight = rng.random((50, 4)), rng.random(50)
    source = make_file(data=data, weight=weight) + "::/data"

    np.testing.assert_allclose(
        compute(Block(source, inputs={"weight": "::/weight"}))["mean"],
        (data * weight[:, None]).sum(axis=1),
    )


def test_an_input_of_another_number_of_positions_is_refused(make_file):
    path = make_file(data=np.ones((5, 2)), short=np.ones((4, 2)), w=np.ones((5, 2)))
    with pytest.raises(rs.SourceError, match=r"'offset' .* \(4,\), .* \(5,\)"):
        Weighted(f"{path}::/data", inputs={"weight": "::/w", "offset": "::/short"})


def test_an_input_may_be_an_output_of_other_results(scan):
    Centred = process_of(lambda self, spectrum, mean: (spectrum - mean).max())
    means = compute(Mean(scan))
    process = Centred(scan, inputs={"mean": means["mean"]})
    data = data_of(scan)

    np.testing.assert_allclose(
        compute(process)["mean"], (data - data.mean(axis=1)[:, None]).max(axis=1)
    )


def test_results_are_the_source_of_another_process(make_file):
    cube = np.random.default_rng(0).random((3, 4, 6))
    source = make_file(cube=cube) + "::/cube"
    scaled = compute(Scaled(source, position_axes=(0, 1)))
    results = compute(Mean(scaled["scaled"], position_axes=(0, 1)))

    np.testing.assert_allclose(results["mean"], cube.mean(axis=-1) * 2)


def test_a_changed_parameter_upstream_is_another_run_downstream(scan):
    one = Mean(compute(Scaled(scan, factor=1.0))["scaled"])
    two = Mean(compute(Scaled(scan, factor=2.0))["scaled"])
    same = Mean(compute(Scaled(scan, factor=1.0))["scaled"])
    by_input = [
        Weighted(scan, inputs={"weight": u["scaled"], "offset": "::/data"}).identity
        for u in (compute(Scaled(scan, factor=f)) for f in (1.0, 2.0))
    ]

    assert one.identity != two.identity
    assert one.identity == same.identity
    assert by_input[0] != by_input[1]
    np.testing.assert_allclose(compute(two)["mean"], 2 * compute(one)["mean"][...])


@pytest.mark.parametrize("awaited", [False, True])
def test_changed_contents_upstream_are_another_run_downstream(make_file, awaited):
    """Its source can grow, or is awaited: the identity upstream stays the same."""

    class First(Scaled):
        if awaited:

            def ready(self, positions):
                return True

    path, other = make_file(), make_file("other.h5", data=np.ones((8, 4)))
    with h5py.File(path, "w") as file:
        most = (8 if awaited else None, 4)
        file.create_dataset("data", data=np.ones((8, 4)), maxshape=most, chunks=(3, 4))
    runs, seen = [], []
    for row in (None, 5):
        if row is not None:
            with h5py.File(path, "r+") as file:
                file["data"][row] = 7
        first = compute(First(f"{path}::/data", factor=1.0))
        inputs = {"weight": first["scaled"], "offset": "::/data"}
        by_input = Weighted(f"{other}::/data", inputs=inputs)
        by_source = Mean(first["scaled"])
        assert by_input.results is by_source.results is None
        for process in (by_input, by_source):
            runs.append(compute(process))
            assert process.verify(sample="all").passed
            assert process.results == runs[-1]
        seen.append(first["scaled"][5].mean())
        np.testing.assert_allclose(runs[-1]["mean"][5], seen[-1])
    assert len({run.path for run in runs}) == 4
    assert seen == [1, 7]
    assert rs.verify(runs[3].path, Mean, sample="all").passed


@pytest.mark.filterwarnings("ignore:.*(positions failed|was edited since)")
def test_positions_upstream_that_no_longer_fail_are_another_run_downstream(make_file):
    class Flaky(Scaled):
        down = True

        def unit_computation(self, spectrum):
            if type(self).down and self.position in (3, 7):
                raise OSError
            return super().unit_computation(spectrum)

    source = make_file(data=np.ones((9, 4))) + "::/data"
    sums = []
    for down in (True, False):
        Flaky.down = down
        first = compute(Flaky(source), retry_failed=True)
        inputs = {"weight": first["scaled"], "offset": "::/data"}
        for process in (Mean(first["scaled"]), Weighted(source, inputs=inputs)):
            assert process.results is None
            sums.append(compute(process)["mean"][3])
            assert process.verify(sample="all").passed
    np.testing.assert_array_equal(sums, [np.nan, np.nan, 2, 8 + 4])


def test_an_output_of_an_unfinished_run_is_refused_by_its_name_too(make_file):
    path = make_file(data=np.ones((9, 4)))
    part = compute(Scaled(f"{path}::/data"), positions=slice(0, 5))
    name = f"{part.path}::/data-Scaled_000/scaled"
    with contextlib.closing(part.group().file) as file:
        given = {
            "by name": lambda: Mean(name),
            "open": lambda: Mean(file["data-Scaled_000/scaled"]),
            "input": lambda: Mean(f"{path}::/data", inputs={"b": name}),
            "shared": lambda: Mean(f"{path}::/data", shared={"b": name}),
        }
        for make in given.values():
            with pytest.raises(rs.SourceError, match="is not finished; compute it"):
                make()

    compute(Scaled(f"{path}::/data"))
    np.testing.assert_array_equal(compute(Mean(name))["mean"], 2)


LAYOUTS = {
    "contiguous": {},
    "chunks": {"chunks": (2, 3, 2, 2)},
    "compressed": {"chunks": (3, 2, 2, 3), "compression": "gzip"},
    "one chunk": {"chunks": (3, 4, 5, 4), "compression": "gzip"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_axes_in_any_order_give_results_in_the_maps_shape(make_file, layout):
    data = np.random.default_rng(7).random((3, 4, 5, 4))
    source = make_file(data={"data": data, **LAYOUTS[layout]}) + "::/data"
    Weird = process_of(
        lambda self, spectrum: spectrum.ravel() @ np.arange(1, spectrum.size + 1)
    )
    choices = [
        axes for count in (1, 2, 3) for axes in itertools.permutations(range(4), count)
    ]
    for axes in choices[:: 2 if layout == "compressed" else 7]:
        rest = [axis for axis in range(4) if axis not in axes]
        moved = data.transpose(*axes, *rest)
        weights = np.arange(1, moved[(0,) * len(axes)].size + 1)
        expected = (moved.reshape(*moved.shape[: len(axes)], -1) * weights).sum(axis=-1)
        results = compute(Weird(source, position_axes=axes))
        assert results["mean"].shape == expected.shape
        np.testing.assert_allclose(results["mean"], expected)


def test_negative_axes_count_from_the_end(make_file):
    data = np.random.default_rng(7).random((3, 4, 5))
    source = make_file(data=data) + "::/data"
    results = compute(Mean(source, position_axes=-1))

    np.testing.assert_allclose(results["mean"], data.mean(axis=(0, 1)))
    assert Mean(source, position_axes=2).identity == results.identity


def test_all_axes_may_count_positions(make_file):
    Same = process_of(lambda self, value: value * 2)
    data = np.random.default_rng(7).random((3, 4))
    process = Same(make_file(data=data) + "::/data", position_axes=(1, 0))

    assert process.spectrum_shape == ()
    np.testing.assert_allclose(compute(process)["mean"], data.T * 2)


def test_a_rechunked_copy_gives_the_same_results_and_is_deleted(make_file, tmp_path):
    data = np.random.default_rng(7).random((6, 20, 5))
    made = {"data": data, "chunks": (1, 20, 5), "compression": "gzip"}
    source = make_file(stack=made) + "::/stack"
    results = compute(Mean(source, position_axes=(1, 2)), rechunk=True)

    np.testing.assert_allclose(results["mean"], data.mean(axis=0))
    assert results.identity == Mean(source, position_axes=(1, 2)).identity
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [results.path.name, "scan.h5"]
    )


def test_what_an_end_that_was_cut_short_has_left_is_removed(make_file, tmp_path):
    """A copy in position order and a second name outlive no complete run."""
    data = np.random.default_rng(7).random((6, 20))
    process = Mean(make_file(stack=data) + "::/stack", position_axes=(1,))
    compute(process, rechunk=True, positions=slice(0, 5))
    (copy,) = tmp_path.glob("*.rechunked.h5")
    kept = copy.read_bytes()
    path = compute(process, rechunk=True).path
    copy.write_bytes(kept)
    os.link(path, path.with_name(f".{path.stem}.birth"))
    compute(process)

    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "scan.h5"])


def test_a_copy_that_is_still_needed_is_kept(make_file, tmp_path):
    data = np.random.default_rng(7).random((6, 20))
    process = Mean(make_file(stack=data) + "::/stack", position_axes=(1,))
    compute(process, rechunk=True, positions=slice(0, 5))
    compute(process, rechunk=True, positions=slice(0, 5))

    assert len(list(tmp_path.glob("*.rechunked.h5"))) == 1


def test_a_rechunked_copy_of_old_contents_is_not_used(make_file):
    data = np.random.default_rng(7).random((6, 20, 5))
    path = make_file(
        stack={"data": data, "chunks": (1, 20, 5), "maxshape": (6, None, 5)}
    )
    process = Mean(f"{path}::/stack", position_axes=(1, 2))
    compute(process, rechunk=True, positions=slice(0, 10))
    with h5py.File(path, "r+") as file:
        file["stack"][:, 10:, :] += 100
        changed = file["stack"][...]
    results = compute(Mean(f"{path}::/stack", position_axes=(1, 2)), rechunk=True)

    np.testing.assert_allclose(results["mean"], changed.mean(axis=0))


@pytest.mark.parametrize("stored", [{}, {"compression": "gzip"}], ids=["plain", "gzip"])
@pytest.mark.parametrize("grows", [False, True])
def test_a_change_anywhere_in_an_input_that_can_grow_is_noticed(
    make_file, grows, stored
):
    """Of its identity only the first position is: the rest could still be written."""
    weights = {"data": np.ones((12, 3)), "maxshape": (None, 3), "chunks": (5, 3)}
    cube = {"data": np.ones((12, 3)), "maxshape": (None if grows else 12, 3)}
    path = make_file(cube=cube, weight={**weights, **stored}, zeros=np.zeros(12))

    def results():
        inputs = {"weight": "::/weight", "offset": "::/zeros"}
        return compute(Weighted(f"{path}::/cube", inputs=inputs))

    before = results()
    same = results()
    with h5py.File(path, "r+") as file:
        file["weight"][7] = 5
    after = results()
    told = rs.verify(before.path, Weighted)

    assert same.path == before.path
    assert after.path != before.path
    assert after["mean"][7] == 5 * before["mean"][7]
    assert not told.passed
    assert "inputs.weight.contents: not what the run was made of" in str(told)


def test_a_run_goes_on_where_its_source_and_input_have_grown(make_file):
    stored = {"maxshape": (None, 3), "chunks": (5, 3), "compression": "gzip"}
    made = {"data": np.ones((12, 3)), **stored}
    path = make_file(cube=made, weight=made, zeros={**made, "data": np.zeros((12, 3))})

    def results():
        inputs = {"weight": "::/weight", "offset": "::/zeros"}
        return compute(Weighted(f"{path}::/cube", inputs=inputs))

    before = results()
    with h5py.File(path, "r+") as file:
        for dataset in file.values():
            dataset.resize(20, 0)
        file["cube"][12:], file["weight"][12:] = 2, 3
    after = results()

    assert before.status.positions == 12
    assert after.sessions[-1].computed == 8
    assert after["mean"][15] == 6 * before["mean"][0]
