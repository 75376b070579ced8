"""A trained model that is ready to be asked: an exported folder, or the Keras model itself.

The one way from prepared pixels to probabilities after training: `predict`, `serve` and the gate call it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.exporting.manifest import FORMATS, MANIFEST, Manifest, read_manifest
from pipeline.exporting.runtimes import Engine, Floats32, Images, Outputs, open_keras, open_runtime
from pipeline.statistics.calibration import apply_all

__all__ = ["DEFAULT_FORMAT", "Engine", "Exported", "Manifest", "Outputs", "open_exported"]

DEFAULT_FORMAT = "int8"


@dataclass(frozen=True)
class Exported:
    """A model that is ready to be asked, and what it is.

    Attributes
    ----------
    manifest : Manifest
        Findings, preprocessing, calibration, operating points, versions.
    engine : Engine
        What runs it; it knows nothing of `manifest.flip`, which the methods here heed.
    folder : Path
        Where it lies.
    """

    manifest: Manifest
    engine: Engine
    folder: Path

    def outputs(self, images: Images) -> Outputs:
        """Return raw probabilities and pooled features of prepared images, in one pass.

        Parameters
        ----------
        images : ndarray of shape (n, size, size, 1), dtype=uint8
            As `pipeline.images.prepare` makes them with `manifest.preprocess`.

        Returns
        -------
        Outputs
            float32 (n, n_findings) and (n, n_features). With `manifest.flip` the probabilities are the mean over
            each image and its mirror image, as in `evaluate`; the features are those of the image itself.

        Raises
        ------
        ValueError
            If shape or dtype are others.
        """
        size = self.manifest.size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 1):
            raise ValueError(f"images are {images.dtype} {images.shape}; uint8 (n, {size}, {size}, 1) is needed")
        if not len(images):  # which some of the engines cannot take
            one = self.engine.outputs(np.zeros((1, size, size, 1), np.uint8))
            return Outputs(one.probabilities[:0], one.features[:0])
        found = self.engine.outputs(images)
        if not self.manifest.flip:
            return found
        mirrored = self.engine(np.ascontiguousarray(images[:, :, ::-1]))
        return Outputs(np.asarray((found.probabilities + mirrored) / np.float32(2), np.float32), found.features)

    def probabilities(self, images: Images) -> Floats32:
        """Return the raw probabilities of `outputs`."""
        return self.outputs(images).probabilities

    def embedding(self, images: Images) -> Floats32:
        """Return the features of `outputs`."""
        return self.engine.outputs(images).features

    def calibrated(self, raw: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return calibrated probabilities of raw ones, both of shape (n, n_findings); NaN stays NaN."""
        return apply_all(self.manifest.calibration, list(self.manifest.findings), raw)

    def decisions(self, raw: NDArray[np.floating], point: str = "youden") -> NDArray[np.int8]:
        """Say of which images each finding is called.

        Parameters
        ----------
        raw : ndarray of shape (n, n_findings)
            Raw probabilities; decisions are never made on calibrated ones, of which several may be equal.
        point : str
            Name of the operating point.

        Returns
        -------
        ndarray of shape (n, n_findings), dtype=int8
            1 at the threshold or above, 0 below, -1 where the finding has no such threshold or the output is NaN.

        Raises
        ------
        UserError
            If no finding has a point of that name.
        """
        points = self.manifest.operating_points
        known = list(dict.fromkeys(name for row in points.values() for name in row))
        if point not in known:
            raise UserError(f"there is no operating point {point!r}; {', '.join(known) or 'none'} are known")
        row = [points[name].get(point) for name in self.manifest.findings]
        thresholds = np.array([np.nan if value is None else value for value in row], np.float64)
        called = (raw >= thresholds).astype(np.int8)
        called[np.isnan(raw) | np.isnan(thresholds)] = -1
        return called


def open_exported(path: Path, *, threads: int | None = None, reports: Path | None = None) -> Exported:
    """Open a model; every file is checked against its hash before anything of it is loaded.

    Parameters
    ----------
    path : Path
        The exported folder of one format; the folder of all formats, of which int8 is taken; or a `model.keras` with
        `training.json` beside it.
    threads : int, optional
        Threads of one call; None leaves it to the library. TensorFlow (Keras and SavedModel) takes it before its
        first computation only.
    reports : Path, optional
        For `model.keras`: its evaluation. None: the folder `reports` beside that of the model.

    Raises
    ------
    UserError
        If something is missing, damaged, or does not belong together.
    """
    if path.suffix == ".keras":
        from pipeline.exporting.source import describe

        manifest = describe(path, reports or path.absolute().parent.parent / "reports")
        return Exported(manifest, open_keras(path, threads), path.parent)
    folder = _folder_of(path)
    manifest = read_manifest(folder)
    return Exported(manifest, open_runtime(folder, manifest.format, threads), folder)


def _folder_of(path: Path) -> Path:
    """Return the folder of one format."""
    if (path / MANIFEST).is_file() or not path.is_dir():
        return path
    found = [name for name in FORMATS if (path / name / MANIFEST).is_file()]
    if found and DEFAULT_FORMAT not in found:
        raise UserError(f"{path} has no {DEFAULT_FORMAT}, only {', '.join(found)}: name one, as {path / found[0]}")
    return path / DEFAULT_FORMAT if found else path
