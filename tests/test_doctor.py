import os
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import doctor
from pipeline.doctor import Check
from pipeline.params import (
    DatasetParams,
    DownloadParams,
    ModelParams,
    Params,
    PreprocessParams,
    SimulateParams,
    TrackingParams,
    TrainParams,
)

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in list(os.environ):
        if name.startswith(("KAGGLE_", "MLFLOW_")) or name == "KERAS_HOME" or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    folder = tmp_path / "家 home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "项目 project"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".git").mkdir()
    return folder


def test_a_ready_machine_has_no_problem(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.doctor(Params(), root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "0 problems"
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "note"}
    assert "CPU:0 computes" in "\n".join(lines)


def test_every_problem_is_counted_and_no_secret_is_shown(
    root: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / ".dvc").rmdir()
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "kaggle.json").write_text(f'{{"key": "{SECRET}"}}')
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:1/?token={SECRET}")
    params = Params(model=ModelParams(weights="missing.keras"), download=DownloadParams(source="kaggle"))
    count = doctor.doctor(params, root)
    text = capsys.readouterr().out
    assert [line.split()[1] for line in text.splitlines() if line.startswith("problem")] == [
        "Kaggle",
        "weights",
        "DVC",
        "MLflow",
    ]
    assert count == 4
    assert "\n4 problems\n" in text
    assert SECRET not in text
    assert "http://127.0.0.1:1" in text


@pytest.mark.parametrize(
    ("version", "level"), [((3, 10, 9), "problem"), ((3, 11, 0), "ok"), ((3, 13, 7), "ok"), ((3, 14, 0), "problem")]
)
def test_python(version: tuple[int, ...], level: str) -> None:
    assert doctor.check_python(version).level == level


@pytest.mark.parametrize(
    ("flags", "capabilities", "size", "best"),
    [
        ([], [], 256, "float32"),
        (["avx512f"], [], 256, "float32"),
        (["avx512_bf16"], [], 256, "mixed_bfloat16"),
        (["amx_bf16", "fpu"], [], 96, "mixed_bfloat16"),
        (["avx512_bf16"], [], 64, "float32"),
        (["avx512_bf16"], [(6, 1)], 256, "float32"),
        ([], [(7, 0)], 256, "mixed_float16"),  # V100
        ([], [(7, 5)], 256, "mixed_float16"),  # T4
        ([], [(8, 0)], 256, "mixed_bfloat16"),  # A100
        ([], [(9, 0)], 64, "mixed_bfloat16"),  # H100
        ([], [(9, 0), (7, 5)], 256, "mixed_float16"),  # the weakest sets the pace
    ],
)
def test_precision(flags: list[str], capabilities: list[tuple[int, int]], size: int, best: str) -> None:
    for chosen in ("float32", "mixed_bfloat16", "mixed_float16"):
        params = Params(train=TrainParams(precision=chosen), preprocess=PreprocessParams(size=size))
        check = doctor.check_precision(params, flags, capabilities)
        assert check.text.startswith(f"{best} pays here")
        assert check.level == ("ok" if chosen == best else "note")
        assert (best in check.remedy) == (chosen != best)
    auto = Params(train=TrainParams(precision="auto"), preprocess=PreprocessParams(size=size))
    assert doctor.check_precision(auto, flags, capabilities).level == "ok"


def test_two_opencvs_are_a_problem() -> None:
    check = doctor.check_opencv({"opencv-python": "4.12", "opencv-python-headless": "5.0"})
    assert check.level == "problem"
    assert "opencv-python-headless" in check.remedy
    assert doctor.check_opencv(doctor.installed_opencv()).level == "ok"
    assert list(doctor.installed_opencv()) == ["opencv-python-headless"]


def nih(source: str = "kaggle", archive: str = "") -> Params:
    return Params(
        dataset=DatasetParams(preset="nih"),
        download=DownloadParams(source=source, archive=archive),  # type: ignore[arg-type] # pydantic checks it
    )


def test_the_disk_that_the_full_set_needs(tmp_path: Path) -> None:
    # 42 GiB archive, as much unpacked, 7.35 GB of shards at 256 x 256, 2 GB of models
    assert doctor.disk_need(nih()) == pytest.approx(2 * 42 * 2**30 + 7.35e9 + 2e9, rel=0.01)
    archive = tmp_path / "片.zip"
    archive.write_bytes(bytes(1000))
    assert doctor.disk_need(nih("local", str(archive))) == pytest.approx(1000 + 7.35e9 + 2e9, rel=0.01)
    assert (
        doctor.disk_need(Params(dataset=DatasetParams(preset="mine"), download=DownloadParams(source="local"))) is None
    )


def test_the_size_that_kaggle_announced_counts_once_it_is_known(tmp_path: Path) -> None:
    params = Params(
        dataset=DatasetParams(preset="nih"), download=DownloadParams(source="kaggle", kaggle="nih-chest-xrays/data")
    )
    (tmp_path / "data.zip.mark").write_text('{"etag": "", "total": 1000000000, "sums": {}}', encoding="utf-8")
    assert doctor.disk_need(params, tmp_path) == pytest.approx(2e9 + 7.35e9 + 2e9, rel=0.01)
    assert doctor.disk_need(params, tmp_path / "none") == doctor.disk_need(params)


def test_a_folder_of_archives_counts_by_what_is_in_it(tmp_path: Path) -> None:
    for name in ("images_001.tar.gz", "images_002.tar.gz"):
        (tmp_path / name).write_bytes(bytes(500))
    assert doctor.disk_need(nih("local", str(tmp_path))) == pytest.approx(1000 + 7.35e9 + 2e9, rel=0.01)


