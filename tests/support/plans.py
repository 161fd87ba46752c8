"""Plans, geometries and schedules for the tests of what is planned."""

import dataclasses

from resumable.model.plan import Footprint, Geometry, Plan

MB = 1_000_000


def make_plan(**changes):
    """Return a plan of two workers, changed where a test says so."""
    plan = Plan(
        action="compute",
        reason="no run matches",
        path="scan-data-Mean-0123abcd.h5",
        positions=10_000,
        pending=10_000,
        engine="local",
        workers=2,
        memory_bytes=2_000 * MB,
        share_bytes=900 * MB,
        block=1000,
        block_bytes=4 * MB,
        quantum=1,
        read_amplification=1.0,
        output_bytes=80_000,
        checkpoint_s=10.0,
    )
    return dataclasses.replace(plan, **changes)


def make_geometry(size=10_000, **changes):
    """Return a contiguous source of rows of 1000 bytes."""
    plain = Geometry((size,), (1000,), 1000, (1,), 1000, False, True)
    return plain._replace(**changes)


def footprint(per_row=1000, scratch=lambda rows: 0):
    return Footprint(per_row, 0, scratch=scratch)


def walk(schedule, seconds=lambda batch: 1e-3 * batch.count):
    """Take every batch of a schedule, each of which takes `seconds`."""
    batches = []
    while (batch := schedule.next()) is not None:
        batches.append(batch)
        schedule.note(batch.count, seconds(batch))
        schedule.proven = True
    return batches
