"""Publishing: all of a group in another file or nothing of it, killed or not."""

import concurrent.futures
import errno
import os
import subprocess
import sys

import h5py
import kill_pack
import numpy as np
import pytest
from helpers import ROOT, compute
from processes import process_of
from published import Level, fill, left_over
from run_files import digest, named_source

import resumable as rs
from resumable.runfile.hdf5 import superblock_of
from resumable.runfile.journal import user_file_locked, user_file_transaction

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*positions failed:resumable.ResumableWarning"
)


FILES = {
    "plain": {},
    "latest": {"libver": "latest"},
    "v108": {"libver": "v108"},
    "user block": {"userblock_size": 1024},
    "pages": {"fs_strategy": "page", "fs_page_size": 4096},
    "free space": {"fs_strategy": "fsm", "fs_persist": True},
    "ordered": {"track_order": True},
}


@pytest.fixture(params=FILES)
def scan(request, tmp_path):
    return fill(tmp_path / "scan.h5", **FILES[request.param])


@pytest.fixture
def source(tmp_path):
    return fill(tmp_path / "scan.h5")


@pytest.fixture
def results(source):
    return compute(Level(f"{source}::/data"))


def contents(path, without):
    found = {}
    with h5py.File(path, "r") as file:

        def visit(name, thing):
            if f"/{name}".startswith(without):
                return
            attributes = {k: str(v) for k, v in thing.attrs.items()}
            found[name] = (attributes, type(thing).__name__)
            if isinstance(thing, h5py.Dataset):
                layout = (thing.chunks, thing.compression, thing.maxshape, thing.dtype)
                place = thing.id.get_offset()
                found[name] += (thing[()].tobytes(), layout, place)

        file.visititems(visit)
        found["link"] = file.get("link", getlink=True).path
    return found


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_a_group_is_added_and_all_else_is_as_it_was(scan, compression):
    before = contents(scan, "/fits")
    results = compute(Level(f"{scan}::/data"))
    results.publish(f"{scan}::/fits/level", compression=compression)

    assert contents(scan, "/fits") == before
    assert left_over(scan) == []
    with h5py.File(scan, "r") as file:
        group = file["fits/level"]
        for name in results:
            np.testing.assert_array_equal(group[name][...], results[name][...])
        assert group["level"].attrs["units"] == "V"
        assert group["level"].dims[0].keys() == ["position"]
        assert list(group["ends_labels"]) == [b"first", b"last"]
        assert group.attrs["identity_sha256"] == results.identity
        assert group.attrs["signal"] == "level"
        assert group["completed_positions"][...].sum() == 49
        message = group["run/failures"][0]["message"]
        assert message.tobytes().rstrip(b"\0") == b"no luck"
        assert group["run/sessions"].shape == (1,)
        assert group.attrs["source"] == "scan.h5::/data"
        known = {None: None, "gzip": "gzip", "zstd": "unknown"}
        assert group["level"].compression == known[compression]
        assert bool(group["level"].fletcher32) == bool(compression)
        assert list(file["fits"]) == ["level"]
    with h5py.File(scan, "r+") as file:
        file["fits/level/level"][0] = 1
        file["after"] = 1


def test_the_source_is_known_again_after_publishing_into_it(source):
    results = compute(Level(f"{source}::/data"))
    results.publish(f"{source}::/fit")

    assert Level(f"{source}::/data").duplicates == [results]


def test_a_packed_run_is_published_too(source, results):
    wanted = results["ends"][...]
    results.pack("zstd")
    results.publish(f"{source}::/fit")
    with h5py.File(source, "r") as file:
        assert file["fit/ends"].chunks is None
        assert "packed-chunks" not in file["fit/run"]
        np.testing.assert_array_equal(file["fit/ends"][...], wanted)


def test_the_source_is_named_as_seen_from_another_file(tmp_path, results, source):
    (tmp_path / "below").mkdir()
    for path in (tmp_path / "other.h5", tmp_path / "below" / "other.h5"):
        fill(path)
        results.publish(f"{path}::/fit")
        with h5py.File(source, "r") as scan:
            np.testing.assert_array_equal(named_source(path, "fit"), scan["data"][...])


