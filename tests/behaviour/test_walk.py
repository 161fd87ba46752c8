"""What a small run goes through: files opened and reads of the whole status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

#: The most files opened and the most reads of the status, by the kind of run.
#: At the end the source is looked at again, and what was computed with is written down.
MOST = {"new": (20, 1), "continued": (14, 2), "returned": (5, 1)}


@pytest.fixture(scope="module")
def found():
    """Count as benchmarks/walk.py does, by the kind of run."""
    command = [sys.executable, str(BENCHMARKS / "walk.py"), "--json"]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(ended.stdout)


@pytest.mark.parametrize("case", MOST)
def test_a_run_opens_few_files_and_reads_the_status_once(found, case):
    """Once to decide and, where something was computed, once at the end."""
    opens, scans = MOST[case]

    assert 0 < found[case]["opens"] <= opens
    assert found[case]["scans"] == scans
