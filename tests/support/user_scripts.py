"""Scripts as users write them, and what they left."""

import pytest

from resumable.worker.server import START_METHODS

both_methods = pytest.mark.parametrize("method", START_METHODS)


def finished(process):
    """Wait for a script; return what it wrote, or fail with its errors."""
    output, errors = process.communicate(timeout=40)
    assert process.returncode == 0, errors
    return output


UNGUARDED = """
    import resumable as rs
    from resumable.engines.local import LocalEngine

    with open("imported", "a") as file:
        file.write("x")

    FACTOR = 1.0

    def helper(spectrum):
        return spectrum.mean() * FACTOR

    class Mean(rs.Process):
        outputs = {{"mean": rs.Output()}}

        def unit_computation(self, spectrum):
            return helper(spectrum)

    Mean("scan.h5::/data").compute(engine=LocalEngine(2, "{method}"))
"""
