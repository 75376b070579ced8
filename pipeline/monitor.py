"""`cxr monitor`: is the deployment still what was evaluated? Exit status 0 quiet, 3 warning, 4 alarm."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from pipeline import __version__
from pipeline.errors import UserError
from pipeline.files import write_json, write_text
from pipeline.log_store.opening import open_store, reason_of, shown
from pipeline.log_store.reading import Labelled, counts_of, models_of, read_labelled, read_rows
from pipeline.monitoring.accuracy import bands_of, label_weights
from pipeline.monitoring.accuracy_watch import AccuracyWatch
from pipeline.monitoring.document import document_of
from pipeline.monitoring.judgement import EXITS
from pipeline.monitoring.reference import Reference, read_reference
from pipeline.monitoring.telling import prometheus_text, sentence, tell, track
from pipeline.monitoring.watch import Watch
from pipeline.params import MonitorParams, Params
from pipeline.progress import note


def monitor(reference_path: Path, log: str, out: Path, params: Params, since: str = "") -> int:
    """Judge a prediction log, write the page and the figures, and tell whom it concerns.

    The same reference, log and parameters give the same result; looking twice changes nothing.

    Parameters
    ----------
    reference_path : Path
        `reports/reference.npz` of the model that answered.
    log : str
        SQLAlchemy URL, or the name of an SQLite file.
    out : Path
        Folder of `monitor.html`, `monitor.json` and `monitor.prom`.
    params : Params
        Sections `monitor` and `tracking`.
    since : str
        ISO 8601 time; earlier rows are left out, such as those before something was mended. '': all.

    Returns
    -------
    int
        0 quiet, 3 warning, 4 alarm.

    Raises
    ------
    UserError
        If reference or log is missing, or they are of different models.
    """
    reference = read_reference(reference_path)
    engine = open_store(log, create=False)
    try:
        watch, accuracy = watched(engine, reference, params.monitor, _seconds(since))
        versions = counts_of(engine)
    except SQLAlchemyError as error:
        raise UserError(f"{shown(log)} cannot be read: {reason_of(error)}") from None
    finally:
        engine.dispose()
    if not watch.tally.rows and not watch.waiting:
        known = ", ".join(f"{name} ({count:,})" for name, count in versions.items()) or "none"
        raise UserError(f"{shown(log)} has no row of model {reference.model}; rows of: {known}")
    about = {"log": shown(log), "reference": str(reference_path), "cxr": __version__, "since": since or None}
    document = document_of(watch, accuracy, params.monitor, about | {"versions": versions})
    write_outputs(out, document)
    track(document, out, params)
    tell(document, params.monitor)
    print(sentence(document))
    note(f"page: {out / 'monitor.html'}")
    return EXITS[document["state"]]


def watched(
    engine: sa.Engine, reference: Reference, params: MonitorParams, since: float = 0.0
) -> tuple[Watch, AccuracyWatch]:
    """Read a log, in flat memory, and return what was seen of all images and of the labelled ones."""
    names = [each for each in models_of(engine).values() if each.version.startswith(reference.model)]
    steps = tuple(dict.fromkeys(step for each in names for step in each.steps))
    watch = Watch(reference, params, steps)
    for rows in read_rows(engine, reference.model, reference.findings, since):
        watch.take(watch.signals.of_log(rows, steps))
    return watch, labelled_windows(engine, watch, params, since)


def labelled_windows(engine: sa.Engine, watch: Watch, params: MonitorParams, since: float) -> AccuracyWatch:
    """Judge the windows of labelled images, after counting which of the images were labelled."""
    reference = watch.reference
    accuracy = AccuracyWatch(reference, params)
    answered = watch.bands_seen()
    labelled = np.zeros_like(answered)
    for rows in read_labelled(engine, reference.model, reference.findings, since):
        found = bands_of(watch.output_ranks(rows.probabilities))
        labelled += np.stack([(found == band).sum(axis=0) for band in range(labelled.shape[1])], axis=1)
    accuracy.answered, accuracy.labelled = answered, labelled
    rest: Labelled | None = None
    for rows in read_labelled(engine, reference.model, reference.findings, since):
        rest = rows if rest is None else rest + rows
        while len(rest) >= params.labelled:
            window, rest = rest[: params.labelled], rest[params.labelled :]
            places = bands_of(watch.output_ranks(window.probabilities))
            accuracy.judge(window, label_weights(np.maximum(answered, labelled), labelled, places))
    accuracy.waiting = 0 if rest is None else len(rest)
    return accuracy


def write_outputs(out: Path, document: dict[str, Any]) -> None:
    """Write the page, the figures, and Prometheus' gauges (for the textfile collector of its node exporter)."""
    from pipeline.monitoring.page import render

    write_json(out / "monitor.json", document)
    write_text(out / "monitor.html", render(document))
    write_text(out / "monitor.prom", prometheus_text(document, time.time()))


def _seconds(since: str) -> float:
    from datetime import UTC, datetime

    if not since:
        return 0.0
    try:
        found = datetime.fromisoformat(since)
    except ValueError:
        raise UserError(f"--since is {since!r}; a time such as 2026-11-30T08:00 is needed") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
