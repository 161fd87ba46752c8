"""Chains: stages in a row, of which some are kept, each known by all before it."""

import collections
import concurrent.futures
import types
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import param
import pytest
from chained import POSITIONS, bits, compute
from engine_processes import note, noted
from processes import process_of

import resumable as rs
import resumable.process.chain
import resumable.system.stop
import resumable.worker.work

pytest.importorskip("hdf5plugin")
pytestmark = pytest.mark.timeout(110, method="signal")


class Logged(rs.Process):
    """Notes every call; fails where it is told, until that is mended."""

    bad = param.List([])

    def noted(self):
        note("log", type(self).__name__)
        if self.position in self.bad and not Path("mended").exists():
            raise ValueError(f"no luck at {self.position}")


class Peaks(Logged):
    """Where the data are above a level: any number of places."""

    version = 1
    level = param.Number(0.0)
    outputs: ClassVar = {
        "places": rs.Output(dtype="i4", ragged=True),
        "above": rs.Output(32, "?"),
    }

    def unit_computation(self, spectrum, ground):
        self.noted()
        above = spectrum - ground > self.level
        return {"places": np.flatnonzero(above), "above": above}


class Heights(Logged):
    """How high they are, in single precision."""

    version = 1
    scale = param.Number(1.0)
    outputs: ClassVar = {
        "heights": rs.Output(dtype="f4", ragged=True),
        "drawn": rs.Output(),
        "done": rs.Output(dtype="i8", per="run"),
    }

    def unit_computation(self, places, spectrum):
        self.noted()
        heights = spectrum[places] * self.scale
        return {"heights": heights, "drawn": self.rng.normal()}

    def finish(self, results):
        return results.status.done


class Sums(rs.Process):
    """Many positions at once."""

    version = 1
    outputs: ClassVar = {"sums": rs.Output()}

    def block_computation(self, heights, above):
        note("log", "Sums")
        return [
            h.sum(dtype="f8") + a.sum() for h, a in zip(heights, above, strict=True)
        ]


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """Write the source of the chain, and work in its folder."""
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(6).normal(size=(2, POSITIONS, 32))
    with h5py.File("scan.h5", "w") as file:
        file["data"], file["ground"] = values[0], values[1] / 10
    return values[0], values[1] / 10


def head(**parameters):
    return Peaks("scan.h5::/data", inputs={"ground": "::/ground"}, **parameters)


def calls():
    """Return how often each stage was called since this was asked last."""
    found = dict(collections.Counter(noted("log")))
    Path("log").unlink(missing_ok=True)
    return found


def loop(data, scale=1.0):
    places = [
        np.flatnonzero(row - ground > 0) for row, ground in zip(*data, strict=True)
    ]
    heights = [
        (row[some] * scale).astype("f4")
        for row, some in zip(data[0], places, strict=True)
    ]
    sums = [
        h.sum(dtype="f8") + len(some) for h, some in zip(heights, places, strict=True)
    ]
    return places, heights, sums


KEPT = [
    ("Sums",),
    ("Heights", "Sums"),
    ("places", "Sums"),
    ("Peaks", "Heights", "Sums"),
    ("above", "heights", "sums"),
]


HOW = [(keep, "serial") for keep in KEPT]
HOW += [(KEPT[0], "local"), (KEPT[4], "local"), (KEPT[1], "driver")]


@pytest.mark.parametrize(("keep", "how"), HOW, ids=str)
def test_a_chain_gives_what_a_loop_gives(data, keep, how):
    options = {"engine": "local", "workers": 2} if how != "serial" else {}
    options |= {"writer": "driver"} if how == "driver" else {}
    chain = rs.Chain(head(), Heights(), Sums(), keep=keep)
    results = compute(chain, **options)
    places, heights, sums = loop(data)
    wanted = {"places": [p.astype("i4") for p in places], "heights": heights}

    assert bits(results["sums"][:]) == bits(np.array(sums))
    for name in wanted.keys() & results.keys():
        assert bits(results[name][:]) == bits(wanted[name])
    assert len(results.stages) == len(keep)
    if "done" in results:
        assert results["done"][()] == POSITIONS


