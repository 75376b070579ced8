"""What `cxr promote` judges a model by: its predictions of the test images and its scores, of one evaluation.

The champion's evidence is kept in `models/champion/NNNN`, NNNN the number of the record that put it there. A folder
appears whole and is never changed. It holds patients' identifiers, so it stays on this machine: git ignores it, and no
run of MLflow gets it.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import atomic_open, read_json, sha256_file, sha256_text, sync_folder, write_json
from pipeline.manifest import as_number, read_table
from pipeline.params import EvaluateParams
from pipeline.predictions import arrays_of, findings_of_predictions
from pipeline.promotion_rule import Pair
from pipeline.statistics.groups import ATTRIBUTES, groups_of

_LIST = "evidence.json"
_NAMES = ("predictions.csv", "metrics.json", "calibration.json", "training.json", "model.keras")


@dataclass(frozen=True)
class Evidence:
    """A model and what its evaluation said.

    Attributes
    ----------
    test : DataFrame
        The test images' rows of `predictions.csv`, sorted by image; strings, `p_` and `age` as numbers.
    findings : list of str
        What was scored.
    training, metrics : dict
        `training.json` and `metrics.json`.
    predictions_sha256 : str
        Of the `predictions.csv` that the evaluation wrote.
    files : dict of str to Path
        The files it was read from.
    """

    test: pd.DataFrame
    findings: list[str]
    training: dict[str, Any]
    metrics: dict[str, Any]
    predictions_sha256: str
    files: dict[str, Path]

    @property
    def labels(self) -> NDArray[np.float64]:
        """Labels of the test images, shape (n_images, n_findings): 1, 0 or NaN."""
        return arrays_of(self.test, self.findings)[0]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Probabilities of the test images as the network gave them, shape (n_images, n_findings)."""
        return arrays_of(self.test, self.findings)[1]

    @property
    def test_sha256(self) -> str:
        """One hash of the test images, their patients and labels, by which two test sets are told apart."""
        columns = ["image_id", "patient_id", *(f"y_{name}" for name in self.findings)]
        return sha256_text(self.test[columns].to_csv(index=False, lineterminator="\n"))


def read_candidate(model: Path, reports: Path) -> Evidence:
    """Read a trained and evaluated model.

    Parameters
    ----------
    model : Path
        `model.keras`, with `training.json` beside it.
    reports : Path
        The folder that `cxr evaluate` filled for this model.

    Raises
    ------
    UserError
        If something is missing, or does not belong to this model.
    """
    files = {name: reports / name for name in _NAMES[:3]} | {name: model.with_name(name) for name in _NAMES[3:]}
    files["model.keras"] = model
    training, metrics = read_json(files["training.json"]), read_json(files["metrics.json"])
    if not model.is_file():
        raise UserError(f"{model} is missing: run `cxr train` (or `dvc repro`) first")
    if sha256_file(model) != training.get("model_sha256"):
        raise UserError(f"{model} and {files['training.json']} do not belong together: train again")
    if metrics.get("model_sha256") != training["model_sha256"]:
        raise UserError(f"{files['metrics.json']} is not of {model}: run `cxr evaluate` (or `dvc repro`) first")
    if metrics.get("ensemble"):
        raise UserError(
            f"{files['metrics.json']} scores the mean of several models, and the registry holds one: set "
            "evaluate.ensemble to false and evaluate again"
        )
    return _read(files, training, metrics, metrics.get("predictions_sha256"))


def store(folder: Path, number: int, evidence: Evidence, version: str) -> None:
    """Copy the evidence to `folder/NNNN`, only the test images' rows of the predictions; whole or not at all."""
    target, partial = champion_folder(folder, number), folder / f".{number:04d}.partial"
    if target.exists():
        return
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, path in evidence.files.items():
        if name == "predictions.csv":
            _write_rows(partial / name, evidence)
        elif name == "training.json":
            write_json(partial / name, _of_one_model(evidence.training))
        elif path.is_file():
            _copy(path, partial / name)
    about = {
        "version": version,
        "model_sha256": evidence.training["model_sha256"],
        "predictions_sha256": evidence.predictions_sha256,
        "files": {path.name: sha256_file(path) for path in sorted(partial.iterdir())},
    }
    write_json(partial / _LIST, about)
    partial.rename(target)
    sync_folder(folder)


