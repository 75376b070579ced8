"""The walk-through of docs/monitoring.md: every command of it, in order, on a small project."""

import csv
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from promotion_case import MODEL, log_model
from tiny_models import tiny_network

from pipeline.cli import main
from pipeline.files import read_json, sha256_file, write_json
from pipeline.params_file import as_dict, parse_params, write_yaml
from pipeline.shards import open_processed

ROOT = Path(__file__).parents[1]
SMALL: dict[str, Any] = {
    "simulate": {"patients": 90, "size": 64},
    "preprocess": {"size": 32},
    "evaluate": {"resamples": 100, "localise": False, "cases": 0, "subgroup_images": 500},
    "export": {"formats": ["int8"], "representative_images": 30, "int8_tolerance": 1.0, "auc_loss": 1.0},
    "gate": {"films": 40, "bad_images": 2, "epochs": 1, "components": 2},
    "promote": {"macro_margin": 1.0, "finding_margin": 1.0, "max_calibration_error": 1.0},
    "monitor": {"first_rows": 100, "labelled": 100, "resamples": 100, "track": False},
}


def small_training(seed: int, code: Path) -> Any:
    """Return what takes the place of `train`: a tiny network recorded and registered like a real one."""

    def train(processed: Path, out: Path, params: Any) -> None:
        from pipeline.model import save_model
        from pipeline.tracking import Run

        data = open_processed(processed)
        save_model(tiny_network(len(data.findings), data.size, seed), out / "model.keras")
        run = Run(params.tracking, name=f"training {seed}")
        log_model(str(code))
        run.end()
        sha256 = sha256_file(out / "model.keras")
        about = {"findings": data.findings, "preprocess": data.meta["preprocess"], "code_version": "f" * 40}
        repeats = [{"seed": seed, "path": "model.keras", "model_sha256": sha256}]
        record = {"model_sha256": sha256, "processed_sha256": "0" * 64, "versions": {}, "repeats": repeats, **about}
        write_json(out / "training.json", {**record, "mlflow": {"run_id": run.id, "uri": run.uri}})

    return train


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project as `make train` and `cxr promote` leave it; the stages after training are the real ones."""
    import promotion_case

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.parallel.available_cores", lambda: 1)
    code = tmp_path / "tiny_model.py"
    code.write_text(promotion_case._MODEL, encoding="utf-8")
    tracking = {"uri": f"sqlite:///{tmp_path}/mlflow.db", "register": MODEL, "system_metrics": False}
    params = parse_params({**SMALL, "tracking": tracking}, "the test")
    write_yaml(tmp_path / "params.yaml", as_dict(params))
    for stage in ("simulate --out data/raw", "ingest", "split", "preprocess"):
        assert main([*stage.split(), "-q"]) == 0
    small_training(3, code)(Path("data/processed"), Path("models"), params)
    for stage in ("evaluate", "export", "promote"):
        assert main([stage, "-q"]) == 0
    monkeypatch.setattr("pipeline.retrain.train", small_training(4, code))
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    return tmp_path


def commands() -> list[tuple[str, int | None]]:
    """Return the walk-through's lines, each with the exit status that its comment says."""
    text = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8").split("## Walk-through")[1]
    found = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        for line in block.splitlines():
            command, _, status = line.partition("#")
            found.append((command.strip(), int(status) if status.strip() else None))
    return found


def requests_of(table: Path) -> set[str]:
    with table.open(encoding="utf-8") as handle:
        return {row["request_id"] for row in csv.DictReader(handle)}


def requests_in_log(project: Path) -> set[str]:
    with sqlite3.connect(f"file:{project}/predictions.db?mode=ro", uri=True) as database:
        return {request for (request,) in database.execute("SELECT request_id FROM predictions")}


def test_every_command_of_the_walk_through(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server: subprocess.Popen[bytes] | None = None
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    statuses = {}
    try:
        for line, expected in commands():
            words = shlex.split(line.removesuffix("&"))
            if words[0] == "export":
                monkeypatch.setenv(*words[1].split("="))
                env |= dict([words[1].split("=")])
            elif line.endswith("&"):
                server = subprocess.Popen([sys.executable, "-m", "pipeline.cli", *words[1:]], env=env)
            elif words[0].startswith("scripts/"):
                subprocess.run([sys.executable, *words], env=env, check=True)
                assert requests_in_log(project) == requests_of(project / "films.csv")
            elif words[0] == "kill":
                assert server is not None
                server.terminate()
                assert server.wait(60) is not None
            else:
                assert words[0] == "cxr", line
                status = main(words[1:])
                statuses[line] = status
                if expected is not None:
                    assert status == expected, line
    finally:
        if server is not None and server.poll() is None:
            server.kill()
            server.wait()
    assert statuses["cxr monitor reports/reference.npz predictions.db"] in (0, 3, 4)
    record = read_json(project / "retrained/retrain.json")
    assert record["promoted"] is True
    assert record["version"]["test"] > 0
    decisions = sorted((project / "models/promotions").glob("[0-9]*.json"))
    assert read_json(decisions[-1])["outcome"] == "promoted"
    assert read_json(decisions[-1])["candidate"] != read_json(decisions[0])["candidate"]
