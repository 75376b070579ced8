"""What is left of a model's scores when the shortcut it was trained with is taken away.

    make train PRESET=simulated-shortcut
    python benchmarks/shortcut.py --work FOLDER [--params params.yaml] [--model models/model.keras]
                                  [--predictions reports/predictions.csv]

Draws the same patients with the same findings, but with view and devices by chance (`simulate.shortcut: 0`), splits
them as before, and compares the model's AUROC on the two sets of test films, paired over patients.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from simulated_pretraining import prepare

from pipeline.compare import compare_tables, match
from pipeline.errors import UserError
from pipeline.files import write_text
from pipeline.findings import readable
from pipeline.model import load_model
from pipeline.params import EvaluateParams
from pipeline.params_file import load_params
from pipeline.predictions_file import load_predictions
from pipeline.quiet import load_tensorflow


def predict(model: Path, folder: Path, *, flip: bool) -> Path:
    """Write the predictions of the test films of a folder; return their file."""
    load_tensorflow()
    from pipeline.evaluate import probabilities_of, table_of
    from pipeline.shards import open_processed

    data, out = open_processed(folder / "data/processed"), folder / "predictions.csv"
    outputs = probabilities_of(load_model(model), data, "test", flip=flip)
    write_text(out, table_of(data, "test", outputs).to_csv(index=False, lineterminator="\n"))
    return out


def compare(known: Path, without: Path) -> dict[str, Any]:
    """Return the paired comparison of the films with the shortcut (a) and of those without (b).

    Raises
    ------
    UserError
        If the two are not the same patients with the same findings.
    """
    first, second, findings = match(load_predictions(known), load_predictions(without), known, without)
    return compare_tables(first, second, findings, EvaluateParams())


def markdown(result: dict[str, Any]) -> str:
    """Return the table, the mean first."""
    lines = ["| finding | with the shortcut | without | difference (95% interval) |", "| --- | --- | --- | --- |"]
    for name, row in {"Mean": result["macro"], **result["findings"]}.items():
        change = row["difference"]
        bounds = f"({change['ci_low']:+.3f} to {change['ci_high']:+.3f})"
        cells = (readable(name), f"{row['a']['auc']:.3f}", f"{row['b']['auc']:.3f}", f"{change['auc']:+.3f} {bounds}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Draw, predict and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the films without the shortcut")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--model", type=Path, default=Path("models/model.keras"))
    parser.add_argument("--predictions", type=Path, default=Path("reports/predictions.csv"))
    args = parser.parse_args()
    try:
        params = load_params(args.params)
        if params.download.source != "simulated" or not params.simulate.shortcut:
            raise UserError(f"{args.params} has no shortcut; train with the preset simulated-shortcut first")
        prepare(args.work, replace(params, simulate=replace(params.simulate, shortcut=0.0)), 1)
        result = compare(args.predictions, predict(args.model, args.work, flip=params.evaluate.flip))
    except UserError as error:
        parser.error(str(error))
    print(f"{result['images']:,} test films of {result['patients']:,} patients, AUROC\n")
    print(markdown(result))


if __name__ == "__main__":
    main()