def test_only_what_has_changed_is_computed_again(data):
    keep = ("Peaks", "Heights")
    compute(rs.Chain(head(), Heights(), keep=keep))
    first = calls()
    compute(rs.Chain(head(), Heights(), keep=keep))
    again = calls()
    results = compute(rs.Chain(head(), Heights(scale=2), keep=keep))
    of_last = calls()
    compute(rs.Chain(head(level=0.5), Heights(scale=2), keep=keep))
    of_first = calls()

    assert first == of_first == {"Peaks": POSITIONS, "Heights": POSITIONS}
    assert again == {}
    assert of_last == {"Heights": POSITIONS}
    assert bits(results["heights"][:]) == bits(loop(data, 2.0)[1])


def test_every_parameter_before_a_stage_is_in_its_identity():
    """What is not kept counts as well, and so does which outputs are."""

    def identity(level=0.0, scale=1.0, keep="Heights"):
        chain = rs.Chain(head(level=level), Heights(scale=scale), keep=keep)
        return chain["Heights"].identity

    found = [identity(), identity(level=0.1), identity(scale=2), identity(keep="drawn")]

    assert len(set(found)) == 4
    assert identity(0.0, 1.0) == found[0]


def test_a_first_stage_alone_shares_the_runs_of_its_process():
    alone = compute(head())
    calls()
    results = compute(rs.Chain(head(), Heights(), keep=("Peaks", "Heights")))

    assert results.stages["Peaks"] == alone
    assert calls() == {"Heights": POSITIONS}


def test_kept_outputs_are_read_and_others_computed_again():
    """Where a later stage needs what was not kept, its stage is computed once more."""
    compute(rs.Chain(head(), Heights(), keep=("above", "Heights")))

    assert calls() == {"Peaks": 2 * POSITIONS, "Heights": POSITIONS}


def test_what_failed_fails_in_every_later_stage_and_is_tried_again():
    chain = rs.Chain(
        head(bad=[3, 30]), Heights(bad=[5]), Sums(), keep=("Peaks", "Heights", "Sums")
    )
    results = compute(chain)
    failed = [np.flatnonzero(r.failed_mask).tolist() for r in results.stages.values()]
    told = {f.position: f.message for f in results.stages["Heights"].failures}
    Path("mended").touch()
    calls()
    mended = compute(chain, retry_failed=True)
    seen = calls()

    assert failed == [[3, 30], [3, 5, 30], [3, 5, 30]]
    assert "earlier stage" in told[3]
    assert told[5] == "no luck at 5"
    assert (seen["Peaks"], seen["Heights"]) == (2, 3)
    assert all(r.status.done == POSITIONS for r in mended.stages.values())


def test_positions_in_parts():
    """A later stage needs an earlier one only where it computes."""
    chain = rs.Chain(head(), Heights(), keep=("Peaks", "Heights"))
    part = compute(chain, positions=slice(10, 20))
    first = calls()
    compute(chain)
    rest = calls()

    assert first == {"Peaks": 10, "Heights": 10}
    assert rest == {"Peaks": 30, "Heights": 30}
    assert part["heights"].count.astype(bool).all()
    assert all(r.status.finished for r in chain.results.stages.values())


def test_a_stage_cannot_change_what_others_get(data):
    class Greedy(rs.Process):
        version = 1
        outputs: ClassVar = {"low": rs.Output()}

        def unit_computation(self, places, spectrum):
            spectrum[...] = places[...] = -1
            return spectrum.sum()

    chain = rs.Chain(head(), Greedy(), Heights(), keep="Heights")
    results = compute(chain)

    assert bits(results["heights"][:]) == bits(loop(data)[1])
    # Nobody asks for what Greedy gives, and so it is not computed.
    fused = rs.Chain(head(), Greedy(), Heights()).test(4)
    assert bits([fused["heights"]]) == bits([loop(data)[1][4]])
    assert fused["low"] == -32


