"""Positions as users name them, computed on a map in a file."""

import h5py
import numpy as np
import pytest
from helpers import compute
from processes import Mean

import resumable as rs

MASK = np.zeros((4, 5), bool)
MASK[1:3, 2:4] = True


@pytest.fixture
def source(make_file):
    return make_file(data=np.random.default_rng(0).random((4, 5, 8))) + "::/data"


@pytest.mark.parametrize(
    "positions",
    [
        np.s_[1:3, 2:4],
        np.nonzero(MASK),
        np.argwhere(MASK),
        MASK,
        np.ma.array(np.ones((4, 5), bool), mask=~MASK),
        np.ma.array(MASK, mask=False).ravel(),
    ],
    ids=["slices", "nonzero", "argwhere", "mask", "masked", "flat"],
)
def test_a_part_of_a_map_is_computed_however_it_is_named(source, positions):
    results = compute(Mean(source, position_axes=(0, 1)), positions=positions)

    np.testing.assert_array_equal(results.completed_mask, MASK)


def test_a_mask_of_numbers_from_a_file_is_refused(source, make_file):
    """As indices, its 0 and 1 are the first two positions."""
    with h5py.File(make_file("masks.h5", mask=MASK.astype("u1"))) as file:
        mask = file["mask"][:]
    process = Mean(source, position_axes=(0, 1))
    for wrong in (mask, mask.ravel(), mask.ravel().tolist(), mask.astype(float)):
        for call in (process.compute, process.plan):
            with pytest.raises(rs.PlanError, match=r"give mask\.astype\(bool\)"):
                call(positions=wrong)
        with pytest.raises(rs.PlanError, match=r"give mask\.astype\(bool\)"):
            process.test(wrong)

    results = compute(process, positions=mask.astype(bool))
    np.testing.assert_array_equal(results.completed_mask, MASK)


def test_a_part_of_a_map_is_tried_in_the_order_of_its_index(source):
    process = Mean(source, position_axes=(0, 1))
    trial = process.test(np.s_[2:0:-1, 2])

    assert trial.positions == [(2, 2), (1, 2)]
    assert trial["mean"].shape == (2,)
    assert process.test((2, 2))["mean"] == trial["mean"][0]


def test_the_command_takes_a_part_of_a_map(source, capsys):
    arguments = [source, "--axes", "0,1", "--positions", "1:3,2:4"]
    with pytest.raises(SystemExit) as ended:
        rs.main(Mean, [*arguments, "--engine", "serial"])

    assert ended.value.code == 0, capsys.readouterr()
    results = Mean(source, position_axes=(0, 1)).results
    np.testing.assert_array_equal(results.completed_mask, MASK)
