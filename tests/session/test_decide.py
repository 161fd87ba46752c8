"""decide: what a session will do, from what is wanted and what is there. No files."""

from pathlib import Path

import numpy as np
import pytest

from resumable.engines import choose
from resumable.errors import PlanError
from resumable.identity import Trace
from resumable.model import Footprint, Geometry, Output, PositionSet
from resumable.runfile import Header, RunFolder, Snapshot
from resumable.session.computation import Computation, Options, Request
from resumable.session.decide import Decision, decide, engine_for, make_plan
from resumable.source import SourceRef
from resumable.system import Limit, machine

SIZE = 10
IDENTITY = "1" * 64


def wanted(size=SIZE, *, ready=None):
    """Return a computation of a source of so many positions."""
    source = SourceRef("", "", (0,), size)
    geometry = Geometry((size,), (4,), 32, (1,), 32, False, True)
    request = Request(
        process=None,
        name="Mean",
        version=1,
        parameters={},
        attributes={},
        shared={},
        places={},
        arguments={},
        arrays={},
        outputs={"mean": Output()},
        source=source,
        inputs={},
        geometry=geometry,
        folder=Path("nowhere"),
        full=False,
        strict=False,
        asks_ready=False,
        trace=Trace("", {}),
        check=None,
        changed=list,
        earlier=dict,
        source_text="",
        seconds_per_position=None,
    )
    return Computation(
        request=request,
        source=source,
        inputs={},
        geometry=geometry,
        footprint=Footprint(32, 8),
        run_folder=RunFolder(Path("nowhere"), "scan-data-Mean", IDENTITY),
        document={},
        contents=None,
        spec=None,
        open_reader=None,
        ready=ready,
    )


def there(
    done=0, failed=0, *, finished=False, size=SIZE, left=None, ready=None, last_end=1.0
):
    """Return what a run file says; by default what is not settled is pending."""
    header = Header(
        identity=IDENTITY,
        document={},
        group="/data-Mean_000",
        map_shape=(size,),
        outputs={},
        offsets={},
        rows={},
        file_bytes=0,
        structure="",
        user_block=4096,
        source={} if ready is None else {"ready": ready.to_text()},
    )
    pending = np.arange(done + failed, size) if left is None else np.array(left, int)
    chosen = PositionSet.of(max(size, SIZE), pending)
    counts = (done, failed, len(pending), done + failed == size)
    return Snapshot(header, *counts, finished, last_end, chosen, b"")


@pytest.mark.parametrize(
    ("options", "snapshot", "action", "pending"),
    [
        ({}, None, "compute", 10),
        ({"positions": PositionSet.of(SIZE, np.arange(3))}, None, "compute", 3),
        ({"override": True}, None, "compute", 10),
        ({}, there(4), "continue", 6),
        ({}, there(4, 2), "continue", 4),
        ({}, there(10, finished=True), "return", 0),
        ({}, there(8, 2, finished=True), "return", 0),
        # All is computed, but finish() has not run.
        ({}, there(10), "continue", 0),
        # Only a part was asked for, and is there.
        (
            {"positions": PositionSet.of(SIZE, np.arange(3))},
            there(4, left=[]),
            "return",
            0,
        ),
        (
            {"retry_failed": True},
            there(8, 2, finished=True, left=[8, 9]),
            "continue",
            2,
        ),
        ({"retry_failed": True}, there(10, finished=True, left=[]), "return", 0),
        ({"retry_failed": True}, there(4, left=[]), "return", 0),
    ],
)
def test_what_is_wanted_and_what_is_there_decide(options, snapshot, action, pending):
    decision = decide(wanted(), Options(**options), snapshot)

    assert (decision.action, decision.pending) == (action, pending)


def test_the_reason_tells_an_override_from_a_run_that_is_missing():
    assert decide(wanted(), Options(), None).reason == "no run matches"
    assert "asked for" in decide(wanted(), Options(override=True), None).reason


def test_a_source_that_has_grown_is_copied_and_continued():
    decision = decide(wanted(), Options(), there(6, size=6, left=range(6, 10)))

    assert decision.action == "copy and continue"
    assert decision.pending == 4
    assert "4 new positions, 6 are copied" in decision.reason


