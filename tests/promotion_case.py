"""A small project with models registered in a real MLflow store, and evaluations of them that are drawn here."""

import hashlib
import json
import shutil
import sqlite3
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.params import TrackingParams
from pipeline.registry import Registry
from pipeline.tracking import Run

FINDINGS = ("Effusion", "Mass", "Edema")
MODEL = "chest"
PARAMS = (
    "tracking: {{register: chest, system_metrics: false, uri: '{uri}'}}\n"
    "evaluate: {{resamples: 200, subgroup_images: 40}}\n"
    "promote: {{macro_margin: 0.02, finding_margin: 0.05, subgroup_margin: 0.08, max_calibration_error: 0.05}}\n"
)
_MODEL = """import mlflow


class Tiny(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[str], params=None) -> list[str]:
        return model_input


mlflow.models.set_model(Tiny())
"""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def predictions(skill: float, images: int = 300, seed: int = 5) -> pd.DataFrame:
    """Draw labels, and probabilities that know them the better the more skill; one patient has two images."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"image_id": [f"film-{n:04d}.png" for n in range(images)]})
    table["patient_id"] = [f"patient-{n // 2:04d}" for n in range(images)]
    table["split"] = np.where(np.arange(images) % 6 == 0, "val", "test")
    for name in FINDINGS:
        table[f"y_{name}"] = (rng.random(images) < 0.3).astype(int)
    for name in FINDINGS:
        logit = skill * (table[f"y_{name}"] - 0.5) + rng.normal(size=images)
        table[f"p_{name}"] = (1 / (1 + np.exp(-logit))).round(6)
    table["view"] = rng.choice(["PA", "AP"], images)
    table["sex"] = rng.choice(["F", "M"], images)
    table["age"] = rng.integers(20, 90, images)
    return table


def register_models(folder: Path, count: int, uri: str) -> list[dict[str, Any]]:
    """Register tiny models, each of a run of its own; return what `training.json` holds of each.

    `folder/trained/N.keras` stand for their files, which nothing here opens.
    """
    (folder / "tiny_model.py").write_text(_MODEL, encoding="utf-8")
    (folder / "trained").mkdir(exist_ok=True)
    trainings = []
    for number in range(count):
        path = folder / "trained" / f"{number}.keras"
        path.write_text(f"weights {number}", encoding="utf-8")
        run = Run(TrackingParams(uri=uri, system_metrics=False), name=f"training {number}")
        log_model(str(folder / "tiny_model.py"))
        run.end()
        about: dict[str, Any] = {"model_sha256": sha256(path), "processed_sha256": "0" * 64, "code_version": "f" * 40}
        seeds = [{"seed": 7, "path": "model.keras"}, {"seed": 8, "path": "repeats/seed-8/model.keras"}]
        about["repeats"] = [entry | {"model_sha256": about["model_sha256"]} for entry in seeds]
        trainings.append(about | {"findings": list(FINDINGS), "mlflow": {"run_id": run.id, "uri": run.uri}})
    return trainings


def log_model(code: str) -> None:
    """Log a model to the active run and register it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's advice on type hints, also on its own
        import mlflow.pyfunc

        mlflow.pyfunc.log_model(
            name="model", python_model=code, registered_model_name=MODEL, pip_requirements=["numpy"]
        )


@dataclass
class Project:
    """A folder with `params.yaml`, models/, reports/ and an MLflow store; version N is the model N - 1."""

    folder: Path
    trainings: list[dict[str, Any]]

    @property
    def uri(self) -> str:
        """The store's address; absolute, because MLflow keeps one connection for each address."""
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def registry(self) -> Registry:
        return Registry(TrackingParams(uri=self.uri, register=MODEL))

    def present(self, version: int, table: pd.DataFrame, ece: float = 0.02, **about: Any) -> None:
        """Lay a version and an evaluation of it where `dvc repro` would: models/ and reports/."""
        models, reports = self.folder / "models", self.folder / "reports"
        reports.mkdir(exist_ok=True)
        models.mkdir(exist_ok=True)
        shutil.copyfile(self.folder / "trained" / f"{version - 1}.keras", models / "model.keras")
        training = self.trainings[version - 1]
        (models / "training.json").write_text(json.dumps(training), encoding="utf-8")
        table.to_csv(reports / "predictions.csv", index=False)
        macro = {"auc": 0.8, "calibrated_ece": ece, "calibrated_ece_ci_low": 0.0, "calibrated_ece_ci_high": 2 * ece}
        metrics = {"dataset": "drawn", "protocol": "patient", "flip": False, "test": {"macro": macro}}
        metrics |= {"model_sha256": training["model_sha256"]}
        metrics |= {"predictions_sha256": sha256(reports / "predictions.csv"), **about}
        (reports / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        (reports / "calibration.json").write_text("{}", encoding="utf-8")

    def champion(self) -> str | None:
        return self.registry.holder("champion")

    def records(self) -> list[dict[str, Any]]:
        paths = sorted((self.folder / "models" / "promotions").glob("[0-9]*.json"))
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def state(self) -> dict[str, str]:
        """Return every file of the project that a decision may write, with its hash, and the champion."""
        places = [self.folder / "models" / name for name in ("champion", "promotions")]
        files = [path for place in places for path in place.rglob("*") if path.is_file() and path.name != ".lock"]
        return {str(path.relative_to(self.folder)): sha256(path) for path in files} | {"alias": str(self.champion())}


def make_project(folder: Path, count: int) -> Project:
    """Register models in a store of their own, and write the parameters."""
    project = Project(folder, [])
    project.trainings = register_models(folder, count, project.uri)
    (folder / "params.yaml").write_text(PARAMS.format(uri=project.uri), encoding="utf-8")
    return project


def copied(template: Project, folder: Path) -> Project:
    """Copy a project, and put its new place into all that names its store."""
    shutil.copytree(template.folder, folder, dirs_exist_ok=True)
    project = Project(folder, [])
    (folder / "params.yaml").write_text(PARAMS.format(uri=project.uri), encoding="utf-8")
    for training in template.trainings:
        project.trainings.append(training | {"mlflow": training["mlflow"] | {"uri": project.uri}})
    present = folder / "models" / "training.json"
    if present.exists():
        text = present.read_text(encoding="utf-8")
        present.write_text(text.replace(str(template.folder), str(folder)), encoding="utf-8")
    database = sqlite3.connect(folder / "mlflow.db")
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
        change = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
        database.execute(change, (str(template.folder), str(folder)))
    database.commit()
    database.close()
    return project
