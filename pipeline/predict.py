"""`cxr predict`: a model's answers for files, folders, patterns and archives. docs/predict.md explains it."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.decoders.film import MAX_PIXELS
from pipeline.files import atomic_open
from pipeline.gate import REASONS
from pipeline.params import Params
from pipeline.predict_files import find_films
from pipeline.predict_output import TABLE_FILMS, CsvRows, JsonLines, Lines, Table, Writer, shown
from pipeline.predict_overlay import open_overlays
from pipeline.predict_stream import open_predictors, stream
from pipeline.predicting import Answer, Predictor
from pipeline.progress import note, track, warn

if TYPE_CHECKING:
    from pipeline.prediction_log import PredictionLog

_LISTED = 20  # failed files named at the end


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes
    ----------
    out : Path or None
        A CSV file to write.
    overlay : Path or None
        A folder for pictures with heat maps.
    explain : Path or None
        The Keras model for them.
    json : bool
        JSON lines on standard output instead of text.
    flagged : bool
        Whether flagged films get an answer too.
    point : str
        Operating point of the decisions.
    threads : int or None
        Threads; None: one for each core.
    log : str
        Address of the prediction log; empty: none.
    """

    out: Path | None = None
    overlay: Path | None = None
    explain: Path | None = None
    json: bool = False
    flagged: bool = False
    point: str = "youden"
    threads: int | None = None
    log: str = ""


@dataclass
class Tally:
    """What became of the films."""

    films: int = 0
    answered: int = 0
    flagged: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    first: list[tuple[str, str]] = field(default_factory=list)

    def add(self, answers: Sequence[Answer]) -> None:
        """Count a batch."""
        for answer in answers:
            self.films += 1
            self.answered += answer.raw is not None
            self.flagged += answer.flagged
            if answer.verdict is not None:
                self.reasons.update(answer.verdict.reasons)
            if answer.error:
                self.failed += 1
                self.faults[answer.error] += 1
                if len(self.first) < _LISTED:
                    self.first.append((shown(answer.name), answer.error))


def predict(model: Path, arguments: Sequence[str], options: Options, params: Params) -> Tally:
    """Answer for films, write what was asked for, and say at the end what became of them.

    Parameters
    ----------
    model : Path
        An exported folder, the folder of all formats (then int8), or a `model.keras`.
    arguments : sequence of str
        Files, folders, patterns and .zip archives.
    options : Options
        What the command line says.
    params : Params
        Sections `ingest` (bound on a film's pixels) and `log`.

    Returns
    -------
    Tally
        `failed` counts the files without an answer that no gate flagged.

    Raises
    ------
    UserError
        If the model cannot be opened, there is nothing to answer for, or a result cannot be written.
    """
    with ExitStack() as stack:
        films = stack.enter_context(find_films(arguments))
        if films.skipped:
            note(f"{films.skipped:,} files with another suffix than those of films were left out")
        bound = min(params.ingest.max_pixels, MAX_PIXELS)
        predictors = [
            replace(each, flagged=options.flagged, described=bool(options.log), max_pixels=bound)
            for each in open_predictors(model, options.threads, options.point)
        ]
        if predictors[0].gate is None:
            warn("the model has no input gate: whatever can be decoded is answered for (docs/gate.md)")
        writers = list(_writers(stack, predictors[0], options, len(films.items), params))
        batches = stack.enter_context(closing(stream(predictors, films.items)))
        tally = _written(track(chain.from_iterable(batches), len(films.items), "predicting"), writers)
    report(tally, options)
    return tally


def report(tally: Tally, options: Options) -> None:
    """Say what became of the films; under `-q` only what failed."""
    given = "answered all the same" if options.flagged else "no answer; --flagged gives one"
    note(f"{tally.films:,} films: {tally.answered:,} answered, {tally.flagged:,} flagged, {tally.failed:,} failed")
    if tally.flagged:
        note(f"flagged by the input gate ({given}):")
    for reason, count in tally.reasons.most_common():
        note(f"  {count:,} {reason}: {REASONS[reason]}")
    if not tally.failed:
        return
    warn(f"{tally.failed:,} of {tally.films:,} files could not be used:")
    for name, error in tally.first:
        print(f"  {name}: {error}", file=sys.stderr)
    if (left := tally.failed - len(tally.first)) > 0:
        print(f"  and {left:,} more; of all, by reason:", file=sys.stderr)
        for error, count in tally.faults.most_common(_LISTED):
            print(f"  {count:,} {error}", file=sys.stderr)


def _written(answers: Iterable[Answer], writers: Sequence[Writer]) -> Tally:
    tally = Tally()
    for answer in answers:
        tally.add([answer])
        for writer in writers:
            writer([answer])
    for writer in writers:
        writer.close()
    return tally


def _writers(stack: ExitStack, predictor: Predictor, options: Options, count: int, params: Params) -> Iterator[Writer]:
    """Open what the answers go to; files are whole or absent."""
    manifest = predictor.exported.manifest
    if options.json:
        yield JsonLines(sys.stdout, manifest.findings, manifest.version, options.point)
    elif options.out is None:
        yield (Table if count <= TABLE_FILMS else Lines)(sys.stdout, manifest.findings)
    if options.out is not None:
        yield CsvRows(stack.enter_context(atomic_open(options.out)), manifest.findings)
    if options.overlay is not None:
        yield open_overlays(options.overlay, predictor.exported, options.explain)
    if options.log:
        from pipeline.prediction_log import PredictionLog

        yield _Logged(stack.enter_context(PredictionLog(options.log, manifest, params.log)))


class _Logged:
    """Hands answers to the prediction log; each film is a request of its own."""

    def __init__(self, log: "PredictionLog") -> None:
        self._log = log

    def __call__(self, answers: Sequence[Answer]) -> None:
        """Hand over a batch; never waits."""
        self._log.append(answers)

    def close(self) -> None:
        """Do nothing: the log ends with its context."""
