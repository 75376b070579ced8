"""What a deployment is compared with: the validation and test images of the evaluation, without pixels or names.

`evaluate`, the only stage that opens the test split, writes it as `reports/reference.npz`.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.feature_sketch import sketch_features
from pipeline.files import atomic_path
from pipeline.image_statistics import FILM_STATISTICS, STATISTICS, film_statistics, statistics_of
from pipeline.images import ImageError, read_image
from pipeline.parallel import run_all
from pipeline.progress import note

if TYPE_CHECKING:
    from pipeline.exported import Exported
    from pipeline.shards import Processed

SPLITS = ("val", "test")
VIEWS = ("", "PA", "AP", "L")
"""What `Reference.view` counts."""
_VERSION = 1
_BATCH = 64
_FEW = 500


@dataclass(frozen=True)
class Reference:
    """Images of the evaluation, a row each.

    Attributes
    ----------
    model : str
        The first 12 hexadecimal digits of the model's SHA-256, with which its versions begin.
    findings : tuple of str
        Of the columns below.
    calibration : dict
        `calibration.json`.
    points : dict
        Finding to name of the operating point to threshold, None where there is none.
    dataset : str
        For people.
    patients : ndarray of shape (n,), dtype=int64
        Numbers from 0 that say only which images are of one patient.
    test : ndarray of shape (n,), dtype=bool
        Whether the image is of the test split.
    view : ndarray of shape (n,), dtype=int8
        Index into `VIEWS`.
    statistics : dict of str to ndarray of shape (n,), dtype=float32
        `pipeline.image_statistics`; those of the film are NaN where its file was not at hand.
    sketch : ndarray of shape (n, 16), dtype=float32
        See `pipeline.feature_sketch`.
    probabilities : ndarray of shape (n, n_findings), dtype=float32
        Raw outputs of the Keras model.
    labels : ndarray of shape (n, n_findings), dtype=int8
        1, 0, -1 unknown.
    """

    model: str
    findings: tuple[str, ...]
    calibration: dict[str, Any]
    points: dict[str, dict[str, float | None]]
    dataset: str
    patients: NDArray[np.int64]
    test: NDArray[np.bool_]
    view: NDArray[np.int8]
    statistics: dict[str, NDArray[np.float32]]
    sketch: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.patients)

    def thresholds(self, point: str) -> NDArray[np.float64]:
        """Return the thresholds of an operating point on raw outputs, shape (n_findings,); NaN where there is none."""
        values = [self.points.get(name, {}).get(point) for name in self.findings]
        return np.array([np.nan if value is None else value for value in values], np.float64)

    def take(self, rows: NDArray[Any]) -> "Reference":
        """Return some of the rows."""
        statistics = {name: values[rows] for name, values in self.statistics.items()}
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        about = (self.model, self.findings, self.calibration, self.points, self.dataset)
        return Reference(*about, **columns, statistics=statistics)


_COLUMNS = ("patients", "test", "view", "sketch", "probabilities", "labels")


def reference_of(
    exported: "Exported", data: "Processed", files: pd.Series | None, images: int, seed: int = 7
) -> Reference:
    """Ask the model about validation and test images, and describe the images.

    Parameters
    ----------
    exported : Exported
        The model; that of `open_exported(models/model.keras)`.
    data : Processed
        The processed images.
    files : Series of Path, index image_id, or None
        The films' files, for what they look like before preprocessing; None: not at hand.
    images : int
        At most so many, whole patients chosen at random.
    seed : int
        Of that choice.
    """
    kept = {split: chosen(data.rows(split), images, seed) for split in SPLITS}
    rows = pd.concat([data.rows(split).iloc[kept[split]] for split in SPLITS], ignore_index=True)
    found = [_described(exported, data, split, kept[split]) for split in SPLITS]
    statistics, sketch, probabilities = (np.concatenate(part) for part in zip(*found, strict=True))
    films = _films(files.reindex(rows["image_id"])) if files is not None else np.full((len(rows), 7), np.nan)
    names = (*STATISTICS, *FILM_STATISTICS)
    table = np.concatenate([statistics, films], axis=1).astype(np.float32)
    return Reference(
        model=exported.manifest.model_sha256[:12],
        findings=tuple(exported.manifest.findings),
        calibration=exported.manifest.calibration,
        points=exported.manifest.operating_points,
        dataset=str(data.meta.get("dataset", "")),
        patients=np.asarray(pd.factorize(rows["patient_id"])[0], np.int64),
        test=(rows["split"] == "test").to_numpy(bool),
        view=np.array([VIEWS.index(view) if view in VIEWS else 0 for view in rows["view"].fillna("")], np.int8),
        statistics={name: table[:, k] for k, name in enumerate(names)},
        sketch=sketch.astype(np.float32),
        probabilities=probabilities.astype(np.float32),
        labels=rows[list(exported.manifest.findings)].fillna(-1).to_numpy(np.int8),
    )


def chosen(rows: pd.DataFrame, images: int, seed: int) -> NDArray[np.intp]:
    """Return the positions of whole patients, chosen at random, with half of `images` at most; in order."""
    codes, names = pd.factorize(rows["patient_id"])
    order = np.random.default_rng(seed).permutation(len(names))
    counts = np.bincount(codes, minlength=len(names))[order]
    taken = np.zeros(len(names), np.bool_)
    taken[order[np.cumsum(counts) <= max(images // 2, counts[0] if len(counts) else 0)]] = True
    return np.flatnonzero(taken[codes])


def write_reference(path: Path, reference: Reference) -> None:
    """Write a reference; the same one gives the same bytes."""
    about = {
        "version": _VERSION,
        "model": reference.model,
        "findings": reference.findings,
        "calibration": reference.calibration,
        "points": reference.points,
        "dataset": reference.dataset,
        "statistics": list(reference.statistics),
    }
    arrays = {name: getattr(reference, name) for name in _COLUMNS}
    arrays["statistics"] = np.stack(list(reference.statistics.values()), axis=1)
    arrays["about"] = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)


def read_reference(path: Path) -> Reference:
    """Read a reference.

    Raises
    ------
    UserError
        If the file is missing, damaged or of a later version.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: run `cxr evaluate` (or `dvc repro`), which writes reference.npz")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in (*_COLUMNS, "statistics", "about")}
        about = json.loads(arrays.pop("about").tobytes().decode())
        names, table = about.pop("statistics"), arrays.pop("statistics")
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path} is no reference ({type(error).__name__}): run `cxr evaluate` again") from None
    if (found := about.pop("version")) != _VERSION:
        raise UserError(f"{path} is of version {found}, and this cxr reads {_VERSION}: use the cxr that wrote it")
    about["findings"] = tuple(about["findings"])
    statistics = {name: np.ascontiguousarray(table[:, k]) for k, name in enumerate(names)}
    return Reference(**about, **arrays, statistics=statistics)


