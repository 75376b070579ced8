"""A contact sheet of simulated films: normals, children, scanners, devices, each finding mild and gross beside its box.

    python benchmarks/gallery.py [--out docs/images/gallery.jpg]

The same code draws the same sheet. Each finding is drawn twice on one patient, with nothing else changed.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.anatomy import Anatomy, draw_anatomy
from pipeline.datasets.simulated.boxes import find_boxes
from pipeline.datasets.simulated.child import as_child
from pipeline.datasets.simulated.devices import KINDS, Device
from pipeline.datasets.simulated.film import draw_acquisition, expose
from pipeline.datasets.simulated.pneumonia import form
from pipeline.datasets.simulated.scanners import SCANNERS
from pipeline.datasets.simulated.signs import Sign
from pipeline.files import atomic_path
from pipeline.findings import NIH14, readable

Colour = npt.NDArray[np.uint8]

SEED = 7
DRAWN = 512
CELL = 224
COLUMNS = 8
STRIP = 22
GAP = 3
MOST_BYTES = 600_000
SEVERITIES = (("mild", 0.3), ("gross", 0.9))
FIELD_MM = 430.0
BOX = (0, 215, 255)
"""Amber, in OpenCV's order of colours."""


@dataclass(frozen=True)
class Cell:
    """A film and what is written below it."""

    picture: Colour
    caption: str


def people(sex: str) -> Iterator[tuple[int, Anatomy]]:
    """Return patients of one sex, without end."""
    number = 0
    while True:
        number += 1
        anatomy = draw_anatomy(np.random.default_rng([SEED, number, 0]))
        if anatomy.sex == sex:
            yield number, anatomy


def first(sex: str, fits: Callable[[Anatomy], bool]) -> tuple[int, Anatomy]:
    """Return the first patient of one sex who fits."""
    return next((number, anatomy) for number, anatomy in people(sex) if fits(anatomy))


def film(
    person: tuple[int, Anatomy],
    view: Literal["PA", "AP"] = "PA",
    scanner: str = "flat_panel",
    signs: tuple[Sign, ...] = (),
    devices: tuple[Device, ...] = (),
    boxes: bool = False,
) -> Colour:
    """Draw one film of a person as a colour picture of one cell, perhaps with the boxes of its findings."""
    number, anatomy = person
    acquisition = draw_acquisition(view, FIELD_MM, np.random.default_rng([SEED, number, 1]), scanner=scanner)
    tree, own = (np.random.default_rng([SEED, number, k]) for k in (2, 3))
    pixels = expose(DRAWN, anatomy, signs, acquisition, tree, own, devices)
    small = cv2.resize(pixels, (CELL, CELL), interpolation=cv2.INTER_AREA)
    picture = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
    for box in find_boxes(DRAWN, anatomy, signs, acquisition) if boxes else []:
        corners = np.array([[box.x, box.y], [box.x + box.width, box.y + box.height]]) * CELL // DRAWN
        cv2.rectangle(picture, corners[0].tolist(), corners[1].tolist(), BOX, 1)
    return np.asarray(picture, np.uint8)


def sign_of(name: str, severity: float) -> Sign:
    """Return a finding on the right, but for those that lie on both sides."""
    both = name in {"Infiltration", "Nodule", "Pleural_Thickening"}
    return Sign(name=name, severity=severity, side=0, both=both, seed=SEED)


def normals() -> list[Cell]:
    """Return chests without findings, on flat panels."""
    kinds = (
        ("man", "M", lambda a: abs(a.habitus) < 0.5 and a.age < 60),
        ("woman", "F", lambda a: abs(a.habitus) < 0.5 and a.age < 60),
        ("heavy man", "M", lambda a: a.habitus > 1.3),
        ("thin woman", "F", lambda a: a.habitus < -1.3),
    )
    cells = []
    for view in ("PA", "AP"):
        for name, sex, fits in kinds:
            person = first(sex, fits)
            cells.append(Cell(film(person, view), f"{view}, {name}, {person[1].age}"))
    return cells


