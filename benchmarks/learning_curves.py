"""Draw the learning curves of trainings: the AUC after each epoch, on validation films and on training films.

    python benchmarks/learning_curves.py --out docs/images/learning-curves.png "NAME=FOLDER/models/history.csv" ...

Each training gets a panel of its own. The epoch that was kept is marked; its AUC is optimistic, because it was chosen
on the same validation films.
"""

import argparse
from pathlib import Path

import pandas as pd


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("histories", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    draw({name: pd.read_csv(file) for name, _, file in (each.partition("=") for each in args.histories)}, args.out)


def draw(histories: dict[str, pd.DataFrame], out: Path) -> None:
    """Write the picture of some histories, by name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.4 * len(histories), 3.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, history) in zip(
        figure.subplots(1, len(histories), squeeze=False)[0], histories.items(), strict=True
    ):
        epochs, best = history["epoch"] + 1, int(history["val_auc"].to_numpy().argmax())
        axes.plot(epochs, history["train_auc"], color="0.6", label="training films, a part of them")
        axes.plot(epochs, history["val_auc"], color="#0072b2", marker="o", markersize=3, label="validation films")
        kept = history["val_auc"][best]
        axes.plot([best + 1], [kept], "o", mfc="none", mec="#d55e00", ms=9, label=f"kept: epoch {best + 1}, {kept:.3f}")
        axes.set(title=name, xlabel="epoch", ylabel="mean AUC")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="0.92")
        axes.legend(loc="lower right", frameon=False, fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


if __name__ == "__main__":
    main()