def _described(
    exported: "Exported", data: "Processed", split: str, kept: NDArray[np.intp]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return image statistics, sketches and raw outputs of some images of a split."""
    wanted = np.zeros(len(data.rows(split)), np.bool_)
    wanted[kept] = True
    parts: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    for batch in _batches(data, split, wanted):
        outputs = exported.outputs(batch)
        described = np.array([list(statistics_of(image[..., 0]).values()) for image in batch])
        parts.append((described, sketch_features(outputs.features), outputs.probabilities))
    statistics, sketch, probabilities = (np.concatenate(part) for part in zip(*parts, strict=True))
    return statistics, sketch, probabilities


def _batches(data: "Processed", split: str, wanted: NDArray[np.bool_]) -> Iterator[NDArray[np.uint8]]:
    from pipeline.scoring_input import images_in_order

    start = 0
    for batch in images_in_order(data, split, _BATCH).as_numpy_iterator():
        kept = batch[wanted[start : start + len(batch)]]
        start += len(batch)
        if len(kept):
            yield np.asarray(kept, np.uint8)


def _films(files: pd.Series) -> NDArray[np.float64]:
    """Return what the films look like as decoded, (n, 7); NaN where a file cannot be read any more."""
    workers = 1 if len(files) < _FEW else None  # starting processes takes longer than a few films
    rows = list(run_all(_film, list(files), "looking at the films", workers, 16, "films"))
    found = np.array([row if row else [np.nan] * len(FILM_STATISTICS) for row in rows], np.float64)
    if missing := int(np.isnan(found[:, 0]).sum()):
        note(f"{missing:,} of {len(found):,} films of the reference are not at hand: their files are not described")
    return found


def _film(path: Any) -> list[float]:
    if not isinstance(path, Path):
        return []
    try:
        return list(film_statistics(read_image(path)).values())
    except ImageError:
        return []
