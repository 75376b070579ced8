"""Section: loss and AUC of every epoch, and which one was kept."""

from typing import Any

import pandas as pd

from pipeline.params import Params
from pipeline.reporting.figures import line_chart
from pipeline.reporting.page import Section
from pipeline.reporting.text import UNDEFINED, number

LOSSES = {
    "focal": "focal loss (Lin et al., ICCV 2017)",
    "binary_crossentropy": "binary cross-entropy",
    "asymmetric": "asymmetric loss (Ridnik et al., ICCV 2021)",
}
_COLUMNS = ("loss", "val_loss", "train_auc", "val_auc")


def section(history: pd.DataFrame, training: dict[str, Any], trained: Params, train_images: int) -> Section:
    """Gather the training curves.

    Parameters
    ----------
    history : DataFrame
        `history.csv`; NaN where a figure is undefined.
    training : dict
        `training.json`.
    trained : Params
        The parameters saved beside the model.
    train_images : int
        How many images were trained on.
    """
    epochs = [int(epoch) + 1 for epoch in history["epoch"]]
    charts = []
    for title, unit, train, val in (("Loss", "loss", "loss", "val_loss"), ("AUC", "mean AUC", "train_auc", "val_auc")):
        series = {"train": history[train].tolist(), "val": history[val].tolist()}
        charts.append({"title": title, "unit": unit, **line_chart(epochs, series, training["best_epoch"])})
    rows = [
        (epoch, [_figure(history[name].iloc[k]) for name in _COLUMNS], epoch == training["best_epoch"])
        for k, epoch in enumerate(epochs)
    ]
    content = {
        "charts": charts,
        "rows": rows,
        "best_epoch": training["best_epoch"],
        "epochs": training["epochs"],
        "val_auc": number(training["val_auc"]),
        "loss": LOSSES[trained.loss.name],
        "auc_images": min(trained.train.auc_images, train_images),
        "augmented": trained.augment.enabled,
        "seed": trained.train.seed,
    }
    return Section("training", "Training", content)


def _figure(value: float) -> str:
    return UNDEFINED if pd.isna(value) else f"{value:.4f}"