def read_champion(folder: Path, number: int, version: str) -> Evidence:
    """Read what `store` kept; refuse it if a file is missing or changed, or it is of another version."""
    place = champion_folder(folder, number)
    mend = f"evaluate version {version} anew and run `cxr promote` on it, or bring {place} back"
    if not (place / _LIST).is_file():
        raise UserError(f"{place}, the evidence of the champion (version {version}), is missing: {mend}")
    about = read_json(place / _LIST)
    for name, expected in about["files"].items():
        if not (place / name).is_file() or sha256_file(place / name) != expected:
            raise UserError(f"{place / name}, evidence of the champion, is missing or was changed: {mend}")
    if about["version"] != version:
        raise UserError(f"{place} is of version {about['version']}, and the champion is version {version}: {mend}")
    files = {name: place / name for name in about["files"]}
    training, metrics = read_json(files["training.json"]), read_json(files["metrics.json"])
    return _read(files, training, metrics, about["files"]["predictions.csv"], about["predictions_sha256"])


def champion_folder(folder: Path, number: int) -> Path:
    """Return where the evidence lies that record `number` put there."""
    return folder / f"{number:04d}"


def require_same_images(candidate: Evidence, champion: Evidence, place: Path) -> None:
    """Refuse to compare models that were not scored on the same images, patients and labels in the same way.

    Raises
    ------
    UserError
        It says what differs, counted and without naming an image, and how to evaluate the champion (in `place`) anew.
    """
    if differs := _difference(candidate, champion):
        raise UserError(
            f"candidate and champion were not scored alike: {differs}. Nothing was decided. Score the champion as the "
            f"candidate was, `cxr evaluate {place / 'model.keras'} data/processed reports/champion`, store that with "
            f"`cxr promote {place / 'model.keras'} reports/champion`, then promote the candidate"
        )


def pair_of(candidate: Evidence, champion: Evidence, params: EvaluateParams) -> Pair:
    """Put the two models' probabilities side by side, with the subgroups; see `require_same_images`."""
    return Pair(
        candidate.findings,
        candidate.labels,
        candidate.probabilities,
        champion.probabilities,
        candidate.test["patient_id"].to_numpy(str),
        subgroups_of(candidate.test, params),
    )


def subgroups_of(table: pd.DataFrame, params: EvaluateParams) -> dict[str, NDArray[np.bool_]]:
    """Return the images of each sex, age band and view, where known; not the crossings of two, which are small."""
    groups = groups_of(table, params.age_bands)
    return {f"{group.by} {group.name}": group.members for group in groups if group.by in ATTRIBUTES}


def _read(
    files: dict[str, Path], training: dict[str, Any], metrics: dict[str, Any], expected: str, original: str = ""
) -> Evidence:
    path = files["predictions.csv"]
    table = read_table(path)
    found = sha256_file(path)
    if found != expected:
        raise UserError(f"{path} and {files['metrics.json']} are not of the same evaluation: run `cxr evaluate` again")
    findings = findings_of_predictions(table)
    test = table[table["split"] == "test"].sort_values("image_id", kind="stable", ignore_index=True)
    if not findings or test.empty or test["image_id"].duplicated().any():
        raise UserError(f"{path} has no findings, no test images, or one of them twice: run `cxr evaluate` again")
    for name in (*(f"y_{name}" for name in findings), *(f"p_{name}" for name in findings), "age"):
        if name in test:
            test[name] = as_number(test[name], path).astype("Float64")
    if test[[f"p_{name}" for name in findings]].isna().any(axis=None):
        raise UserError(f"{path} has test images without a probability: run `cxr evaluate` again")
    return Evidence(test, findings, training, metrics, original or found, files)


def _difference(candidate: Evidence, champion: Evidence) -> str:
    if candidate.findings != champion.findings:
        ours, theirs = (", ".join(item.findings) for item in (candidate, champion))
        return f"the candidate's findings are {ours}, the champion's {theirs}"
    if candidate.metrics.get("flip") != champion.metrics.get("flip"):
        return f"evaluate.flip is {candidate.metrics.get('flip')} and was {champion.metrics.get('flip')}"
    images, others = set(candidate.test["image_id"]), set(champion.test["image_id"])
    if images != others:
        shared = len(images & others)
        return f"the candidate has {len(images)} test images, the champion {len(others)}, and {shared} are the same"
    unequal = candidate.labels != champion.labels
    changed = (unequal & ~(np.isnan(candidate.labels) & np.isnan(champion.labels))).any(axis=1)
    changed |= (candidate.test["patient_id"] != champion.test["patient_id"]).to_numpy()
    return f"{int(changed.sum())} of {len(changed)} test images have another patient or label" if changed.any() else ""


def _of_one_model(training: dict[str, Any]) -> dict[str, Any]:
    """Leave out the repeats with further seeds, which are not stored, so that `cxr evaluate` can read the folder."""
    return training | {"repeats": training["repeats"][:1]} if "repeats" in training else training


def _write_rows(path: Path, evidence: Evidence) -> None:
    table = read_table(evidence.files["predictions.csv"])  # strings, so that no digit changes
    with atomic_open(path) as handle:
        table[table["split"] == "test"].to_csv(handle, index=False, lineterminator="\n")


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as handle:
        os.fsync(handle.fileno())
