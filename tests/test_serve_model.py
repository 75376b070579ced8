"""The same numbers, over HTTP, as `evaluate` and `cxr predict` give; and the command as a process, until it stops."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from conftest import WriteNih
from PIL import Image
from serving_case import live
from test_serve import wait_until

from pipeline.files import sha256_file, write_json
from pipeline.params import EvaluateParams, ExportParams, Params, PreprocessParams, ServeParams, TrackingParams
from pipeline.params_file import as_dict, write_yaml

TOLERANCE = 1e-6
SIZE = 32


@dataclass(frozen=True)
class Project:
    """A folder with films, a model, its evaluation, its int8 form and its MLflow run."""

    folder: Path
    store: str

    @property
    def model(self) -> Path:
        return self.folder / "models" / "model.keras"

    @property
    def int8(self) -> Path:
        return self.folder / "models" / "exported" / "int8"

    def predictions(self) -> pd.DataFrame:
        table = pd.read_csv(self.folder / "reports" / "predictions.csv", dtype={"image_id": str})
        return table.set_index("image_id")

    def film(self, image_id: str) -> Path:
        return next(self.folder.glob(f"raw/**/{image_id}*"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, write_nih: WriteNih) -> Project:
    """Make it once: 24 drawn films, an untrained network, everything after it as in a real run."""
    from pipeline.evaluate import evaluate
    from pipeline.ingest import ingest
    from pipeline.preprocess import preprocess
    from pipeline.split import split

    folder = tmp_path_factory.mktemp("served")
    names = [f"{n:08d}_000.png" for n in range(24)]
    lines = [
        f"{name},{('Mass', 'Effusion|Mass', 'No Finding')[n % 3]},0,{n},060Y,F,PA,,,0.1,0.1"
        for n, name in enumerate(names)
    ]
    raw = write_nih(folder / "raw", lines)
    for n, name in enumerate(names):  # of different brightness, so that no two answers are equal
        noise = np.random.default_rng(n).integers(0, 60, (72, 80)) + 8 * n
        Image.fromarray(noise.astype(np.uint8)).save(raw / "images" / name)
    store = f"sqlite:///{folder}/mlflow.db"
    params = Params(
        preprocess=PreprocessParams(size=SIZE),
        evaluate=EvaluateParams(resamples=100, cases=0, localise=False),
        tracking=TrackingParams(uri=store, system_metrics=False),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.parallel.available_cores", lambda: 1)
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # an earlier test's store
        ingest(raw, Path("manifest.csv"), Path("quarantine.csv"), params, boxes=Path("boxes.csv"))
        split(Path("manifest.csv"), Path("splits.csv"), Path("split.json"), params.split)
        preprocess(Path("manifest.csv"), Path("splits.csv"), Path("processed"), raw, params)
        write_model(folder, params)
        evaluate(Path("models/model.keras"), Path("processed"), Path("reports"), Path("boxes.csv"), params)
        write_int8(folder)
    return Project(folder, store)


def write_model(folder: Path, params: Params) -> None:
    """Save a small network as `cxr train` would, and log it to MLflow."""
    import keras

    from pipeline.model import save_model
    from pipeline.shards import open_processed
    from pipeline.tracking import Run

    data = open_processed(folder / "processed")
    keras.utils.set_random_seed(5)
    inputs = keras.Input((SIZE, SIZE, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 64, offset=-2)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(len(data.findings), activation="sigmoid", name="findings")(x))
    path = folder / "models" / "model.keras"
    path.parent.mkdir()
    save_model(model, path)
    run = Run(params.tracking, name="a training")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow's advice on the type hints of its own functions
        run.log_model(model, np.zeros((1, SIZE, SIZE, 1), np.uint8))
    run.end()
    sha256 = sha256_file(path)
    write_json(
        path.with_name("training.json"),
        {
            "model_sha256": sha256,
            "findings": data.findings,
            "preprocess": data.meta["preprocess"],
            "repeats": [{"seed": 7, "path": "model.keras", "model_sha256": sha256}],
            "mlflow": {"run_id": run.id, "uri": run.uri},
            "versions": {},
        },
    )
    write_yaml(path.with_name("params.yaml"), as_dict(params))


def write_int8(folder: Path) -> None:
    """Convert the model as `cxr export` does."""
    from pipeline.export import write_formats
    from pipeline.exported import open_exported
    from pipeline.shards import open_processed

    exported = folder / "models" / "exported"
    exported.mkdir()
    manifest = open_exported(folder / "models" / "model.keras", reports=folder / "reports").manifest
    formats = ExportParams(formats=["int8"], representative_images=8)
    write_formats(folder / "models" / "model.keras", manifest, open_processed(folder / "processed"), exported, formats)


def raw_of(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([[row["raw"] for row in film["findings"]] for film in answer.json()["films"]])


def test_the_keras_model_over_http_is_evaluate_s(project: Project) -> None:
    from pipeline.predicting import open_predictor

    expected = project.predictions()
    predictor = open_predictor(project.model)
    with live(predictors=[predictor] * 2, gate=predictor.gate) as server:
        films = [project.film(name).read_bytes() for name in expected.index]
        together = raw_of(server.post(*films))
        alone = np.concatenate([raw_of(server.post(film)) for film in films[:3]])
    columns = [f"p_{name}" for name in predictor.exported.manifest.findings]
    assert np.ptp(together, axis=0).max() > 0.01  # the films do differ
    np.testing.assert_allclose(together, expected[columns], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(alone, expected[columns][:3], rtol=0, atol=TOLERANCE)


@dataclass
class Process:
    """`cxr serve` as a user starts it."""

    process: "subprocess.Popen[str]"
    url: str
    log: Path

    def post(self, *films: bytes, path: str = "/v1/predict") -> httpx.Response:
        return httpx.post(self.url + path, files=[("files", ("f", film)) for film in films], timeout=600)


@pytest.fixture(scope="module")
def command(project: Project) -> Iterator[Process]:
    params = replace(Params(), serve=ServeParams(port=0, threads=2, answer_s=600.0, log=str(project.folder / "log.db")))
    write_yaml(project.folder / "params.yaml", as_dict(params))
    log = project.folder / "serve.log"
    with log.open("w") as sink:
        line = [sys.executable, "-m", "pipeline.cli", "serve"]  # with the paths that it has by default
        process = subprocess.Popen(line, cwd=project.folder, stderr=sink, text=True, env=environment())
    wait_until(lambda: "listening on" in log.read_text() or process.poll() is not None)
    found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
    assert found, log.read_text()
    try:
        yield Process(process, found[0], log)
    finally:
        process.kill()
        process.wait()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "MLFLOW_DISABLE_TELEMETRY": "true"}


def test_int8_over_http_is_what_predict_gives(
    project: Project, command: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.cli import main

    monkeypatch.chdir(project.folder)
    films = [project.film(name) for name in project.predictions().index]
    out = tmp_path / "answers.csv"
    assert main(["predict", str(project.int8), *map(str, films), "--out", str(out), "-q"]) == 0
    with out.open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    answer = command.post(*(film.read_bytes() for film in films))
    findings = [row["finding"] for row in answer.json()["films"][0]["findings"]]
    expected = [[float(row[f"raw_{name}"]) for name in findings] for row in rows]
    np.testing.assert_allclose(raw_of(answer), expected, rtol=0, atol=TOLERANCE)
    assert answer.json()["model"]["version"] == f"{sha256_file(project.model)[:12]}-int8"


def test_the_maps_are_those_of_the_keras_model(project: Project, command: Process) -> None:
    from pipeline.explain import build_explainer
    from pipeline.images import prepare, read_image
    from pipeline.model import load_model

    film = project.film(project.predictions().index[0])
    answer = command.post(film.read_bytes(), path="/v1/explain").json()
    wait_until(lambda: "POST /v1/explain 200" in command.log.read_text())  # stderr is held back while TensorFlow loads
    pixels = prepare(read_image(film), PreprocessParams(size=SIZE))
    expected = build_explainer(load_model(project.model))(pixels[None, :, :, None])[0]
    shown = 0
    for k, (_, rows) in enumerate(answer["maps"].items()):
        if expected[..., k].max() <= 0:
            assert rows is None
        else:
            np.testing.assert_allclose(rows, expected[..., k] / expected[..., k].max(), atol=1e-4)
            shown += 1
    assert shown


def test_answers_are_in_the_log_without_names(project: Project, command: Process) -> None:
    answer = command.post(project.film(project.predictions().index[0]).read_bytes())
    request = answer.json()["request_id"]
    import sqlite3

    def noted() -> bool:
        with sqlite3.connect(f"file:{project.folder}/log.db?mode=ro", uri=True) as database:
            described = "SELECT 1 FROM predictions WHERE request_id = ? AND statistics IS NOT NULL"
            return bool(database.execute(described, (request,)).fetchall())

    wait_until(noted)
    wait_until(lambda: "cxr_log_waiting_rows 0.0" in httpx.get(f"{command.url}/metrics", timeout=60).text)
    figures = httpx.get(f"{command.url}/metrics", timeout=60).text  # a row is in the log before it is counted
    assert re.search(r'^cxr_log_rows_total\{state="written"\} [1-9]', figures, re.M)
    assert 'cxr_log_rows_total{state="dropped"} 0.0' in figures


def test_told_to_stop_it_answers_what_it_accepted_and_ends_with_0(project: Project, command: Process) -> None:
    film = project.film(project.predictions().index[0]).read_bytes()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(command.post, *[film] * 8) for _ in range(8)]
        wait_until(lambda: command.log.read_text().count("POST /v1/predict") > 2 or all(a.done() for a in answers))
        command.process.send_signal(signal.SIGTERM)
        statuses = []
        for each in answers:
            try:
                statuses.append(each.result().status_code)
            except httpx.TransportError:  # it came too late to be accepted
                statuses.append(0)
    assert command.process.wait(120) == 0
    assert set(statuses) <= {200, 429, 0}
    assert 200 in statuses
    assert "Traceback" not in command.log.read_text()


def test_mlflow_s_server_gives_the_same_numbers(project: Project) -> None:
    from pipeline.images import prepare, read_image

    training = json.loads((project.folder / "models" / "training.json").read_text())
    expected = project.predictions()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "--env-manager", "local"]
    command += ["-m", f"runs:/{training['mlflow']['run_id']}/model", "--port", str(port), "--workers", "1"]
    with (project.folder / "mlflow.log").open("w") as sink:
        env = environment() | {"MLFLOW_TRACKING_URI": project.store, "PATH": _path()}
        process = subprocess.Popen(
            command, cwd=project.folder, stdout=sink, stderr=sink, env=env, start_new_session=True
        )
    try:
        wait_until(lambda: _pings(port) or process.poll() is not None)
        pixels = [prepare(read_image(project.film(name)), PreprocessParams(size=SIZE)) for name in expected.index]
        sent = {"instances": np.stack(pixels)[..., None].tolist()}
        answer = httpx.post(f"http://127.0.0.1:{port}/invocations", json=sent, timeout=120)
        assert answer.status_code == 200, answer.text
    except httpx.TransportError:
        pytest.fail((project.folder / "mlflow.log").read_text()[-2000:])
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
    columns = [f"p_{name}" for name in training["findings"]]
    np.testing.assert_allclose(answer.json()["predictions"], expected[columns], rtol=0, atol=TOLERANCE)


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def _pings(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ping", timeout=5).status_code == 200
    except httpx.TransportError:
        threading.Event().wait(0.1)
        return False


def test_the_service_file_starts_a_command_that_exists(repository: Path) -> None:
    from pipeline.cli import build_parser

    unit = (repository / "deploy" / "cxr-serve.service").read_text(encoding="utf-8")
    started = re.search(r"^ExecStart=\S+/cxr (.*)$", unit, re.M)
    assert started
    assert build_parser().parse_args(started[1].split()).command == "serve"
    patience = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)
    assert patience
    assert int(patience[1]) > ServeParams().stop_s
    container = (repository / "deploy" / "Containerfile").read_text(encoding="utf-8")
    words: list[Any] = json.loads(container.split("ENTRYPOINT ")[1])
    assert build_parser().parse_args(words[1:]).host == "0.0.0.0"
