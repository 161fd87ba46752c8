"""Ranks that fail, leave, are killed or get a signal: all ranks end alike."""

import os
import signal
import time

import numpy as np
import pytest
from engine_processes import noted
from mpi_jobs import POSITIONS, of_log, only_run, told, with_head

# A hung job is ended by its own helper, well before.
pytestmark = pytest.mark.timeout(90, method="signal")


def test_a_failing_unit_ends_all_ranks_alike(mpi, scan, tmp_path):
    job = mpi.run(
        3,
        with_head("""
        process = FailsAt("scan.h5::/data", log="log", bad=[37])
        with telling(rs.UnitFailed, lambda error: {"position": error.position}):
            process.compute(on_error="raise")
        """),
    )

    assert job.code == 1
    assert [one["position"] for one in told(tmp_path)] == [37] * 3
    assert job.err.count("Stopped because of on_error='raise'") == 1
    assert not only_run(tmp_path).completed_mask[37]


def test_a_function_that_is_wrong_everywhere_ends_all_ranks(mpi, scan, tmp_path):
    job = mpi.run(2, with_head('Wrong("scan.h5::/data").compute()'))

    assert job.code == 1
    assert job.err.count("the first 20 positions tried") == 1
    assert only_run(tmp_path).status.pending == POSITIONS


def test_failures_are_recorded_and_warned_of_once(mpi, scan, tmp_path):
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
def test_a_set_up_that_fails_on_one_rank_ends_all(mpi, scan, tmp_path, rank):
    job = mpi.run(
        2,
        with_head(f"""
        class SetsUp(Logged):
            def setup(self):
                if RANK == {rank}:
                    raise LookupError("no table here")

        with telling(LookupError, lambda error: {{"raised": True}}):
            SetsUp("scan.h5::/data", log="log", delay_s=0.01).compute()
        """),
    )

    assert job.code == 1
    assert [one["raised"] for one in told(tmp_path)] == [True, True]
    assert "in setup" in job.err
    assert job.err.count("LookupError: no table here") == 1 + (rank > 0)
    if rank:
        assert "on rank 1" in job.err


def test_a_global_that_differs_among_ranks_needs_a_version(mpi, scan, tmp_path):
    """Without one its value is part of the identity, and the ranks would have two."""
    job = mpi.run(
        2,
        with_head("""
        class Global(Logged):
            version = None
            def unit_computation(self, spectrum):
                return RANK

        try:
            Global("scan.h5::/data", log="log").compute()
        except rs.PlanError as error:
            tell(text=str(error))
        """),
    )

    assert job.code == 0
    texts = [one["text"] for one in told(tmp_path)]
    assert len(texts) == 2
    assert all("rank 1 asks for something else" in text for text in texts)
    assert all("holds the rank? Ask MPI in setup()" in text for text in texts)
    assert not list(tmp_path.glob("scan-*.h5"))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_set_up_that_exits_on_one_rank_ends_all(mpi, scan, tmp_path, rank):
    """The exit of a rank is an error that names it; the exit of rank 0 ends all."""
    job = mpi.run(
        2,
        with_head(f"""
        class Leaves(Logged):
            def setup(self):
                if RANK == {rank}:
                    sys.exit("no GPU on this host")

        said = lambda error: {{"kind": type(error).__name__, "text": str(error)}}
        with telling(BaseException, said):
            Leaves("scan.h5::/data", log="log", delay_s=0.01).compute()
        """),
    )
    kind, text = "SystemExit", "no GPU on this host"
    if rank:
        kind = "WorkerDied"
        text = f"rank 1 was to end in the middle of the run by SystemExit('{text}')"

    assert job.code == 1
    assert [one["kind"] for one in told(tmp_path)] == [kind] * 2
    assert {one["text"].partition("\n")[0] for one in told(tmp_path)} == {text}
    if rank:
        assert job.err.count(f"WorkerDied: {text}") == 1
        assert "on rank 1 (" in job.err
        assert "in setup" in job.err


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stop_inside_of_a_unit_stops_all_ranks(mpi, scan, tmp_path, rank):
    """A compute inside of a unit meets its time limit: all ranks end with code 75."""
    (tmp_path / "inner").mkdir()
    job = mpi.run(
        2,
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

        said = lambda stopped: {{"code": stopped.code, "text": str(stopped)}}
        with telling(rs.NotFinished, said):
            Nests("scan.h5::/data", log="log", delay_s=0.01).compute()
        """),
    )

    assert job.code == 75, job.err
    assert [one["code"] for one in told(tmp_path)] == [75] * 2
    assert all("the time limit of 0.1" in one["text"] for one in told(tmp_path))
    assert only_run(tmp_path).status.done == len(of_log(tmp_path)) < POSITIONS


def test_a_rank_that_ends_during_a_run_ends_all(mpi, scan, tmp_path):
    """Ranks do not wait inside of MPI for a rank that is gone."""
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
            with telling(rs.WorkerDied, lambda error: {"text": str(error)}):
                Interrupted("scan.h5::/data", log="log", delay_s=0.01).compute()
        except KeyboardInterrupt:
            sys.exit(3)
        """),
    )

    assert job.code != 0
    texts = ["rank 1 ended in the middle of the run"] * 2
    assert [one["text"] for one in told(tmp_path)] == texts
    assert only_run(tmp_path).status.done == len(of_log(tmp_path))


