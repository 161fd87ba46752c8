"""The MPI engine under a real mpiexec: results do not depend on ranks."""

import h5py
import numpy as np
import pytest
from engine_processes import Logged, Several, noted
from helpers import SUPPORT
from mpi_jobs import POSITIONS, Halts, of_log, only_run, told, with_head

# A hung job is ended by its own helper, well before.
pytestmark = pytest.mark.timeout(90, method="signal")


def check(job, folder, data, ranks):
    """So many ranks have computed every position once, and have ended well."""
    assert (job.code, job.err) == (0, "")
    assert of_log(folder) == list(range(POSITIONS))
    assert len(set(noted(folder / "log.pid"))) == ranks
    np.testing.assert_array_equal(only_run(folder)["mean"][...], data.mean(axis=1))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_give_the_bytes_of_serial(mpi, scan, tmp_path, ranks):
    job = mpi.run(
        ranks,
        with_head("""
        results = Several("scan.h5::/data").compute(engine="mpi")
        tell(sum=results["random"][...].sum(), path=results.path.name)
        """),
    )
    ours = only_run(tmp_path)
    (tmp_path / "serial").mkdir()
    serial = Several(scan, tmp_path / "serial").compute(engine="serial")

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
    """Rank 0 runs the tests; the other rank takes part in every compute."""
    script = SUPPORT / "mpi_conformance.py"
    job = mpi.end(mpi.start(2, script), timeout=80)

    assert job.code == 0, job.out + job.err
    assert " passed" in job.out


def test_an_unchanged_script_computes_with_every_rank(mpi, scan, data, tmp_path):
    job = mpi.run(
        3,
        with_head("""
        results = Logged("scan.h5::/data", log="log", delay_s=0.02).compute()
        print(results.status)
        """),
    )

    check(job, tmp_path, data, 3)
    assert job.out.count("60 of 60 positions done") == 3
    assert only_run(tmp_path).sessions[-1].computed == POSITIONS


def test_other_numbers_of_ranks_and_other_engines_continue(mpi, scan, data, tmp_path):
    script = with_head("""
        from mpi_jobs import Halts
        process = Halts("scan.h5::/data", log=os.path.abspath("log"), delay_s=0.05)
        process.compute(**OPTIONS)
        """)
    most = tmp_path / "log.most"
    most.write_text("20 signal")
    stopped = mpi.run(4, script)
    most.write_text("40 limit")
    again = mpi.run(2, script, '{"time_limit": 0.4}')
    most.unlink()
    process = Halts(scan, log=str(tmp_path / "log"), delay_s=0.05)
    left = process.results.status.pending
    results = process.compute(engine="local", workers=2)

    assert (stopped.code, again.code) == (75, 75)
    assert "stopped by SIGUSR1" in stopped.err
    assert "stopped at the time limit of 0.4" in again.err
    assert 0 < left <= POSITIONS - 20
    assert of_log(tmp_path) == list(range(POSITIONS))
    assert [s.engine for s in results.sessions] == ["mpi", "mpi", "local"]
    np.testing.assert_array_equal(results["mean"][...], data.mean(axis=1))


def test_what_was_begun_elsewhere_is_finished_by_ranks(mpi, scan, tmp_path):
    process = Logged(scan, log=str(tmp_path / "log"))
    process.compute(engine="serial", positions=[0, 3, 4, 5, 17, 40, 41, 59])
    job = mpi.run(
        2, with_head('Logged("scan.h5::/data", log=os.path.abspath("log")).compute()')
    )

    assert job.code == 0, job.err
    assert process.results.status.finished
    assert of_log(tmp_path) == list(range(POSITIONS))


HUNGRY = with_head("""
    class Hungry(Logged):
        scratch = 40 << 20

    process = Hungry("scan.h5::/data", log="log", delay_s=0.01)
    results = process.compute(**OPTIONS)
    tell(workers=results.sessions[-1].workers)
    """)