def test_a_group_that_was_published_can_be_replaced(source, results):
    """With overwrite=True, and by other results; nothing else can."""
    before = contents(source, "/fits")
    results.publish(f"{source}::/fits/level")
    with pytest.raises(rs.ParameterError, match="exists; give another name, or overw"):
        results.publish(f"{source}::/fits/level")
    results.publish(f"{source}::/fits/level", overwrite=True, compression="gzip")
    with h5py.File(source, "r") as file:
        assert list(file["fits"]) == ["level"]
        assert file["fits/level/level"].compression == "gzip"

    assert contents(source, "/fits") == before


def test_a_name_that_is_a_link_to_the_file_stays_one(tmp_path, source, results):
    link = tmp_path / "link.h5"
    link.symlink_to("scan.h5")
    results.publish(f"{link}::/fit")

    assert link.is_symlink()
    with h5py.File(source, "r") as file:
        assert "fit" in file


@pytest.fixture
def refused(source, results):
    def publish(error, match, where="/fit", path=source, **options):
        before = digest(path) if path.is_file() else None
        with pytest.raises(error, match=match):
            results.publish(f"{path}::{where}", **options)
        assert (digest(path) if path.is_file() else None) == before
        assert left_over(path) == []

    return publish


@pytest.mark.parametrize(
    ("where", "match"),
    [
        ("/", "names no group in a file"),
        ("", "names no group in a file"),
        ("/a/../b", "names no group in a file"),
        ("/data", "/data exists; give another name"),
        ("/data/fit", "/data is a dataset, not a group"),
        ("/link", "/link exists"),
        ("/link/fit", "/link is a link, not a group"),
        ("/deep", "/deep exists"),
    ],
)
def test_a_place_that_is_taken_is_refused(refused, where, match):
    refused(rs.ParameterError, match, where)


@pytest.mark.parametrize("where", ["/deep", "/data", "/link", "/grows"])
def test_nothing_but_published_results_is_ever_replaced(refused, where):
    match = "was not published by this library|not a group"
    refused(rs.ParameterError, match, where, overwrite=True)


def test_a_file_that_is_not_there_is_made(results, tmp_path):
    (tmp_path / "empty.h5").touch()
    (tmp_path / "link.h5").symlink_to(tmp_path / "linked.h5")
    for name in ("new.h5", "empty.h5", "link.h5"):
        results.publish(f"{tmp_path / name}::/fit")
        results.publish(f"{tmp_path / name}::/again/fit")
        with h5py.File(tmp_path / name) as file:
            assert sorted(file) == ["again", "fit"]
            np.testing.assert_array_equal(file["fit/level"], results["level"])
        assert left_over(tmp_path / name) == []
    assert (tmp_path / "link.h5").is_symlink()


def test_a_file_that_is_not_there_is_not_left_by_an_error(
    refused, results, tmp_path, monkeypatch
):
    with pytest.raises(rs.ParameterError, match="there is no folder"):
        results.publish(f"{tmp_path}/no/new.h5::/fit")

    def fail(*_, **__):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("resumable.results.publish.copy_group", fail)
    refused(rs.TargetError, "broken", path=tmp_path / "new.h5")
    assert not (tmp_path / "new.h5").exists()


def test_what_is_no_hdf5_file_or_one_of_ours_is_refused(refused, results, tmp_path):
    text = tmp_path / "text"
    text.write_text("plain text " * 100)
    refused(rs.TargetError, "not an HDF5 file", path=text)
    refused(rs.TargetError, "is a run file", path=results.path)
    short = tmp_path / "short.h5"
    fill(short)
    os.truncate(short, 20_000)
    refused(rs.TargetError, "truncated: it has 20,000 bytes of", path=short)


def test_a_file_with_other_names_is_refused(refused, source, tmp_path):
    """Hard links are how backups are made, and they would change with it."""
    os.link(source, tmp_path / "backup.h5")
    refused(rs.TargetError, "has 2 names")


def test_a_file_that_is_open_is_refused(refused, source, results, impatient):
    for mode in ("r", "r+"):
        with h5py.File(source, mode):
            refused(rs.RunBusy, "is open, in this program or in another one")
    results.publish(f"{source}::/fit")


