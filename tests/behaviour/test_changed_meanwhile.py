"""What is changed while it is computed leaves the run unfinished, and is told."""

import shutil
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import param
import pytest
from engine_processes import Drifts
from helpers import data_of

import resumable as rs
from resumable.cli.report import show_text, status_text
from resumable.runfile import RunFile
from resumable.session import BatchDone, session

FACTOR = 1.0
CACHE = {}


def filled(table, key):
    return table.setdefault(key, key)


class Scaled(rs.Process):
    """The first number, times all that can be changed."""

    outputs = {"value": rs.Output()}  # noqa: RUF012
    weights = param.List([1.0])
    note = None

    def __init__(self, *given, **more):
        super().__init__(*given, **more)
        self.gain = [1.0]
        self.tally = 0

    def unit_computation(self, spectrum, **inputs):
        self.tally += 1
        factor = self.weights[0] * self.gain[0] * FACTOR
        return factor * spectrum[0]


class Versioned(Scaled):
    version = 1


class Awaited(Scaled):
    def ready(self, positions):
        return positions < 40


def after_a_batch(change):
    """Return a listener that calls once, when some positions are done."""
    left = [change]

    def listen(event):
        if isinstance(event, BatchDone) and left:
            left.pop()()

    return listen


def compute(process, change=None, **options):
    options = {"engine": "serial", "progress": False, **options}
    listener = None if change is None else after_a_batch(change)
    return process.compute(listener=listener, **options)


def runs(folder):
    return sorted(p for p in Path(folder).glob("scan-*.h5"))


def path_of(source):
    return Path(source.partition("::")[0])