def test_ranks_on_several_hosts_give_the_same_results(mpich, scan, data, tmp_path):
    """MPICH is told to use the network; each rank has a budget of its own."""
    job = mpich.run(3, HUNGRY, '{"memory": "50 MB"}', MPIR_CVAR_NOLOCAL="1")

    check(job, tmp_path, data, 3)
    assert [one["workers"] for one in told(tmp_path)] == [3] * 3


def test_ranks_take_positions_while_rank_0_is_at_one(mpich, scan, data, tmp_path):
    """Also when it has not received their reports: MPI works for them all the same.

    Over the network, a number that a rank takes needs MPI in rank 0.
    """
    job = mpich.run(
        2,
        with_head("""
        from resumable.engines import ranks
        ranks._REPORT_S = 0

        class Waits(Logged):
            def unit_computation(self, spectrum):
                calls = len(noted(f"calls-{RANK}"))
                note(f"calls-{RANK}", self.position)
                tries = 0
                # Its first position is a probe. The other rank must take several times.
                while RANK == 0 and calls == 1 and len(noted("calls-1")) < 36:
                    time.sleep(0.01)
                    tries += 1
                    if tries > 1500:
                        raise TimeoutError(len(noted("calls-1")))
                return super().unit_computation(spectrum)

        Waits("scan.h5::/data", log="log", delay_s=0.005).compute()
        """),
        MPIR_CVAR_NOLOCAL="1",
    )

    check(job, tmp_path, data, 2)


def test_ranks_for_which_memory_is_short_stay_idle(mpi, scan, data, tmp_path):
    """The memory budget is for a host, and is divided among its ranks."""
    job = mpi.run(4, HUNGRY, '{"memory": "100 MB"}')

    check(job, tmp_path, data, 2)
    assert [one["workers"] for one in told(tmp_path)] == [2] * 4


def test_dealt_out_positions_are_all_computed(mpi, scan, data, tmp_path):
    job = mpi.run(
        3,
        with_head("""
        engine = rs.MPIEngine(one_sided=False)
        Logged("scan.h5::/data", log="log", delay_s=0.01).compute(engine=engine)
        """),
    )

    check(job, tmp_path, data, 3)


def test_what_is_too_large_to_be_sent_is_read_from_rank_0(mpi, scan, data, tmp_path):
    """Every position is computed once; ranks read from rank 0 which ones are left."""
    job = mpi.run(
        3,
        with_head("""
        from resumable.model import schedule
        from resumable.engines import counter
        schedule.SENT_BYTES = -1
        reads, read = [], counter._Loan.read

        def counted(self, *place):
            reads.append(place)
            Path(f"read-{RANK}").touch()
            return read(self, *place)

        class Waits(Logged):
            def unit_computation(self, spectrum):
                # Whoever has a part of what is left waits until all others have.
                mine = Path(f"read-{RANK}")
                while mine.exists() and len(list(Path().glob("read-*"))) < 3:
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


def test_two_halves_of_a_job_compute_different_things(mpi, scan, data, tmp_path):
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


def test_all_kinds_of_runs_work_with_ranks(mpi, scan, data, tmp_path):
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


def test_only_rank_0_digests_the_source(mpi, scan, tmp_path):
    job = mpi.run(
        2,
        with_head("""
        from resumable.runfile import folder
        from resumable.source import reader
        counts = {"fingerprint": 0, "runs": 0}

        def counted(cls, name):
            plain = getattr(cls, name)
            def method(*args, **kwargs):
                counts[name] += 1
                return plain(*args, **kwargs)
            setattr(cls, name, method)

        counted(reader.Reader, "fingerprint")
        counted(folder.RunFolder, "runs")
        Logged("scan.h5::/data", log="log").compute()
        tell(**counts)
        """),
    )
    zero, one = told(tmp_path)

    assert job.code == 0, job.err
    assert zero["fingerprint"] == 2  # at the beginning and at the end
    assert zero["runs"] > 0
    assert (one["fingerprint"], one["runs"]) == (0, 0)
