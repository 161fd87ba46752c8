"""The MPI engine, under a real mpiexec: equal results, and every way to fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import h5py
import mpiexec
import numpy as np
import pytest
from engine_conformance import Logged, Several, noted
from helpers import SUPPORT

import resumable as rs
from resumable.system import launcher as world

# A hung job is ended by its own helper, well before.
pytestmark = pytest.mark.timeout(90, method="signal")

POSITIONS = 60

#: What every script begins with.
HEAD = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
import resumable as rs
from resumable.system import launcher as world
from engine_conformance import *

RANK = world.rank()
OPTIONS = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}

def tell(**what):
    # A file and not the output, where ranks' lines can be mixed.
    path = Path(f"told-{RANK}-{time.time_ns()}")
    path.write_text(json.dumps({"rank": RANK, **what}))
"""


def with_head(text):
    """Return a whole script."""
    return HEAD + textwrap.dedent(text)


@pytest.fixture(
    params=["mpich", pytest.param("openmpi", marks=pytest.mark.openmpi)],
)
def mpi(request, tmp_path):
    """Return an MPI that runs scripts in the test's folder."""
    found = getattr(mpiexec, request.param)(tmp_path)
    yield found
    found.stop_all()


@pytest.fixture
def mpich(tmp_path):
    """Return MPICH, for what is special to it."""
    found = mpiexec.mpich(tmp_path)
    yield found
    found.stop_all()


@pytest.fixture
def data():
    """Return POSITIONS spectra of 32 floats."""
    return np.random.default_rng(7).normal(size=(POSITIONS, 32))