def test_stages_have_random_numbers_of_their_own():
    class Noise(rs.Process):
        version = 1
        outputs: ClassVar = {"noise": rs.Output()}

        def unit_computation(self, spectrum):
            self.rng.normal()
            return self.rng.normal()

    class More(rs.Process):
        version = 1
        outputs: ClassVar = {"more": rs.Output()}

        def unit_computation(self, noise):
            self.rng.normal()
            return self.rng.normal()

    Blocked = process_of(block=lambda self, more: more, outputs={"same": rs.Output()})
    noise = Noise("scan.h5::/data")
    fused = compute(rs.Chain(noise, More()))["more"][...]
    split = compute(rs.Chain(noise, More(), keep=("Noise", "More")))
    blocks = compute(rs.Chain(noise, More(), Blocked()), engine="local", workers=2)

    np.testing.assert_array_equal(fused, split["more"][...])
    np.testing.assert_array_equal(fused, blocks["same"][...])
    assert not np.isin(fused, split["noise"][...]).any()
    assert len(np.unique(fused)) == POSITIONS


def test_a_source_that_has_grown_computes_the_rest(data):
    with h5py.File("grows.h5", "w") as file:
        file.create_dataset("data", data=data[0][:25], maxshape=(None, 32))

    class Low(Logged):
        version = 1
        outputs: ClassVar = {
            "low": rs.Output(ragged=True),
            "high": rs.Output(dtype="i8"),
        }

        def unit_computation(self, spectrum):
            self.noted()
            low = spectrum[spectrum < 0]
            return {"low": low, "high": len(spectrum) - len(low)}

    class Size(Logged):
        version = 1
        outputs: ClassVar = {"size": rs.Output(dtype="i8")}

        def unit_computation(self, low, high):
            self.noted()
            return len(low) - high

    def chain():
        return rs.Chain(Low("grows.h5::/data"), Size(), keep=("Low", "Size"))

    compute(chain())
    calls()
    with h5py.File("grows.h5", "a") as file:
        file["data"].resize(POSITIONS, axis=0)
        file["data"][25:] = data[0][25:]
    results = compute(chain())

    assert calls() == {"Low": 15, "Size": 15}
    low = (data[0] < 0).sum(axis=1)
    assert results["size"][...].tolist() == (2 * low - 32).tolist()


def test_a_map_and_an_executor(data):
    with h5py.File("map.h5", "w") as file:
        file["data"] = data[0].reshape(5, 8, 32)
        file["ground"] = data[1].reshape(5, 8, 32)
    first = Peaks("map.h5::/data", inputs={"ground": "::/ground"}, position_axes=(0, 1))
    chain = rs.Chain(first, Heights(), Sums(), keep=("Heights", "Sums"))
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        results = compute(chain, engine=threads)

    assert results["sums"].shape == (5, 8)
    assert results["sums"][...].reshape(-1).tolist() == loop(data)[2]
    assert bits([results["heights"][2, 3]]) == bits([loop(data)[1][19]])


def test_test_shows_all_stages(data):
    before = sorted(Path().iterdir())
    chain = rs.Chain(head(), Heights(), Sums())
    trial = chain.test(7)

    assert list(trial.outputs) == ["places", "above", "heights", "drawn", "sums"]
    assert trial["sums"] == loop(data)[2][7]
    assert trial.plan.path == chain["Sums"].plan().path
    assert sorted(p for p in Path().iterdir() if p.name != "log") == before


def test_the_process_of_a_kept_stage_can_be_asked(data):
    """It plans, explains and verifies; one that cannot be known yet says why."""
    chain = rs.Chain(head(), Heights(), Sums(), keep=("Heights", "Sums"))
    with pytest.raises(rs.RunFileError, match=r"Heights has kept.* compute the chain"):
        chain["Sums"]
    with pytest.raises(KeyError, match="Peaks"):
        chain["Peaks"]
    assert chain.results is None
    assert chain["Heights"].plan().action == "compute"
    compute(chain)

    assert chain["Sums"].plan().action == "return"
    for name in ("Heights", "Sums"):
        found = chain[name].verify(sample="all")
        assert found.passed, str(found)
    assert "matches" in str(chain["Heights"].explain())