def overwriting(source, row=50):
    """Return a function that changes the contents in place, without HDF5."""
    with h5py.File(path_of(source)) as file:
        data = file["data"]
        if data.chunks:
            per_chunk = data.chunks[0]
            info = data.id.get_chunk_info_by_coord((row // per_chunk * per_chunk, 0))
            place = info.byte_offset + row % per_chunk * data[0].nbytes
        else:
            place = data.id.get_offset() + row * data[0].nbytes

    def overwrite():
        with path_of(source).open("r+b") as file:
            file.seek(place)
            file.write(np.float64(9).tobytes())

    return overwrite


def replacing(source):
    """Return a function that puts another file in the place of the source."""
    new = shutil.copyfile(path_of(source), path_of(source).with_name("new.h5"))
    overwriting(f"{new}::/data")()
    return lambda: Path(new).replace(path_of(source))


@pytest.mark.parametrize("change", [overwriting, replacing])
def test_a_source_that_is_changed_leaves_the_run_unfinished(scan, tmp_path, change):
    """Neither is the run continued when the old contents are there again."""
    kept = shutil.copyfile(path_of(scan), tmp_path / "kept")
    words = f"source {scan} was changed or replaced.*rows of two contents.*run again"
    with pytest.raises(rs.SourceError, match=words):
        compute(Scaled(scan), change(scan))

    (left,) = runs(tmp_path)
    assert not rs.open(left).status.finished
    anew = compute(Scaled(scan))
    np.testing.assert_array_equal(anew["value"], data_of(scan)[:, 0])
    shutil.copyfile(kept, path_of(scan))
    process = Scaled(scan)
    (reason,) = [c for c in process.explain().candidates if c.path == left]
    assert not reason.matches
    assert "changed while it was computed" in reason.reasons[0]
    assert (process.partials, process.results) == ([], None)
    again = compute(process)
    assert again.path not in (left, anew.path)
    np.testing.assert_array_equal(again["value"], data_of(scan)[:, 0])


def test_status_show_and_verify_tell_a_mixed_run(scan, tmp_path):
    with pytest.raises(rs.SourceError):
        compute(Scaled(scan), overwriting(scan))
    run = RunFile(*runs(tmp_path))

    assert status_text(run).startswith(f"{run.path.name}: mixed, 60 of 60 positions")
    assert "is not continued" in status_text(run)
    assert "ERROR" in show_text(run)
    assert rs.open(run.path).log[-1].message.startswith(f"the source {scan} was")
    assert not rs.verify(run.path).passed
    assert ": mixed, never finished, 60 of 60" in repr(rs.open(run.path))
    again = "is mixed: .* run again for a new one before "
    with pytest.raises(rs.RunFileError, match=f"{again}it is packed"):
        rs.open(run.path).pack()
    with pytest.raises(rs.RunFileError, match=f"{again}it is published"):
        rs.open(run.path).publish(f"{tmp_path}/o.h5::/a")
    with pytest.raises(rs.SourceError, match=f"{again}its outputs are used"):
        Scaled(rs.open(run.path)["value"])


def test_a_source_with_the_same_contents_is_not_changed(scan, tmp_path):
    def copy():
        new = shutil.copyfile(path_of(scan), tmp_path / "copy.h5")
        new.replace(path_of(scan))

    assert compute(Scaled(scan), copy).status.finished


def test_an_input_that_is_changed_is_named(make_file):
    path = make_file(data=np.ones((60, 4)), more=np.ones((60, 2)))
    other = make_file("other.h5", data=np.ones((60, 2)))
    inputs = {"near": "::/more", "far": f"{other}::/data"}
    process = Scaled(f"{path}::/data", inputs=inputs)
    with pytest.raises(rs.SourceError, match=r"input 'far' \(.*other.h5::/data\) was"):
        compute(process, overwriting(f"{other}::/data"))

    assert not process.partials


def test_an_input_of_another_run_is_known_by_its_run(scan, make_file):
    """An output of a run is not read once more; another run in its place is told."""
    first = compute(Scaled(scan))
    other = compute(Scaled(scan, weights=[2.0]))
    process = Scaled(scan, inputs={"before": first["value"]})
    with pytest.raises(rs.SourceError, match="input 'before'"):
        compute(process, lambda: shutil.copyfile(other.path, first.path))


def grown(make_file, rows=60):
    data = {"data": np.ones((rows, 4)), "maxshape": (None, 4), "chunks": (5, 4)}
    return make_file(data=data) + "::/data"


def append(source):
    new = shutil.copyfile(path_of(source), path_of(source).with_name("new.h5"))
    with h5py.File(new, "r+") as file:
        file["data"].resize(80, axis=0)
        file["data"][60:] = 1
    Path(new).replace(path_of(source))


def test_a_source_that_has_grown_is_not_changed(make_file):
    source = grown(make_file)
    results = compute(Scaled(source), lambda: append(source))

    assert (results.status.finished, results.status.done) == (True, 60)


def test_a_source_that_can_grow_is_changed_where_it_was_read(make_file, tmp_path):
    source = grown(make_file)
    with pytest.raises(rs.SourceError, match="changed or replaced"):
        compute(Scaled(source), overwriting(source))

    assert Scaled(source).partials == []


@pytest.mark.parametrize(("row", "changed"), [(50, False), (30, True)])
def test_a_source_that_is_filled_in_counts_where_it_was_ready(make_file, row, changed):
    source = make_file(data=np.ones((60, 4))) + "::/data"
    first = overwriting(source, row)
    results = compute(Awaited(source), first, positions=slice(0, 40))
    found = runs(path_of(source).parent)

    assert results.status.done == 40
    assert len(found) == 1 + changed
    assert rs.verify(found[0]).passed is not changed
    assert rs.verify(results).passed


def test_a_source_that_is_followed_begins_anew_when_it_is_changed(make_file, tmp_path):
    """The run that is left is not continued when the old contents are there again."""
    source = grown(make_file)
    kept = shutil.copyfile(path_of(source), tmp_path / "kept")
    results = compute(Scaled(source), overwriting(source), follow=0.2)
    np.testing.assert_array_equal(results["value"], data_of(source)[:, 0])
    (left,) = [run for run in runs(tmp_path) if run != results.path]
    shutil.copyfile(kept, path_of(source))

    assert Scaled(source).partials == []
    assert rs.open(left).status.done


def test_positions_without_data_have_nothing_to_digest(tmp_path):
    class Square(rs.Process):
        outputs = {"value": rs.Output()}  # noqa: RUF012

        def unit_computation(self, number):
            return number**2

    assert compute(Square(60, tmp_path)).status.finished


def test_a_source_that_is_gone_at_the_end_is_no_change(scan, tmp_path):
    """It cannot be told: the run is finished when the source is there again."""
    away = tmp_path / "away"
    with pytest.raises(rs.SourceError, match="no file"):
        compute(Scaled(scan), lambda: path_of(scan).rename(away))
    (left,) = runs(tmp_path)
    assert not rs.open(left).status.finished
    away.rename(path_of(scan))
    results = compute(Scaled(scan))

    assert (results.path, results.status.finished) == (left, True)


def test_a_changed_source_is_told_after_a_stop_too(scan, tmp_path):
    """A stopped run would be continued, with rows of two contents."""
    kept = shutil.copyfile(path_of(scan), tmp_path / "kept")
    begun, overwrite = threading.Event(), overwriting(scan)

    def change():
        begun.wait()
        overwrite()
        run.cancel()

    run = Scaled(scan).start(engine="serial", listener=after_a_batch(change))
    begun.set()
    with pytest.raises(rs.SourceError, match="changed or replaced"):
        run.wait()
    assert run.status().pending
    shutil.copyfile(kept, path_of(scan))

    assert Scaled(scan).partials == []


def set_weight(process):
    process.weights[0] = 2.0


def set_gain(process):
    process.gain[0] = 2.0


def replace_gain(process):
    process.gain = [3.0]


def set_global(process):
    global FACTOR
    FACTOR = 3.0


def wrap(process):
    Scaled.unit_computation = lambda self, spectrum: 7.0


@pytest.fixture
def as_before(monkeypatch):
    monkeypatch.setattr(Scaled, "unit_computation", Scaled.unit_computation)
    yield
    globals()["FACTOR"] = 1.0


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_weight, "the parameter 'weights' was"),
        (set_gain, "the attribute 'gain' was"),
        (replace_gain, "the attribute 'gain' was"),
        (set_global, "value FACTOR was"),
        (wrap, "Scaled were"),
    ],
)
def test_what_is_computed_with_must_not_change(scan, tmp_path, change, words):
    process = Scaled(scan)
    with pytest.raises(rs.IdentityError, match=f"{words} changed while.*rows of two"):
        compute(process, lambda: change(process))

    (left,) = runs(tmp_path)
    assert not rs.open(left).status.finished
    assert rs.open(left).path.name in str(rs.open(left).log[-1].message)


