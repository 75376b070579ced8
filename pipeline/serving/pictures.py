"""Pictures for the reading page: the film as decoded, and where the model looks. Nothing of a file's header."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pipeline import images
from pipeline.exported import Manifest
from pipeline.files import sha256_file
from pipeline.heat_maps import is_flat

if TYPE_CHECKING:
    from pipeline.explain import Explainer

_SIDE = 2048  # pixels: what a screen shows, and a telephone can hold
_QUICK = 1  # of zlib's levels; a film hardly becomes smaller at higher ones


def film_png(data: bytes, max_pixels: int) -> tuple[bytes, tuple[int, int]]:
    """Decode a film for display.

    Parameters
    ----------
    data : bytes
        A PNG, JPEG, TIFF or DICOM file.
    max_pixels : int
        Bound on width x height.

    Returns
    -------
    png : bytes
        The 8-bit pixels that the model's input is made from, at most 2048 a side.
    size : (width, height)
        Of the film as decoded.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    pixels = images.decode_image(data, max_pixels)
    height, width = pixels.shape
    if max(height, width) > _SIDE:
        scale = _SIDE / max(height, width)
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = np.asarray(cv2.resize(pixels, small, interpolation=cv2.INTER_AREA), np.uint8)
    done, png = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, _QUICK])
    assert done
    return png.tobytes(), (width, height)


@dataclass
class MapMaker:
    """Heat maps of the Keras model behind an exported one, loaded when the first map is asked for.

    Attributes
    ----------
    path : Path
        `model.keras`.
    manifest : Manifest
        Of the exported model; findings and preprocessing are taken from it.
    """

    path: Path
    manifest: Manifest
    _explainer: "Explainer | None" = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, data: bytes, max_pixels: int) -> dict[str, Any]:
        """Return the maps of a film, ready for JSON.

        Parameters
        ----------
        data : bytes
            The film's file.
        max_pixels : int
            Bound on width x height.

        Returns
        -------
        dict
            `layer`; `fit` and `width`, `height` of the film, which say what part of the film the map's square covers;
            `maps`, finding to rows of values from 0 to 1, None where the map is flat: no place raises this output.

        Raises
        ------
        ImageError
            If the film cannot be read.
        """
        film = images.decode_image(data, max_pixels)
        pixels = images.prepare(film, self.manifest.preprocess)
        explainer = self._loaded()
        maps = np.moveaxis(explainer(pixels[None, :, :, None])[0], -1, 0)
        return {
            "layer": explainer.layer,
            "fit": self.manifest.preprocess.fit,
            "width": film.shape[1],
            "height": film.shape[0],
            "maps": {name: _rows(heat) for name, heat in zip(self.manifest.findings, maps, strict=True)},
        }

    def _loaded(self) -> "Explainer":
        with self._lock:
            if self._explainer is None:
                from pipeline.quiet import load_tensorflow

                load_tensorflow()
                from pipeline.explain import build_explainer
                from pipeline.model import load_model

                self._explainer = build_explainer(load_model(self.path))
            return self._explainer


def find_maps(model: Path, manifest: Manifest) -> tuple[MapMaker | None, str]:
    """Return what draws the heat maps of a model, or None and why there are none."""
    if not model.is_file():
        return None, "the server has no Keras model to explain (cxr serve --explain MODEL)"
    if sha256_file(model) != manifest.model_sha256:
        return None, "the Keras model on the server is not the one that the served model was made from"
    return MapMaker(model, manifest), ""


def _rows(heat: Any) -> Sequence[Sequence[float]] | None:
    if is_flat(heat):
        return None
    scaled = heat.astype(np.float64) / float(heat.max())
    return [[round(value, 4) for value in row] for row in scaled.tolist()]
