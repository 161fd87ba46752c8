"""Log lines and times of a session, in the run file; and files without them."""

import logging
import os
import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import ClassVar

import pytest
from helpers import DATA
from programs import invoke

import resumable as rs
from resumable.runfile.file import LogLine, RunFile
from resumable.runfile.header import LOG_ROWS
from resumable.runfile.tables import SessionTables

pytestmark = pytest.mark.timeout(60, method="signal")
ENGINES = pytest.mark.parametrize("engine", ["serial", "local"])


class Talks(rs.Process):
    """Logs, warns and sleeps."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output()}

    def unit_computation(self, spectrum):
        if self.position == 7:
            logging.getLogger("mine").error("an odd \x1b[31mspectrum at %d", 7)
        logging.getLogger("mine").debug("never seen")
        warnings.warn("a strange one", stacklevel=1)
        time.sleep(0.005)
        return spectrum.mean()


@ENGINES
@pytest.mark.filterwarnings("ignore:a strange one")
def test_log_lines_of_driver_and_workers_are_in_the_results(scan, engine):
    results = Talks(scan).compute(engine=engine, workers=2)
    mine = [line for line in results.log if line.logger == "mine"]
    before = len(logging.root.handlers)

    assert [(line.level, line.message) for line in mine] == [
        ("ERROR", "an odd \x1b[31mspectrum at 7")
    ]
    assert (mine[0].pid == os.getpid()) is (engine == "serial")
    assert abs(mine[0].time - time.time()) < 60
    assert len(logging.root.handlers) == before


@ENGINES
def test_warnings_are_written_down_once_with_their_count(scan, engine):
    with pytest.warns(UserWarning, match="a strange one"):
        results = Talks(scan).compute(engine=engine, workers=2)
    lines = [line for line in results.log if line.logger == "warnings"]

    assert len(lines) == 1
    assert "UserWarning: a strange one (given 60 times)" in lines[0].message
    assert Path(__file__).name in lines[0].message


@ENGINES
@pytest.mark.filterwarnings("ignore:a strange one")
def test_the_time_of_the_workers_is_accounted_for(scan, engine):
    session = Talks(scan).compute(engine=engine, workers=2).sessions[0]
    there = session.reading + session.computing + session.writing + session.waiting
    workers = 1 if engine == "serial" else 2

    assert session.computing >= 60 * 0.005
    assert session.reading > 0
    assert session.writing > 0
    assert there == pytest.approx(workers * (session.end - session.start), rel=0.2)


@pytest.mark.filterwarnings("ignore:a strange one")
def test_show_tells_times_and_log_lines(scan):
    results = Talks(scan).compute(engine="serial")
    text = invoke("show", str(results.path))

    assert "computing" in text
    assert "waiting" in text
    assert "an odd \\x1b[31mspectrum" in text
    assert "\x1b[31m" not in text


def test_lines_of_a_killed_session_are_there_and_more_follow(scan, script):
    body = f"""
        import logging, os, signal
        import resumable as rs
        class Talks(rs.Process):
            version = 1
            outputs = {{"mean": rs.Output()}}
            def unit_computation(self, spectrum):
                logging.warning("at %d", self.position)
                if self.position == 5 and not os.path.exists("killed"):
                    open("killed", "w").close()
                    os.kill(os.getpid(), signal.SIGKILL)
                return spectrum.mean()
        Talks({scan!r}).compute(engine="serial")
        """
    first = script(body)
    first.wait(30)
    (path,) = [p for p in Path(scan.partition("::")[0]).parent.glob("*-*.h5")]
    lines = [line.message for line in rs.open(path).log]
    script(body).wait(30)
    more = [line.message for line in rs.open(path).log]

    assert first.returncode == -signal.SIGKILL
    assert lines[-1] == "at 5"
    assert more[: len(lines)] == lines
    assert len(more) > len(lines)


def test_a_script_without_a_handler_still_sees_warnings(scan, script):
    """On its stderr, once, as Python's last resort shows them; nothing below that."""
    process = script(
        f"""
        import logging
        import resumable as rs
        logging.getLogger("theirs").addHandler(logging.NullHandler())
        class Talks(rs.Process):
            version = 1
            outputs = {{"mean": rs.Output()}}
            def unit_computation(self, spectrum):
                if self.position == 5:
                    logging.getLogger("mine").warning("seen")
                    logging.getLogger("mine").info("not seen")
                    logging.getLogger("theirs").warning("not seen")
                return spectrum.mean()
        Talks({scan!r}).compute(engine="serial")
        """
    )
    _, errors = process.communicate(timeout=30)

    assert errors == "seen\n"


def test_of_many_lines_the_first_and_the_last_are_kept(scan):
    """Half of the table is kept, the other half goes round; order is by time."""
    results = Talks(scan).compute(engine="serial", positions=[])
    run = RunFile(results.path)
    tables = SessionTables(run)
    before = len(results.log)
    for number in range(3 * LOG_ROWS):
        tables.log(LogLine(1000.0 + number, "INFO", "x", 1, f"line {number}"))
    tables.close()
    messages = [line.message for line in rs.open(results.path).log]

    assert before == 0
    assert len(messages) == LOG_ROWS
    assert messages[: LOG_ROWS // 2] == [f"line {n}" for n in range(LOG_ROWS // 2)]
    assert messages[LOG_ROWS // 2 :] == [
        f"line {n}" for n in range(5 * LOG_ROWS // 2, 3 * LOG_ROWS)
    ]


class Square(rs.Process):
    """What has made ``format_1.h5``."""

    version = 1
    outputs: ClassVar = {"square": rs.Output(), "total": rs.Output(per="run")}

    def unit_computation(self, position):
        logging.getLogger("mine").error("there is no place for this")
        return position**2

    def finish(self, results):
        return results["square"][...][results.completed_mask].sum()


@pytest.fixture
def old(tmp_path):
    """Return an unfinished run of version 1 in a folder of its own."""
    path = tmp_path / "5-positions-Square-99a49478.h5"
    shutil.copy(DATA / "format_1.h5", path)
    return path


def test_a_file_of_the_first_version_is_read(old):
    results = rs.open(old)
    session = results.sessions[0]

    assert results["square"][:2].tolist() == [0, 1]
    assert str(results.status) == "2 of 5 positions done, 1 failed, 2 pending"
    assert results.log == []
    assert (session.computed, session.computing) == (2, 0)
    assert rs.verify(old, Square).passed is not False


@pytest.mark.filterwarnings("ignore:.*made before edits")
def test_a_run_of_the_first_version_goes_on_where_asked(old):
    with pytest.warns(rs.ResumableWarning, match="1 of 5"):
        results = Square(5, target=old.parent).compute(engine="serial", adopt=True)
    alone = Square(5, target=old.parent).plan(retry_failed=True)
    tried = Square(5, target=old.parent).compute(retry_failed=True, adopt=True)

    assert (alone.action, alone.pending) == ("compute", 5)
    assert results.path == old
    assert tried.status.finished
    assert tried["square"][...].tolist() == [0, 1, 4, 9, 16]
    assert tried["total"][()] == 30
    assert RunFile(old).header.format == 1
    assert len(results.sessions) == 3