def test_a_run_of_fewer_ready_positions_is_copied_and_continued():
    """The contents of a run are those of the positions that were ready."""
    few, more = (PositionSet.of(SIZE, np.arange(n)) for n in (3, 7))
    options = Options(positions=more)

    grown = decide(wanted(ready=more), options, there(3, ready=few, left=range(3, 7)))
    same = decide(wanted(ready=few), Options(positions=few), there(2, ready=few))

    assert (grown.action, grown.pending) == ("copy and continue", 4)
    assert same.action == "continue"


@pytest.mark.parametrize(
    ("last_end", "here"), [(None, True), (1.0, True), (0.0, False)]
)
def test_what_may_have_killed_a_session_is_not_computed_in_the_driver(last_end, here):
    """A last session without an end was killed, perhaps by the computation."""
    snapshot = None if last_end is None else there(4, last_end=last_end)

    assert (engine_for(Options(workers=1), snapshot).name == "serial") is here


def test_a_plan_says_what_was_decided_for_the_engine_that_was_chosen():
    """The engine is chosen once, and is not asked what is there."""
    computation, options = wanted(), Options(engine="serial", memory="1 GB")
    engine = choose("serial", None)

    plan = make_plan(
        computation, options, Decision("continue", "so", 6), Path("run.h5"), engine
    )

    assert (plan.action, plan.reason, plan.pending) == ("continue", "so", 6)
    assert (plan.path, plan.engine, plan.workers) == ("run.h5", "serial", 1)
    with pytest.raises(PlanError, match="one position needs"):
        make_plan(
            computation,
            Options(engine="serial", memory="8 B"),
            Decision("compute", "", SIZE),
            Path("run.h5"),
            engine,
        )


def plan_of(**options):
    options = Options(**options)
    engine = choose(options.engine, options.workers)
    return make_plan(
        wanted(), options, Decision("compute", "", SIZE), Path("r"), engine
    )


@pytest.fixture
def a_job(monkeypatch):
    """Return how the memory of a job is named, in which 600 MB are left."""
    megabytes = (machine.resident_memory() >> 20) + 600
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", str(megabytes))
    return f"SLURM_MEM_PER_NODE={megabytes}"


def test_a_plan_keeps_to_what_a_batch_system_gave_and_says_so(a_job):
    plan = plan_of()
    cores, memory = plan.limits

    assert plan.workers == 1
    assert plan.memory_bytes < 300 << 20
    assert cores == "1 core: SLURM_CPUS_PER_TASK=1"
    assert memory.endswith(f" MB of memory left: {a_job}")
    assert f"limit         {cores}\n  limit         {memory}\n" in str(plan)


def test_what_was_asked_for_is_not_called_limited(a_job):
    plan = plan_of(engine="local", workers=2, memory="200 MB")

    assert (plan.workers, plan.memory_bytes, plan.limits) == (2, 200_000_000, ())


def test_more_memory_than_there_is_is_not_planned(a_job):
    plan = plan_of(engine="local", workers=1, memory="700 MB")

    assert plan.memory_bytes < 600 << 20
    assert a_job in str(plan)


def test_ranks_that_compute_each_for_itself_divide_the_memory(a_job, monkeypatch):
    megabytes = 4 * ((machine.resident_memory() >> 20) + 150)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", str(megabytes))
    alone = plan_of(engine="serial").memory_bytes
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "4")
    plan = plan_of(engine="serial")

    assert plan.memory_bytes < alone / 4
    assert plan.limits[-1].endswith(f"={megabytes}, divided among 4 ranks")


def test_ulimit_leaves_each_process_so_much(monkeypatch):
    monkeypatch.setattr(machine, "process_memory", lambda: Limit(4000, "ulimit -v 9"))
    plan = plan_of(engine="local", workers=2)

    assert plan.share_bytes == 2000
    assert plan.limits[-1] == "4 kB of memory left to each process: ulimit -v 9"
    monkeypatch.setattr(machine, "process_memory", lambda: Limit(40, "ulimit -v 9"))
    with pytest.raises(
        PlanError, match=r"needs .*, more than the 20 bytes .*ulimit -v"
    ):
        plan_of(engine="local", workers=2)
