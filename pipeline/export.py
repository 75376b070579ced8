"""Stage `export`: the trained model in the formats that others run, each with a manifest, each as good as the model."""

import dataclasses
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.exported import DEFAULT_FORMAT, open_exported
from pipeline.exporting.comparing import parity
from pipeline.exporting.folder import LAST, finished_folder
from pipeline.exporting.manifest import MANIFEST, Manifest, hashes, pixel_parameters
from pipeline.files import write_json
from pipeline.gate_file import GATE, write_gate
from pipeline.params import ExportParams, Params
from pipeline.progress import note, warn
from pipeline.quiet import load_tensorflow
from pipeline.shards import Processed, open_processed

_PACKAGES = ("tensorflow", "keras", "numpy", "ai-edge-litert", "onnx", "onnxruntime", "tf2onnx")


def export(model_path: Path, processed: Path, out: Path, reports: Path, params: Params) -> None:
    """Write the formats of `export.formats`, each in a folder of its own, `parity.json` and `gate.json` beside them.

    All is made in a folder beside `out` and renamed at the end; a killed export leaves nothing that looks finished.
    The test split is not touched.

    Parameters
    ----------
    model_path : Path
        `model.keras`, with `training.json` beside it.
    processed : Path
        The processed images: those of train set the ranges of int8, those of val are compared.
    out : Path
        The folder of exports.
    reports : Path
        What `evaluate` wrote of this model.
    params : Params
        Sections `export`, `gate` and `evaluate` (the bootstrap).

    Raises
    ------
    UserError
        If the files do not belong together, or a format is not near enough to the Keras model.
    """
    load_tensorflow()
    data = open_processed(processed)
    keras_model = open_exported(model_path, reports=reports)
    require_same_images(keras_model.manifest, data, model_path)
    manifest = dataclasses.replace(keras_model.manifest, versions=versions())
    with finished_folder(out) as folder:
        write_formats(model_path, manifest, data, folder, params.export)
        document = parity(model_path, keras_model, data, folder, params)
        write_json(folder / LAST, document)
        wrong = [fault for row in document["formats"].values() for fault in row["faults"]]
        if wrong:
            raise UserError(f"not near enough to {model_path} on {document['images']} val images: {'; '.join(wrong)}")
        gate_beside(data, folder, params)
    say(document, out)


def require_same_images(manifest: Manifest, data: Processed, model_path: Path) -> None:
    """Refuse processed images that are not those of the training."""
    for key, mine, theirs in (
        ("findings", list(manifest.findings), data.findings),
        (
            "preprocess",
            pixel_parameters(dataclasses.asdict(manifest.preprocess)),
            pixel_parameters(data.meta["preprocess"]),
        ),
    ):
        if mine != theirs:
            raise UserError(f"{model_path} was trained with {key} {mine}, {data.folder} has {theirs}")


def versions() -> dict[str, str]:
    """Return the versions of what makes and runs the formats."""
    import platform

    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES}


def write_formats(model_path: Path, manifest: Manifest, data: Processed, folder: Path, params: ExportParams) -> None:
    """Convert the model to every format, and write the manifests."""
    from pipeline.exporting.convert import convert
    from pipeline.exporting.network import in_float32, with_features
    from pipeline.exporting.samples import read_images, some_rows
    from pipeline.model import load_model

    network = with_features(in_float32(load_model(model_path)))
    rows = some_rows(len(data.rows("train")), params.representative_images, params.seed)
    images = read_images(data, "train", rows)
    for name in params.formats:
        note(f"converting to {name}")
        place = folder / name
        place.mkdir()
        convert(name, network, place, images)
        written = dataclasses.replace(manifest, format=name, files=hashes(place))
        write_json(place / MANIFEST, written.as_dict())


def gate_beside(data: Processed, folder: Path, params: Params) -> None:
    """Fit the input gate with the features of int8, the format that is served, or of the first there is."""
    from pipeline.gate_fit import fit_gate

    name = DEFAULT_FORMAT if DEFAULT_FORMAT in params.export.formats else params.export.formats[0]
    exported = open_exported(folder / name)
    note("fitting the input gate")
    try:
        gate = fit_gate(data, exported.embedding, exported.manifest.model_sha256, params.gate)
    except UserError as error:  # too few films; the formats are good without it
        warn(f"no input gate: {error}")
    else:
        write_gate(folder / GATE, gate)


def say(document: dict[str, Any], out: Path) -> None:
    """Print how near each format is, and what it weighs."""
    rounded = document["keras_float32"]["max_difference_evaluated"]
    if rounded:
        note(f"the Keras model in float32: probabilities within {rounded:.2g} of those it was evaluated with")
    for name, row in document["formats"].items():
        note(
            f"{name}: {row['bytes'] / 2**20:.1f} MiB; probabilities within {row['max_difference']:.2g}; mean AUC "
            f"{row['auc']:.4f}, {row['auc_loss']:+.4f} lost (paired {document['confidence']:.0%} interval "
            f"{row['auc_loss_ci_low']:+.4f} to {row['auc_loss_ci_high']:+.4f}), {document['images']} val images of "
            f"{document['patients']} patients"
        )
    note(f"exported models: {out}")
