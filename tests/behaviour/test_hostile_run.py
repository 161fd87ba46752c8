"""Run files of unknown origin: nothing in them is run, no path in them followed."""

import ast
import os
import shutil
import stat
import tempfile
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import param
import pytest
from forged_files import plain_of, restructured, rewritten, write_body
from helpers import compute
from processes import process_of
from programs import invoke
from run_files import PACKAGE, Mean, assert_printable

import resumable as rs


def snapshot(folder):
    """Contents of all files of a folder, and what the others are."""
    return {
        path: path.read_bytes()
        if stat.S_ISREG(path.lstat().st_mode)
        else path.lstat().st_mode
        for path in folder.rglob("*")
    }


# Nothing in a file is ever run.

#: They speak to processes that we have started ourselves.
TALKS_TO_OUR_OWN = {
    f"worker/{name}.py" for name in ("call", "processes", "serving", "transport")
}
TALKS_TO_OUR_OWN |= {
    f"engines/{name}.py"
    for name in ("futures", "messages", "mpi", "ranks", "remote_worker")
}
LOADERS = {"dill", "joblib", "marshal", "pickle", "shelve", "yaml"}
RUNNERS = {"compile", "eval", "exec", "__import__"}


@pytest.mark.parametrize(
    "module", sorted(str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py"))
)
def test_no_module_can_run_what_a_file_says(module):
    tree = ast.parse((PACKAGE / module).read_text())
    imported, called = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call):
            called.add(ast.unparse(node.func))
        elif isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle"

    loads = {name for name in called if name.endswith((".loads", ".load"))}
    if module not in TALKS_TO_OUR_OWN:
        assert not imported & LOADERS
        assert loads <= {"json.loads"}
    # Text of code that is imported already is compiled to compare it, and not run.
    compiles = {"compile"} if module == "identity/syntax.py" else set()
    assert called & RUNNERS == compiles
    assert "np.load" not in called


def test_an_object_dtype_is_refused_in_a_header(scan):
    """Pointers from a file would be followed by the interpreter."""
    path = compute(Mean(scan)).path
    for text in ("|O", "|O8", "O", "object", [["a", "|O8"]], "f8,O"):
        before = path.read_bytes()
        rewritten(path, lambda p, text=text: set_dtype(p, text))
        with pytest.raises(rs.RunFileError, match="makes no sense"):
            rs.open(path)
        path.write_bytes(before)


def set_dtype(plain, dtype):
    plain["outputs"]["mean"]["dtype"] = dtype
    plain["document"]["outputs"]["mean"]["dtype"] = dtype


def renamed(plain, name):
    for part in (plain["outputs"], plain["document"]["outputs"], plain["offsets"]):
        part[name] = part.pop("mean")
    plain["order"] = [name]


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


NAMES = {
    "output above": lambda p: renamed(p, ".."),
    "output elsewhere": lambda p: renamed(p, "/etc/passwd"),
    "output behind a link": lambda p: renamed(p, "source/x"),
    "group above": lambda p: p.update(group="/.."),
    "group of parts": lambda p: p.update(group="/data-Mean_000/../../x"),
    "group behind a link": lambda p: p.update(group="/data-Mean_000/source"),
    "group here": lambda p: p.update(group="/."),
    "group with a zero": lambda p: p.update(group="/data\0"),
    "group number": lambda p: p.update(group=7),
}

BODIES = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "deep lists": b"[" * 1_000_000,
    "deep dicts": b'{"format":' * 200_000,
    "deep inside": b'{"format":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "many digits": b'{"format":' + b"9" * 1_000_000 + b"}",
    "no utf-8": b"\xff\xfe{}",
    "not json": b"__import__('os').system('true')",
    "only zeros": bytes(1 << 16),
    "16 MB of text": b'"' + b"a" * ((16 << 20) - 200) + b'"',
    "more than 16 MB": b'"' + b"a" * (17 << 20) + b'"',
}


