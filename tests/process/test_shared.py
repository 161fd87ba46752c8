"""What all positions share: read once, given to every call, known by its contents."""

import json
from pathlib import Path

import h5py
import numpy as np
import param
import pytest
from helpers import compute
from processes import MEAN, listing, process_of
from programs import invoke

import resumable as rs

AXIS = np.linspace(400, 700, 32)


class Centroid(rs.Process):
    """Centre of mass of every spectrum on an axis that all of them share."""

    version = 1
    outputs = MEAN
    power = param.Number(1.0)

    def unit_computation(self, spectrum, axis, offset=0.0):
        return (axis * spectrum**self.power).sum() + offset


@pytest.fixture
def path(scan):
    """Return a file with a source and several forms of an axis."""
    name = scan.partition("::")[0]
    with h5py.File(name, "a") as file:
        file["entry/axis"] = AXIS.astype(">f8")
        file["packed"] = h5py.SoftLink("/entry/packed")
        file.create_dataset("entry/packed", data=AXIS, chunks=(7,), compression="lzf")
        file["offset"] = 2.5
        file["element"] = "Fe"
        file["elements"] = ["Fe", "Mün"]
    return name


def expected(path, axis=AXIS, offset=0.0):
    with h5py.File(path) as file:
        return (file["data"][...] * axis).sum(axis=1) + offset


def centroid(path, axis="::/entry/axis", **shared):
    return Centroid(f"{path}::/data", shared={"axis": axis, **shared})


def test_a_dataset_an_array_and_a_list_of_the_same_numbers_are_one_run(path):
    other = f"{path}.axis.h5"
    with h5py.File(other, "w") as file:
        file["axis"] = AXIS
    results = compute(centroid(path))

    np.testing.assert_allclose(results["mean"], expected(path), 1e-13)
    with h5py.File(other, "r") as file:
        for given in (
            AXIS,
            AXIS.tolist(),
            f"{other}::/axis",
            "::/packed",
            file["axis"],
        ):
            assert centroid(path, given).results == results
    axis = AXIS.copy()
    process = centroid(path, axis)
    axis[0] = 1
    assert process.results == results
    assert centroid(path, axis).results is None
    assert results.document["shared"] == {
        "axis": {
            "array": {
                "dtype": "<f8",
                "shape": [32],
                "sha256": results.document["shared"]["axis"]["array"]["sha256"],
            }
        }
    }


def test_numbers_and_texts_are_shared_as_they_are(path):
    def take(self, spectrum, one, two, three, four):
        values = (one, two.tolist(), three, four)
        return repr(values).encode()

    process = process_of(take, {"seen": rs.Output(dtype="S99")})(
        f"{path}::/data",
        shared={"one": "::/element", "two": "::/elements", "three": 3, "four": True},
    )
    np.testing.assert_array_equal(
        compute(process)["seen"], repr(("Fe", ["Fe", "Mün"], 3, True)).encode()
    )
    offset = compute(centroid(path, offset="::/offset"))
    np.testing.assert_allclose(offset["mean"], expected(path, offset=2.5), 1e-13)
    assert centroid(path, offset=np.float64(2.5)).results == offset


def test_a_changed_dataset_is_another_run_for_a_process_made_after_it(path):
    before = centroid(path)
    results = compute(before)
    with h5py.File(path, "r+") as file:
        file["entry/axis"][3] = 0

    assert before.results == results
    assert centroid(path).results is None
    (old,) = centroid(path).explain().candidates
    assert old.reasons[0].startswith("shared.axis.array.sha256")


def test_a_block_gets_what_is_shared_once(path):
    def block(self, spectra, axis):
        return (spectra * axis).sum(axis=1)

    Block = process_of(block=block)
    results = compute(Block(f"{path}::/data", shared={"axis": AXIS}))

    np.testing.assert_allclose(results["mean"], expected(path), 1e-13)


def test_outputs_and_setup_know_what_is_shared(path):
    class Binned(rs.Process):
        version = 1
        shared_at_setup = None

        def outputs(self):
            return {"binned": rs.Output(len(self.shared["edges"]) - 1)}

        def setup(self):
            self.shared_at_setup = self.shared["edges"]

        def unit_computation(self, spectrum, edges):
            return np.add.reduceat(spectrum, self.shared_at_setup)[:-1]

    process = Binned(f"{path}::/data", shared={"edges": [0, 8, 16, 31]})
    assert compute(process)["binned"].shape == (60, 3)


