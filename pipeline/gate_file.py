"""`gate.json`: the fitted gate as JSON, its arrays as base64 of little-endian float32. Nothing in it is executed."""

import base64
import binascii
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.gate import Gate
from pipeline.gate_distance import FeatureDistance
from pipeline.gate_pattern import CLASSES, SIDE, PatternNet

GATE = "gate.json"
_VERSION = 1
_MAX_BYTES = 64 << 20
_NET = ("centre", "inner", "inner_bias", "outer", "outer_bias")


def write_gate(path: Path, gate: Gate) -> None:
    """Write a gate, whole or not at all."""
    distance = gate.distance
    write_json(
        path,
        {
            "version": _VERSION,
            "model_sha256": gate.model_sha256,
            "size": gate.size,
            "net": {name: _packed(getattr(gate.net, name)) for name in _NET},
            "net_threshold": gate.net_threshold,
            "distance": None
            if distance is None
            else {"centre": _packed(distance.centre), "whitening": _packed(distance.whitening)},
            "distance_threshold": None if distance is None else gate.distance_threshold,
            "aspect": list(gate.aspect),
            "min_side": gate.min_side,
            "record": dict(gate.record),
        },
    )


def read_gate(path: Path) -> Gate:
    """Read a gate and check all that it holds.

    Raises
    ------
    UserError
        If the file is missing, too large, or holds anything but what `write_gate` writes.
    """
    if path.is_file() and path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{path} has more than {_MAX_BYTES:,} bytes: it was not written by `cxr export`")
    values = read_json(path)
    try:
        return _parsed(values)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({type(error).__name__}: {reason}): run `cxr export` again") from None


def find_gate(folder: Path, model_sha256: str) -> Gate | None:
    """Return the gate of a model: `gate.json` in its folder, in the one above, or, for a Keras model, in `exported`.

    Raises
    ------
    UserError
        If it is damaged, or was fitted with another model.
    """
    for place in (folder, folder.parent, folder / "exported"):
        path = place / GATE
        if path.is_file():
            gate = read_gate(path)
            if gate.model_sha256 == model_sha256:
                return gate
            if place != folder / "exported":
                raise UserError(f"{path} was fitted with another model than {folder}: run `cxr export` again")
    return None


def _parsed(values: Any) -> Gate:
    if values["version"] != _VERSION:
        raise ValueError(f"version is {values['version']!r}, and {_VERSION} is read")
    net = PatternNet(*(_unpacked(values["net"][name]) for name in _NET))
    _check_net(net)
    held = values["distance"]
    distance = None if held is None else FeatureDistance(*(_unpacked(held[name]) for name in ("centre", "whitening")))
    if distance is not None and (distance.centre.ndim, distance.whitening.shape[0]) != (1, len(distance.centre)):
        raise ValueError("the arrays of the distance do not fit together")
    low, high = (_number(value) for value in values["aspect"])
    if not isinstance(values["model_sha256"], str) or not isinstance(values["record"], dict):
        raise ValueError("model_sha256 or record is of another type")
    return Gate(
        model_sha256=values["model_sha256"],
        size=int(_number(values["size"])),
        net=net,
        net_threshold=_number(values["net_threshold"]),
        distance=distance,
        distance_threshold=math.inf if distance is None else _number(values["distance_threshold"]),
        aspect=(low, high),
        min_side=int(_number(values["min_side"])),
        record=values["record"],
    )


def _check_net(net: PatternNet) -> None:
    inputs, hidden = SIDE * SIDE + 1, len(net.inner_bias)
    wanted = [(inputs,), (inputs, hidden), (hidden,), (hidden, len(CLASSES)), (len(CLASSES),)]
    found = [getattr(net, name).shape for name in _NET]
    if found != wanted:
        raise ValueError(f"the network's arrays are {found}, and {wanted} are needed")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _packed(array: NDArray[np.float32]) -> dict[str, Any]:
    return {"shape": list(array.shape), "float32": base64.b64encode(array.astype("<f4").tobytes()).decode("ascii")}


def _unpacked(value: dict[str, Any]) -> NDArray[np.float32]:
    data = base64.b64decode(value["float32"], validate=True)
    array = np.frombuffer(data, "<f4").reshape([int(side) for side in value["shape"]]).astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("an array holds values that are no numbers")
    return array
