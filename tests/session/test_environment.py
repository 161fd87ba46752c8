"""Versions of what is computed with: recorded, told, and part of a strict identity."""

import contextlib
import gzip
import json
import platform

import h5py
import numpy as np
import pytest
from helpers import DATA, compute

import resumable as rs
from resumable.cli.report import show_text
from resumable.identity import environment_of
from resumable.runfile import SessionTables, table_rows
from resumable.runfile.file import RunFile

FIT = """
    import sys

    import resumable as rs

    sys.path.insert(0, FOLDER)
    import fitlib

    class Fit(rs.Process):
        outputs = {"value": rs.Output()}

        def unit_computation(self, spectrum):
            return fitlib.mean(spectrum)

    if __name__ == "__main__":
        rs.main(Fit)
"""


class Mean(rs.Process):
    outputs = {"mean": rs.Output()}  # noqa: RUF012

    def unit_computation(self, spectrum):
        return np.mean(spectrum)


@pytest.fixture
def install(tmp_path):
    """Return a function that installs a version of the distribution fitlib."""
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / "fitlib.py").write_text("def mean(values):\n    return values.mean()\n")

    def install(version, digest="abc"):
        for old in folder.glob("*.dist-info"):
            (old / "RECORD").unlink()
            old.rmdir()
        made = folder / f"fitlib-{version}.dist-info"
        made.mkdir()
        (made / "RECORD").write_text(
            f"fitlib.py,sha256={digest},45\n{made.name}/RECORD,,\n"
        )

    return install


@pytest.fixture
def fit(script, install, tmp_path, make_file):
    """Return a function that runs the script; it returns what it has warned of."""
    source = make_file(data=np.ones((10, 4))) + "::/data"
    text = FIT.replace("FOLDER", repr(str(tmp_path / "installed")))

    def fit(*arguments):
        program = script(text, source, "--engine", "serial", *arguments, name="fit.py")
        _, told = program.communicate(timeout=60)
        assert program.returncode == 0, told
        return told

    return fit


def runs(tmp_path):
    return [rs.open(path) for path in sorted(tmp_path.glob("scan-*.h5"))]


def test_every_session_says_what_it_was_computed_with(scan):
    process = Mean(scan)
    compute(process, positions=slice(0, 20))
    results = compute(process)
    first, second = results.sessions

    assert first.environment == second.environment
    assert first.environment["Python"].endswith(platform.python_version())
    assert first.environment["numpy"].split()[0] == np.__version__
    assert first.environment["h5py"].split()[0] == h5py.__version__
    assert first.environment["CPU"]
    assert first.environment["BLAS"] != "unknown"
    assert list(RunFile(results.path).environments()) == [0]


def test_a_distribution_of_another_name_than_its_module_is_found():
    pytest.importorskip("sklearn")

    assert "scikit-learn" in environment_of(["sklearn.linear_model"])


def test_going_on_under_other_versions_warns_once_with_the_list(install, fit, tmp_path):
    install("1.14")
    assert "fitlib" not in fit("--positions", "0:5")
    install("1.17")
    told = fit("--positions", "0:7")
    assert "another fitlib (1.14 -> 1.17); 5 of 10 positions were computed be" in told
    assert "fitlib" not in fit()
    (results,) = runs(tmp_path)

    assert results.status.finished
    versions = [s.environment["fitlib"].split()[0] for s in results.sessions]
    assert versions == ["1.14", "1.17", "1.17"]
    shown = show_text(RunFile(results.path))
    assert [line.split()[-2] for line in shown.splitlines() if "fitlib" in line] == [
        "1.14",
        "1.17",
    ]
    install("1.18")
    assert "fitlib" not in fit()


def test_another_build_of_the_same_version_is_told(install, fit):
    install("1.14", "abc")
    fit("--positions", "0:5")
    install("1.14", "def")

    assert "another fitlib (1.14 " in fit("--positions", "0:7")