def test_a_full_disk_on_one_rank_ends_all_and_the_run_goes_on(mpi, scan, tmp_path):
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

        with telling(OSError, lambda error: {"errno": error.errno}):
            Wide("scan.h5::/data", log="log", delay_s=0.02).compute()
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
def test_a_rank_that_ends_outside_of_compute_ends_all(mpi, scan, where):
    """Before the first Process, in its constructor, between two computes, by exit."""
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
def test_a_rank_that_ends_before_mpi_has_started_is_shown(mpi, scan, code):
    """The waiting rank shows it, where the launcher does not end the job.

    Open MPI's does not at an exit code of 0, if no other rank has begun to start MPI.
    """
    script = mpi.write(
        with_head(f"""
        from resumable.engines import mpi
        mpi._PATIENCE_S = 0.2
        if RANK == 1:
            note("ended", os.getpid())
            sys.exit({code})
        while not noted("ended") or Path("/proc", noted("ended")[0]).exists():
            time.sleep(0.01)
        Logged("scan.h5::/data", log="log").compute()
        """)
    )
    process = mpi.start(2, script)
    if mpi.name == "openmpi" and code:
        assert mpi.end(process).code != 0
        return
    shown = iter(process.stderr.readline, b"")
    assert any(b"start_mpi_when_every_rank_has_come" in line for line in shown)


def test_a_run_in_the_background_is_refused(mpi, scan, tmp_path):
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


def test_ranks_that_ask_for_different_things_are_refused(mpi, scan, tmp_path):
    job = mpi.run(
        2,
        with_head("""
        process = Logged("scan.h5::/data", log="log", delay_s=0.25 * RANK)
        with telling(rs.PlanError, lambda error: {"text": str(error)}):
            process.compute()
        """),
    )
    texts = {one["text"] for one in told(tmp_path)}

    assert job.code == 1
    assert len(told(tmp_path)) == 2
    (text,) = texts
    assert "rank 1 asks for something else than rank 0" in text
    assert "parameters.delay_s" in text
    assert not list(tmp_path.glob("scan-*.h5"))


def test_a_rank_that_does_not_see_the_run_file_says_so(mpi, scan, tmp_path):
    """A target folder that only one host has is an error that says what to do."""
    job = mpi.run(
        2,
        with_head("""
        if RANK == 1 and "APART" not in os.environ:
            # As on a host that has another folder of this name.
            Path("elsewhere").mkdir()
            for name in ("scan.h5", "script.py"):
                os.link(name, f"elsewhere/{name}")
            os.environ["APART"] = "1"
            mounted = 'mount --bind elsewhere "$PWD" && cd "$PWD" && exec "$@"'
            command = ["unshare", "-rm", "sh", "-c", mounted, "", *sys.orig_argv]
            os.execvp(command[0], command)
        Logged("scan.h5::/data", ".", log=os.path.abspath("log")).compute()
        """),
    )

    assert job.code == 1
    assert "a file system that all hosts share" in job.err