@pytest.fixture
def source(tmp_path, data):
    """Return a source of these spectra."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = data
    return f"{tmp_path}/scan.h5::/data"


def told(folder):
    """Return what ranks told, in the order of ranks."""
    found = [json.loads(path.read_text()) for path in folder.glob("told-*")]
    return sorted(found, key=lambda one: one["rank"])


def only_run(folder):
    """Return the results of the one run in a folder."""
    (path,) = folder.glob("scan-*.h5")
    return rs.open(path)


def of_log(folder):
    """Return the positions that were computed, sorted."""
    return sorted(map(int, noted(folder / "log")))


# Results do not depend on ranks.


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_give_the_bytes_of_serial(mpi, source, tmp_path, ranks):
    """Every output, random ones and one per run too, and on every rank the same."""
    job = mpi.run(
        ranks,
        with_head("""
        results = Several("scan.h5::/data").compute(engine="mpi")
        tell(sum=results["random"][...].sum(), path=results.path.name)
        """),
    )
    ours = only_run(tmp_path)
    (tmp_path / "serial").mkdir()
    serial = Several(source, tmp_path / "serial").compute(engine="serial")

    assert (job.code, job.err) == (0, "")
    assert ours.status.finished
    assert [one["rank"] for one in told(tmp_path)] == list(range(ranks))
    assert {one["path"] for one in told(tmp_path)} == {ours.path.name}
    assert {one["sum"] for one in told(tmp_path)} == {serial["random"][...].sum()}
    assert ours.sessions[-1].engine == "mpi"
    assert ours.sessions[-1].workers == ranks
    for name in serial:
        assert ours[name][...].tobytes() == serial[name][...].tobytes()


def test_the_conformance_tests_pass_on_two_ranks(mpi):
    """Rank 0 runs them, and the other one is called to every compute."""
    script = SUPPORT / "mpi_conformance.py"
    job = mpi.end(mpi.start(2, script), timeout=80)

    assert job.code == 0, job.out + job.err
    assert " passed" in job.out


def test_an_unchanged_script_computes_with_every_rank(mpi, source, data, tmp_path):
    """Without a word of MPI in it: all ranks compute, each position once."""
    job = mpi.run(
        3,
        with_head("""
        results = Logged("scan.h5::/data", log="log", delay_s=0.02).compute()
        print(results.status)
        """),
    )
    results = only_run(tmp_path)

    assert (job.code, job.err) == (0, "")
    assert job.out.count("60 of 60 positions done") == 3
    assert of_log(tmp_path) == list(range(POSITIONS))
    assert len(set(noted(tmp_path / "log.pid"))) == 3
    assert results.sessions[-1].computed == POSITIONS
    np.testing.assert_array_equal(results["mean"][...], data.mean(axis=1))


class Halts(Logged):
    """Is stopped when so many positions are noted as the file ``<log>.most`` says.

    By a signal, or by a time limit of less than 0.5 s, as the file says, too.
    """

    def unit_computation(self, spectrum):
        value = super().unit_computation(spectrum)
        most, how = noted(self.log + ".most") or (POSITIONS + 1, "")
        if len(noted(self.log)) >= int(most):
            if how == "signal":
                os.kill(os.getpid(), signal.SIGUSR1)
            else:
                time.sleep(0.5)
        return value


def test_other_ranks_and_other_engines_go_on(mpi, source, data, tmp_path):
    """Stopped on 4 ranks, then on 2, finished by processes: nothing twice."""
    script = with_head("""
        from test_mpi import Halts
        process = Halts("scan.h5::/data", log=os.path.abspath("log"), delay_s=0.05)
        process.compute(**OPTIONS)
        """)
    most = tmp_path / "log.most"
    most.write_text("20 signal")
    stopped = mpi.run(4, script)
    most.write_text("40 limit")
    again = mpi.run(2, script, '{"time_limit": 0.4}')
    most.unlink()
    process = Halts(source, log=str(tmp_path / "log"), delay_s=0.05)
    left = process.results.status.pending
    results = process.compute(engine="local", workers=2)

    assert (stopped.code, again.code) == (75, 75)
    assert "stopped by SIGUSR1" in stopped.err
    assert "stopped at the time limit of 0.4" in again.err
    assert 0 < left <= POSITIONS - 20
    assert of_log(tmp_path) == list(range(POSITIONS))
    assert [s.engine for s in results.sessions] == ["mpi", "mpi", "local"]
    np.testing.assert_array_equal(results["mean"][...], data.mean(axis=1))


def test_what_was_begun_elsewhere_is_finished_by_ranks(mpi, source, tmp_path):
    """Scattered holes are found and filled."""
    process = Logged(source, log=str(tmp_path / "log"))
    process.compute(engine="serial", positions=[0, 3, 4, 5, 17, 40, 41, 59])
    job = mpi.run(
        2, with_head('Logged("scan.h5::/data", log=os.path.abspath("log")).compute()')
    )

    assert job.code == 0, job.err
    assert process.results.status.finished
    assert of_log(tmp_path) == list(range(POSITIONS))


def test_ranks_on_hosts_of_their_own_compute_alike(mpich, source, data, tmp_path):
    """Over the network, which MPICH can be told to take, and a budget for each."""
    job = mpich.run(
        3,
        with_head("""
        class Hungry(Logged):
            scratch = 40 << 20

        process = Hungry("scan.h5::/data", log="log", delay_s=0.02)
        results = process.compute(memory="50 MB")
        tell(workers=results.sessions[-1].workers)
        """),
        MPIR_CVAR_NOLOCAL="1",
    )

    assert (job.code, job.err) == (0, "")
    assert [one["workers"] for one in told(tmp_path)] == [3] * 3
    assert of_log(tmp_path) == list(range(POSITIONS))
    assert len(set(noted(tmp_path / "log.pid"))) == 3
    np.testing.assert_array_equal(only_run(tmp_path)["mean"][...], data.mean(axis=1))


def test_dealt_out_positions_are_all_computed(mpi, source, data, tmp_path):
    """Without one-sided operations every position is computed once, too."""
    job = mpi.run(
        3,
        with_head("""
        engine = rs.MPIEngine(one_sided=False)
        Logged("scan.h5::/data", log="log", delay_s=0.01).compute(engine=engine)
        """),
    )

    assert (job.code, job.err) == (0, "")
    assert of_log(tmp_path) == list(range(POSITIONS))
    assert len(set(noted(tmp_path / "log.pid"))) == 3
    np.testing.assert_array_equal(only_run(tmp_path)["mean"][...], data.mean(axis=1))


def test_what_is_too_much_to_be_told_is_read_from_rank_0(mpi, source, data, tmp_path):
    """Every position once, though no rank is told which ones are left."""
    job = mpi.run(
        3,
        with_head("""
        from resumable.model import remainder
        from resumable.engines import counter
        remainder.TOLD_BYTES = -1
        reads, read = [], counter._Loan.read

        def counted(self, *place):
            reads.append(place)
            Path(f"read-{RANK}").touch()
            return read(self, *place)

        class Waits(Logged):
            def unit_computation(self, spectrum):
                # Whoever has a part of what is left waits until all others have.
                while reads and len(list(Path().glob("read-*"))) < 3:
                    time.sleep(0.01)
                return super().unit_computation(spectrum)

        counter._Loan.read = counted
        process = Waits("scan.h5::/data", log="log", delay_s=0.05)
        process.compute(positions=np.arange(60) % 3 > 0)
        tell(reads=len(reads))
        process.compute()
        """),
    )
    reads = {one["rank"]: one["reads"] for one in told(tmp_path)}

    assert (job.code, job.err) == (0, "")
    assert of_log(tmp_path) == list(range(POSITIONS))
    assert min(reads.values()) > 0
    np.testing.assert_array_equal(only_run(tmp_path)["mean"][...], data.mean(axis=1))


def test_two_halves_of_a_job_compute_different_things(mpi, source, data, tmp_path):
    """Communicators of two ranks each, at the same time."""
    job = mpi.run(
        4,
        with_head("""
        from mpi4py import MPI
        half = MPI.COMM_WORLD.Split(RANK % 2)
        folder = Path(f"half{RANK % 2}")
        folder.mkdir(exist_ok=True)
        process = Logged("scan.h5::/data", folder, log=str(folder / "log"))
        results = process.compute(engine=rs.MPIEngine(half))
        again = process.compute(engine=rs.MPIEngine(half))
        tell(same=again == results, workers=results.sessions[-1].workers)
        """),
    )

    assert (job.code, job.err) == (0, "")
    assert [(one["same"], one["workers"]) for one in told(tmp_path)] == [(True, 2)] * 4
    for half in ("half0", "half1"):
        assert of_log(tmp_path / half) == list(range(POSITIONS))


def test_everything_a_laptop_can_do_ranks_can(mpi, source, data, tmp_path):
    """Override, rechunking, a grown source, map, and chained results, in one job."""
    with h5py.File(tmp_path / "grow.h5", "w") as file:
        rows = data[:32].reshape(4, 8, 32)
        file.create_dataset("map", data=rows, maxshape=(None, 8, 32), chunks=(1, 8, 32))
        stack = data[:48].reshape(6, 8, 32).transpose(2, 0, 1)
        file.create_dataset("stack", data=stack, chunks=(8, 6, 8), compression="gzip")
    job = mpi.run(
        2,
        with_head("""
        import h5py
        from mpi4py import MPI

        first = Logged("scan.h5::/data", log="log").compute()
        other = Logged("scan.h5::/data", log="log").compute(override=True)
        assert first.path != other.path
        chained = Logged(first["mean"], log="log").compute()
        assert np.array_equal(chained["mean"][...], first["mean"][...])

        stack = OnMap("grow.h5::/stack", position_axes=(1, 2)).compute(rechunk=True)
        assert np.array_equal(stack["mean"][...].ravel(), first["mean"][:48])

        class Slow(OnMap):
            def unit_computation(self, spectrum):
                time.sleep(0.02)
                return super().unit_computation(spectrum)

        grown = Slow("grow.h5::/map", position_axes=(0, 1))
        assert grown.compute().status.done == 32
        MPI.COMM_WORLD.Barrier()
        if RANK == 0:
            with h5py.File("grow.h5", "r+") as file:
                file["map"].resize((6, 8, 32))
                with h5py.File("scan.h5", "r") as scan:
                    file["map"][4:] = scan["data"][32:48].reshape(2, 8, 32)
        MPI.COMM_WORLD.Barrier()
        longer = grown.compute()
        assert longer.sessions[-1].computed == 16
        assert np.array_equal(longer["mean"][...].ravel(), first["mean"][:48])
        assert np.array_equal(longer["where"][5, 7], [5, 7])

        def highest(spectrum, factor=1.0):
            return spectrum.max() * factor

        mapped = rs.map(highest, "scan.h5::/data", factor=2.0)
        assert mapped.status.finished
        tell(fine=True)
        """),
    )

    assert (job.code, job.err) == (0, "")
    assert [one["fine"] for one in told(tmp_path)] == [True, True]


def test_ranks_for_which_memory_is_short_stay_idle(mpi, source, tmp_path):
    """The budget is for a host: it is divided among its ranks, and never exceeded."""
    job = mpi.run(
        4,
        with_head("""
        class Hungry(Logged):
            scratch = 40 << 20

        process = Hungry("scan.h5::/data", log="log", delay_s=0.005)
        results = process.compute(memory="100 MB")
        tell(workers=results.sessions[-1].workers)
        """),
    )

    assert (job.code, job.err) == (0, "")
    assert [one["workers"] for one in told(tmp_path)] == [2] * 4
    assert of_log(tmp_path) == list(range(POSITIONS))
    assert len(set(noted(tmp_path / "log.pid"))) == 2


def test_only_rank_0_digests_the_source(mpi, source, tmp_path):
    """The others neither scan nor digest it, nor look for runs."""
    job = mpi.run(
        2,
        with_head("""
        from resumable.runfile import lock
        from resumable.source import reader
        counts = {"fingerprint": 0, "runs": 0}

        def counted(cls, name):
            plain = getattr(cls, name)
            def method(*args, **kwargs):
                counts[name] += 1
                return plain(*args, **kwargs)
            setattr(cls, name, method)

        counted(reader.Reader, "fingerprint")
        counted(lock.RunFolder, "runs")
        Logged("scan.h5::/data", log="log").compute()
        tell(**counts)
        """),
    )
    zero, one = told(tmp_path)

    assert job.code == 0, job.err
    assert zero["fingerprint"] == 1
    assert zero["runs"] > 0
    assert (one["fingerprint"], one["runs"]) == (0, 0)


# Every way to fail.


def test_a_failing_unit_ends_all_ranks_alike(mpi, source, tmp_path):
    """The same error on every rank, its traceback printed once."""
    job = mpi.run(
        3,
        with_head("""
        process = FailsAt("scan.h5::/data", log="log", bad=[37])
        try:
            process.compute(on_error="raise")
        except rs.UnitFailed as error:
            tell(position=error.position)
            raise
        """),
    )

    assert job.code == 1
    assert [one["position"] for one in told(tmp_path)] == [37] * 3
    assert job.err.count("Stopped because of on_error='raise'") == 1
    assert not only_run(tmp_path).completed_mask[37]


def test_a_function_that_is_wrong_everywhere_ends_all_ranks(mpi, source, tmp_path):
    """Nothing is recorded, and the reason is printed once."""
    job = mpi.run(2, with_head('Wrong("scan.h5::/data").compute()'))

    assert job.code == 1
    assert job.err.count("the first 20 positions tried") == 1
    assert only_run(tmp_path).status.pending == POSITIONS


def test_failures_are_recorded_and_warned_of_once(mpi, source, tmp_path):
    """One warning for all ranks; the next run tries the failed ones again."""
    script = with_head("""
        process = FailsAt("scan.h5::/data", log="log")
        results = process.compute(**OPTIONS)
        tell(failed=results.status.failed, described=len(results.failures))
        """)
    job = mpi.run(3, script)
    first = told(tmp_path)
    (tmp_path / "log.mended").touch()
    again = mpi.run(2, script, '{"retry_failed": true}')

    assert (job.code, again.code) == (0, 0)
    assert job.err.count("3 of 60 positions failed") == 1
    assert [(one["failed"], one["described"]) for one in first] == [(3, 3)] * 3
    assert only_run(tmp_path).status.done == POSITIONS


@pytest.mark.parametrize("rank", [0, 1])
def test_a_set_up_that_fails_on_one_rank_ends_all(mpi, source, tmp_path, rank):
    """Its traceback names the rank, and is printed once."""
    job = mpi.run(
        2,
        with_head(f"""
        class SetsUp(Logged):
            def setup(self):
                if RANK == {rank}:
                    raise LookupError("no table here")

        try:
            SetsUp("scan.h5::/data", log="log", delay_s=0.01).compute()
        except LookupError:
            tell(raised=True)
            raise
        """),
    )

    assert job.code == 1
    assert [one["raised"] for one in told(tmp_path)] == [True, True]
    assert "in setup" in job.err
    assert job.err.count("LookupError: no table here") == 1 + (rank > 0)
    if rank:
        assert "on rank 1" in job.err


@pytest.mark.parametrize("rank", [0, 1])
def test_a_set_up_that_exits_on_one_rank_ends_all(mpi, source, tmp_path, rank):
    """A worker's exit is an error that names its rank; the driver's is one of all."""
    job = mpi.run(
        3,
        with_head(f"""
        class Leaves(Logged):
            def setup(self):
                if RANK == {rank}:
                    sys.exit("no GPU on this host")

        try:
            Leaves("scan.h5::/data", log="log", delay_s=0.01).compute()
        except BaseException as error:
            tell(kind=type(error).__name__, text=str(error))
            raise
        """),
    )
    kind, text = "SystemExit", "no GPU on this host"
    if rank:
        kind = "WorkerDied"
        text = f"rank 1 was to end in the middle of the run by SystemExit('{text}')"

    assert job.code == 1
    assert [one["kind"] for one in told(tmp_path)] == [kind] * 3
    assert {one["text"].partition("\n")[0] for one in told(tmp_path)} == {text}
    if rank:
        assert job.err.count(f"WorkerDied: {text}") == 1
        assert "on rank 1 (" in job.err
        assert "in setup" in job.err


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stop_inside_of_a_unit_stops_all_ranks(mpi, source, tmp_path, rank):
    """A time limit of what the unit computes: 75 on all, and the job can go on."""
    (tmp_path / "inner").mkdir()
    job = mpi.run(
        3,
        with_head(f"""
        class Nests(Logged):
            def unit_computation(self, spectrum):
                if RANK == {rank}:
                    Path("began").touch()
                    inner = Logged("scan.h5::/data", "inner", log="in", delay_s=0.05)
                    inner.compute(engine="serial", time_limit=0.1)
                while not Path("began").exists():
                    time.sleep(0.01)
                return super().unit_computation(spectrum)

        try:
            Nests("scan.h5::/data", log="log", delay_s=0.01).compute()
        except rs.NotFinished as stopped:
            tell(code=stopped.code, text=str(stopped))
            raise
        """),
    )

    assert job.code == 75, job.err
    assert [one["code"] for one in told(tmp_path)] == [75] * 3
    assert all("the time limit of 0.1" in one["text"] for one in told(tmp_path))
    assert only_run(tmp_path).status.done == len(of_log(tmp_path)) < POSITIONS


def test_a_rank_that_leaves_in_the_middle_ends_all(mpi, source, tmp_path):
    """What only waits for all ranks inside of MPI is left out when one is gone."""
    job = mpi.run(
        3,
        with_head("""
        class Interrupted(Logged):
            def unit_computation(self, spectrum):
                if RANK == 1:
                    Path("began").touch()
                    raise KeyboardInterrupt
                while not Path("began").exists():
                    time.sleep(0.01)
                return super().unit_computation(spectrum)

        try:
            Interrupted("scan.h5::/data", log="log", delay_s=0.01).compute()
        except KeyboardInterrupt:
            sys.exit(3)
        except rs.WorkerDied as error:
            tell(text=str(error))
            raise
        """),
    )

    assert job.code != 0
    texts = ["rank 1 ended in the middle of the run"] * 2
    assert [one["text"] for one in told(tmp_path)] == texts
    assert only_run(tmp_path).status.done == len(of_log(tmp_path))


def test_a_full_disk_on_one_rank_ends_all_and_the_run_goes_on(mpi, source, tmp_path):
    """What was committed stays, and the next run computes the rest."""
    script = with_head("""
        import resource
        class Wide(Logged):
            outputs = {"wide": rs.Output(2000)}

            def unit_computation(self, spectrum):
                if RANK == 1 and OPTIONS:
                    size = os.path.getsize(next(Path().glob("scan-*.h5")))
                    limit = (size // 4, resource.RLIM_INFINITY)
                    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
                return np.full(2000, super().unit_computation(spectrum))

        try:
            Wide("scan.h5::/data", log="log", delay_s=0.02).compute()
        except OSError as error:
            tell(errno=error.errno)
            raise
        """)
    job = mpi.run(2, script, '{"full": true}')
    failed = told(tmp_path)
    done = only_run(tmp_path).status.done
    again = mpi.run(2, script)

    assert job.code == 1
    assert {one["errno"] for one in failed} == {27}
    assert len(failed) == 2
    assert done < POSITIONS
    assert again.code == 0
    assert only_run(tmp_path).status.finished


@pytest.mark.parametrize("where", ["first", "before", "between", "exit", "exit 0"])
def test_a_rank_that_ends_outside_of_compute_ends_all(mpi, source, where):
    """Before the first Process, in it, between two computes; and one just leaves."""
    # Which ends at all: a job that waits for a rank that is gone waits for ever.
    job = mpi.run(
        2,
        with_head(f"""
        where = {where!r}
        if RANK == 1 and where == "first":
            raise KeyError("no such setting")
        if RANK == 1 and where == "before":
            Logged("missing.h5::/data", log="log")
        process = Logged("scan.h5::/data", log="log")
        process.compute()
        if RANK == 1 and where == "between":
            raise KeyError("lost in between")
        if (RANK, where) in [(1, "exit"), (0, "exit 0")]:
            sys.exit(0)
        process.compute(override=True)
        """),
    )
    text = {
        "first": "KeyError: 'no such setting'",
        "before": "there is no file missing.h5",
        "between": "KeyError: 'lost in between'",
        "exit": "rank 1 ended without calling compute()",
        "exit 0": "rank 0 ended without calling compute()",
    }

    assert job.code != 0
    assert job.err.count(text[where]) == 1


@pytest.mark.parametrize("code", [0, 3])
def test_a_rank_that_leaves_before_mpi_has_started_is_told_of(mpi, source, code):
    """Open MPI's launcher ends the job; MPICH's does not, but it is seen who waits."""
    script = mpi.write(
        with_head(f"""
        from resumable.engines import mpi
        mpi._PATIENCE_S = 1
        if RANK == 1:
            sys.exit({code})
        Logged("scan.h5::/data", log="log").compute()
        """)
    )
    process = mpi.start(2, script)
    if mpi.name == "openmpi":
        assert mpi.end(process).code != 0
        return
    shown = iter(process.stderr.readline, b"")
    assert any(b"start_mpi_when_every_rank_has_come" in line for line in shown)


def test_a_run_in_the_background_is_refused(mpi, source, tmp_path):
    """Before anything is written, with what to do instead, which works."""
    job = mpi.run(
        2,
        with_head("""
        process = Logged("scan.h5::/data", log="log")
        try:
            process.start()
        except rs.PlanError as error:
            tell(text=str(error), files=len(list(Path().glob("scan-*"))))
        if RANK == 0:
            run = process.start(engine="local", workers=1)
            tell(done=run.wait(20).status.done)
        """),
    )
    refused = [one for one in told(tmp_path) if "text" in one]

    assert (job.code, job.err) == (0, "")
    assert [one["rank"] for one in refused] == [0, 1]
    assert all("call compute() on all of them" in one["text"] for one in refused)
    assert refused[0]["files"] == 0
    assert [one["done"] for one in told(tmp_path) if "done" in one] == [POSITIONS]


def test_ranks_that_ask_for_different_things_are_refused(mpi, source, tmp_path):
    """What differs is named, and nothing is written."""
    job = mpi.run(
        2,
        with_head("""
        process = Logged("scan.h5::/data", log="log", delay_s=0.25 * RANK)
        try:
            process.compute()
        except rs.PlanError as error:
            tell(text=str(error))
            raise
        """),
    )
    texts = {one["text"] for one in told(tmp_path)}

    assert job.code == 1
    assert len(told(tmp_path)) == 2
    (text,) = texts
    assert "rank 1 asks for something else than rank 0" in text
    assert "parameters.delay_s" in text
    assert not list(tmp_path.glob("scan-*.h5"))


def test_a_rank_that_does_not_see_the_run_file_says_so(mpi, source, tmp_path):
    """A target folder of one host only is an error that says what to do."""
    job = mpi.run(
        2,
        with_head("""
        process = Logged("scan.h5::/data", ".", log=os.path.abspath("log"))
        if RANK == 1:
            Path("elsewhere").mkdir()
            os.link("scan.h5", "elsewhere/scan.h5")
            os.chdir("elsewhere")
        process.compute()
        """),
    )

    assert job.code == 1
    assert "a file system that all hosts share" in job.err


def test_a_killed_rank_loses_only_what_was_not_committed(mpi, source, data, tmp_path):
    """SIGKILL in a unit: the job ends, and other ranks go on where it was."""
    script = with_head("""
        class Killed(Logged):
            def unit_computation(self, spectrum):
                done = Path("log").read_text().split() if Path("log").exists() else []
                if len(done) >= 30 and RANK == 1 and OPTIONS:
                    time.sleep(0.5)
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().unit_computation(spectrum)

        process = Killed("scan.h5::/data", log="log", delay_s=0.02)
        process.compute(checkpoint=0.1)
        """)
    job = mpi.run(2, script, '{"kill": true}')
    before = np.flatnonzero(only_run(tmp_path).completed_mask)
    (tmp_path / "log").unlink()
    again = mpi.run(3, script)
    results = only_run(tmp_path)

    assert job.code != 0
    assert len(before) >= 10
    assert again.code == 0, again.err
    assert set(of_log(tmp_path)) == set(range(POSITIONS)) - set(before)
    np.testing.assert_array_equal(results["mean"][...], data.mean(axis=1))


@pytest.mark.parametrize("to", ["job", "rank 1"])
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGINT"])
def test_a_signal_stops_all_ranks_cleanly(mpi, source, tmp_path, name, to):
    """Sent to mpiexec, or to one rank: 75 on all, all computed rows are there."""
    script = mpi.write(
        with_head("""
        tell(pid=os.getpid())

        class Slower(Logged):
            def unit_computation(self, spectrum):
                value = super().unit_computation(spectrum)
                if len(noted("log")) >= 6:
                    # Slow from here on: it takes its time until all have been told.
                    while not Path("signalled").exists():
                        time.sleep(0.01)
                    time.sleep(0.5)
                return value

        process = Slower("scan.h5::/data", log="log", delay_s=0.1)
        try:
            process.compute()
        except rs.NotFinished as stopped:
            tell(code=stopped.code, done=stopped.results.status.done)
            raise
        """)
    )
    process = mpi.start(3, script)
    while len(noted(tmp_path / "log")) < 6:
        time.sleep(0.02)
        assert process.poll() is None
    pids = {one["rank"]: one["pid"] for one in told(tmp_path)}
    os.kill(process.pid if to == "job" else pids[1], getattr(signal, name))
    (tmp_path / "signalled").touch()
    job = mpi.end(process)
    status = only_run(tmp_path).status

    # Each rank had at most two more at hand.
    assert status.done < 30
    if mpi.name == "openmpi" and to == "job" and name != "SIGUSR1":
        # Its mpiexec kills the ranks 0.2 s later, whatever they are at.
        assert job.code != 0
        return
    ended = [one for one in told(tmp_path) if "code" in one]
    assert [one["code"] for one in ended] == [75] * 3, job.err
    assert {one["done"] for one in ended} == {status.done} == {len(of_log(tmp_path))}
    assert job.code == 75
    assert job.err.count("stopping: what is at work is being committed") == 1
    assert job.err.count("run the same again to go on") == 1


def test_a_signal_while_rank_0_still_looks_stops_the_run_it_begins(
    mpi, source, tmp_path
):
    """A job that is told to end while it digests its source ends with 75, too."""
    job = mpi.run(
        2,
        with_head("""
        from resumable.source import reader
        plain = reader.Reader.fingerprint

        def fingerprint(self, **options):
            os.kill(os.getpid(), signal.SIGUSR1)
            return plain(self, **options)

        reader.Reader.fingerprint = fingerprint
        Logged("scan.h5::/data", log="log", delay_s=0.05).compute()
        """),
    )

    assert job.code == 75, job.err
    assert only_run(tmp_path).status.done < 10


@pytest.mark.parametrize("to", [0, 1])
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_a_signal_while_a_finished_run_is_looked_up_stops_the_script(
    mpi, source, tmp_path, name, to
):
    """75 on all ranks: a script over many files does not go on to the next one."""
    job = mpi.run(
        2,
        with_head(f"""
        from resumable.source import reader
        from resumable.engines.mpi import of_world
        process = Logged("scan.h5::/data", log="log")
        process.compute()
        pids = of_world()._team.comm.allgather(os.getpid())
        plain = reader.Reader.fingerprint

        def fingerprint(self, **options):
            os.kill(pids[{to}], signal.{name})
            team = of_world()._team
            while {to} and not any(m.kind == "signal" for m in team.inbox):
                team.look()
                time.sleep(0.01)
            return plain(self, **options)

        reader.Reader.fingerprint = fingerprint
        try:
            process.compute()
        except rs.NotFinished as stopped:
            tell(code=stopped.code, done=stopped.results.status.done)
            raise
        tell(goes_on=True)
        """),
    )

    stopped = {"code": 75, "done": POSITIONS}
    assert told(tmp_path) == [{"rank": rank, **stopped} for rank in (0, 1)]
    assert job.code == 75
    assert job.err.count(f"stopped by {name}: 60 of 60 positions done") == 1


def test_a_signal_while_a_run_is_finished_stops_the_script(mpi, source, tmp_path):
    """The run is complete: nothing of it is left for the job that goes on."""
    job = mpi.run(
        2,
        with_head("""
        class Finishes(Logged):
            def finish(self, results):
                os.kill(os.getpid(), signal.SIGUSR1)

        Finishes("scan.h5::/data", log="log").compute()
        tell(goes_on=True)
        """),
    )

    assert job.code == 75, job.err
    assert told(tmp_path) == []
    assert only_run(tmp_path).status.finished


def test_a_signal_that_the_script_handles_itself_is_handed_on(mpi, source, tmp_path):
    """Where it came when nothing was computed: the script decides what follows."""
    job = mpi.run(
        2,
        with_head("""
        class Finishes(Logged):
            def finish(self, results):
                os.kill(os.getpid(), signal.SIGUSR1)

        came = []
        signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number))
        Finishes("scan.h5::/data", log="log").compute()
        tell(came=len(came))
        """),
    )

    assert job.code == 0, job.err
    assert [one["came"] for one in told(tmp_path)] == [1, 0]


# What started it.


def test_tasks_of_mpi4py_futures_do_not_hang(mpi, source, tmp_path):
    """There rank 0 runs the script alone: it computes alone, and mpi is refused."""
    script = mpi.write(
        with_head("""
        if __name__ == "__main__":
            process = Logged("scan.h5::/data", log="log")
            results = process.compute(workers=1)
            tell(engine=results.sessions[-1].engine)
            try:
                process.compute(engine="mpi")
            except rs.PlanError as error:
                tell(text=str(error))
        """)
    )
    job = mpi.end(mpi.start(3, "-m", "mpi4py.futures", script))
    texts = {key: value for one in told(tmp_path) for key, value in one.items()}

    assert job.code == 0, job.err
    assert texts["engine"] == "auto"
    assert "leave '-m mpi4py.futures' out" in texts["text"]


def test_the_command_prints_once(mpi, source, tmp_path):
    """Results, errors and code 75 under mpiexec are those of a laptop."""
    mpi.write(
        """
        import time
        import resumable as rs

        class Mean(rs.Process):
            version = 1
            outputs = rs.Output()

            def unit_computation(self, spectrum):
                time.sleep(0.01)
                return spectrum.mean()
        """.replace("outputs = rs.Output()", 'outputs = {"mean": rs.Output()}'),
        "fit.py",
    )
    command = ["-m", "resumable", "run", "fit.py:Mean"]
    stopped = mpi.end(mpi.start(2, *command, "scan.h5::/data", "--time-limit", "0.1"))
    done = mpi.end(mpi.start(2, *command, "scan.h5::/data"))
    wrong = mpi.end(
        mpi.start(2, *command, "scan.h5::/data", "--positions", "99", "--override")
    )

    assert stopped.code == 75
    assert (done.code, done.err) == (0, "")
    assert done.out.count("60 of 60 positions done") == 1
    assert wrong.code == 1
    assert wrong.err.count("position 99 does not exist") == 1


SINGLE = with_head(
    """