def test_a_strict_environment_is_part_of_the_identity(install, fit, tmp_path):
    install("1.14")
    fit("--environment", "strict", "--positions", "0:5")
    install("1.17")
    told = fit("--environment", "strict")
    documents = [results.document for results in runs(tmp_path)]

    assert "continued with another" not in told
    versions = [d["environment"]["fitlib"].split()[0] for d in documents]
    assert sorted(versions) == ["1.14", "1.17"]


def test_strict_is_told_by_explain_and_comes_back(scan, tmp_path):
    plain, strict = Mean(scan), Mean(scan, environment="strict")
    assert plain.identity != strict.identity
    assert strict.identity == Mean(scan, environment="strict").identity
    results = compute(strict)
    path = tmp_path / "state.json"
    path.write_text(json.dumps(strict.state()))
    (candidate,) = plain.explain().candidates

    assert all(
        reason.startswith(("environment", "and")) for reason in candidate.reasons
    )
    assert rs.load(path, Mean).results == results
    assert rs.load(results.path, Mean).results == results
    assert rs.verify(results.path, Mean).passed


def test_a_map_can_be_strict(scan):
    def mean(spectrum):
        return spectrum.mean()

    made = [
        rs.map(mean, scan, options={"engine": "serial"}, environment=environment)
        for environment in ("record", "strict", "strict")
    ]

    assert made[1] == made[2] != made[0]
    assert rs.verify(made[1].path, mean).passed


def test_an_unknown_environment_is_refused(scan):
    with pytest.raises(rs.ParameterError, match="must be 'record' or 'strict'"):
        Mean(scan, environment="loose")


def test_a_run_file_without_environments_is_read_and_packed(tmp_path):
    """Files of format version 2 that were made before there was this table."""
    path = tmp_path / "old.h5"
    path.write_bytes(gzip.decompress((DATA / "schema_1.h5.gz").read_bytes()))
    before = rs.open(path)
    assert "environments" not in RunFile(path).header.tables
    assert [session.environment for session in before.sessions] == [{}]
    assert "computed with" not in show_text(RunFile(path))
    before.pack()

    assert RunFile(path).header.packed
    assert [session.environment for session in rs.open(path).sessions] == [{}]


def test_environments_beyond_the_table_use_the_last_row_again(scan):
    """Those of the first sessions are kept, and that of the last one."""
    run = RunFile(compute(Mean(scan)).path)
    most = table_rows(60, 2)["environments"]
    with contextlib.closing(SessionTables(run)) as tables:
        for number in range(1, most + 4):
            tables.begin(
                host="h",
                pid=number,
                engine="serial",
                workers=1,
                environment={"numpy": str(number)},
            )
    sessions = run.sessions()

    assert len(run.environments()) == most
    assert sessions[0].environment["numpy"].startswith(np.__version__)
    assert [s.environment["numpy"] for s in sessions[1:4]] == ["1", "2", "3"]
    assert sessions[-1].environment == {"numpy": str(most + 3)}


def test_an_environment_too_long_for_its_row_loses_whole_lines(scan):
    run = RunFile(compute(Mean(scan)).path)
    many = {f"package-{number}": "1.0 0123456789abcdef" for number in range(200)}
    with contextlib.closing(SessionTables(run)) as tables:
        for number in (1, 2):
            tables.begin(
                host="h", pid=number, engine="serial", workers=1, environment=many
            )
    found = run.sessions()[-1].environment
    assert list(run.environments()) == [0, 1]

    assert 50 < len(found) < 200
    assert found.items() <= many.items()


def test_packing_keeps_the_environments(scan):
    results = compute(Mean(scan))
    before = [session.environment for session in results.sessions]
    results.pack()
    packed = rs.open(results.path)
    assert [session.environment for session in packed.sessions] == before
    compute(Mean(scan), retry_failed=True)

    assert rs.open(results.path).sessions[0].environment == before[0]