def test_a_killed_rank_loses_only_what_was_not_committed(mpi, scan, data, tmp_path):
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


@pytest.mark.parametrize(
    ("name", "to"),
    [("SIGUSR1", "job"), ("SIGTERM", "job"), ("SIGINT", "job"), ("SIGTERM", "rank 1")],
)
def test_a_signal_stops_all_ranks_cleanly(mpi, scan, tmp_path, name, to):
    """Sent to mpiexec or to one rank: code 75 on all; all computed rows are there."""
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
                    time.sleep(0.25)
                return value

        process = Slower("scan.h5::/data", log="log", delay_s=0.1)
        with telling(rs.NotFinished, ended):
            process.compute()
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


def test_a_hangup_reaches_the_handler_of_the_script(mpi, scan, tmp_path):
    """Not that of the network's library, which MPI loads in the first compute."""
    job = mpi.run(
        1,
        with_head("""
        signal.signal(signal.SIGHUP, lambda number, frame: tell(handled=number))

        class HungUp(Logged):
            def unit_computation(self, spectrum):
                if self.position == 3:
                    os.kill(os.getpid(), signal.SIGHUP)
                return super().unit_computation(spectrum)

        HungUp("scan.h5::/data", log="log").compute(engine="mpi")
        """),
    )

    assert (job.code, job.out, job.err) == (0, "", "")
    assert [one["handled"] for one in told(tmp_path)] == [signal.SIGHUP]
    assert only_run(tmp_path).status.finished


def test_a_signal_while_rank_0_digests_the_source_stops_the_run(mpi, scan, tmp_path):
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


@pytest.mark.parametrize(("name", "to"), [("SIGUSR1", 0), ("SIGTERM", 1)])
def test_a_signal_while_a_finished_run_is_looked_up_stops_the_script(
    mpi, scan, tmp_path, name, to
):
    """75 on all ranks: a script over many files does not go on to the next one."""
    job = mpi.run(
        2,
        with_head(f"""
        from resumable.source import reader
        from resumable.engines.mpi import of_world
        process = Logged("scan.h5::/data", log="log")
        process.compute()
        pids = of_world()._messages.comm.allgather(os.getpid())
        plain = reader.Reader.fingerprint

        def fingerprint(self, **options):
            os.kill(pids[{to}], signal.{name})
            messages = of_world()._messages
            while {to} and not any(m.kind == "signal" for m in messages.inbox):
                messages.look()
                time.sleep(0.01)
            return plain(self, **options)

        reader.Reader.fingerprint = fingerprint
        with telling(rs.NotFinished, ended):
            process.compute()
        tell(goes_on=True)
        """),
    )

    stopped = {"code": 75, "done": POSITIONS}
    assert told(tmp_path) == [{"rank": rank, **stopped} for rank in (0, 1)]
    assert job.code == 75
    assert job.err.count(f"stopped by {name}: 60 of 60 positions done") == 1


@pytest.mark.parametrize("handled", [False, True])
def test_a_signal_while_a_run_is_finished_stops_the_script(
    mpi, scan, tmp_path, handled
):
    """A handler of the script gets it instead."""
    job = mpi.run(
        2,
        with_head(f"""
        class Finishes(Logged):
            def finish(self, results):
                os.kill(os.getpid(), signal.SIGUSR1)

        came = []
        if {handled}:
            signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number))
        Finishes("scan.h5::/data", log="log").compute()
        tell(came=len(came))
        """),
    )

    assert job.code == (0 if handled else 75), job.err
    assert [one["came"] for one in told(tmp_path)] == ([1, 0] if handled else [])
    assert only_run(tmp_path).status.finished
