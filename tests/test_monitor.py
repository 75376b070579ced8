"""`cxr monitor`: quiet, warning, alarm and their exit statuses; the same answer however one looks; who is told."""

import copy
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_case import FINDINGS, MODEL, answers, manifest
from monitor_case import STEPS, pieces, reference, rows, write_log
from prometheus_client.parser import text_string_to_metric_families

from pipeline.cli import main
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.labels import add_labels
from pipeline.monitor import monitor
from pipeline.monitoring.judgement import stated
from pipeline.monitoring.reference import read_reference, write_reference
from pipeline.monitoring.watch import Watch
from pipeline.params import MonitorParams, Params, Rule
from pipeline.prediction_log import PredictionLog

QUIET = Params(monitor=MonitorParams(track=False, first_rows=200, window=50))


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the reference's file."""
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    write_reference(path, reference())
    return path


@pytest.fixture(scope="module")
def deployments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of logs: `quiet.db`, `shifted.db` and `slow.db`; the last two change after 600 films."""
    folder = tmp_path_factory.mktemp("logs")
    write_log(folder / "quiet.db", (700, 0.0, 1.0), seed=3)
    write_log(folder / "shifted.db", (600, 0.0, 1.0), (220, 1.5, 1.0))
    write_log(folder / "slow.db", (600, 0.0, 1.0), (220, 0.0, 2.0))
    return folder


def test_the_reference_is_read_back_as_it_was_written(normal: Path, tmp_path: Path) -> None:
    whole, again = reference(), read_reference(normal)
    write_reference(tmp_path / "again.npz", again)
    assert (tmp_path / "again.npz").read_bytes() == normal.read_bytes()
    assert again.findings == whole.findings
    assert all(np.array_equal(again.statistics[name], whole.statistics[name]) for name in whole.statistics)
    for path, part in ((tmp_path / "none.npz", "is missing"), (Path(__file__), "is no reference")):
        with pytest.raises(UserError, match=part):
            read_reference(path)


def test_a_quiet_deployment_is_status_0_and_looking_again_changes_nothing(
    normal: Path, deployments: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = str(deployments / "quiet.db")
    assert monitor(normal, log, tmp_path / "a", QUIET) == 0
    assert capsys.readouterr().out.startswith("quiet: 700 images in 14 windows")
    assert monitor(normal, log, tmp_path / "b", QUIET) == 0
    for name in ("monitor.json", "monitor.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(("name", "family"), [("shifted", "input"), ("slow", "latency")])
def test_a_change_is_an_alarm_that_names_what_changed_and_when(
    normal: Path, deployments: Path, tmp_path: Path, name: str, family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert monitor(normal, str(deployments / f"{name}.db"), tmp_path, QUIET) == 4
    assert capsys.readouterr().out.startswith("alarm: ")
    document = read_json(tmp_path / "monitor.json")
    alarms = [row for row in document["signals"] if row["state"] == "alarm"]
    assert family in {row["family"] for row in alarms}
    assert {row["since_window"] for row in alarms if row["name"] in ("input/mean", "latency/model")} == {12}
    assert max(row["raised_window"] for row in alarms) <= 15  # within 200 films
    if name == "slow":
        assert {row["family"] for row in alarms} == {"latency"}
        row = next(row for row in alarms if row["name"] == "latency/model")
        assert row["after"] / row["before"] == pytest.approx(2, rel=0.1)
        assert row["owner"] == "operations"


def test_the_page_shows_the_change_and_fetches_nothing(normal: Path, deployments: Path, tmp_path: Path) -> None:
    monitor(normal, str(deployments / "shifted.db"), tmp_path, QUIET)
    page = (tmp_path / "monitor.html").read_text(encoding="utf-8")
    for words in ("Alarm:", "What to do", "radiology technology", "mean gray value", "An estimate, no measurement"):
        assert words in page
    assert not re.search(r"<script|https?://|src=\"(?!data:)", page)
    assert "nan" not in page.lower().replace("nanogram", "")


def test_gauges_are_prometheus_text(normal: Path, deployments: Path, tmp_path: Path) -> None:
    monitor(normal, str(deployments / "shifted.db"), tmp_path, QUIET)
    text = (tmp_path / "monitor.prom").read_text(encoding="utf-8")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["cxr_monitor_state"].samples[0].value == 3
    assert {sample.labels["signal"] for sample in families["cxr_monitor_size"].samples} >= {
        "input/mean",
        "gate/flagged",
    }


def test_rows_before_since_are_left_out(normal: Path, deployments: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no row of model"):
        monitor(normal, str(deployments / "shifted.db"), tmp_path, QUIET, since="2100-01-01")
    with pytest.raises(UserError, match="--since is 'yesterday'"):
        monitor(normal, str(deployments / "shifted.db"), tmp_path, QUIET, since="yesterday")


def test_the_command_line(normal: Path, deployments: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("monitor: {track: false}\n", encoding="utf-8")
    words = [str(normal), str(deployments / "shifted.db"), "--out", str(tmp_path), "--params", str(params)]
    assert main(["monitor", *words]) == 4
    assert main(["monitor", str(normal), str(tmp_path / "none.db"), "--params", str(params)]) == 1
    assert "none.db is missing" in capsys.readouterr().err
    params.write_text("monitor: {rules: [{signals: a, serverity: note}]}\n", encoding="utf-8")
    assert main(["monitor", *words]) == 1
    assert "unknown key monitor.rules.0.serverity" in capsys.readouterr().err


@pytest.fixture(scope="module")
def fresh() -> Watch:
    """Return a watch that has seen nothing; to be copied."""
    return Watch(reference(), MonitorParams(first_rows=100), STEPS)


@settings(max_examples=15)
@given(sizes=st.lists(st.integers(1, 200), max_size=8))
def test_what_is_judged_does_not_depend_on_how_the_log_is_read(fresh: Watch, sizes: list[int]) -> None:
    whole = rows(430, np.random.default_rng(3))
    once, often = copy.deepcopy(fresh), copy.deepcopy(fresh)
    once.take(once.signals.of_log(whole, STEPS))
    for part in pieces(whole, sizes):
        often.take(often.signals.of_log(part, STEPS))
    assert once.tally.p == pytest.approx(often.tally.p, nan_ok=True)
    assert once.tally.wealth == pytest.approx(often.tally.wealth)
    assert (once.tally.windows, once.waiting) == (often.tally.windows, often.waiting) == (8, 30)


def test_windows_may_be_hours() -> None:
    watch = Watch(reference(), MonitorParams(hours=0.01, first_rows=100), STEPS)  # 36 seconds, a film each
    watch.take(watch.signals.of_log(rows(400, np.random.default_rng(4)), STEPS))
    assert watch.tally.windows == 11
    assert watch.waiting == 400 - 11 * 36


def test_without_a_change_few_windows_warn_and_hardly_any_deployment_alarms() -> None:
    warned = windows = alarmed = 0
    for seed in range(25):
        watch = Watch(reference(seed), MonitorParams(first_rows=200), STEPS)
        watch.take(watch.signals.of_log(rows(1500, np.random.default_rng([5, seed])), STEPS))
        warned, windows = warned + watch.tally.warned, windows + watch.tally.windows
        alarmed += bool((watch.tally.raised >= 0).any())
    assert warned / windows <= 0.06  # 5 % are allowed, and 750 windows are a sample
    assert alarmed <= 2


def test_rules_cap_a_signals_state() -> None:
    rules = [Rule(signals="input/view", severity="warning"), Rule(signals="input/*", least=0.2, action="look")]
    assert stated("input/view", "alarm", 0.9, rules)["state"] == "warning"
    assert stated("input/mean", "alarm", 0.1, rules)["state"] == "note"
    assert stated("input/mean", "alarm", 0.3, rules) == {
        "state": "alarm",
        "family": "input",
        "owner": "",
        "action": "look",
    }
    assert stated("gate/flagged", "quiet", 0.9, rules)["state"] == "quiet"


def truths(folder: Path, log: Path, n: int, wrong: bool, late: float) -> None:
    """Add truths of the first n films: as the outputs say, or the opposite."""
    made = answers(800, np.random.default_rng([2, 0]))[:n]  # those of write_log
    rng = np.random.default_rng(6)
    lines = ["request_id,patient," + ",".join(FINDINGS)]
    for k, one in enumerate(made):
        truth = rng.random(len(FINDINGS)) < (1 - one.raw if wrong else one.raw)
        lines.append(f"r{k},p{k // 3}," + ",".join(str(int(value)) for value in truth))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    add_labels(str(log), folder / "labels.csv", now=late)


@pytest.mark.parametrize("wrong", [False, True])
def test_accuracy_alarms_when_the_truth_is_another_and_only_then(normal: Path, tmp_path: Path, *, wrong: bool) -> None:
    log = tmp_path / "log.db"
    write_log(log, (800, 0.0, 1.0))
    truths(tmp_path, log, 450, wrong, late=4e9)
    assert (monitor(normal, str(log), tmp_path, QUIET) == 4) == wrong
    accuracy = read_json(tmp_path / "monitor.json")["accuracy"]
    assert (accuracy["images"], len(accuracy["windows"]), accuracy["waiting"]) == (450, 2, 50)
    row = next(row for row in accuracy["signals"] if row["name"] == "accuracy/mean/auc")
    low, high = row["after_interval"]
    assert low < row["after"] < high
    assert (row["state"] == "alarm") == wrong
    assert accuracy["windows"][0]["delay"] > 86_400  # the truth came long after the answers
    assert accuracy["windows"][0]["patients"] == 67


class _Receiver(http.server.BaseHTTPRequestHandler):
    """Refuses the first `refuse` calls, then takes what it gets."""

    refuse, calls, got = 2, 0, b""

    def do_POST(self) -> None:
        type(self).calls += 1
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.calls > self.refuse:
            type(self).got = body
        self.send_response(503 if self.calls <= self.refuse else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[_Receiver]]]:
    """Yield the address of a webhook, and what it saw."""
    kind = type("Receiver", (_Receiver,), {"calls": 0, "got": b""})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook?token=geheim", kind
        server.shutdown()
        thread.join()


def test_a_webhook_is_told_again_until_it_takes_it(
    normal: Path,
    deployments: Path,
    tmp_path: Path,
    receiver: tuple[str, type[_Receiver]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tenacity import wait_none

    url, kind = receiver
    monkeypatch.setattr("pipeline.monitoring.telling._wait", lambda _: wait_none())
    monkeypatch.setenv("CXR_MONITOR_WEBHOOK", url)
    assert monitor(normal, str(deployments / "quiet.db"), tmp_path, QUIET) == 0
    assert kind.calls == 0
    assert monitor(normal, str(deployments / "slow.db"), tmp_path, QUIET) == 4
    told = json.loads(kind.got)
    assert (kind.calls, told["state"]) == (3, "alarm")
    assert told["signals"][0]["owner"] == "operations"
    kind.refuse = 99
    assert monitor(normal, str(deployments / "slow.db"), tmp_path, QUIET) == 4  # the judgement stands all the same
    assert "was not told (HTTPError)" in (said := capsys.readouterr().err)
    assert "geheim" not in said
    monkeypatch.setenv("CXR_MONITOR_WEBHOOK", "ftp://elsewhere")
    with pytest.raises(UserError, match="CXR_MONITOR_WEBHOOK holds no address"):
        monitor(normal, str(deployments / "slow.db"), tmp_path, QUIET)


def test_figures_go_to_a_run_of_their_own(
    normal: Path, deployments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    params = Params(monitor=MonitorParams(first_rows=200))
    assert monitor(normal, str(deployments / "slow.db"), tmp_path / "out", params) == 4
    (run,) = mlflow.search_runs(experiment_names=["chest-xray"], output_format="list")
    assert run.data.tags["kind"] == "monitor"
    assert run.data.metrics["state"] == 3
    assert run.data.metrics["size.latency.model"] > 0.5


def test_other_models_rows_are_counted_and_not_judged(normal: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    write_log(log, (100, 0.0, 1.0))
    with PredictionLog(str(log), manifest("ffffffffffff-onnx")) as other:
        other.append(answers(7, np.random.default_rng(8)))
    monitor(normal, str(log), tmp_path, QUIET)
    document = read_json(tmp_path / "monitor.json")
    assert document["rows"] == 100
    assert document["other_models"] == {"ffffffffffff-onnx": 7}
    assert document["model"] == MODEL


def test_an_alarm_is_laid_aside_after_a_period_and_remembered() -> None:
    rng = np.random.default_rng(9)
    watch = Watch(reference(), MonitorParams(first_rows=100, period=10), STEPS)
    for start, shift in ((0, 0.0), (500, 2.0), (700, 0.0), (1200, 0.0)):
        watch.take(watch.signals.of_log(rows(500 if start != 500 else 200, rng, start, shift), STEPS))
        if start == 500:
            assert (watch.tally.raised >= 10).any()
    assert not ((watch.tally.raised >= 0) & (watch.tally.raised < 20)).any()
    assert {"input/mean", "input/sharpness"} <= {row["name"] for row in watch.tally.past}
    assert all(450 <= row["since"] <= row["raised"] < 1000 for row in watch.tally.past)
