"""What every engine must do; for a new engine, one more subclass."""

import decimal
import locale
import logging
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from engine_processes import (
    POSITIONS,
    WIDTH,
    Block,
    Drifts,
    FailsAt,
    FirstOfInput,
    Fits,
    HasSettings,
    Holder,
    Interpolated,
    Logged,
    Numbered,
    OnMap,
    Peaks,
    RaisesOdd,
    Several,
    Sums,
    Talks,
    Weighted,
    Wrong,
    WrongShape,
    noted,
)

import resumable as rs
from resumable.worker import kept_settings, settings_here


# By a signal: a test that hangs fails, and those after it still run.
@pytest.mark.timeout(30, method="signal")
class EngineConformance:
    """Subclass it, give ``engine``, and every test of it runs with that engine."""

    #: Processes that may call ``setup`` in one session.
    most_setups = 2
    #: Processes that compute besides workers, with the number of one of them.
    beside_workers = 0

    def engine(self):
        raise NotImplementedError

    def options(self):
        return {"engine": self.engine(), "workers": 2, "memory": "1 GB"}

    def compute(self, process, **options):
        """Compute with this engine, any warning an error."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return process.compute(**{**self.options(), **options})

    @pytest.fixture
    def data(self):
        return np.random.default_rng(7).normal(size=(POSITIONS, WIDTH))

    @pytest.fixture
    def source(self, tmp_path, data):
        with h5py.File(tmp_path / "scan.h5", "w") as file:
            file["data"] = data
            file["weight"] = np.arange(float(POSITIONS))
            file["stack"] = data[:48].reshape(6, 8, WIDTH).transpose(2, 0, 1)
        return f"{tmp_path}/scan.h5::/data"

    @pytest.fixture
    def script_settings(self):
        """Settings unlike the defaults, as a script makes them."""
        import scipy.special

        with kept_settings():
            np.seterr(divide="raise")
            np.set_printoptions(precision=3)
            decimal.getcontext().prec = 5
            sys.setrecursionlimit(1234)
            locale.setlocale(locale.LC_TIME, "C.UTF-8")
            scipy.special.seterr(domain="raise")
            yield settings_here()

    def test_fresh_run_computes_every_position_once(self, source, data, log):
        results = self.compute(Logged(source, log=log))

        assert results.status.finished
        np.testing.assert_array_equal(results["mean"][...], data.mean(axis=1))
        assert sorted(map(int, noted(log))) == list(range(POSITIONS))

    def test_finished_run_is_returned_without_computing(self, source, log):
        first = self.compute(Logged(source, log=log))
        again = self.compute(Logged(source, log=log))

        assert again == first
        assert len(noted(log)) == POSITIONS

    def test_the_rest_follows_into_the_same_results(self, source, data, log):
        chosen = [0, 1, 5, 6, 7, 31, 40, 58]
        part = self.compute(Logged(source, log=log), positions=chosen)
        part_done = np.flatnonzero(part.completed_mask).tolist()
        whole = self.compute(Logged(source, log=log))

        assert part_done == chosen
        assert whole == part
        np.testing.assert_array_equal(whole["mean"][...], data.mean(axis=1))
        assert sorted(map(int, noted(log))) == list(range(POSITIONS))

    def test_failing_positions_are_recorded_and_the_run_goes_on(
        self, source, data, log
    ):
        process = FailsAt(source, log=log)
        with pytest.warns(rs.ResumableWarning, match="3 of 60 positions failed") as w:
            results = process.compute(**self.options())
        expected = data.mean(axis=1)
        expected[process.bad] = np.nan

        assert len(w) == 1
        assert "the first at 3: ValueError: no fit at 3" in str(w[0].message)
        assert results.status.finished
        np.testing.assert_array_equal(results["mean"][...], expected)
        assert np.flatnonzero(results.failed_mask).tolist() == process.bad
        assert [f.position for f in results.failures] == process.bad
        assert results.failures[1].exception == "ValueError"
        assert results.failures[1].message == "no fit at 30"
        assert "in unit_computation" in results.failures[1].traceback

    def test_retry_failed_computes_only_the_failed_positions(self, source, data, log):
        process = FailsAt(source, log=log)
        with pytest.warns(rs.ResumableWarning):
            process.compute(**self.options())
        Path(log).unlink()
        Path(log + ".mended").touch()
        results = self.compute(process, retry_failed=True)

        assert sorted(map(int, noted(log))) == process.bad
        assert results.status.failed == 0
        assert results.status.finished
        np.testing.assert_array_equal(results["mean"][...], data.mean(axis=1))

    def test_on_error_raise_keeps_what_is_done(self, source, data, log):
        process = FailsAt(source, log=log, bad=[37])
        with pytest.raises(rs.UnitFailed, match="no fit at 37") as caught:
            self.compute(process, on_error="raise")
        results = process.results
        done = results.completed_mask

        assert caught.value.position == 37
        assert not done[37]
        assert results.status.failed == 0
        assert set(np.flatnonzero(done)) == set(map(int, noted(log))) - {37}
        np.testing.assert_array_equal(
            results["mean"][...][done], data.mean(axis=1)[done]
        )

    @pytest.mark.parametrize(
        ("kind", "name"), [("lock", "Unpicklable"), ("arguments", "TwoArguments")]
    )
    def test_an_exception_that_cannot_be_pickled_is_reported(self, source, kind, name):
        process = RaisesOdd(source, kind=kind)

        with pytest.raises(rs.UnitFailed, match=name) as caught:
            self.compute(process, on_error="raise")
        assert caught.value.position == 40

    def test_a_stopped_run_continues_where_it_was(self, source, data, log):
        process = Logged(source, log=log, delay_s=0.01)
        told = "(?s)time limit.*run the same again to go on"
        with pytest.raises(rs.NotFinished, match=told) as stopped:
            self.compute(process, time_limit=0.12)
        status = stopped.value.results.status
        computed = len(noted(log))
        whole = self.compute(process)

        assert isinstance(stopped.value, SystemExit)
        assert stopped.value.code == 75
        assert status.pending > 0
        assert status.done == computed
        assert sorted(map(int, noted(log))) == list(range(POSITIONS))
        np.testing.assert_array_equal(whole["mean"][...], data.mean(axis=1))

    def test_inputs_are_aligned_with_the_source(self, source, data):
        process = Weighted(source, inputs={"weight": "::/weight"})
        results = self.compute(process)
        expected = [(row * i).sum() for i, row in enumerate(data)]

        np.testing.assert_array_equal(results["sum"][...], expected)

    def test_every_call_gets_what_all_positions_share(self, source, data):
        axis = np.linspace(1, 2, 1 << 18)
        with h5py.File(source.partition("::")[0], "a") as file:
            file["axis"] = axis
        shared = {"axis": "::/axis", "offset": 2.5, "small": [1, 2]}
        process = Interpolated(source, shared=shared)
        results = self.compute(process)

        expected = [(row * axis[:WIDTH]).sum() + 2.5 for row in data]
        np.testing.assert_array_equal(results["sum"][...], expected)
        assert results["fixed"][...].all()

    def test_arrays_are_sources_and_inputs(self, tmp_path, data):
        # Of one size that is sent, and one that lies in shared memory.
        weight = np.ones((POSITIONS, 1 << 13))
        weight[:, 0] = np.arange(POSITIONS)
        process = FirstOfInput(data, tmp_path, inputs={"weight": weight})
        results = self.compute(process)

        expected = [(row * i).sum() for i, row in enumerate(data)]
        np.testing.assert_array_equal(results["sum"][...], expected)

    def test_results_have_the_shape_of_the_map(self, source, data):
        process = OnMap(source.replace("/data", "/stack"), position_axes=(1, 2))
        results = self.compute(process, positions=[(0, 0), (5, 7), (2, 3)])
        results = self.compute(process)

        assert results["where"].shape == (6, 8, 2)
        np.testing.assert_array_equal(
            results["where"][...], np.stack(np.indices((6, 8)), axis=-1)
        )
        np.testing.assert_allclose(
            results["mean"][...], data[:48].reshape(6, 8, WIDTH).mean(axis=2), 1e-12
        )

    def test_ragged_rows_come_in_the_order_of_positions(self, source, data):
        self.compute(Peaks(source), positions=slice(20, 40))
        results = self.compute(Peaks(source))

        assert results["heights"].values.tolist() == data[data > 0].tolist()
        assert results["places"].count.tolist() == (data > 0).sum(axis=1).tolist()
        assert results["places"].index.tolist() == np.nonzero(data > 0)[0].tolist()

    @pytest.mark.parametrize("keep", [["Sums"], ["Peaks", "Sums"]], ids=len)
    def test_a_chain_gives_what_its_stages_give(self, source, data, keep):
        results = self.compute(rs.Chain(Peaks(source), Sums(), keep=keep))
        heights = [row[row > 0] for row in data]
        sums = [h.sum() - row[0] for h, row in zip(heights, data, strict=True)]

        assert results["sums"][...].tolist() == sums
        assert list(results.stages) == keep

    def test_block_computation_fills_all_its_outputs(self, source, data):
        results = self.compute(Block(source), positions=[2, 3, 50])
        results = self.compute(Block(source))

        assert results.status.finished
        np.testing.assert_allclose(results["mean"][...], data.mean(axis=1), 1e-12)
        np.testing.assert_array_equal(results["first"][...], data[:, :2])

    def test_a_block_that_fails_loses_only_the_bad_position(self, tmp_path, data):
        data[[11, 44]] = np.nan
        with h5py.File(tmp_path / "nan.h5", "w") as file:
            file["data"] = data
        with pytest.warns(rs.ResumableWarning, match="2 of 60"):
            results = Block(f"{tmp_path}/nan.h5::/data").compute(**self.options())

        assert np.flatnonzero(results.failed_mask).tolist() == [11, 44]
        assert results.status.done == POSITIONS - 2
        np.testing.assert_allclose(results["mean"][...], data.mean(axis=1), 1e-12)

    def test_all_outputs_are_the_same_bytes_as_serial(self, source, tmp_path):
        for name in ("here", "there"):
            (tmp_path / name).mkdir()
        ours = self.compute(Several(source, tmp_path / "here"), positions=slice(20))
        ours = self.compute(Several(source, tmp_path / "here"))
        serial = Several(source, tmp_path / "there").compute(engine="serial")

        assert ours.status.finished
        assert ours["text"][-1] == b"p59"
        for name in serial:
            assert ours[name][...].tobytes() == serial[name][...].tobytes()

    def test_setup_runs_once_in_every_worker(self, source, log):
        self.compute(Logged(source, log=log, delay_s=0.002))
        setups = noted(log + ".setup")

        assert len(setups) == len(set(setups)) <= self.most_setups
        assert set(noted(log + ".pid")) <= {name.partition(":")[0] for name in setups}

    def test_what_setup_opens_is_not_sent_to_workers(self, source, data):
        process = Holder(source)
        process.test(3)
        self.compute(process, positions=[1, 2])
        results = self.compute(process)

        np.testing.assert_array_equal(results["mean"][...], data.mean(axis=1))

    def test_a_function_that_is_wrong_everywhere_stops_the_run(self, source):
        process = Wrong(source)
        with pytest.raises(rs.UnitFailed, match="no_such_method"):
            self.compute(process)

        assert process.results.status.pending == POSITIONS

    def test_another_shape_than_declared_is_an_error(self, source):
        with pytest.raises(rs.OutputError, match=r"first 20 pos.*\(3,\).*\(2,\)"):
            self.compute(WrongShape(source))

        assert WrongShape(source).results.status.pending == POSITIONS

    def test_a_blank_first_position_fails_as_a_blank_last_one_does(self, source, data):
        with pytest.warns(rs.ResumableWarning, match="3 of 60 positions failed"):
            results = Fits(source).compute(**self.options())
        expected = data[:, :2].copy()
        expected[[0, 1, 59]] = np.nan

        np.testing.assert_array_equal(results["line"][...], expected)
        assert [f.position for f in results.failures] == [0, 1, 59]
        assert all("returned None" in f.message for f in results.failures)

    def test_a_blank_scan_is_finished_by_who_insists(self, source):
        process = Fits(source, blank=[])
        with pytest.raises(rs.OutputError, match="on_error='record'"):
            self.compute(process)
        with pytest.warns(rs.ResumableWarning, match="60 of 60 positions failed"):
            results = process.compute(**self.options(), on_error="record")

        assert results.status.finished
        assert len(results.failures) == POSITIONS
        assert np.isnan(results["line"][...]).all()

    def test_a_function_defined_in_a_function_can_be_mapped(self, source, data):
        offset = 2.5

        def scaled(spectrum, factor=2.0):
            return spectrum.max() * factor + offset

        results = rs.map(scaled, source, factor=3.0, options=self.options())

        expected = data.max(axis=1) * 3 + offset
        np.testing.assert_array_equal(results["result"][...], expected)

    def test_settings_of_the_script_reach_every_worker(self, source, script_settings):
        expected = [1, 1, len("[0.333]"), len("0.33333"), 1234, 1, 1]
        results = self.compute(HasSettings(source))
        after = settings_here()

        assert np.unique(results["settings"][...], axis=0).tolist() == [expected]
        # What setup() has set is the worker's.
        assert after == script_settings

    def test_values_that_a_worker_changes_leave_the_run_unfinished(self, source):
        process = Drifts(source)
        process.table = np.ones(WIDTH)
        with pytest.raises(rs.IdentityError, match=r"the attribute 'table'.* changed"):
            self.compute(process)
        process.table = np.ones(WIDTH)

        assert process.results is None

    def test_workers_at_work_have_different_numbers(self, source, log):
        numbers = self.compute(Numbered(source, log=log))["number"][...]
        by_worker = dict(line.split("=") for line in noted(log))

        assert {*map(str, numbers)} <= {*by_worker.values()} <= {"0", "1"}
        assert len(by_worker) <= len({*by_worker.values()}) + self.beside_workers

    def test_log_records_of_units_reach_the_loggers_here(self, source, caplog):
        with caplog.at_level(logging.INFO, "conformance.unit"):
            self.compute(Talks(source))
        texts = [r.getMessage() for r in caplog.records if r.name == "conformance.unit"]

        assert sorted(texts) == sorted(f"at {i}" for i in range(POSITIONS))