def test_what_chosen_files_take_is_not_known_without_a_network(root: Path) -> None:
    download = DownloadParams(source="kaggle", kaggle="nih-chest-xrays/data", files=["images_001"])
    check = doctor.check_disk(Params(dataset=DatasetParams(preset="nih"), download=download), root)
    assert check.level == "note"
    assert "download.files" in check.text


def test_too_small_a_disk_is_a_problem_until_the_data_are_there(root: Path) -> None:
    huge = Params(simulate=SimulateParams(patients=10**9, size=2048))
    assert doctor.check_disk(huge, root).level == "problem"
    (root / "data" / "raw" / "sample").mkdir(parents=True)
    assert doctor.check_disk(huge, root).level == "note"
    mine = Params(dataset=DatasetParams(preset="mine"), download=DownloadParams(source="local"))
    assert doctor.check_disk(mine, root).level == "note"


def test_too_large_a_batch_is_noted() -> None:
    assert doctor.check_memory(Params(train=TrainParams(batch_size=1))).level == "ok"
    assert doctor.check_memory(Params(train=TrainParams(batch_size=10**6))).level == "note"


def test_kaggle_credentials_matter_only_to_kaggle(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_kaggle(Params()).level == "ok"
    missing = doctor.check_kaggle(nih())
    assert missing.level == "problem"
    assert "KAGGLE_API_TOKEN" in missing.remedy
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    found = doctor.check_kaggle(nih())
    assert found == Check("ok", "Kaggle", "credentials from the environment variable KAGGLE_API_TOKEN")


def test_weights(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(weights: str) -> str:
        return doctor.check_weights(Params(model=ModelParams(weights=weights))).level

    name = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert (look("none"), look("imagenet"), look(str(tmp_path / "no.keras"))) == ("ok", "note", "problem")
    for folder in (home / ".keras", tmp_path / "keras home"):
        (folder / "models").mkdir(parents=True)
        (folder / "models" / name).write_bytes(b"")
    assert look("imagenet") == "ok"
    (home / ".keras" / "models" / name).unlink()
    assert look("imagenet") == "note"
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras home"))
    assert look("imagenet") == "ok"
    assert look(str(tmp_path / "keras home" / "models" / name)) == "ok"


def test_versioning(root: Path) -> None:
    assert [check.level for check in doctor.check_versioning(root)] == ["ok", "ok"]
    (root / ".git").rmdir()
    git = doctor.check_versioning(root)[1]
    assert (git.level, git.remedy) == ("note", "`git init` and a first commit")
    (root / ".dvc").rmdir()
    assert "--no-scm" in doctor.check_versioning(root)[0].remedy


class Handler(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        assert self.path == "/health"
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mlflow() -> Iterator[tuple[type[Handler], str]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Handler, f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def track(uri: str) -> Params:
    return Params(tracking=TrackingParams(uri=uri))


@pytest.mark.parametrize(
    ("status", "level", "remedy"),
    [(200, "ok", ""), (401, "problem", "MLFLOW_TRACKING_USERNAME"), (404, "problem", "check the address")],
)
def test_an_mlflow_server_is_asked(
    mlflow: tuple[type[Handler], str],
    root: Path,
    status: int,
    level: str,
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler, address = mlflow
    handler.status = status
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@{address}/")
    check = doctor.check_tracking(Params(), root)
    assert (check.level, remedy in check.remedy) == (level, True)
    assert address in check.text
    assert SECRET not in str(check)
    assert "me:" not in str(check)


def test_the_environment_wins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert doctor.check_tracking(track("sqlite:///mlflow.db"), root).level == "problem"


def test_a_database_must_be_one(root: Path) -> None:
    assert doctor.check_tracking(track("sqlite:///neu 库.db"), root) == Check("ok", "MLflow", "sqlite:///neu 库.db")
    assert not (root / "neu 库.db").exists()  # a look makes nothing
    with sqlite3.connect(root / "库 #1.db") as database:
        database.execute("create table runs (id)")
    database.close()
    assert doctor.check_tracking(track("sqlite:///库 #1.db"), root).level == "ok"
    (root / "broken.db").write_bytes(b"this is no database, whatever its name may say" * 100)
    check = doctor.check_tracking(track("sqlite:///broken.db"), root)
    assert (check.level, "move" in check.remedy) == ("problem", True)


def test_other_stores(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:{SECRET}@host/db?password={SECRET}")
    assert doctor.check_tracking(Params(), root) == Check(
        "note", "MLflow", "postgresql://host/db: this kind of store is not tried here"
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert doctor.check_tracking(track("mlruns"), root).level == "ok"
    (root / "file").write_bytes(b"")
    for uri in ("file/mlruns", "sqlite:///file/mlflow.db", "sqlite:///.dvc"):
        assert doctor.check_tracking(track(uri), root).level == "problem"
    assert doctor.check_tracking(track(f"file://{root}/mlruns"), root).level == "ok"


@pytest.mark.parametrize(
    "uri",
    [
        f"http://me:{SECRET}@h:5000/x",
        f"https://{SECRET}@h",
        f"http://h/?a={SECRET}#{SECRET}",
        f"http://[::{SECRET}@x",
        f"http://me:a/{SECRET}?{SECRET}#b@c@h/x",
    ],
)
def test_secrets_are_cut_out(uri: str) -> None:
    assert SECRET not in doctor.without_secrets(uri)
    assert doctor.without_secrets(uri).startswith("http")
