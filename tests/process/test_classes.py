"""The class of a script that computes at its top level, as the command finds it."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from helpers import compute, data_of
from processes import process_of
from programs import invoke

import resumable as rs
from resumable.process.classes import find_class
from resumable.system import WorkBegins

#: The script of README: tests, plans and computes at its top level.
SCRIPT = """
    import numpy as np
    import resumable as rs

    GAIN = 2.0

    def gained(spectrum):
        return GAIN * spectrum.mean()

    class Level(rs.Process):
        outputs = {"level": rs.Output()}

        def unit_computation(self, spectrum):
            return gained(spectrum)

    process = Level("scan.h5::/data")
    print(process.test(0))
    print(process.plan())
    results = process.compute(engine="serial")
    print("computed", results["level"].shape)
    open("went-on", "w").close()
"""


@pytest.fixture
def script(scan, tmp_path, monkeypatch):
    """Return what writes a script ``fit.py`` beside the scan, and go there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))

    def write(text=SCRIPT, more=""):
        (tmp_path / "fit.py").write_text(textwrap.dedent(text) + textwrap.dedent(more))
        return tmp_path

    return write


def test_the_command_does_not_do_the_work_of_a_script(script):
    folder = script()

    shown = invoke("run", "fit.py:Level", "--help")
    explained = invoke("explain", "fit.py:Level", "scan.h5::/data")

    assert shown.startswith("Usage:")
    assert explained.startswith("no run of this process")
    assert {path.name for path in folder.iterdir()} <= {
        *("scan.h5", "fit.py", "__pycache__")
    }


def test_script_and_command_have_one_run(script):
    """The example of README for Python, then the one for a shell."""
    folder = script()

    subprocess.run([sys.executable, "fit.py"], check=True, capture_output=True)
    line = invoke("run", "fit.py:Level", "scan.h5::/data")

    (run,) = folder.glob("scan-*.h5")
    assert line.startswith(str(run.name))
    expected = 2 * data_of("scan.h5::/data").mean(axis=1)
    np.testing.assert_array_equal(rs.open(run)["level"][...], expected)
    assert rs.verify(run, find_class("fit.py:Level", rs.Process), sample="all").passed


@pytest.mark.parametrize(
    "work",
    [
        "Level(3, target='.').start()",
        "Level(3, target='.').verify()",
        "rs.verify('scan.h5')",
        "rs.map(gained, 'scan.h5::/data')",
        "rs.Chain(Level('scan.h5::/data')).compute()",
        "rs.Chain(Level('scan.h5::/data')).test()",
        "rs.main(Level)",
        "Level.from_argv()",
        "rs.open(FINISHED).publish('scan.h5::/level')",
        "rs.open(FINISHED).pack()",
        "raise SystemExit(3)",
        "try:\n    Level(3, target='.').compute()\nexcept Exception:\n    pass\n1 / 0",
    ],
)
def test_whatever_the_work_of_a_script_is_it_is_not_done(script, scan, work):
    finished = compute(process_of(lambda self, spectrum: spectrum.mean())(scan)).path
    folder = script(SCRIPT[: SCRIPT.index("    process =")])
    with (folder / "fit.py").open("a") as file:
        file.write(f"FINISHED = {str(finished)!r}\n{work}\nopen('went-on', 'w')\n")
    before = {path: path.read_bytes() for path in folder.glob("*.h5")}

    assert find_class("fit.py:Level", rs.Process).__name__ == "Level"

    assert {path: path.read_bytes() for path in folder.glob("*.h5")} == before
    assert not (folder / "went-on").exists()


def test_a_guard_keeps_the_work_of_a_script(script):
    guarded = "if __name__ == '__main__':\n    Level('scan.h5::/data').compute()\n"
    script(SCRIPT[: SCRIPT.index("    process =")], more=f"{guarded}LATER = 1\n")

    cls = find_class("fit.py:Level", rs.Process)

    assert sys.modules[cls.__module__].LATER == 1


def test_a_script_whose_own_source_is_missing_serves_for_another_one(script):
    script(SCRIPT.replace("scan.h5::/data", "gone.h5::/data"))

    with pytest.warns(rs.ResumableWarning, match="line 16: SourceError.*not run; put"):
        cls = find_class("fit.py:Level", rs.Process)

    assert cls("scan.h5::/data").test(0).outputs["level"] == pytest.approx(
        2 * data_of("scan.h5::/data")[0].mean()
    )