@pytest.mark.usefixtures("as_before")
def test_the_same_script_run_again_does_not_return_mixed_rows(scan, tmp_path):
    process = Scaled(scan)
    with pytest.raises(rs.IdentityError):
        compute(process, lambda: set_weight(process))
    results = compute(Scaled(scan))

    assert results.path not in runs(tmp_path)[:1]
    np.testing.assert_array_equal(results["value"], data_of(scan)[:, 0])


def test_a_file_that_is_a_parameter_must_not_change(scan, tmp_path):
    table = tmp_path / "table.txt"
    table.write_text("1")

    class Tabled(rs.Process):
        outputs = {"value": rs.Output()}  # noqa: RUF012
        table = param.Filename()

        def unit_computation(self, spectrum):
            return float(Path(self.table).read_text())

    with pytest.raises(rs.IdentityError, match="the parameter 'table' was changed"):
        compute(Tabled(scan, table=str(table)), lambda: table.write_text("20"))

    assert Tabled(scan, table=str(table)).partials == []


@pytest.mark.usefixtures("as_before")
def test_with_a_version_code_and_constants_may_change(scan):
    process = Versioned(scan)
    assert compute(process, lambda: set_global(process)).status.finished
    changed = Versioned(scan, weights=[6.0])
    with pytest.raises(rs.IdentityError, match="the parameter 'weights' was"):
        compute(changed, lambda: set_weight(changed))


def test_what_the_computation_does_not_read_may_change(scan):
    process = Scaled(scan)

    def change():
        process.note = "another"

    assert compute(process, change).status.finished


def test_a_table_that_a_helper_fills_may_change(scan):
    """It is given to the helper, and so not seen to be state."""

    class Filling(Scaled):
        def unit_computation(self, spectrum):
            return filled(CACHE, spectrum[0])

    CACHE.clear()

    assert compute(Filling(scan)).status.finished
    assert len(CACHE) == 60


