"""From the bytes of files to answers: decode, prepare, ask the gate, ask the model. `predict` and `serve` call this.

    predictor = open_predictor(Path("models/exported"))
    answers = predictor([Source("film.png", data), ...])        # in the order of the sources, one each, never fewer

Nothing here writes to disk, and nothing of an answer comes from a file's header but the gate's reasons.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import images
from pipeline.decoders.film import MAX_PIXELS, Image
from pipeline.errors import UserError
from pipeline.feature_sketch import sketch_features
from pipeline.gate import FilmFacts, Verdict
from pipeline.gate_header import header_reasons
from pipeline.image_statistics import film_statistics, statistics_of
from pipeline.quarantine import Reason

if TYPE_CHECKING:
    from pipeline.exported import Exported, Manifest
    from pipeline.gate import Gate

STEPS = ("decode", "prepare", "gate", "model")
"""The steps that `Answer.timings` times."""


class Source(NamedTuple):
    """One file: a name for the answer, and its bytes; or, instead of bytes, why there are none."""

    name: str
    data: bytes
    error: str = ""


@dataclass(frozen=True, eq=False)
class Answer:
    """What became of one file.

    Attributes
    ----------
    name : str
        The source's.
    raw : ndarray of shape (n_findings,), dtype=float32, or None
        The model's outputs, 0 to 1; what the operating points apply to. None: there is no answer, see `status`.
    calibrated : ndarray of shape (n_findings,), dtype=float64, or None
        Calibrated probabilities, 0 to 1; NaN where the finding could not be calibrated.
    decisions : ndarray of shape (n_findings,), dtype=int8, or None
        1 present, 0 absent at the operating point, -1 where the finding has none.
    verdict : Verdict or None
        The gate's; None where there is no gate, or the file could not be decoded.
    notes : tuple of (str, str)
        What is suspicious though usable about the file: a code of `pipeline.quarantine` and a sentence.
    timings : mapping
        Milliseconds of each of `STEPS`; the model's and the gate's are those of the batch, divided by its images.
    statistics : mapping
        `pipeline.image_statistics`: of the prepared image and, names beginning with `film_`, of the film as decoded;
        empty where `described` was false.
    sketch : ndarray of shape (16,), dtype=float32, or None
        See `pipeline.feature_sketch.sketch_features`; None where the exported model gives no features, or `described`
        was false.
    pixels : ndarray of shape (size, size), dtype=uint8, or None
        The prepared image, for pictures; never logged.
    error : str
        Why there is no answer: one sentence without the name of the file and without anything from its header.
    """

    name: str
    raw: NDArray[np.float32] | None = None
    calibrated: NDArray[np.float64] | None = None
    decisions: NDArray[np.int8] | None = None
    verdict: Verdict | None = None
    notes: tuple[tuple[str, str], ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    statistics: Mapping[str, float] = field(default_factory=dict)
    sketch: NDArray[np.float32] | None = None
    pixels: Image | None = None
    error: str = ""

    @property
    def flagged(self) -> bool:
        """Whether the gate found a reason against the input."""
        return self.verdict is not None and not self.verdict.accepted

    @property
    def status(self) -> str:
        """'ok'; 'flagged' (with an answer only if it was asked for); 'failed' (see `error`)."""
        if self.error:
            return "failed"
        return "flagged" if self.flagged else "ok"


def answer(
    sources: Sequence[Source],
    exported: "Exported",
    gate: "Gate | None",
    *,
    point: str = "youden",
    flagged: bool = False,
    described: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> list[Answer]:
    """Answer for a batch of files.

    Parameters
    ----------
    sources : sequence of Source
        The files; a batch of them is in memory at once, so give some 8 to 64.
    exported : Exported
        The model. Its engine serves one thread at a time; give each thread one of its own.
    gate : Gate or None
        The input gate; None: nothing is flagged.
    point : {'youden', 'sensitivity', 'specificity', 'f1'}
        The operating point of the decisions.
    flagged : bool
        Whether flagged inputs get an answer too (marked all the same).
    described : bool
        Whether answers carry statistics and sketch, which only a prediction log needs: a tenth of the time of small
        films.
    max_pixels : int
        Bound on width x height of a film, checked before it is decoded.

    Returns
    -------
    list of Answer
        As many as sources, in their order. A file that cannot be used gives one with `error`, and never an exception.
    """
    opened = [_opened(source, exported.manifest, gate, max_pixels, described=described) for source in sources]
    usable = [each for each in opened if isinstance(each, _Opened)]
    done = iter(_asked(usable, exported, gate, point, flagged=flagged, described=described) if usable else ())
    return [next(done) if isinstance(each, _Opened) else each for each in opened]


@dataclass(frozen=True)
class Predictor:
    """A model, its gate and how they are asked: what `answer` needs besides the files.

    Attributes
    ----------
    exported : Exported
        The model.
    gate : Gate or None
        The input gate.
    point, flagged, described, max_pixels
        See `answer`.
    """

    exported: "Exported"
    gate: "Gate | None"
    point: str = "youden"
    flagged: bool = False
    described: bool = True
    max_pixels: int = MAX_PIXELS

    def __call__(self, sources: Sequence[Source], *, flagged: bool | None = None) -> list[Answer]:
        """Answer for a batch; `flagged` overrides the predictor's own."""
        return answer(
            sources,
            self.exported,
            self.gate,
            point=self.point,
            flagged=self.flagged if flagged is None else flagged,
            described=self.described,
            max_pixels=self.max_pixels,
        )