def assert_refused(path):
    """It is an error of ours, with few words and little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(rs.RunFileError) as info:
            rs.open(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert path.name in str(info.value)
    assert len(str(info.value)) < 1000
    assert_printable(str(info.value))
    assert peak < 150 << 20


@pytest.mark.parametrize("kind", [*NAMES, *BODIES])
def test_a_header_that_leads_elsewhere_or_is_none_is_refused(run_path, kind):
    if kind in NAMES:
        rewritten(run_path, NAMES[kind])
    else:
        write_body(run_path, BODIES[kind])

    assert_refused(run_path)


def test_a_file_without_a_header_hides_no_other(run_path, scan):
    """list and status tell of the sound runs; explain says why the rest is not used."""
    other = compute(Mean(scan, width=0.5)).path
    write_body(run_path, b"[]")
    listed = invoke("list", str(run_path.parent))

    assert other.name in listed
    assert "(not usable)" in listed
    assert other.name in invoke("status", str(run_path.parent))
    assert "makes no sense" in str(Mean(scan).explain())


def test_a_header_that_we_could_not_read_again_is_not_written(scan, tmp_path):
    """Labels of 20 MB: an error before anything is made, not a damaged file."""

    Wide = process_of(
        lambda self, spectrum: spectrum[:20],
        {"x": rs.Output(20, "f4", labels=["x" * 1_000_000] * 20)},
    )
    with pytest.raises(rs.DeclarationError, match=r"labels take .* more than the 16"):
        compute(Wide(scan))

    assert [path.name for path in tmp_path.iterdir()] == ["scan.h5"]


def test_a_parameter_nested_without_end_is_refused(scan):
    """What could not be compared is no part of an identity."""

    class Nested(Mean):
        version = 1
        value = param.Parameter()

    with pytest.raises(rs.IdentityError, match="more than 200 deep"):
        compute(Nested(scan, value=deep(250)))


@pytest.fixture(params=["pipe", "device", "folder", "socket", "dangling", "loop"])
def odd_path(request, scan):
    """What lies under the name of a run, and is no file."""
    path = Path(Mean(scan).plan().path)
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif request.param == "dangling":
        path.symlink_to("nowhere.h5")
    else:
        path.symlink_to(path.name)
    return path


def test_a_name_of_a_run_that_is_no_file_is_refused(odd_path, scan):
    before = snapshot(odd_path.parent)
    with pytest.raises(rs.RunFileError, match=f"{odd_path.name} cannot be read: "):
        rs.open(odd_path)
    with pytest.raises(rs.RunFileError, match="cannot be read"):
        compute(Mean(scan))
    invoke("list", str(odd_path.parent))

    assert snapshot(odd_path.parent) == before
    assert compute(Mean(scan), override=True).path.name == f"{odd_path.stem}_001.h5"


@pytest.mark.parametrize("suffix", [".claim", ".writers"])
@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "pipe"])
def test_a_planted_lock_file_changes_no_other_file(scan, tmp_path, suffix, kind):
    """The text of the lock never lands in a file that its name links to."""
    target = tmp_path / "target"
    target.mkdir()
    precious = tmp_path / "precious"
    precious.write_text("do not touch")
    path = target / Path(Mean(scan, target).plan().path).with_suffix(suffix).name
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "new")
    elif kind == "hard link":
        path.hardlink_to(precious)
    else:
        os.mkfifo(path)
    before = snapshot(tmp_path)
    with pytest.raises(rs.TargetError, match=f"cannot be written .*{path.name} is "):
        compute(Mean(scan, target))

    assert snapshot(tmp_path) == before


def test_a_planted_link_is_read_and_not_written_through(scan, tmp_path):
    """A run that is a link to somewhere else answers when it is complete, and else
    says where it goes on."""
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "target"
    elsewhere.mkdir()
    target.mkdir()
    path = compute(Mean(scan, elsewhere), positions=slice(0, 20)).path
    (target / path.name).symlink_to(path)
    before = snapshot(elsewhere)
    with pytest.raises(rs.TargetError, match=f"{path.name} is a link to {path}; noth"):
        compute(Mean(scan, target))

    assert snapshot(elsewhere) == before
    assert sorted(p.name for p in target.iterdir()) == [path.name]
    whole = compute(Mean(scan, elsewhere))
    assert compute(Mean(scan, target))["mean"][...].tolist() == list(whole["mean"])


def test_a_planted_temporary_file_is_replaced_and_not_written_to(scan, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("do not touch")
    path = Path(Mean(scan).plan().path)
    path.with_name(f".{path.stem}.birth").symlink_to(precious)

    assert compute(Mean(scan)).status.finished
    assert precious.read_text() == "do not touch"
    assert not (tmp_path / f".{path.stem}.birth").exists()


def test_another_name_of_a_run_file_is_the_same_run(scan, tmp_path):
    """A hard link, as backups make them, is the file: it goes on under both names."""
    target = tmp_path / "target"
    target.mkdir()
    path = compute(Mean(scan), positions=slice(0, 20)).path
    (target / path.name).hardlink_to(path)

    assert compute(Mean(scan, target)).status.done == 60
    assert rs.open(path).status.done == 60


def test_a_run_file_that_may_not_be_read_says_so(run_path):
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    path = run_path.rename(folder / run_path.name)
    path.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(rs.RunFileError, match="cannot be read: Permission denied"):
            rs.open(path)
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_a_run_file_cut_after_it_was_opened_is_an_error_of_ours(run_path):
    results = rs.open(run_path)
    os.truncate(run_path, 4096)

    with pytest.raises(rs.RunFileError, match="was moved or cut since"):
        results["mean"][...]


def relinked(path, name, link):
    """Put a link into a run file where something of its own was; digests agree."""
    group = plain_of(path)["group"]
    with h5py.File(path, "r+") as file:
        where = group if name == "" else f"{group}/{name}"
        where = name if name.startswith("/") else where
        file.move(where, "/moved")
        file[where] = link
    size = path.stat().st_size
    rewritten(path, lambda plain: plain.update(file_bytes=size), identify=False)
    restructured(path)


@pytest.fixture
def decoy(tmp_path):
    """Another file and a pipe, to which a link in a run file may lead."""
    with h5py.File(tmp_path / "decoy.h5", "w") as file:
        file["group/mean"] = np.full(60, 666.0)
        file["group/source_text"] = np.bytes_(b"secret")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "decoy.h5"


@pytest.mark.parametrize(
    "link",
    [
        h5py.ExternalLink("decoy.h5", "/group"),
        h5py.ExternalLink("pipe", "/group"),
        h5py.SoftLink("/moved"),
    ],
)
def test_a_link_in_place_of_the_results_group_is_not_followed(run_path, decoy, link):
    relinked(run_path, "", link)

    assert rs.open(run_path).status.done == 60
    with pytest.raises(rs.RunFileError, match="its /data-Mean_000 is not what it was"):
        rs.open(run_path).group()


def test_packed_rows_are_not_read_through_a_link(run_path, decoy):
    rs.open(run_path).pack()
    packed = run_path.read_bytes()
    for name, where in (("", "/group"), ("mean", "/group/mean")):
        run_path.write_bytes(packed)
        relinked(run_path, name, h5py.ExternalLink("decoy.h5", where))
        with pytest.raises(rs.RunFileError, match="is damaged"):
            rs.open(run_path)["mean"][...]


@pytest.mark.parametrize("kind", ["link", "virtual", "external"])
def test_results_are_a_source_only_where_hdf5_reads_the_same(run_path, decoy, kind):
    """A dataset that leads HDF5 to other numbers is not what was computed."""
    if kind == "link":
        relinked(run_path, "mean", h5py.ExternalLink("decoy.h5", "/group/mean"))
    else:
        with h5py.File(run_path, "r+") as file:
            group = file["data-Mean_000"]
            group.move("mean", "moved")
            if kind == "virtual":
                layout = h5py.VirtualLayout((60,), "f8")
                layout[:] = h5py.VirtualSource("decoy.h5", "group/mean", (60,))
                group.create_virtual_dataset("mean", layout)
            else:
                outside = [("decoy.h5", 0, 480)]
                group.create_dataset("mean", (60,), "f8", external=outside)
        size = run_path.stat().st_size
        rewritten(run_path, lambda plain: plain.update(file_bytes=size))
        restructured(run_path)
    results = rs.open(run_path)

    assert 666.0 not in results["mean"][...]
    with pytest.raises(rs.RunFileError, match="mean is not what it was made with"):
        Mean(results["mean"])


def test_the_old_text_of_a_class_is_not_read_through_a_link(run_path, decoy, scan):
    """A warning of an edit would show the contents of another file."""
    assert "class Mean" in rs.open(run_path).source_text
    whole = run_path.read_bytes()
    for name, where in (("/run/source_text", "/group/source_text"), ("/run", "/group")):
        run_path.write_bytes(whole)
        relinked(run_path, name, h5py.ExternalLink("decoy.h5", where))
        with pytest.raises(rs.RunFileError, match="source_text is not what it was"):
            _ = rs.open(run_path).source_text


def test_a_run_moved_with_its_folder_is_read_as_it_is(run_path, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    copy = Path(shutil.copy(run_path, folder / "x.h5"))

    assert rs.open(copy).status.done == 60
    assert rs.open(copy).group().file.filename == str(copy)