# An argument of no stage, and the output of another stage.
Takes = process_of(lambda self, place, ground: 0, {"taken": rs.Output()})
Twice = process_of(lambda self, places: 0, {"above": rs.Output()})


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: rs.Chain(), "at least one stage"),
        (lambda: rs.Chain(head(), Takes()), r"asks for 'place'.*did you mean 'places'"),
        (lambda: rs.Chain(head(), Twice()), "output 'above', which is the name of"),
        (lambda: rs.Chain(head(), head()), "Peaks has a source of its own"),
        (lambda: rs.Chain(head(), Heights(), Heights()), "an output 'heights'"),
        (lambda: rs.Chain(head(), Heights), "a Process, as Fit.*, not .*Heights'>"),
        (lambda: rs.Chain(Heights, head()), "a Process, as Fit.*, not .*Heights'>"),
        (lambda: rs.Chain(head(), Heights(), keep=()), "keep= names nothing"),
        (lambda: rs.Chain(head(), Heights(), keep="hights"), "did you mean 'heights'"),
    ],
)
def test_a_chain_that_cannot_be_is_refused(make, told):
    with pytest.raises(rs.DeclarationError, match=told):
        make()


def test_a_chain_does_not_wait_for_positions():
    class Asks(Heights):
        def ready(self, positions):
            return False

    with pytest.raises(rs.DeclarationError, match=r"Asks has a method ready\(\)"):
        rs.Chain(head(), Asks())
    with pytest.raises(rs.PlanError, match="does not wait"):
        rs.Chain(head(), Heights()).compute(follow=1)


def test_a_stage_without_a_source_says_so():
    stage = Heights(scale=2)
    for call in (stage.compute, stage.test, stage.plan, lambda: rs.Chain(stage)):
        with pytest.raises(rs.SourceError, match="made without a source"):
            call()
    assert "no source" in repr(stage)


def test_parameters_stay_while_a_chain_computes():
    class Meddles(rs.Process):
        version = 1
        outputs: ClassVar = {"x": rs.Output()}

        def unit_computation(self, places):
            later.scale = 3
            return 0

    later = Heights()
    chain = rs.Chain(head(), Meddles(), later, keep=("x", "Heights"))
    with pytest.raises(rs.UnitFailed, match="cannot be set"):
        compute(chain, on_error="raise")
    later.scale = 2


def test_a_time_limit_is_for_all_stages(monkeypatch):
    """Stopped, it says so; the next call goes on with the stage it was at."""
    keep = ("Peaks", "Heights")

    def now():  # each position takes a second
        return float(len(noted("log")))

    clock = types.SimpleNamespace(monotonic=now, perf_counter=now)
    for module in (
        resumable.worker.work,
        resumable.process.chain,
        resumable.system.stop,
    ):
        monkeypatch.setattr(module, "time", clock)
    with pytest.raises(rs.NotFinished):
        compute(rs.Chain(head(), Heights(), keep=keep), time_limit=POSITIONS + 10)
    stopped = calls()
    compute(rs.Chain(head(), Heights(), keep=keep))
    rest = calls()

    assert stopped == {"Peaks": POSITIONS, "Heights": 10}
    assert rest == {"Heights": POSITIONS - 10}


def test_an_edit_of_an_input_that_can_grow_reaches_all_kept_stages(tmp_path):
    class Added(rs.Process):
        version = 1
        outputs: ClassVar = {"sums": rs.Output(4)}

        def unit_computation(self, spectrum, b):
            return spectrum + b

    class Total(rs.Process):
        version = 1
        outputs: ClassVar = {"total": rs.Output()}

        def unit_computation(self, sums):
            return sums.sum()

    path = tmp_path / "growing.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.ones((9, 4))
        file.create_dataset("b", data=np.zeros(9), maxshape=(None,), chunks=(4,))
    paths = []
    for edit, positions in ((None, slice(0, 8)), (7, None), (2, None)):
        if edit:
            with h5py.File(path, "r+") as file:
                file["b"][edit] = 1
        first = Added(f"{path}::/data", inputs={"b": "::/b"})
        chain = rs.Chain(first, Total(), keep=("Added", "Total"))
        results = compute(chain, positions=positions)
        with h5py.File(path) as file:
            expected = 4 + 4 * file["b"][: 8 if positions else 9]
        np.testing.assert_array_equal(results["total"][: len(expected)], expected)
        paths.append(results.stages["Total"].path)
    assert len(set(paths)) == 3
