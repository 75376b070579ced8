"""Pictures for `cxr predict --overlay DIR`: each film, and beside it the film with the heat map of a finding."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipeline.case_pictures import draw_case
from pipeline.errors import UserError
from pipeline.files import atomic_open, sha256_file
from pipeline.predicting import Answer

if TYPE_CHECKING:
    from pipeline.explain import Explainer
    from pipeline.exported import Exported

_MOST = 3  # pictures of a film
_STEM = 40  # characters


@dataclass
class Overlays:
    """Draws pictures and counts them.

    Attributes
    ----------
    folder : Path
        Where they go.
    explainer : Explainer
        Of the Keras model.
    findings : sequence of str
        Names of the model's outputs.
    films, pictures : int
        Films seen and pictures written so far.
    """

    folder: Path
    explainer: "Explainer"
    findings: Sequence[str]
    films: int = 0
    pictures: int = 0

    def __call__(self, answers: Sequence[Answer]) -> None:
        """Draw the findings that are called, at most three, the most probable first; if none is, the most probable.

        A picture is named by the film's number in the call, what is harmless of the film's name, and the finding.
        """
        for answer in answers:
            self.films += 1
            if answer.pixels is None or answer.calibrated is None or answer.decisions is None:
                continue
            chosen = chosen_findings(answer)
            maps = self.explainer(answer.pixels[None, :, :, None], chosen)[0]
            for k, finding in enumerate(chosen):
                name = f"{self.films:06d}-{harmless(answer.name)}-{harmless(self.findings[finding])}.png"
                done, data = cv2.imencode(".png", draw_case(answer.pixels, maps[:, :, k], []))
                assert done
                with atomic_open(self.folder / name, "wb") as handle:
                    handle.write(data.tobytes())
                self.pictures += 1

    def close(self) -> None:
        """Do nothing: all is written."""


def open_overlays(folder: Path, exported: "Exported", explain: Path | None) -> Overlays:
    """Load the Keras model behind an exported one.

    Parameters
    ----------
    folder : Path
        Where the pictures go.
    exported : Exported
        The model that answers.
    explain : Path or None
        The `model.keras`; None: beside the exported folder, as `models/model.keras` is beside `models/exported`.

    Raises
    ------
    UserError
        If there is none, or it is not the one that the exported model was made from.
    """
    wanted = exported.manifest.model_sha256
    places = (
        [explain] if explain else [each / "model.keras" for each in (exported.folder, *exported.folder.parents[:2])]
    )
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(
            f"--overlay needs the Keras model, and {' and '.join(map(str, places))} "
            f"{'is' if len(places) == 1 else 'are'} missing: give it with --explain MODEL"
        )
    if sha256_file(path) != wanted:
        raise UserError(
            f"--overlay needs the Keras model that {exported.folder} was made from (SHA-256 {wanted[:12]}…), "
            f"and {path} is another: give the right one with --explain MODEL"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--overlay is {folder}, which is a file; a folder is needed")
    from pipeline.quiet import load_tensorflow

    load_tensorflow()
    from pipeline.explain import build_explainer
    from pipeline.model import load_model

    return Overlays(folder, build_explainer(load_model(path)), exported.manifest.findings)


def chosen_findings(answer: Answer) -> list[int]:
    """Return the positions of the findings to draw."""
    assert answer.calibrated is not None
    assert answer.decisions is not None
    order = np.argsort(-np.nan_to_num(answer.calibrated, nan=-1.0), kind="stable").tolist()
    called = [k for k in order if answer.decisions[k] == 1]
    return called[:_MOST] or order[:1]


def harmless(name: str) -> str:
    """Return of a file's name what every file system takes: letters, digits, dash and underscore, at most 40."""
    stem = PurePosixPath(name.replace("\\", "/")).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[:_STEM].strip("_") or "film"
