"""How well one heat map fits the boxes of one finding on one image."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.box_places import Mask
from pipeline.heat_maps import Map, enlarge, is_flat, peaks

CUTS = (60, 180)
"""Of 255: where a map is cut to make boxes (Wang et al., CVPR 2017, section 3, "Bounding Box Generation")."""
IOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
IOBB = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Thresholds of the two overlaps (Wang et al., supplement and table 4)."""
SCORES = ("pointing", "pointing_defined", "boxes_per_map", *(f"iou_{t:g}" for t in IOU), *(f"iobb_{t:g}" for t in IOBB))
"""What is computed for each map; see `score_map`."""


def chance_of(truth: Mask, film: NDArray[np.intp]) -> float:
    """Return the chance that a pixel of the film, drawn at random, lies in the boxes."""
    left, top, width, height = film
    return float(truth[top : top + height, left : left + width].sum() / (width * height))


def score_map(heat: Map, truth: Mask) -> list[float]:
    """Score one map against the union of the boxes.

    Parameters
    ----------
    heat : ndarray of shape (h', w'), dtype=float32
        As the explainer gives it.
    truth : ndarray of shape (size, size), dtype=bool
        The pixels in the boxes.

    Returns
    -------
    list of float
        `pointing`: 1 if the map's maximum lies in a box, without tolerance (the pointing game; Zhang et al., "Top-down
        neural attention by excitation backprop", IJCV 2018;126:1084-1102, section 4.2). Where several places share
        the maximum (`pipeline.heat_maps.peaks`), the share of them that does. A flat map points nowhere: 0.
        `pointing_defined`: the same, NaN for a flat map.
        `boxes_per_map`: how many boxes `find_boxes` makes.
        `iou_T`: 1 if one of them and the truth have an intersection over union above T.
        `iobb_T`: 1 if the intersection is more than T of such a box's own area (Wang et al. 2017, section 4,
        "Disease Localization").
    """
    if is_flat(heat):
        return [0.0, float("nan"), 0.0] + [0.0] * (len(IOU) + len(IOBB))
    columns, rows = peaks(heat, len(truth)).astype(np.intp).T
    hit = float(truth[rows, columns].mean())
    found = find_boxes(enlarge(heat, len(truth)))
    common = np.array([truth[y : y + height, x : x + width].sum() for x, y, width, height in found])
    areas = found[:, 2] * found[:, 3]
    iou, iobb = (common / (areas + truth.sum() - common)).max(), (common / areas).max()
    return [hit, hit, float(len(found)), *(float(iou > t) for t in IOU), *(float(iobb > t) for t in IOBB)]


def find_boxes(heat: Map) -> NDArray[np.int64]:
    """Return the boxes around the regions (8 neighbours) in which the map reaches 60/255 or 180/255 of its maximum.

    Wang et al. 2017, section 3, "Bounding Box Generation"; regions by OpenCV's `connectedComponentsWithStats`.

    Returns
    -------
    ndarray of shape (n_boxes, 4)
        Left, top, width, height; those of both cuts together, at least one of each.
    """
    found = []
    for cut in CUTS:
        binary = (heat >= cut / 255).astype(np.uint8)
        found.append(cv2.connectedComponentsWithStats(binary, connectivity=8)[2][1:, :4])
    return np.concatenate(found).astype(np.int64)
