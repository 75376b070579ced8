"""What is kept out of the manifest, or stays in and looks wrong: reason codes and the table of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pandas as pd

from pipeline.files import atomic_open


class Reason(StrEnum):
    """Why a file or a row is in the quarantine table; the word that its `code` column holds."""

    UNREADABLE = "unreadable"  # no image of a known format, or one that cannot be decoded
    TRUNCATED = "truncated"
    EMPTY = "empty"
    UNSUPPORTED = "unsupported"  # a known format in a variant that is refused, such as a multi-frame DICOM
    BLANK = "blank"  # all pixels equal
    TOO_DARK = "too-dark"
    TOO_BRIGHT = "too-bright"
    TINY = "tiny"
    TOO_LARGE = "too-large"
    COLOUR = "colour"
    LATERAL = "lateral"
    ROTATED = "rotated"
    INVERTED = "inverted"
    BURNT_IN = "burnt-in-annotation"
    LABEL_WITHOUT_IMAGE = "label-without-image"
    IMAGE_WITHOUT_LABEL = "image-without-label"
    CONFLICTING_LABELS = "conflicting-labels"  # equal pixels, different labels
    CONFLICTING_NAME = "conflicting-name"  # one name, several pictures; or name and table disagree on the patient
    NO_PATIENT = "no-patient"  # nothing says whose image it is
    BAD_ROW = "bad-row"  # a row of a label table that makes no sense


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
    table = pd.DataFrame(sorted(rows), columns=["path", "code", "action", "reason"])
    with atomic_open(path) as handle:
        table.to_csv(handle, index=False, lineterminator="\n")