def test_a_class_below_the_work_is_refused_with_the_way_out(script):
    script(more="class Below(Level):\n    pass\n")

    with pytest.raises(rs.DeclarationError) as error:
        find_class("fit.py:Below", rs.Process)

    assert str(error.value) == (
        "fit.py, line 17: it would test Level before a class 'Below' is defined; put "
        "the work of the script below: if __name__ == '__main__':"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Levl", "has no 'Levl'; did you mean 'Level'?"),
        ("Other.Inner", "has no 'Other.Inner'"),
        ("Level.Inner", "before a class 'Level.Inner' is defined; put"),
    ],
)
def test_a_class_that_a_script_has_nowhere_is_told_as_that(script, name, words):
    script()

    with pytest.raises(rs.DeclarationError) as error:
        find_class(f"fit.py:{name}", rs.Process)

    assert words in str(error.value)


def test_the_arguments_of_a_script_are_not_those_of_the_command(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", before := ["resumable", "run", "fit.py:Level"])
    script(SCRIPT.replace("GAIN = 2.0", "import sys\n    GAIN = sys.argv"))

    cls = find_class("fit.py:Level", rs.Process)

    assert sys.modules[cls.__module__].GAIN == ["fit.py"]
    assert sys.argv is before


def test_a_thread_of_a_script_does_none_of_its_work(script):
    """Also not one that goes on when the class has been found."""
    folder = script(
        SCRIPT[: SCRIPT.index("    process =")],
        more="""
            import concurrent.futures, threading
            found = threading.Event()

            def work():
                found.wait(60)
                Level("scan.h5::/data").compute(engine="serial")

            at_work = threading.Thread(target=work)
            at_work.start()
            with concurrent.futures.ThreadPoolExecutor() as pool:
                waits = pool.submit(Level("scan.h5::/data").compute, engine="serial")
        """,
    )

    module = sys.modules[find_class("fit.py:Level", rs.Process).__module__]
    module.found.set()
    module.at_work.join()

    assert not list(folder.glob("scan-*.h5"))
    assert isinstance(module.waits.exception(), WorkBegins)


@pytest.mark.parametrize("later", ["GAIN = 3.0", "for GAIN in (3, 4):\n    pass"])
def test_a_constant_that_is_set_below_the_work_is_not_missed(script, later):
    """The class would compute with 2 here, and with 3 in the script's second half."""
    script(more=f"{later}\nLevel('scan.h5::/data').compute()\n")

    with pytest.raises(rs.DeclarationError, match="before GAIN is set, which"):
        find_class("fit.py:Level", rs.Process)


def test_another_error_of_a_script_is_told_with_its_line(script):
    script(SCRIPT.replace("    process = ", "    1 / 0\n    process = "))

    with pytest.raises(rs.DeclarationError) as error:
        find_class("fit.py:Level", rs.Process)

    assert str(error.value) == (
        "fit.py cannot be imported: ZeroDivisionError: division by zero (in line 16, "
        "below Level; put the work of the script below: if __name__ == '__main__':)"
    )


def test_a_module_that_computes_is_refused_and_can_compute_later(script):
    folder = script()
    (folder / "fit.py").rename(folder / "fits.py")
    sys.path.insert(0, str(folder))

    with pytest.raises(rs.DeclarationError, match="fits' cannot be imported: it would"):
        find_class("fits:Level", rs.Process)

    import fits

    assert fits.results.status.done == 60


@pytest.mark.parametrize("marked", [True, False])
def test_a_file_of_a_package_says_by_which_name_it_is_imported(tmp_path, marked):
    inner = tmp_path / "pkg" / "sub"
    inner.mkdir(parents=True)
    (inner / "fit.py").write_text("from ..helper import K\n")
    for folder in (inner, inner.parent) if marked else ():
        (folder / "__init__.py").touch()

    told = r"part of a package: write pkg\.sub\.fit:Fit$"
    with pytest.raises(rs.DeclarationError, match=told):
        find_class(f"{inner}/fit.py:Fit", rs.Process)