def children() -> list[Cell]:
    """Return children without findings, some with their arms held up."""
    cells = []
    for view in ("PA", "AP"):
        for age in (1, 4, 8, 13):
            person = child(age)
            cells.append(Cell(film(person, view), f"{view}, {'girl' if person[1].sex == 'F' else 'boy'}, {age}"))
    return cells


def child(age: int) -> tuple[int, Anatomy]:
    """Return the first child of an age."""
    for number in range(1, 10_000):
        rng = np.random.default_rng([SEED, number, 0])
        anatomy = as_child(draw_anatomy(rng), rng)
        if anatomy.age == age:
            return number, anatomy
    raise AssertionError(age)


def scanners() -> list[Cell]:
    """Return a man and a woman on each kind of scanner."""
    man, woman = (first(sex, lambda a: abs(a.habitus) < 0.5) for sex in ("M", "F"))
    cells = []
    for name in SCANNERS:
        cells.append(Cell(film(man, "AP" if name == "portable" else "PA", name), f"{name}, man"))
        cells.append(Cell(film(woman, "AP" if name == "portable" else "PA", name), f"{name}, woman"))
    return cells


def with_devices() -> list[Cell]:
    """Return each device alone, then all of them."""
    person = first("M", lambda a: abs(a.habitus) < 0.5)
    kinds: list[tuple[str, tuple[Device, ...]]] = [
        (kind, (Device(kind=kind, side=int(kind == "pacemaker"), seed=SEED),)) for kind in KINDS
    ]
    kinds.append(("all", tuple(device for _, devices in kinds for device in devices)))
    return [Cell(film(person, "AP", devices=devices), name.replace("_", " ")) for name, devices in kinds]


def pair(person: tuple[int, Anatomy], sign: Sign, caption: str) -> Iterator[Cell]:
    """Return a film with a finding, without and with its box."""
    yield Cell(film(person, signs=(sign,)), caption)
    yield Cell(film(person, signs=(sign,), boxes=True), f"{caption}, box")


def findings() -> Iterator[Cell]:
    """Return for each finding the film without and with its box, mild and gross."""
    for name in NIH14:
        person = first("M", lambda a: abs(a.habitus) < 0.5 and a.age < 60)
        for word, severity in SEVERITIES:
            yield from pair(person, sign_of(name, severity), f"{readable(name)}, {word}")


def pneumonias() -> Iterator[Cell]:
    """Return the forms of pneumonia that lie on both sides, as `findings` does."""
    person = first("M", lambda a: abs(a.habitus) < 0.5 and a.age < 60)
    for kind in ("foci", "interstitial"):
        seed = next(n for n in range(99) if form(replace(sign_of("Pneumonia", 0), both=True, seed=n)) == kind)
        for word, severity in SEVERITIES:
            sign = replace(sign_of("Pneumonia", severity), both=True, seed=seed)
            yield from pair(person, sign, f"Pneumonia, {kind}, {word}")


def sheet(cells: Iterable[Cell]) -> Colour:
    """Put cells in rows, each with its caption below; what is missing in a last row is white."""
    tiles = [captioned(cell) for cell in cells]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


def captioned(cell: Cell) -> Colour:
    """Return a picture with its caption below and a white margin."""
    tile = np.full((CELL + STRIP + GAP, CELL + GAP, 3), 255, np.uint8)
    tile[:CELL, :CELL] = cell.picture
    cv2.putText(tile, cell.caption, (2, CELL + STRIP - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return tile


def write(picture: Colour, out: Path) -> int:
    """Write a JPEG of at most `MOST_BYTES`; return its quality."""
    for quality in range(90, 20, -4):
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])[1]
        if data.nbytes <= MOST_BYTES:
            break
    with atomic_path(out) as temporary:
        temporary.write_bytes(data.tobytes())
    return quality


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/gallery.jpg"))
    out = parser.parse_args().out
    rows = [normals(), children(), scanners(), with_devices(), findings(), pneumonias()]
    picture = np.vstack([sheet(cells) for cells in rows])
    quality = write(picture, out)
    print(f"{out}: {picture.shape[1]} x {picture.shape[0]} pixels, quality {quality}, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