def test_a_change_is_found_before_the_end_of_a_long_run(
    make_file, tmp_path, monkeypatch
):
    """An attribute that changes by being used would else cost all the time."""
    monkeypatch.setattr(session, "_FIRST_LOOK_S", 0)

    class Slow(Scaled):
        def unit_computation(self, spectrum):
            time.sleep(0.002)
            return self.gain[0] * spectrum[0]

    source = make_file(data=np.ones((500, 2))) + "::/data"
    process = Slow(source)
    with pytest.raises(rs.IdentityError, match="the attribute 'gain' was changed"):
        compute(process, lambda: set_gain(process))
    (left,) = runs(tmp_path)

    assert 0 < rs.open(left).status.done < 500
    assert Slow(source).partials == []


def test_what_the_code_itself_changes_is_state(scan):
    """Also in a function that is an attribute, and in what this one closes over."""
    seen = []

    class Noting(Scaled):
        calls = 0
        note = staticmethod(lambda: None)

        def unit_computation(self, spectrum):
            self.note()
            self.calls += 1
            return spectrum[0]

    process = Noting(scan)
    process.note = lambda: seen.extend([len(seen)])

    assert compute(process).status.finished
    assert len(seen) == 60
    assert process.identity == process.results.identity


def counted_by_type(self, spectrum):
    type(self).counter += 1
    return spectrum[0]


def counted_by_class(self, spectrum):
    self.__class__.counter += 1
    return spectrum[0]


def copied(self, spectrum):
    np.copyto(self.room, spectrum)
    return self.room[0]


@pytest.mark.parametrize("unit", [counted_by_type, counted_by_class, copied])
def test_what_methods_change_in_other_ways_is_state(scan, unit):
    body = {"outputs": Scaled.outputs, "unit_computation": unit, "counter": 0}
    process = type("Counting", (rs.Process,), {**body, "__module__": __name__})(scan)
    process.room = np.zeros(32)
    before = process.identity

    assert compute(process).status.finished
    assert process.identity == before


def test_a_file_that_is_edited_meanwhile_does_not_matter(script, make_file, tmp_path):
    """The code in memory is what computes."""
    source = make_file(data=np.ones((60, 4))) + "::/data"
    program = script(
        f"""
        from pathlib import Path

        import resumable as rs

        def helper(spectrum):
            return spectrum.mean()

        class Mean(rs.Process):
            outputs = {{"mean": rs.Output()}}

            def unit_computation(self, spectrum):
                return helper(spectrum)

        def edit(event):
            path = Path(__file__)
            path.write_text(path.read_text().replace("mean()", "max() + 1"))

        if __name__ == "__main__":
            process = Mean({source!r})
            print(process.compute(engine="serial", listener=edit).status)
        """
    )
    told, _ = program.communicate(timeout=60)

    assert told == "60 of 60 positions done\n"
    assert program.returncode == 0


def test_a_change_before_an_error_is_marked_too(scan, tmp_path):
    """The run would be continued, with rows of two values."""

    class Failing(Scaled):
        def unit_computation(self, spectrum):
            if self.position == 50:
                raise ValueError
            return self.gain[0] * spectrum[0]

    process = Failing(scan)
    with pytest.raises(rs.UnitFailed):
        compute(process, lambda: set_gain(process), on_error="raise")

    assert Failing(scan).partials == []


def test_with_workers_the_values_of_the_driver_must_not_change(scan):
    """A worker that is started later gets the new ones."""
    process = Scaled(scan)
    with pytest.raises(rs.IdentityError, match="'gain'"):
        compute(process, lambda: set_gain(process), engine="local", workers=1)


def test_a_chain_names_the_stage_that_was_changed(scan):
    class After(rs.Process):
        outputs = {"after": rs.Output()}  # noqa: RUF012

        def unit_computation(self, value):
            return 2 * value

    first = Scaled(scan)
    chain = rs.Chain(first, After())
    with pytest.raises(rs.IdentityError, match="parameter 'weights' of Scaled was"):
        chain.compute(
            engine="serial",
            progress=False,
            listener=after_a_batch(lambda: set_weight(first)),
        )


def test_a_chain_names_the_stage_that_a_worker_has_changed(scan):
    class After(rs.Process):
        outputs = {"after": rs.Output()}  # noqa: RUF012

        def unit_computation(self, mean):
            return 2 * mean

    first = Drifts(scan)
    first.table = np.ones(32)
    with pytest.raises(rs.IdentityError, match="'table' of Drifts in a worker was"):
        rs.Chain(first, After()).compute(engine="local", workers=1, progress=False)
