"""The schedule with many ranks, simulated: every position once, and in good time."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import schedule_simulation as simulation

MEAN_S = 0.1


def units_of(kind, ranks, per_rank, seed=0):
    """Return the times of units, the same every time."""
    rng = np.random.default_rng([seed, ranks])
    return MEAN_S * simulation.UNITS[kind](rng, ranks * per_rank)


@pytest.mark.parametrize("dealt", [False, True], ids=["taken", "dealt"])
@pytest.mark.parametrize("kind", simulation.UNITS)
@pytest.mark.parametrize("ranks", [1, 7, 64])
def test_every_position_is_handed_out_exactly_once(kind, ranks, dealt):
    outcome = simulation.simulate(units_of(kind, ranks, 31), ranks, dealt=dealt)

    assert outcome.handed_out.tolist() == [1] * (31 * ranks)
    assert outcome.relative >= 1


def test_ranks_that_take_what_they_need_finish_earlier_than_with_fixed_shares():
    found = [
        simulation.compared(
            units_of("heavy tailed", 48, 200, seed), 48, simulation.Costs()
        )
        for seed in range(7)
    ]
    finish = {
        way: np.array([outcome[way].finish_s for outcome in found]) for way in found[0]
    }

    assert np.median(finish["taken"] / finish["one by one"]) < 1.1
    assert np.median(finish["contiguous"] / finish["taken"]) > 1.15
    assert np.median(finish["interleaved"] / finish["taken"]) > 1.15


def test_a_region_that_takes_long_keeps_no_rank_longer_than_the_others():
    """A portion that was sized before the region and lies in it is short enough."""
    found = simulation.compared(
        units_of("slow region", 64, 1000), 64, simulation.Costs()
    )

    assert found["taken"].relative < 1.05
    assert found["contiguous"].relative > 5


def test_what_ranks_ask_of_the_counter_stays_within_what_it_gives():
    """Equal positions are the hardest: all ranks come at the same times."""
    ranks = 256
    outcome = simulation.simulate(units_of("constant", ranks, 200), ranks)

    assert outcome.peak < 20 * ranks
    assert outcome.additions < 100 * ranks
    assert outcome.relative < 1.02