def test_a_shared_dataset_that_has_changed_is_named(path, caplog):
    """Not the source; a number that is given in Python is another one on purpose."""

    def made(offset=1.0):
        shared = {"axis": "::/entry/axis", "offset": offset}
        return Centroid(f"{path}::/data", shared=shared)

    before = compute(made())
    compute(made(offset=2.0))
    assert "changed" not in caplog.text
    with h5py.File(path, "a") as file:
        file["entry/axis"][...] += 1
    told = {c.path: c.reasons for c in made().explain().candidates}
    compute(made())

    (reason,) = told[before.path]
    assert reason.startswith("shared.axis.array.sha256: other contents, ")
    other = next(reasons for run, reasons in told.items() if run != before.path)
    assert "shared.offset: 2.0 there, 1.0 here" in other
    assert f"the shared 'axis' has changed since {before.path.name}" in caplog.text


def test_what_is_shared_stays_as_it_was_given(path):
    process = centroid(path)

    with pytest.raises(rs.ParameterError, match="what positions of a Centroid share"):
        process.shared = {"axis": AXIS + 1}
    with pytest.raises(TypeError, match="item assignment"):
        process.shared["axis"] = AXIS + 1
    compute(process)
    np.testing.assert_array_equal(process.shared["axis"], AXIS)


def test_a_class_may_have_an_attribute_of_that_name(path):
    class Own(rs.Process):
        version = 1
        outputs = MEAN

        def setup(self):
            self.shared = 3

        def unit_computation(self, spectrum):
            return self.shared

    assert compute(Own(f"{path}::/data"))["mean"][0] == 3


