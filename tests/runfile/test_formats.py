"""Run files of older versions of the format go on in their version."""

import gzip

import h5py
import numpy as np
import pytest
from helpers import DATA, compute
from processes import process_of
from run_files import named_source

import resumable as rs
from resumable.runfile import RunFile


@pytest.mark.filterwarnings("ignore:.*(positions failed|was edited since)")
@pytest.mark.parametrize(
    ("version", "rows", "name"), [(2, 40, "36b3b658"), (3, 12, "21079d69")]
)
def test_a_run_of_the_versions_before_4_goes_on(
    version, rows, name, tmp_path, monkeypatch
):
    """Half of it was computed then, and every fourth position failed."""
    monkeypatch.chdir(tmp_path)
    data = np.arange(rows * 4.0).reshape(rows, 4)
    with h5py.File(f"of{version}.h5", "w") as file:
        file["data"] = data
    path = tmp_path / f"of{version}-data-Both-{name}.h5"
    path.write_bytes(gzip.decompress((DATA / f"format_{version}.h5.gz").read_bytes()))

    def both(self, spectrum):
        return {"mean": spectrum.mean(), "ends": spectrum[[0, -1]]}

    outputs = {
        "mean": rs.Output(units="V"),
        "ends": rs.Output(2, labels=("first", "last")),
    }
    process = process_of(both, outputs, name="Both")(f"of{version}.h5::/data")
    results = compute(process)

    assert results.path == path
    assert RunFile(path).header.format == version
    failed = list(range(3, rows // 2, 4))
    assert [failure.position for failure in results.failures] == failed
    assert len(results.sessions) == 2
    for _ in range(2):
        results.pack()
        assert rs.verify(path, process, sample="all").passed
        results = compute(process, retry_failed=True)
        np.testing.assert_array_equal(results["mean"], data.mean(axis=1))
    results.publish("other.h5::/both")
    assert named_source("other.h5", "both").shape == (rows, 4)
    assert RunFile(path).header.format == version
