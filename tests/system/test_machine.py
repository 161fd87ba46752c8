"""What the machine offers: cores and memory, limits included."""

import os
import subprocess
import sys

import numpy as np
import psutil
import pytest

from resumable.system import machine

GB = 1_000_000_000


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Return a function that stands in for the cgroups of a machine."""
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    root.mkdir()
    monkeypatch.setattr(machine, "_PROC", proc)
    monkeypatch.setattr(machine, "_CGROUP", root)

    def build(membership, files):
        (proc / "cgroup").write_text(membership)
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))

    return build


def test_available_memory_is_at_most_what_the_host_has_free():
    free_before = psutil.virtual_memory().available

    available = machine.available_memory()

    # Others on the host give back or take some between the two looks.
    assert 0 < available < 1.5 * free_before


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        pytest.param(
            "0::/job/step\n",
            {"job/step/memory.max": GB, "job/step/memory.current": GB // 4},
            GB - GB // 4,
            id="version 2",
        ),
        pytest.param(
            "0::/job/step\n",
            {
                "job/step/memory.max": "max",
                "job/step/memory.current": 5,
                "job/memory.max": GB // 2,
                "job/memory.current": 0,
            },
            GB // 2,
            id="the limit of a parent",
        ),
        pytest.param(
            "0::/job\n",
            {
                "job/memory.max": GB,
                "job/memory.current": GB,
                "job/memory.stat": f"anon 7\ninactive_file {GB // 8}\n",
            },
            GB // 8,
            id="file cache is given back",
        ),
        pytest.param(
            "0::/job\n",
            {"job/memory.max": 1000, "job/memory.current": 2000},
            0,
            id="over its limit",
        ),
        pytest.param(
            "4:memory:/\n0::/\n",
            {
                "memory/memory.limit_in_bytes": GB,
                "memory/memory.usage_in_bytes": GB // 4,
            },
            GB - GB // 4,
            id="version 1",
        ),
        pytest.param(
            "9:cpu:/\n4:memory:/slurm/job_7\n0::/\n",
            {
                "memory/memory.limit_in_bytes": 9223372036854771712,
                "memory/memory.usage_in_bytes": 5,
                "memory/slurm/job_7/memory.limit_in_bytes": GB,
                "memory/slurm/job_7/memory.usage_in_bytes": GB // 4,
            },
            GB - GB // 4,
            id="version 1 of a batch job",
        ),
    ],
)
def test_available_memory_is_what_the_cgroup_leaves(
    cgroups, membership, files, expected
):
    cgroups(membership, files)

    assert machine.available_memory() == expected


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("0::/\n", {}),
        ("0::/job\n", {"job/memory.max": "max", "job/memory.current": 5}),
        (
            "4:memory:/\n",
            {
                "memory/memory.limit_in_bytes": 9223372036854771712,
                "memory/memory.usage_in_bytes": 5,
            },
        ),
    ],
    ids=["no files", "version 2", "version 1"],
)
def test_without_a_limit_the_host_counts(cgroups, membership, files):
    cgroups(membership, files)

    assert machine.available_memory() > 10_000_000


def test_cores_are_limited_by_affinity():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from resumable.system import machine; print(machine.usable_cores())"
    )

    assert subprocess.check_output([sys.executable, "-c", code]).strip() == b"1"


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("0::/job/step\n", {"job/cpu.max": "150000 100000", "job/step/cpu.max": "max"}),
        ("0::/job\n", {"job/cpu.max": "20000 100000"}),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": 100000, "cpu/cpu.cfs_period_us": 90000}),
        (
            "3:cpu,cpuacct:/slurm/job_7\n",
            {
                "cpu/cpu.cfs_quota_us": -1,
                "cpu/cpu.cfs_period_us": 100000,
                "cpu/slurm/job_7/cpu.cfs_quota_us": 100000,
                "cpu/slurm/job_7/cpu.cfs_period_us": 100000,
            },
        ),
    ],
    ids=["version 2", "a fifth of a core", "version 1", "version 1 of a batch job"],
)
def test_cores_are_limited_by_the_quota_of_the_cgroup(
    cgroups, monkeypatch, membership, files
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    cgroups(membership, files)

    assert machine.usable_cores() == 1


def test_without_a_quota_every_core_of_the_affinity_counts(cgroups, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    cgroups("0::/job\n", {"job/cpu.max": "max 100000"})

    assert machine.usable_cores() == 8


def test_the_peak_holds_an_allocation_that_is_gone_again():
    size = 96 << 20
    watch = machine.PeakMemory()
    before = machine.resident_memory()

    np.ones(size, np.uint8)

    assert watch.peak() > before + 0.9 * size


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak")
def test_the_peak_is_forgotten_at_a_new_start():
    size = 96 << 20
    watch = machine.PeakMemory()
    np.ones(size, np.uint8)
    first = watch.peak()

    watch.start()

    assert watch.peak() < first - 0.9 * size


def test_shared_pages_count_less_than_whole():
    proportional, resident = machine.proportional_memory(), machine.resident_memory()

    assert 1 << 20 < proportional < 1.1 * resident


def test_the_proportional_size_grows_with_what_only_this_process_has():
    before = machine.proportional_memory()

    private = np.ones(64 << 20, np.uint8)

    assert machine.proportional_memory() > before + 0.9 * private.nbytes