@pytest.mark.parametrize(
    ("shared", "error", "text"),
    [
        ({}, rs.DeclarationError, "asks for 'axis', .* shared= where it is the same"),
        ({"axes": AXIS}, rs.DeclarationError, "did you mean 'axes'"),
        ({"axis": AXIS, "more": 1}, rs.DeclarationError, "unexpected keyword .*'more'"),
        ({"axis": "::/axis"}, rs.SourceError, "share as 'axis': .* did you mean"),
        ({"axis": "::/entry"}, rs.SourceError, "is a group"),
        ({"axis": "wavelength"}, rs.SourceError, "array or a number can be given"),
        ({"axis": {}}, rs.SourceError, "not a dict"),
        ({"axis": np.array([{}])}, rs.SourceError, "array that is of objects"),
        ({"axis": [[1, 2], [3]]}, rs.SourceError, "as 'axis' is no array"),
        (
            {"axis": np.ma.array([1], mask=[1])},
            rs.SourceError,
            r"that is masked; .*\.filled",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_shared_is_refused_at_once(path, shared, error, text):
    before = listing(Path(path).parent)
    with pytest.raises(error, match=text):
        Centroid(f"{path}::/data", shared=shared)
    assert listing(Path(path).parent) == before


@pytest.mark.parametrize("argument", ["inputs", "shared"])
@pytest.mark.parametrize("wrong", [["axis"], "axis", {1: AXIS}], ids=str)
def test_inputs_and_shared_are_given_by_name(path, argument, wrong):
    text = f'{argument} must be a dict .* {argument}=."name": source.'
    with pytest.raises(rs.SourceError, match=text):
        Centroid(f"{path}::/data", **{argument: wrong})
    with pytest.raises(rs.SourceError, match=text):
        rs.map(np.mean, f"{path}::/data", **{argument: wrong})


def test_one_name_is_an_input_or_shared(path):
    with pytest.raises(
        rs.DeclarationError, match="'axis' is among inputs= and shared="
    ):
        Centroid(
            f"{path}::/data", inputs={"axis": "::/data"}, shared={"axis": "::/packed"}
        )


def test_a_run_and_a_state_give_back_what_was_shared(path):
    process = centroid(path, offset=2.5)
    results = compute(process)
    with h5py.File(path, "r+") as file:
        del file["entry"]  # which is not needed any more

    for again in (
        rs.load(results, Centroid),
        rs.load(json.loads(json.dumps(process.state())), Centroid),
    ):
        assert again.results == results
        np.testing.assert_array_equal(again.shared["axis"], AXIS)
        assert again.shared["offset"] == 2.5
    found = rs.verify(results.path, Centroid)
    assert found.checks[-1].passed, found
    with h5py.File(results.path) as file:
        np.testing.assert_array_equal(file["run/arrays/axis"], AXIS)


def test_texts_and_compounds_are_given_back_and_not_read_as_names(path):
    with h5py.File(path, "r+") as file:
        file["name"] = f"{path}::/entry/axis"
        file["pair"] = np.array((1, 2.5), [("a", "i4"), ("b", "f8")])

    class Named(rs.Process):
        version = 1
        outputs = MEAN

        def unit_computation(self, spectrum, unit, name, pair):
            return spectrum.mean() * len(unit) + len(name) + pair["b"]

    shared = {"unit": "::/element", "name": "::/name", "pair": "::/pair"}
    process = Named(f"{path}::/data", shared=shared)
    results = compute(process)

    for again in (
        rs.load(results, Named),
        rs.load(json.loads(json.dumps(process.state())), Named),
    ):
        assert again.results == results
        assert again.shared == process.shared
    assert rs.verify(results.path, Named).checks[-1].passed


def test_a_constructor_that_reads_what_is_shared_gets_what_the_run_has(path):
    class Own(Centroid):
        def __init__(self, file, which):
            super().__init__(f"{file}::/data", shared={"axis": f"::/entry/{which}"})

        def unit_computation(self, spectrum, axis):
            return (axis * spectrum).sum()

    process = Own(path, "axis")
    results = compute(process)
    with h5py.File(path, "r+") as file:
        file["entry/axis"][3] = 0

    for again in (rs.load(results, Own), rs.load(process.state(), Own)):
        np.testing.assert_array_equal(again.shared["axis"], AXIS)
        assert again.results == results
    assert rs.verify(results.path, Own).checks[-1].passed
    assert Own(path, "axis").results is None


def test_what_is_too_large_to_be_kept_is_read_again_from_its_file(path, tmp_path):
    large = np.zeros((2 << 20) + 1)
    large[:32] = AXIS
    other = tmp_path / "large.h5"
    with h5py.File(other, "w") as file:
        file["axis"] = large

    class First(Centroid):
        def unit_computation(self, spectrum, axis):
            return (axis[:32] * spectrum).sum()

    process = First(f"{path}::/data", shared={"axis": f"{other}::/axis"})
    results = compute(process)

    assert rs.load(results, First).results == results
    assert rs.load(process.state(), First).results == results
    assert rs.verify(results.path, First).checks[-1].passed
    array = First(f"{path}::/data", shared={"axis": large})
    with pytest.raises(
        rs.IdentityError,
        match=r"'axis' is an array .* 16 MB .*shared=.'axis': 'file.h5::/data",
    ):
        array.state()
    other.unlink()
    with pytest.raises(
        rs.IdentityError, match=r"'axis', which is shared, was .*large\.h5.*nor beside"
    ):
        rs.load(results, First)
    found = rs.verify(results.path, First)
    assert [check.passed for check in found.checks] == [True, True, True, None, None]
    assert process.verify().checks[-1].passed


def test_a_plain_function_shares_too(path):
    def weighted(spectrum, axis, gain=2.0):
        return gain * (spectrum * axis).sum()

    results = rs.map(weighted, f"{path}::/data", shared={"axis": "::/packed"}, gain=1.0)

    np.testing.assert_allclose(results["result"], expected(path), 1e-13)
    assert rs.verify(results.path, weighted).checks[-1].passed


def test_stages_of_a_chain_share_what_the_first_one_does_and_their_own(path):
    def first(self, spectrum, axis):
        return spectrum * axis

    def second(self, weighted, axis, gain):
        return gain * weighted.sum() / axis.sum()

    First = process_of(first, {"weighted": rs.Output(32)}, name="First")
    Second = process_of(second, {"ratio": rs.Output()}, name="Second")

    def chain(gain, keep=None):
        head = First(f"{path}::/data", shared={"axis": AXIS})
        return rs.Chain(head, Second(shared={"gain": gain}), keep=keep)

    found = chain(2.0).compute(engine="serial")
    np.testing.assert_allclose(found["ratio"], 2 * expected(path) / AXIS.sum(), 1e-12)
    assert chain(2.0).results.stages == found.stages
    assert chain(3.0).results is None
    both = chain(2.0, ("First", "Second")).compute(engine="serial")
    np.testing.assert_array_equal(both["ratio"], found["ratio"])
    assert both.stages["First"].sessions[0].computed == 60
    with pytest.raises(rs.SourceError, match="names no file"):
        Second(shared={"gain": "::/offset"})
    with pytest.raises(rs.DeclarationError, match="shared or the source"):
        rs.Chain(First(f"{path}::/data", shared={"axis": AXIS}), Second())


def test_the_command_takes_what_is_shared(path, home):
    (home / "shares.py").write_text(
        "import resumable as rs\n"
        "class Centroid(rs.Process):\n"
        "    version = 1\n"
        "    outputs = {'mean': rs.Output()}\n"
        "    def unit_computation(self, spectrum, axis, offset=0.0):\n"
        "        return (axis * spectrum).sum() + offset\n"
    )
    arguments = ["shares.py:Centroid", f"{path}::/data", "--shared", "axis=::/packed"]
    text = invoke("run", *arguments, "--shared", "offset=2.5")
    (run,) = home.glob("scan-data-Centroid-*.h5")
    np.testing.assert_allclose(rs.open(run)["mean"], expected(path, offset=2.5), 1e-13)
    assert "60 of 60" in text
    assert "sound" in invoke("verify", str(run), "--class", "shares.py:Centroid")
    assert "60 positions computed" not in text
    shown = invoke("show", str(run))
    assert "shared      offset = 2.5\n" in shown
    assert f" ({path}::/packed)\n" in shown
    assert "matches" in invoke("explain", *arguments, "--shared", "offset=2.5")
    assert "NAME=SOURCE" in invoke("run", *arguments[:2], "--shared", "axis", code=2)


def test_an_array_parameter_is_read_from_a_dataset_by_the_command(path, home):
    (home / "shares.py").write_text(
        "import param\n"
        "import resumable as rs\n"
        "class Weighted(rs.Process):\n"
        "    version = 1\n"
        "    outputs = {'mean': rs.Output()}\n"
        "    weights = param.Array(doc='of every channel')\n"
        "    def unit_computation(self, spectrum):\n"
        "        return (self.weights * spectrum).sum()\n"
    )
    command = ["run", "shares.py:Weighted", f"{path}::/data", "--weights"]
    invoke(*command, "::/entry/axis")
    (run,) = home.glob("scan-data-Weighted-*.h5")
    np.testing.assert_allclose(rs.open(run)["mean"], expected(path), 1e-13)
    invoke(*command, f"{path}::/packed")
    assert len(list(home.glob("scan-data-Weighted-*.h5"))) == 1
    assert "sound" in invoke("verify", str(run), "--class", "shares.py:Weighted")
    assert "FILE::/DATASET" in invoke("run", "shares.py:Weighted", "--help")
    text = invoke(*command, "::/elemen", code=1)
    assert text.startswith("Error: Weighted.weights: ")
    assert "has no dataset /elemen" in text
    assert "it takes FILE::/DATASET, not '[1, 2]'" in invoke(*command, "[1, 2]", code=2)


def test_a_file_that_is_being_written_is_not_shared_half(path):
    with h5py.File(f"{path}.open.h5", "w", locking=False) as file:
        file["axis"] = AXIS
        file.flush()
        with pytest.raises(rs.SourceError, match="open for writing"):
            centroid(path, f"{path}.open.h5::/axis")


def test_results_of_another_run_can_be_shared(path):
    means = compute(process_of(lambda self, s: s[:32].mean())(f"{path}::/data"))["mean"]

    class Above(rs.Process):
        version = 1
        outputs = MEAN

        def unit_computation(self, spectrum, means):
            return (spectrum.mean() > means).mean()

    found = compute(Above(f"{path}::/data", shared={"means": means}))
    ranks = np.argsort(np.argsort(means[...])) / 60
    np.testing.assert_allclose(found["mean"], ranks)
