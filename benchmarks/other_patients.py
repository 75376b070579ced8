"""How a model of the simulated films does on patients that nobody has looked at: another seed draws them.

    make train && python benchmarks/other_patients.py --work FOLDER [--seed 1008] [--patients 600]
                                                     [--params params.yaml] [--model models/model.keras]

Draws other patients with the same parameters, asks the model about all of their films, and prints the AUROC of each
finding by severity (as `difficulty.py` does) and how often the heat map's peak lies in the finding's box. Nothing was
chosen with these films in sight, unless the seed was. The folder's splits say who is in which shard and nothing else;
the maps are those of the largest one.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import difficulty
import pandas as pd
from simulated_pretraining import SPLITS, prepare

from pipeline.box_places import read_boxes
from pipeline.errors import UserError
from pipeline.findings import readable
from pipeline.localise import localise
from pipeline.params import EvaluateParams, Params
from pipeline.params_file import load_params
from pipeline.quiet import load_tensorflow


def drawn(params: Params, folder: Path, seed: int, patients: int) -> None:
    """Draw and prepare the films.

    Raises
    ------
    UserError
        If the parameters are not those of simulated films, or the seed is theirs.
    """
    if params.download.source != "simulated":
        raise UserError("the parameters are not of simulated films; train with the preset simulated first")
    if seed == params.simulate.seed:
        raise UserError(f"seed {seed} drew the films that the model was trained on; name another")
    simulate = replace(params.simulate, seed=seed, patients=patients)
    prepare(folder, replace(params, simulate=simulate), 1)


def report(model_path: Path, folder: Path, params: Params) -> None:
    """Ask the model and print both tables."""
    load_tensorflow()
    from pipeline.evaluate import probabilities_of, table_of
    from pipeline.model import load_model
    from pipeline.shards import open_processed

    data, model = open_processed(folder / "data/processed"), load_model(model_path)
    parts = [table_of(data, name, probabilities_of(model, data, name, flip=params.evaluate.flip)) for name in SPLITS]
    table, truth = pd.concat(parts, ignore_index=True), difficulty.read_truth(folder / "data/raw/truth.csv")
    rows = difficulty.rows_of(table, data.findings, truth, EvaluateParams())
    patients = table["patient_id"].nunique()
    print(f"{len(table):,} films of {patients:,} patients; AUROC (95% interval); films / patients with the finding\n")
    print(difficulty.markdown(rows, difficulty.cuts_of(truth)))
    found = localise(model, data, read_boxes(folder / "data/boxes.csv"), SPLITS[0], EvaluateParams())
    print(f"\n{found['method']} at {found['layer']}, {found['n_images']:,} films of {found['n_patients']:,} patients\n")
    print(
        "| finding | peak in the box | chance | above chance (95% interval) | films |\n| --- | --- | --- | --- | --- |"
    )
    for name, row in {"Mean": found["macro"] | {"n_images": found["n_images"]}, **found["findings"]}.items():
        bounds = f"({row['above_chance_ci_low']:+.3f} to {row['above_chance_ci_high']:+.3f})"
        above = f"{row['above_chance']:+.3f} {bounds}"
        print(f"| {readable(name)} | {row['pointing']:.3f} | {row['chance']:.3f} | {above} | {row['n_images']} |")


def main() -> None:
    """Draw, ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the films")
    parser.add_argument("--seed", type=int, default=1008)
    parser.add_argument("--patients", type=int, default=600)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--model", type=Path, default=Path("models/model.keras"))
    args = parser.parse_args()
    try:
        params = load_params(args.params)
        drawn(params, args.work, args.seed, args.patients)
        report(args.model, args.work, params)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
