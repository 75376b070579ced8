"""Draw the report's cases, each film and beside it the film with its heat map, and write them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.box_places import BoxedPairs, boxed_pairs, inside
from pipeline.cases import KINDS, Case, choose_cases, list_cases
from pipeline.explain import build_explainer
from pipeline.files import atomic_open, write_json
from pipeline.heat_maps import Box, Map, Picture, enlarge, is_flat, outline, overlay, peaks
from pipeline.images import Image
from pipeline.shards import Processed

if TYPE_CHECKING:
    import keras

CASES = "cases.json"
_OURS = re.compile(r"^(\d{3}\.png|cases\.json|\..+\.partial\.(png|json))$")
_SIDE = 256  # pixels of one film on the page
_GAP = 8
_BATCH = 64


def write_cases(
    model: "keras.Model",
    data: Processed,
    predictions: pd.DataFrame,
    thresholds: Mapping[str, float | None],
    boxes: pd.DataFrame,
    out: Path,
    count: int,
) -> list[dict[str, Any]]:
    """Choose the cases of the test split, draw them, and write `NNN.png` and, last, `cases.json`.

    A picture shows the film as the network sees it, and beside it the same with its heat map over it, both with the
    readers' boxes where there are any. Neither names nor files tell the image or the patient. What an earlier run
    left in the folder is removed first.

    Parameters
    ----------
    model : keras.Model
        Whose maps are drawn.
    data : Processed
        The processed images.
    predictions : DataFrame
        The predictions table; only its test rows are used.
    thresholds, count
        See `pipeline.cases.list_cases` and `choose_cases`.
    boxes : DataFrame
        Of `pipeline.box_places.read_boxes`.
    out : Path
        The folder, `reports/cases`.

    Returns
    -------
    list of dict
        What `cases.json` holds below `cases`: kind, finding, probability, threshold, label, confidence, view, file,
        width, height, alt, has_box, has_map.
    """
    rows = predictions[predictions["split"] == "test"].reset_index(drop=True)
    table = list_cases(rows, data.findings, thresholds)
    at = {name: k for k, name in enumerate(data.rows("test")["image_id"])}
    position = [at[name] for name in rows["image_id"]]
    places = _places_of(boxed_pairs(data, boxes, "test"), data.findings)
    boxed = {(row, name) for row, k in enumerate(position) for name in data.findings if (k, name) in places}
    cases = choose_cases(table, rows["patient_id"].to_numpy(np.str_), count, boxed)
    films = _films(data, {position[case.row] for case in cases})
    explain = build_explainer(model)
    _clear(out)
    written = []
    for number, case in enumerate(cases, start=1):
        film, own = films[position[case.row]], places.get((position[case.row], case.finding), [])
        maps = explain(film[None, :, :, None], [data.findings.index(case.finding)])
        heat = maps[0, :, :, 0]
        picture, name = draw_case(film, heat, own), f"{number:03d}.png"
        with atomic_open(out / name, "wb") as handle:
            handle.write(_png(picture))
        written.append({"file": name} | _record(case, str(rows["view"].iloc[case.row]), picture, heat, own, data.size))
    write_json(out / CASES, {"split": "test", "available": _available(table), "cases": written})
    return written


def draw_case(film: Image, heat: Map, boxes: Sequence[Box]) -> Picture:
    """Draw a film, and beside it the film with its map, as large as the page shows them.

    Parameters
    ----------
    film : ndarray of shape (size, size), dtype=uint8
        The prepared image.
    heat : ndarray of shape (h', w'), dtype=float32
        As the explainer gives it.
    boxes : sequence of Box
        In pixels of the prepared image.

    Returns
    -------
    ndarray of shape (256, 520, 3), dtype=uint8
        Blue, green, red.
    """
    scale = _SIDE / len(film)
    large = _resized(film)
    drawn = [(x * scale, y * scale, width * scale, height * scale) for x, y, width, height in boxes]
    plain = outline(np.repeat(large[:, :, None], 3, axis=2), drawn)
    mapped = outline(overlay(large, enlarge(heat, _SIDE)), drawn)
    gap = np.full((_SIDE, _GAP, 3), 255, np.uint8)
    return np.concatenate([plain, gap, mapped], axis=1)


def describe(heat: Map, boxes: Sequence[Box], size: int) -> str:
    """Say where a map is strongest, in the words of somebody who looks at the picture, not at the patient."""
    if is_flat(heat):
        return "no place raises the output"
    column, row = peaks(heat, size)[0].astype(int)
    down = ("upper", "middle", "lower")[3 * row // size]
    across = ("left", "centre", "right")[3 * column // size]
    text = f"strongest in the {down} {across} of the picture"
    if not boxes:
        return text
    hit = inside(np.array(boxes), size)[row, column]
    return f"{text}, {'inside' if hit else 'outside'} the reader's box"


def _resized(pixels: NDArray[Any]) -> NDArray[Any]:
    """Enlarge or reduce to the page's size; cubic, because the squares of single pixels hide the shapes."""
    how = cv2.INTER_AREA if len(pixels) > _SIDE else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (_SIDE, _SIDE), interpolation=how), pixels.dtype)