def open_predictor(path: Path, *, threads: int | None = None, point: str = "youden") -> Predictor:
    """Open an exported model (see `pipeline.exported.open_exported`) and the gate that lies beside it.

    Raises
    ------
    UserError
        If the model or its gate is damaged, or the gate is another model's. No gate is no error: `gate` is None.
    """
    from pipeline.exported import open_exported
    from pipeline.gate_file import find_gate

    exported = open_exported(path, threads=threads)
    return Predictor(exported, find_gate(exported.folder, exported.manifest.model_sha256), point)


@dataclass(frozen=True)
class _Opened:
    """A file that could be decoded, on its way to the model."""

    name: str
    facts: FilmFacts
    pixels: Image
    notes: tuple[tuple[str, str], ...]
    statistics: dict[str, float]
    timings: dict[str, float]


def _opened(
    source: Source, manifest: "Manifest", gate: "Gate | None", max_pixels: int, *, described: bool
) -> _Opened | Answer:
    """Decode and prepare one file; an `Answer` says why it could not be."""
    if source.error:
        return Answer(source.name, error=source.error)
    start = time.perf_counter()
    try:
        film = images.decode_film(source.data, max_pixels)
        header = header_reasons(source.data) if gate is not None else ()
    except UserError as error:  # of one file, also the memory that it took: the others may do
        return Answer(source.name, error=str(error))
    decoded = time.perf_counter()
    pixels = images.prepare(film.pixels, manifest.preprocess)
    prepared = time.perf_counter()
    statistics = statistics_of(pixels) | film_statistics(film.pixels) if described else {}
    timings = {"decode": 1000 * (decoded - start), "prepare": 1000 * (prepared - decoded)}
    notes = tuple((str(code), sentence) for code, sentence in film.notes)
    colour = any(code == Reason.COLOUR for code, _ in film.notes)
    facts = FilmFacts(film.pixels.shape[1], film.pixels.shape[0], colour, header)
    return _Opened(source.name, facts, pixels, notes, statistics, timings)


def _asked(
    opened: Sequence[_Opened],
    exported: "Exported",
    gate: "Gate | None",
    point: str,
    *,
    flagged: bool,
    described: bool,
) -> list[Answer]:
    """Ask the model and the gate about a batch."""
    batch = np.stack([each.pixels for each in opened])[..., None]
    start = time.perf_counter()
    raw, features = exported.outputs(batch)
    modelled = time.perf_counter()
    verdicts = _verdicts(opened, batch, features, gate)
    judged = time.perf_counter()
    calibrated, decisions = exported.calibrated(raw), exported.decisions(raw, point)
    sketches = sketch_features(features) if described and features is not None else None
    each_ms = {
        "gate": 1000 * (judged - modelled) / len(opened),
        "model": 1000 * (modelled - start) / len(opened),
    }
    answers = []
    for k, item in enumerate(opened):
        verdict = verdicts[k]
        given = flagged or verdict is None or verdict.accepted
        answers.append(
            Answer(
                item.name,
                raw=raw[k] if given else None,
                calibrated=calibrated[k] if given else None,
                decisions=decisions[k] if given else None,
                verdict=verdict,
                notes=item.notes,
                timings=item.timings | each_ms,
                statistics=item.statistics,
                sketch=None if sketches is None else sketches[k],
                pixels=item.pixels,
            )
        )
    return answers


def _verdicts(
    opened: Sequence[_Opened], batch: NDArray[np.uint8], features: NDArray[np.float32] | None, gate: "Gate | None"
) -> Sequence[Verdict | None]:
    if gate is None:
        return [None] * len(opened)
    return gate.judge(batch, features, [each.facts for each in opened])
