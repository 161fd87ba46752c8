"""Positions of a followed source that are not ready yet."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import h5py
import numpy as np
import pytest
from helpers import until
from live_sources import run_files, serial
from processes import Mean, process_of

import resumable as rs
from resumable.errors import SourceError
from resumable.runfile.file import RunFile
from resumable.session import follow as following

pytestmark = pytest.mark.timeout(100, method="signal")

NUMBER = {"number": rs.Output(dtype="i8")}


class Awaited(Mean):
    """The mean of rows that are not NaN yet."""

    version = 1

    def ready(self, positions):
        with h5py.File(self._source.path, "r", locking=False) as file:
            return ~np.isnan(file["data"][:, 0][positions])


@pytest.fixture
def filled_in(tmp_path):
    """Return the path of a dataset of fixed size, 20 rows, of which none is there."""
    path = tmp_path / "live.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.full((20, 8), np.nan)
    return path


def fill(path, rows, value=None):
    """Write some rows; HDF5 refuses while this process reads the file."""

    def filled():
        try:
            with h5py.File(path, "a") as file:
                for row in rows:
                    file["data"][row] = row if value is None else value
        except OSError:
            return False
        return True

    until(filled)


def test_a_dataset_that_is_filled_in_is_followed(filled_in, script, tmp_path):
    process = Awaited(f"{filled_in}::/data")
    process.calls = []
    program = script(
        """
        import sys, time
        import h5py
        for row in [3, 2, 19, *range(4, 19), 0, 1]:
            with h5py.File(sys.argv[1], "a") as file:
                file["data"][row] = row
            time.sleep(0.03)
        """,
        str(filled_in),
        name="filler.py",
    )
    results = process.compute(follow=60, engine="serial")

    assert program.wait(20) == 0
    np.testing.assert_array_equal(results["mean"], np.arange(20.0))
    assert sorted(process.calls) == list(range(20))
    assert run_files(tmp_path) == [results.path.name]
    again = Awaited(f"{filled_in}::/data")
    assert again.duplicates == [results]
    assert [c.matches for c in again.explain().candidates] == [True]
    assert again.compute() == results
    assert rs.verify(results.path, Awaited).passed


def test_what_is_not_ready_in_time_is_not_finished(filled_in):
    fill(filled_in, [0, 1, 5])
    process = Awaited(f"{filled_in}::/data")
    with pytest.raises(rs.NotFinished, match=r"position 2 .* after 200 ms") as info:
        process.compute(follow=0.2)
    with pytest.raises(rs.NotFinished, match="position 2 is not ready"):
        process.compute()
    wanted = process.compute(positions=[0, 1, 5])

    assert info.value.code == 75
    assert info.value.results.status.done == 3
    assert wanted.path == info.value.results.path
    fill(filled_in, range(2, 20))
    process.calls = []
    results = process.compute(engine="serial")
    assert results.status.finished
    assert sorted(process.calls) == sorted({*range(20)} - {0, 1, 5})


def test_rows_that_changed_after_they_were_ready_are_computed_again(filled_in):
    fill(filled_in, [0, 1, 2])
    with pytest.raises(rs.NotFinished):
        Awaited(f"{filled_in}::/data").compute(follow=0.1)
    with h5py.File(filled_in, "a") as file:
        file["data"][1] = 77.0
        file["data"][3:] = 1.0
    results = Awaited(f"{filled_in}::/data").compute()

    np.testing.assert_array_equal(results["mean"], serial(f"{filled_in}::/data"))


def test_rows_that_were_ready_later_count_while_they_are_as_they_were(filled_in):
    source = f"{filled_in}::/data"
    fill(filled_in, [0])
    run = Awaited(source).start(follow=60)
    until(lambda: run.status().done == 1)
    fill(filled_in, [1, 2])
    until(lambda: run.status().done == 3)
    run.cancel()
    with pytest.raises(rs.NotFinished):
        run.wait(30)
    fill(filled_in, [2], 77.0)
    fill(filled_in, range(3, 20))
    results = Awaited(source).compute()

    np.testing.assert_array_equal(results["mean"], serial(source))


def test_only_the_driver_asks_which_positions_are_ready(filled_in, tmp_path):
    fill(filled_in, range(20))
    log = tmp_path / "asked"

    class Asked(rs.Process):
        version = 1
        outputs = NUMBER

        def ready(self, positions):
            with log.open("a") as file:
                file.write(f"{os.getpid()}\n")
            return True

        def unit_computation(self, spectrum):
            return os.getpid()

    results = Asked(f"{filled_in}::/data").compute(engine="local", workers=2)

    assert set(log.read_text().split()) == {str(os.getpid())}
    assert os.getpid() not in results["number"][...]


def test_positions_without_data_can_be_waited_for(tmp_path):
    def ready(self, positions):
        return np.array([(tmp_path / f"{n}.raw").exists() for n in positions])

    OfFiles = process_of(
        lambda self, index: len((tmp_path / f"{index}.raw").read_bytes()),
        NUMBER,
        ready=ready,
    )
    (tmp_path / "0.raw").write_bytes(b"xx")
    run = OfFiles(3, tmp_path).start(follow=60)
    until(lambda: run.status().done == 1)
    for number in (2, 1):
        (tmp_path / "part").write_bytes(b"x" * number)
        (tmp_path / "part").rename(tmp_path / f"{number}.raw")
    results = run.wait(30)

    assert results["number"][...].tolist() == [2, 1, 2]
    assert results.status.finished
    assert OfFiles(3, tmp_path).compute() == results


@pytest.mark.parametrize("answer", [1, np.ones(3, bool), np.ones(20), None])
def test_another_answer_than_a_bool_is_refused(filled_in, answer):
    process = type(
        "Wrong", (Mean,), {"ready": lambda self, positions: answer, "version": 1}
    )(f"{filled_in}::/data")

    with pytest.raises(rs.DeclarationError, match="ready must return a bool, or one"):
        process.compute()


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_failed_positions_are_tried_again_once(filled_in, compression):
    """They are not tried for ever; a packed run is unpacked first."""

    class Fails(Awaited):
        version = 1
        outputs: ClassVar = {"mean": rs.Output(compression=compression)}

        def unit_computation(self, spectrum):
            self.calls.append(self.position)
            if self.position == 3:
                raise ValueError("3")
            return spectrum.mean()

    fill(filled_in, range(20))
    process = Fails(f"{filled_in}::/data")
    process.calls = []
    with pytest.warns(rs.ResumableWarning, match="1 of 20 positions failed"):
        process.compute(engine="serial")
    process.calls.clear()
    with pytest.warns(rs.ResumableWarning, match="1 of 20 positions failed"):
        results = process.compute(engine="serial", retry_failed=True)

    assert process.calls == [3]
    assert (RunFile(results.path).header.packed is not None) is bool(compression)


def test_threads_of_an_executor_follow(writer):
    program = writer("swmr", count=20, most=20)
    program.tell()
    with ThreadPoolExecutor(2) as threads:
        results = Mean(program.source).compute(follow=60, engine=threads)

    program.tell()
    assert program.program.stdout.readline() == "closed\n"
    np.testing.assert_array_equal(results["mean"], serial(program.source))


MAPS = """
import sys, time
import h5py
import numpy as np
path, kind = sys.argv[1:]
rng = np.random.default_rng(7)
file = h5py.File(path, "w", libver="latest")
for name, rest in (("data", (3, 8)), ("gain", (3, 2))):
    file.create_dataset(name, (1, *rest), maxshape=(None, *rest), chunks=(1, *rest))
    file[name][0] = rng.normal(size=rest)