def test_a_file_that_was_not_closed_is_refused(refused, tmp_path):
    """HDF5 marks newer files that are open for writing; a kill leaves the mark."""
    path = tmp_path / "killed.h5"
    code = (
        "import h5py, os, signal, sys\n"
        "file = h5py.File(sys.argv[1], 'w', libver='latest')\n"
        "file['data'] = range(1000)\n"
        "file.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    refused(rs.TargetError, "h5clear -s .*killed.h5", path=path)


def test_unfinished_results_are_not_published(source):
    some = compute(Level(f"{source}::/data"), positions=slice(0, 5))
    before = digest(source)
    with pytest.raises(rs.RunFileError, match="not finished; compute it before it is"):
        some.publish(f"{source}::/fit")

    assert digest(source) == before


def test_a_method_that_is_not_there_is_refused(refused):
    match = r"'gzipp'; did you mean 'gzip'\?"
    refused(rs.ParameterError, match, compression="gzipp")


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_full_disk_changes_nothing(small_disk, tmp_path, compression):
    Noise = process_of(
        lambda self, index: self.rng.random(1 << 17), {"row": rs.Output(1 << 17)}
    )
    results = compute(Noise(4, tmp_path))
    path = small_disk / "full.h5"
    fill(path)
    before = digest(path)
    with pytest.raises(rs.TargetError, match=r"no room for the results .* 4\.19 MB"):
        results.publish(f"{path}::/fit", compression=compression)

    assert digest(path) == before
    assert [p.name for p in small_disk.iterdir()] == ["full.h5"]
    with h5py.File(path, "r+") as file:
        file["after"] = 1


def test_an_error_in_the_middle_undoes_all(source):
    before = digest(source)

    def interrupted():
        with (
            user_file_locked(source) as (path, fd),
            user_file_transaction(path, fd) as safe,
            h5py.File(safe, "r+") as file,
        ):
            file["new"] = np.zeros(100_000)
            file["data"].attrs["unit"] = "changed"
            file.flush()
            assert source.stat().st_size > 800_000
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert digest(source) == before
    assert left_over(source) == []


def test_two_at_once_come_one_after_the_other(source, results):
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        names = [f"/fits/number_{number}" for number in range(4)]
        list(threads.map(lambda n: results.publish(f"{source}::{n}"), names))
    with h5py.File(source, "r") as file:
        assert sorted(file["fits"]) == [f"number_{number}" for number in range(4)]


def test_large_rows_are_not_held_in_memory(tmp_path):
    code = """
import resource, sys
import h5py, numpy as np
import resumable as rs
class Large(rs.Process):
    version = 1
    outputs = {"row": rs.Output(1 << 17)}
    def unit_computation(self, index):
        return np.full(1 << 17, index)
with h5py.File("scan.h5", "w") as file:
    file["data"] = np.arange(64)
results = Large("scan.h5::/data").compute(engine="serial", progress=False)
results.publish("scan.h5::/first")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
results.publish("scan.h5::/second")
results.publish("scan.h5::/third", compression="lzf")
results.publish("scan.h5::/first", overwrite=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = subprocess.check_output(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert int(grown) < 16_000


@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
@pytest.mark.parametrize("block", [0, 512, 8192])
def test_a_superblock_is_found_and_understood(tmp_path, libver, block):
    path = tmp_path / "some.h5"
    fill(path, libver=libver, userblock_size=block)
    with path.open("rb") as file:
        found = superblock_of(file.fileno())
        with h5py.File(path, "r+"):
            opened = superblock_of(file.fileno())

    assert found.end == path.stat().st_size
    assert (found.open_for_writing, found.swmr) == (False, False)
    assert opened.open_for_writing


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("steps", "publish"),
        ("torn", "publish"),
        ("torn", "make"),
        ("torn", "overwrite"),
        ("torn", "repair"),
        *(
            pytest.param(how, what, marks=pytest.mark.torture)
            for how in ("every-step", "every-torn")
            for what in ("publish", "make", "overwrite", "repair")
        ),
    ],
)
def test_a_kill_before_any_step_or_in_a_write_is_mended(
    program_server, tmp_path, what, how
):
    """By whatever of ours opens the file next, to one of two files, byte for byte."""
    tally = kill_pack.tally_of(program_server, how, what, tmp_path)

    assert tally.faults == []
    assert tally.kills >= 2


LONG = [pytest.mark.torture, pytest.mark.timeout(3600, method="signal")]


@pytest.mark.parametrize(
    ("what", "kills"),
    [
        *((what, 10) for what in ["publish", "overwrite"]),
        *(
            pytest.param(what, 500, marks=LONG)
            for what in ["publish", "overwrite", "repair"]
        ),
    ],
)
def test_kills_at_random_moments_are_mended(program_server, tmp_path, what, kills):
    tally = kill_pack.tally_of(program_server, "random", what, tmp_path, kills)

    assert tally.faults == []
    assert tally.kills == kills