results = Logged("scan.h5::/data", log="log").compute(**OPTIONS)
print(results.sessions[-1].engine, "mpi4py" in sys.modules)
"""
)


def alone(folder, environment, options):
    """Run the script as one plain process."""
    (folder / "script.py").write_text(SINGLE)
    return subprocess.run(
        [sys.executable, "script.py", json.dumps(options)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": f"{mpiexec.ROOT}:{mpiexec.ROOT / 'tests' / 'support'}",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_processes_that_another_mpi_started_are_refused(source, tmp_path):
    """Two of two, and each thinks that it is alone: refused before any work."""
    # As Open MPI's mpiexec would have it; the MPI here is MPICH.
    started = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
    done = alone(tmp_path, started, {})

    assert done.returncode == 1
    assert "mpiexec started 2 processes" in done.stderr
    assert "own mpiexec" in done.stderr
    assert not list(tmp_path.glob("scan-*.h5"))


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_NTASKS": "8", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"},
        {"PMI_SIZE": "1", "PMI_RANK": "0"},
        {},
    ],
)
def test_one_process_needs_no_mpi(source, tmp_path, environment):
    """Plain Python in a batch script, or a job of one: as on a laptop."""
    done = alone(tmp_path, environment, {"workers": 1})

    assert done.stderr == ""
    assert done.stdout.split() == ["auto", "False"]


def test_mpi_by_name_works_with_one_process(source, tmp_path):
    """Without mpiexec it is one rank."""
    done = alone(tmp_path, {}, {"engine": "mpi"})

    assert done.stderr == ""
    assert done.stdout.split() == ["mpi", "True"]


def test_an_import_under_mpiexec_starts_no_mpi(mpi):
    """Nor does it watch for exceptions; a class that is derived from Process does."""
    job = mpi.run(
        2,
        """
        import sys
        before = sys.excepthook
        import resumable as rs
        rs.MPIEngine
        assert sys.excepthook is before

        class Level(rs.Process):
            outputs = {"level": rs.Output()}

        assert sys.excepthook is not before
        assert "mpi4py" not in sys.modules
        """,
    )

    assert (job.code, job.err) == (0, "")


def test_a_file_opened_with_mpio_is_refused(monkeypatch, scan):
    """It would be read by every rank at once, and collectively."""
    path, _, name = scan.partition("::")
    with h5py.File(path, "r") as file:
        # No wheel of h5py can open one.
        monkeypatch.setattr(h5py.File, "driver", "mpio")
        with pytest.raises(rs.SourceError, match="driver 'mpio': close it and give"):
            Logged(file[name], log="log")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (1, 0, 1)),
        ({"PMI_SIZE": "4", "PMI_RANK": "3", "MPI_LOCALNRANKS": "2"}, (4, 3, 2)),
        ({"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "5"}, (8, 5, 8)),
        ({"PMIX_RANK": "2", "SLURM_STEP_NUM_TASKS": "16"}, (16, 2, 16)),
        ({"SLURM_NTASKS": "16", "SLURM_PROCID": "0"}, (1, 0, 1)),
    ],
)
def test_the_launcher_says_how_many_ranks_there_are(monkeypatch, environment, expected):
    """As each of them writes it into the environment."""
    for name in list(os.environ):
        if name.startswith(("PMI", "OMPI", "SLURM", "MPI")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert (world.ranks(), world.rank(), world.ranks_on_host()) == expected


def test_a_class_asks_no_mpi_for_the_number_of_ranks(script, monkeypatch):
    """Where only MPI knows it: asking would start it."""
    monkeypatch.setenv("PALS_RANKID", "0")
    text = HEAD + "print('mpi4py.MPI' in sys.modules, world.ranks_without_mpi())\n"
    tests = f"import sys; sys.path.insert(0, {str(SUPPORT)!r})\n"
    out, _ = script(tests + text).communicate(timeout=30)

    assert out.split() == ["False", "1"]