if kind == "swmr":
    file.swmr_mode = True
else:
    file.close()
print("there", flush=True)
for number in range(1, 15):
    time.sleep(0.03)
    if kind != "swmr":
        file = h5py.File(path, "a", libver="latest")
    for name in ("gain", "data"):
        file[name].resize(number + 1, axis=0)
        file[name][number] = rng.normal(size=file[name].shape[1:])
        file[name].flush()
        time.sleep(0.01)
    if kind != "swmr":
        file.close()
file.close()
"""


@pytest.mark.parametrize("kind", ["swmr", "reopen"])
def test_a_map_and_its_input_grow_together(tmp_path, script, kind):
    """One of the two is longer for a moment; positions are those that both have."""

    Product = process_of(lambda self, spectrum, gain: spectrum.sum() * gain.sum())
    path = tmp_path / "live.h5"
    program = script(MAPS, str(path), kind, name="maps.py")
    assert program.stdout.readline() == "there\n"
    process = Product(
        f"{path}::/data", inputs={"gain": "::/gain"}, position_axes=(0, 1)
    )
    results = process.compute(follow=60, positions=slice(0, 45))
    with h5py.File(path) as file:
        wanted = file["data"][...].sum(axis=2) * file["gain"][...].sum(axis=2)

    assert program.wait(20) == 0
    assert results["mean"].shape == (15, 3)
    np.testing.assert_allclose(results["mean"], wanted, rtol=1e-6)
    assert process.compute() == results


HOLDER = """
import sys
import h5py
with h5py.File(sys.argv[1], "a", libver="latest"):
    print("open", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("moment", [1, 2], ids=["first", "longer"])
def test_a_writer_that_opens_the_source_for_a_moment_is_waited_for(
    tmp_path, monkeypatch, moment
):
    """The source cannot be read for its coordinates when the run file is made."""
    path = tmp_path / "live.h5"

    def grow(rows):
        with h5py.File(path, "a", libver="latest") as file:
            if "data" not in file:
                file.create_dataset("data", (0, 4), "f4", maxshape=(None, 4))
            file["data"].resize(rows, axis=0)

    made = []

    class Late(following.Assignment):
        def open_run(self, run, **how):
            made.append(self)
            if len(made) != moment:
                longer = super().open_run(run, **how)
                if len(made) == 1:
                    grow(20)
                return longer
            command = [sys.executable, "-c", HOLDER, str(path)]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as holder:
                assert holder.stdout.readline() == "open\n"
                try:
                    return super().open_run(run, **how)
                finally:
                    holder.communicate("\n")

    grow(10)
    monkeypatch.setattr(following, "Assignment", Late)
    requested = slice(0, 10 * moment)
    results = Mean(f"{path}::/data").compute(follow=60, positions=requested)

    assert len(made) == moment + 1
    assert results.completed_mask[requested].all()
    assert [session.computed for session in results.sessions] == [10 * moment]


def test_a_damaged_row_ends_with_an_error(tmp_path, monkeypatch):
    """A row outside of the sampled contents; what can be read is kept."""
    monkeypatch.setattr("resumable.source.fingerprint.DIGEST_BYTES", 64 * 64)
    monkeypatch.setattr("resumable.source.fingerprint.SAMPLED_BYTES", 64 * 64)
    monkeypatch.setattr("resumable.source.reader._PATIENCE_S", 0.2)
    path = tmp_path / "live.h5"
    made = {"maxshape": (None, 8), "chunks": (1, 8), "compression": "gzip"}
    with h5py.File(path, "w") as file:
        rows = np.random.default_rng(1).random((999, 8))
        data = file.create_dataset("data", data=rows, **made)
        place = data.id.get_chunk_info_by_coord((505, 0)).byte_offset
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(20))
    process = Mean(f"{path}::/data")

    with pytest.raises(SourceError, match=r"cannot be read .*\)\. \d+ of 999"):
        process.compute(follow=60)