def _png(picture: Picture) -> bytes:
    """Encode pixels and nothing else: OpenCV writes no text, no date and no name."""
    done, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise RuntimeError(f"OpenCV could not encode a PNG of {picture.shape}")
    return data.tobytes()


def _available(table: pd.DataFrame) -> dict[str, int]:
    """Count what could have been shown, so that four pictures are not taken for all there is."""
    counts = {kind: int((table["kind"] == kind).sum()) for kind in KINDS[:3]}
    return counts | {KINDS[3]: counts[KINDS[1]] + counts[KINDS[2]]}


def _places_of(pairs: BoxedPairs, findings: Sequence[str]) -> dict[tuple[int, str], list[Box]]:
    """Return the boxes of each image (position in its split) and finding."""
    keys = zip(pairs.image.tolist(), pairs.finding.tolist(), strict=True)
    return {
        (image, findings[f]): [(x, y, w, h) for x, y, w, h in places.tolist()]
        for (image, f), places in zip(keys, pairs.places, strict=True)
    }


def _films(data: Processed, wanted: set[int]) -> dict[int, Image]:
    """Return the prepared test images at some positions."""
    from pipeline.scoring_input import images_in_order

    films: dict[int, Image] = {}
    for number, batch in enumerate(images_in_order(data, "test", _BATCH) if wanted else ()):
        pixels = batch.numpy()[:, :, :, 0]
        films |= {k: pixels[k - number * _BATCH] for k in wanted if 0 <= k - number * _BATCH < len(pixels)}
    return films


def _record(case: Case, view: str, picture: Picture, heat: Map, boxes: Sequence[Box], size: int) -> dict[str, Any]:
    """Say in words and numbers what a picture shows; nothing here leads back to the image or the patient."""
    present = "present" if case.label else "absent"
    film = f"Chest radiograph{f', {view} view' if view else ''}"
    judged = f"{case.finding}: {case.kind}, labelled {present}, output {case.probability:.3f}"
    where = describe(heat, boxes, size)
    return {
        "kind": case.kind,
        "finding": case.finding,
        "label": case.label,
        "probability": case.probability,
        "threshold": case.threshold,
        "confidence": case.confidence,
        "view": view,
        "width": picture.shape[1],
        "height": picture.shape[0],
        "has_box": bool(boxes),
        "has_map": not bool(is_flat(heat)),
        "alt": f"{film}. {judged}, threshold {case.threshold:.3f}. Left the film, right with its heat map: {where}.",
    }


def _clear(folder: Path) -> None:
    """Remove what an earlier run wrote, the list of it first; other files are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CASES).unlink(missing_ok=True)
    for path in folder.iterdir():
        if _OURS.match(path.name):
            path.unlink()
