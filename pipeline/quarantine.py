"""What is kept out of the manifest, or stays in and looks wrong: reason codes and the table of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.files import atomic_open


class Reason(StrEnum):
    """Why a file or a row is in the quarantine table; the word that its `code` column holds."""

    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    GAVE_UP = "decoder-gave-up"
    EMPTY = "empty"
    UNSUPPORTED = "unsupported"
    BLANK = "blank"
    TOO_DARK = "too-dark"
    TOO_BRIGHT = "too-bright"
    LOW_CONTRAST = "low-contrast"
    TINY = "tiny"
    TOO_LARGE = "too-large"
    COLOUR = "colour"
    LATERAL = "lateral"
    ROTATED = "rotated"
    INVERTED = "inverted"
    BURNT_IN = "burnt-in-annotation"
    LABEL_WITHOUT_IMAGE = "label-without-image"
    IMAGE_WITHOUT_LABEL = "image-without-label"
    CONFLICTING_LABELS = "conflicting-labels"
    CONFLICTING_NAME = "conflicting-name"
    NO_PATIENT = "no-patient"
    BAD_ROW = "bad-row"


MEANINGS = {
    Reason.UNREADABLE: "no image of a known format, or one that cannot be decoded",
    Reason.TRUNCATED: "the file ends early",
    Reason.GAVE_UP: "its decoder ran out of time or was killed, which says nothing of the file; ingest it again",
    Reason.EMPTY: "a file of no byte, or an image of no pixel",
    Reason.UNSUPPORTED: "a known format in a variant that is not read, such as a multi-frame DICOM",
    Reason.BLANK: "all pixels are equal",
    Reason.TOO_DARK: "dark all over",
    Reason.TOO_BRIGHT: "bright all over",
    Reason.LOW_CONTRAST: "hardly any contrast",
    Reason.TINY: "too few pixels",
    Reason.TOO_LARGE: "more pixels or bytes than allowed",
    Reason.COLOUR: "a colour picture, read as gray",
    Reason.LATERAL: "a lateral view",
    Reason.ROTATED: "seems to be turned by a quarter or a half",
    Reason.INVERTED: "seems to be inverted: white air, black bones",
    Reason.BURNT_IN: "the header says that text is burnt into the picture",
    Reason.LABEL_WITHOUT_IMAGE: "labelled, but there is no such file",
    Reason.IMAGE_WITHOUT_LABEL: "a file that no label names",
    Reason.CONFLICTING_LABELS: "the very same pixels have other labels elsewhere in the set",
    Reason.CONFLICTING_NAME: "one name for several pictures, or a name and a table that disagree on the patient",
    Reason.NO_PATIENT: "nothing says whose image it is",
    Reason.BAD_ROW: "a row of a label table that makes no sense",
}
"""Each code in words."""

SUSPICIONS = (
    Reason.TOO_DARK,
    Reason.TOO_BRIGHT,
    Reason.LOW_CONTRAST,
    Reason.COLOUR,
    Reason.LATERAL,
    Reason.ROTATED,
    Reason.INVERTED,
    Reason.BURNT_IN,
    Reason.CONFLICTING_LABELS,
)
"""Codes of images that can be used and are kept unless the parameter `ingest.refuse` names them."""


@dataclass(frozen=True)
class Refused:
    """A file or row that is kept out of the manifest, and why."""

    path: str
    code: Reason
    reason: str


@dataclass(frozen=True)
class Suspicious:
    """A file or row that stays in the manifest and that somebody should look at, and why."""

    path: str
    code: Reason
    reason: str


def write_quarantine(path: Path, entries: Sequence[Refused | Suspicious]) -> None:
    """Write `path, code, action, reason`, sorted; `action` is `refused` or `kept`."""
    rows = [
        (entry.path, entry.code.value, "refused" if isinstance(entry, Refused) else "kept", entry.reason)
        for entry in entries
    ]
    import pandas as pd  # not above: the workers that decode need the codes only, and pandas takes half a second

    table = pd.DataFrame(sorted(rows), columns=["path", "code", "action", "reason"])
    with atomic_open(path) as handle:
        table.to_csv(handle, index=False, lineterminator="\n")


def count_by_code(entries: Sequence[Refused | Suspicious]) -> dict[str, dict[str, Any]]:
    """Count entries by code.

    Returns
    -------
    dict
        Code to `count` and `example`: the first reason, with the file's own name replaced, because the counts are
        committed and shown where no image may be named. The most frequent code comes first.
    """
    counts: dict[str, dict[str, Any]] = {}
    for entry in sorted(entries, key=lambda item: (item.code, item.path, item.reason)):
        found = counts.setdefault(entry.code.value, {"count": 0, "example": _anonymous(entry)})
        found["count"] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1]["count"], item[0])))


def _anonymous(entry: Refused | Suspicious) -> str:
    name = PurePosixPath(entry.path)
    reason = entry.reason
    for word in (entry.path, name.name, name.stem):
        reason = reason.replace(word, "…") if len(word) > 2 else reason
    return re.sub(r"\S*/\S*", "…", reason)  # a folder may be called after a patient
