"""The input gate: is this a frontal chest radiograph as the model knows it? docs/gate.md says what it looks at.

What is flagged says why. The state is fitted by `pipeline.gate_fit` and lies in `gate.json` (`pipeline.gate_file`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.gate_distance import FeatureDistance
from pipeline.gate_pattern import CLASSES, PatternNet, patterns, strangeness

REASONS = {
    "size": "smaller than any film of training",
    "aspect": "its sides have another proportion than the films of training",
    "colour": "a colour picture, such as a photograph or a screen",
    "modality": "the DICOM header names another modality than radiography",
    "body-part": "the DICOM header names another body part than the chest",
    "lateral": "the DICOM header names a lateral or another not frontal view",
    "rotated": "looks turned or upside down",
    "inverted": "looks inverted: white air, black bones",
    "cropped": "looks cut out of a film: parts of the chest are missing",
    "no-film": "does not look like a chest film",
    "far": "lies far from the training films in the model's feature space",
}
"""Why an input is flagged: the code, and the sentence that a reader sees."""


@dataclass(frozen=True)
class FilmFacts:
    """What is known of a film besides its prepared pixels.

    Attributes
    ----------
    width, height : int
        Pixels of the film as decoded.
    colour : bool
        Whether its channels differ.
    header : tuple of str
        Reasons that its header gives, see `pipeline.gate_header`.
    """

    width: int
    height: int
    colour: bool = False
    header: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What the gate thinks of one input.

    Attributes
    ----------
    accepted : bool
        Whether no reason was found.
    reasons : tuple of str
        Keys of `REASONS`, the same order always.
    scores : mapping
        Each detector's score, larger for what is less like a film of training, divided by its threshold: above 1 is
        flagged. Empty where no detector had anything to look at.
    """

    accepted: bool
    reasons: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The reasons in words."""
        return tuple(REASONS[reason] for reason in self.reasons)


@dataclass(frozen=True, eq=False)
class Gate:
    """A fitted gate.

    Attributes
    ----------
    model_sha256 : str
        Of the `model.keras` whose features it knows.
    size : int
        Pixels a side of the prepared images.
    net : PatternNet
        Tells films from what is none.
    net_threshold : float
        Log odds (`gate_pattern.strangeness`) above which an image is flagged.
    distance : FeatureDistance or None
        The distance in feature space; None: fitted without features.
    distance_threshold : float
        Above which an image is flagged.
    aspect : tuple of float
        Least and largest width / height of a film.
    min_side : int
        Least pixels of a film's shorter side.
    record : mapping
        How it was fitted: counts, parameters, pass rates on validation with their intervals.
    """

    model_sha256: str
    size: int
    net: PatternNet
    net_threshold: float
    distance: FeatureDistance | None
    distance_threshold: float
    aspect: tuple[float, float]
    min_side: int
    record: Mapping[str, Any] = field(default_factory=dict)

    def judge(
        self, images: NDArray[np.uint8], features: NDArray[np.float32] | None, films: Sequence[FilmFacts]
    ) -> list[Verdict]:
        """Judge a batch.

        Parameters
        ----------
        images : ndarray of shape (n, size, size, 1), dtype=uint8
            The prepared images.
        features : ndarray of shape (n, d), dtype=float32, or None
            Of the same images; None, or a gate without a distance: only the pattern and the film are judged.
        films : sequence of FilmFacts
            What is known of each film besides.

        Returns
        -------
        list of Verdict
        """
        logits = self.net.logits(patterns(images[..., 0]))
        odds = strangeness(logits)
        pattern = relative(odds, self.net_threshold)
        kinds = logits[:, 1:].argmax(axis=1) + 1
        far = None
        if self.distance is not None and features is not None:
            far = self.distance(features) / self.distance_threshold
        verdicts = []
        for k, film in enumerate(films):
            seen = [CLASSES[kinds[k]]] if not pattern[k] <= 1 else []  # so that NaN is flagged
            scores = {"pattern": float(pattern[k])} | ({} if far is None else {"distance": float(far[k])})
            lies = ["far"] if far is not None and not far[k] <= 1 else []
            found = {*self._of_film(film), *film.header, *seen, *lies}
            verdicts.append(Verdict(not found, tuple(code for code in REASONS if code in found), scores))
        return verdicts

    def _of_film(self, film: FilmFacts) -> list[str]:
        reasons = []
        if min(film.width, film.height) < self.min_side:
            reasons.append("size")
        if not self.aspect[0] <= film.width / film.height <= self.aspect[1]:
            reasons.append("aspect")
        if film.colour:
            reasons.append("colour")
        return reasons


def relative(odds: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Return log odds on a scale from 0 that is 1 at the threshold: the logarithm of 1 + the odds, over its own there.

    Above the threshold it is above 1, whatever the threshold's sign.
    """
    return np.asarray(np.logaddexp(0, odds) / np.logaddexp(0, threshold))
