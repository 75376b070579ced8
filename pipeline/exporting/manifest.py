"""`manifest.json`: what an exported model is, what it takes and gives, and the hashes of its files."""

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import UserError
from pipeline.files import read_json, sha256_file
from pipeline.params import PreprocessParams

MANIFEST = "manifest.json"
FORMATS = ("saved_model", "float16", "int8", "onnx")
"""The formats that `cxr export` writes, each in a folder of that name."""
MAIN_FILE = {"saved_model": "saved_model.pb", "float16": "model.tflite", "int8": "model.tflite", "onnx": "model.onnx"}
INPUT = "image"
PROBABILITIES, FEATURES = "probabilities", "features"
"""Names of the input and the outputs of every exported graph."""
PIXELS = (
    "grayscale as pipeline.images.prepare makes it from a file: resized, then CLAHE where `preprocess` says so; "
    "0 is black is air (MONOCHROME2); channels and normalisation are layers of the model"
)
OF_KERAS = "thresholds on raw outputs, chosen with the Keras model on validation images; parity.json compares the two"
_UNUSED = ("shard_images", "engine", "address")  # of preprocessing: they decide no pixel
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """What an exported model is.

    Attributes
    ----------
    format : {'keras', 'saved_model', 'float16', 'int8', 'onnx'}
        What runs it.
    files : dict
        Path below the folder, with `/`, to SHA-256; empty for the Keras model, whose hash is `model_sha256`.
    model_sha256 : str
        Of the `model.keras` that it was made from.
    findings : tuple of str
        In the order of the outputs.
    preprocess : PreprocessParams
        For `pipeline.images.prepare`; how shards were written is not in it.
    calibration : dict
        `reports/calibration.json`.
    operating_points : dict
        Finding to name of the point to threshold on raw outputs, None where there is none.
    flip : bool
        Whether outputs are the mean over an image and its mirror image, as they were when it was evaluated.
    versions, training : dict
        What made the model: packages; MLflow run, seed, data set, code.
    title : str
        For people.
    """

    format: str
    files: dict[str, str]
    model_sha256: str
    findings: tuple[str, ...]
    preprocess: PreprocessParams
    calibration: dict[str, Any]
    operating_points: dict[str, dict[str, float | None]]
    flip: bool
    versions: dict[str, str]
    training: dict[str, Any]
    title: str

    @property
    def size(self) -> int:
        """Pixels a side of the input."""
        return self.preprocess.size

    @property
    def version(self) -> str:
        """Short name of the model and its format."""
        return f"{self.model_sha256[:12]}-{self.format}"

    def as_dict(self) -> dict[str, Any]:
        """Return what `manifest.json` holds."""
        shape = {"dtype": "uint8", "height": self.size, "width": self.size, "channels": 1, "meaning": PIXELS}
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        values["preprocess"] = pixel_parameters(dataclasses.asdict(self.preprocess))
        head = {"format": self.format, "version": self.version, "title": self.title, "input": shape}
        return head | values | {"findings": list(self.findings), "operating_points_note": OF_KERAS}


def pixel_parameters(preprocess: dict[str, Any]) -> dict[str, Any]:
    """Return those of the parameters of preprocessing that decide pixels."""
    return {key: value for key, value in preprocess.items() if key not in _UNUSED}


def parse_preprocess(values: dict[str, Any]) -> PreprocessParams:
    """Check the parameters of preprocessing, as a training or a manifest recorded them.

    Raises
    ------
    ValueError
        If a value is unknown or outside its range.
    """
    return TypeAdapter(PreprocessParams).validate_json(json.dumps(pixel_parameters(values)))


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an exported folder, and check every file that it names against its hash.

    Raises
    ------
    UserError
        If the manifest is missing or damaged, names a file outside its folder, or a file is missing or is another.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} is no exported model ({MANIFEST} is missing): run `cxr export`, or name another")
    manifest = parse_manifest(read_json(path), path)
    for name, sha256 in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file} is missing, and {path} names it: run `cxr export` again")
        if sha256_file(file) != sha256:
            raise UserError(f"{file} is not the file that {path} names (its SHA-256 differs): run `cxr export` again")
    return manifest


def parse_manifest(values: Any, path: Path) -> Manifest:
    """Check the values of a manifest.

    Raises
    ------
    UserError
        Says what is wrong.
    """
    try:
        manifest = _parsed(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{path} is damaged ({type(error).__name__}: {reason[:200]}): run `cxr export` again") from None
    for name in manifest.files:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name or not pure.parts:
            raise UserError(f"{path} names {name!r}, which lies outside its folder: it was not written by `cxr export`")
    if manifest.format not in FORMATS:
        raise UserError(f"{path} has the format {manifest.format!r}; {', '.join(FORMATS)} are known")
    if MAIN_FILE[manifest.format] not in manifest.files:
        raise UserError(f"{path} does not name {MAIN_FILE[manifest.format]}: it was not written by `cxr export`")
    return manifest


def hashes(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """Return the SHA-256 of the files of a folder, by their path below it, in order of the path."""
    found = names or (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: sha256_file(folder / name) for name in sorted(found)}


def _parsed(values: dict[str, Any]) -> Manifest:
    findings = tuple(values["findings"])
    if not findings or len(set(findings)) != len(findings) or not all(isinstance(name, str) for name in findings):
        raise ValueError(f"findings is {values['findings']!r}")
    for sha256 in (values["model_sha256"], *values["files"].values()):
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
    preprocess = parse_preprocess(values["preprocess"])
    shape = values["input"]
    if (shape["height"], shape["width"], shape["channels"]) != (preprocess.size, preprocess.size, 1):
        raise ValueError(f"input is {shape}, and preprocess.size is {preprocess.size}")
    return Manifest(
        format=str(values["format"]),
        files=dict(values["files"]),
        model_sha256=values["model_sha256"],
        findings=findings,
        preprocess=preprocess,
        calibration=_of_findings(values["calibration"], findings),
        operating_points=checked_points(values["operating_points"], findings),
        flip=bool(values["flip"]),
        versions=dict(values["versions"]),
        training=dict(values["training"]),
        title=str(values["title"]),
    )


def _of_findings(calibration: dict[str, Any], findings: tuple[str, ...]) -> dict[str, Any]:
    missing = [name for name in findings if "method" not in calibration["findings"].get(name, {})]
    if missing:
        raise ValueError(f"calibration lacks {', '.join(missing)}")
    return calibration


def checked_points(points: dict[str, Any], findings: tuple[str, ...]) -> dict[str, dict[str, float | None]]:
    """Return thresholds by finding and name of the point.

    Raises
    ------
    ValueError
        If a finding is missing, or a threshold is not a number or None.
    """
    checked: dict[str, dict[str, float | None]] = {}
    for name in findings:
        if name not in points:
            raise ValueError(f"operating_points lacks {name}")
        for point, threshold in points[name].items():
            if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int | float)):
                raise ValueError(f"the {point} threshold of {name} is {threshold!r}")
        checked[name] = {point: None if value is None else float(value) for point, value in points[name].items()}
    return checked
