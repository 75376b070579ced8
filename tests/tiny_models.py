"""A tiny trained model with its record and its evaluation, for the tests of what comes after training."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.files import sha256_file, write_json
from pipeline.shards import META

POINTS = ("youden", "sensitivity", "specificity", "f1")


def tiny_network(n_findings: int = 6, size: int = 32, seed: int = 3) -> Any:
    """Return a network like those of `build_model`, of three small convolutions."""
    import keras

    keras.utils.set_random_seed(seed)
    inputs = keras.Input((size, size, 1), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(inputs)
    x = keras.layers.Concatenate(name="three_channels")([x, x, x])
    x = keras.layers.Normalization(mean=(103.939, 116.779, 123.68), variance=(1.0, 1.0, 1.0), name="imagenet_mean")(x)
    body = x.shape[1:]
    first = keras.Input(body)
    y = first
    for number, width in enumerate((8, 12, 16)):
        y = keras.layers.Conv2D(width, 3, 2, padding="same", name=f"conv{number}")(y)
        y = keras.layers.BatchNormalization(name=f"bn{number}")(y)
        y = keras.layers.ReLU(name=f"relu{number}")(y)
    backbone = keras.Model(first, y, name="backbone")
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pooled")(backbone(x))
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    outputs = keras.layers.Dense(n_findings, activation="sigmoid", dtype="float32", name="findings")(x)
    model = keras.Model(inputs, outputs, name="cxr_tiny")
    rng = np.random.default_rng(seed)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (np.asarray(value) for value in layer.weights)
            noise = rng.normal(size=gamma.shape).astype(np.float32)
            layer.set_weights([gamma + 0.1 * noise, beta + 0.2 * noise, mean, variance + 1e4 * (len(gamma) == 8)])
    return model


def write_trained(folder: Path, processed: Path, flip: bool = False) -> Path:
    """Write `models/model.keras` with its record, and `reports` with its evaluation; return the model's path."""
    from pipeline.model import save_model

    meta = json.loads((processed / META).read_text())
    path = folder / "models" / "model.keras"
    save_model(tiny_network(len(meta["findings"]), meta["size"]), path)
    sha256 = sha256_file(path)
    write_json(
        path.with_name("training.json"),
        {
            "model_sha256": sha256,
            "findings": meta["findings"],
            "preprocess": meta["preprocess"],
            "processed_sha256": "0",
            "versions": {"keras": "3"},
            "code_version": "none",
            "mlflow": {"run_id": "run-7", "uri": ""},
        },
    )
    findings = {name: {"method": "none", "parameters": {}} for name in meta["findings"]}
    findings[meta["findings"][0]] = {"method": "platt", "parameters": {"slope": 1.0, "intercept": -1.0}}
    points = {name: {point: {"threshold": 0.5} for point in POINTS} for name in meta["findings"]}
    points[meta["findings"][1]]["specificity"]["threshold"] = None
    reports = folder / "reports"
    write_json(reports / "metrics.json", {"model_sha256": sha256, "flip": flip, "ensemble": False, "dataset": "coded"})
    write_json(reports / "calibration.json", {"fitted_on": "val", "findings": findings})
    write_json(reports / "operating_points.json", {"findings": points})
    return path
