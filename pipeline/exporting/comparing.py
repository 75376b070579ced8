"""Every exported format is asked about the validation images that the Keras model was asked about."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.exported import Exported, open_exported
from pipeline.exporting.manifest import MANIFEST
from pipeline.exporting.parity import Reference, faults
from pipeline.exporting.samples import read_images, whole_patients
from pipeline.params import ExportParams, Params
from pipeline.progress import track
from pipeline.shards import Processed

_BATCH = 64


def parity(model_path: Path, keras_model: Exported, data: Processed, folder: Path, params: Params) -> dict[str, Any]:
    """Compare every format with the Keras model on validation images; the test split is not read.

    Parameters
    ----------
    model_path : Path
        `model.keras`.
    keras_model : Exported
        The same, opened.
    data : Processed
        The processed images.
    folder : Path
        With a folder of each format.
    params : Params
        Sections `export` and `evaluate` (the bootstrap).

    Returns
    -------
    dict
        What `parity.json` holds: the images, the Keras model's mean AUROC, what `Reference.compare` gives for the model
        in float32 and for each format, with its `bytes` on disk, its `tolerance` and its `faults`.
    """
    rows = data.rows("val").reset_index(drop=True)
    chosen = whole_patients(rows["patient_id"], params.export.parity_images, params.export.seed)
    images, rows = read_images(data, "val", chosen), rows.iloc[chosen]
    labels, patients = rows[data.findings].to_numpy(np.float64, na_value=np.nan), rows["patient_id"].to_numpy(str)
    evaluated = outputs_of(keras_model, images, "keras")
    exact = outputs_in_float32(model_path, keras_model, images, evaluated)
    reference = Reference(labels, evaluated, exact, patients, params.evaluate)
    formats = {name: compared(name, folder / name, images, reference, params.export) for name in params.export.formats}
    return {
        "split": "val",
        "images": len(images),
        "patients": len(set(patients)),
        "model_sha256": keras_model.manifest.model_sha256,
        "confidence": params.evaluate.confidence,
        "resamples": params.evaluate.resamples,
        "auc_loss_allowed": params.export.auc_loss,
        "auc": reference.auc,
        "keras_float32": reference.compare(exact),
        "formats": formats,
    }


def compared(
    name: str, place: Path, images: NDArray[np.uint8], reference: Reference, params: ExportParams
) -> dict[str, Any]:
    """Return the row of one format."""
    row = reference.compare(outputs_of(open_exported(place), images, name))
    files = [path for path in place.rglob("*") if path.is_file() and path.name != MANIFEST]
    size = {"bytes": sum(path.stat().st_size for path in files)}
    return size | row | {"tolerance": params.tolerance(name), "faults": faults(name, row, params)}


def outputs_in_float32(
    model_path: Path, keras_model: Exported, images: NDArray[np.uint8], evaluated: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the probabilities of the Keras model computed in float32: `evaluated`, if they were already."""
    from pipeline.exporting.network import computes_in_float32, in_float32, with_features
    from pipeline.exporting.runtimes import keras_engine
    from pipeline.model import load_model

    model = load_model(model_path)
    if computes_in_float32(model):
        return evaluated
    full = dataclasses.replace(keras_model, engine=keras_engine(with_features(in_float32(model))))
    return outputs_of(full, images, "keras in float32")


def outputs_of(exported: Exported, images: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    """Return raw probabilities of images, batch by batch."""
    starts = range(0, len(images), _BATCH)
    batches = track(starts, len(starts), f"asking {name}", "batches")
    return np.concatenate([exported.probabilities(images[start : start + _BATCH]) for start in batches])
