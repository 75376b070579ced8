"""What a network trained on simulated films knows of real ones: the paediatric pneumonia set.

    python benchmarks/simulated_pretraining.py score MODEL.keras ARCHIVE --work FOLDER
    python benchmarks/simulated_pretraining.py train MODEL.keras ARCHIVE --work FOLDER [--seeds 7 8 9] [--epochs 40]

MODEL is what `make train` leaves in models/ (`training.json` lies beside it), ARCHIVE the set as Kaggle serves it.

`score`: the model as it is, on all images that `cxr ingest` keeps, or on those of the patients of some `--splits`. The
measure named beforehand is the AUROC of its output Pneumonia; all its other outputs stand beside it, and how sharp and
how bright the images are.

`train`: a tenth of the training and of the validation patients of the preset `pneumonia`, all test patients, images of
the model's size. Each seed trains from random weights, from the model's backbone with the same recipe in every other
respect (the comparison named beforehand), and from the backbone in two phases, as `finetune` has them by default.
Finished trainings in FOLDER are kept. Each one's `predictions.csv` can be given to `cxr compare`.
"""

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import read_json, write_text
from pipeline.params import EvaluateParams, Params
from pipeline.params_file import as_dict, parse_params, write_yaml
from pipeline.presets import load_preset, with_archive
from pipeline.quiet import load_tensorflow
from pipeline.statistics.bootstrap import Replicates, Resamples, replicate, resample, stack
from pipeline.statistics.paired import p_value
from pipeline.statistics.ranks import rank_statistic

CXR = str(Path(sys.executable).with_name("cxr"))
PRIMARY = "Pneumonia"
SPLITS = ("train", "val", "test")
SCORED = EvaluateParams()
SAME_RECIPE = {"head_epochs": 0, "backbone_rate": 1.0, "batch_norm": "trained"}
"""Of `finetune`: everything learns at once, as it does from random weights."""

Floats = NDArray[np.float64]


def arms(model: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the ways of training: what each changes in the parameters; the first is the one compared with."""
    start = {"weights": str(model.resolve())}
    return {
        "random weights": {"model": {"weights": "none"}},
        "simulated, same recipe": {"model": start, "finetune": SAME_RECIPE},
        "simulated, two phases": {"model": start, "finetune": {}},
    }


def base(model: Path, archive: Path, backbone: str, configs: Path) -> Params:
    """Return the preset `pneumonia` with this archive, and with images and backbone as the model has them."""
    trained = read_json(model.with_name("training.json"))
    params = with_archive(load_preset("pneumonia", configs), archive)
    values = as_dict(params)
    values["preprocess"] |= trained["preprocess"]
    values["model"]["backbone"] = backbone
    values["tracking"] |= {"register": "", "system_metrics": False}
    return parse_params(values, str(model.with_name("training.json")))


def prepare(folder: Path, params: Params, share: float) -> None:
    """Make the processed images in `folder`, unless they are there; `share` of the training and validation patients."""
    if (folder / "data/processed/meta.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_yaml(folder / "params.yaml", as_dict(params))
    stage(folder, "download")
    stage(folder, "ingest", "data/raw", "data/manifest.csv")
    stage(folder, "split", "data/manifest.csv", "data/splits.csv")
    if share < 1:
        splits = pd.read_csv(folder / "data/splits.csv", dtype=str)
        manifest = pd.read_csv(folder / "data/manifest.csv", dtype=str)
        kept = subset(splits, manifest, share)
        write_text(folder / "data/splits.csv", kept.to_csv(index=False, lineterminator="\n"))
    stage(folder, "preprocess", "data/manifest.csv", "data/splits.csv", "data/processed", "--raw", "data/raw")


def stage(folder: Path, *words: str) -> None:
    """Run a stage in a folder.

    Raises
    ------
    UserError
        If it fails; its own message stands above.
    """
    if subprocess.run([CXR, *words], cwd=folder, check=False).returncode:
        raise UserError(f"`cxr {words[0]}` failed in {folder}; its message stands above")


def subset(splits: pd.DataFrame, manifest: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return the splits with a share of the patients of train and of val, drawn among sick and healthy ones apart."""
    table = splits.merge(manifest[["image_id", PRIMARY]], on="image_id", validate="one_to_one")
    patients = table.groupby(["split", "patient_id"], sort=True)[PRIMARY].max().reset_index()
    rng = np.random.default_rng(7)
    kept: set[str] = set()
    for (split, _), group in patients.groupby(["split", PRIMARY], sort=True):
        count = len(group) if split == "test" else max(1, round(share * len(group)))
        kept |= set(rng.choice(group["patient_id"].to_numpy(str), count, replace=False).tolist())
    return splits[splits["patient_id"].isin(kept)]


def score(model: Path, folder: Path, splits: list[str]) -> None:
    """Print the AUROC of the model's outputs on the images of a folder's splits."""
    load_tensorflow()
    from pipeline.evaluate import probabilities_of
    from pipeline.model import load_model
    from pipeline.scoring_input import images_in_order
    from pipeline.shards import open_processed

    data, network = open_processed(folder / "data/processed"), load_model(model)
    findings = read_json(model.with_name("training.json"))["findings"]
    if PRIMARY not in findings:
        raise UserError(f"{model} has no output {PRIMARY}; a model trained on the simulated films is needed")
    rows = pd.concat([data.rows(split) for split in splits])
    outputs = np.concatenate([probabilities_of(network, data, split, flip=False) for split in splits]).astype(
        np.float64
    )
    labels = rows[PRIMARY].to_numpy(np.float64)
    resamples = resample(rows["patient_id"].to_numpy(str), labels[:, None], SCORED)
    pixels = np.concatenate(
        [batch for split in splits for batch in images_in_order(data, split, 64).as_numpy_iterator()]
    )
    wanted = {name: outputs[:, findings.index(name)] for name in (PRIMARY, *sorted({*findings} - {PRIMARY}))}
    wanted |= {"(sharpness alone)": sharpness(pixels), "(mean gray alone)": pixels.mean(axis=(1, 2, 3))}
    print(f"\n{len(rows):,} images of {resamples.n_patients:,} patients, {int(labels.sum()):,} with pneumonia\n")
    print("| output | AUROC (95% interval) |\n| --- | --- |")
    for name, values in wanted.items():
        print(f"| {name} | {interval(auroc(labels, values, resamples))} |")


def sharpness(pixels: NDArray[np.uint8]) -> Floats:
    """Return the standard deviation of what a Gaussian blur of one pixel takes away, of each image."""
    import cv2

    gray = pixels[..., 0].astype(np.float32)
    return np.array([np.std(each - cv2.GaussianBlur(each, (0, 0), 1.0)) for each in gray])


def train(model: Path, folder: Path, params: Params, seeds: list[int]) -> None:
    """Train all arms with all seeds and print the paired comparison."""
    tables: dict[str, list[pd.DataFrame]] = {}
    for seed in seeds:
        for name, changes in arms(model).items():
            run = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            tables.setdefault(name, []).append(trained(run, folder, changed(params, changes, seed)))
            print(f"finished: {name}, seed {seed}", flush=True)
    print_comparison(tables, seeds)


def changed(params: Params, changes: dict[str, dict[str, Any]], seed: int) -> Params:
    """Return the parameters of one training."""
    values = as_dict(replace(params, train=replace(params.train, seed=seed)))
    for section, keys in changes.items():
        values[section] |= keys
    return parse_params(values, "the benchmark")


def trained(run: Path, folder: Path, params: Params) -> pd.DataFrame:
    """Train in a folder of its own, unless that is done; return its predictions of the test images."""
    out = run / "predictions.csv"
    if not out.is_file():
        run.mkdir(exist_ok=True)
        write_yaml(run / "params.yaml", as_dict(params))
        stage(run, "train", str((folder / "data/processed").resolve()), "models")
        load_tensorflow()
        from pipeline.evaluate import probabilities_of, table_of
        from pipeline.model import load_model
        from pipeline.shards import open_processed

        data = open_processed(folder / "data/processed")
        outputs = probabilities_of(load_model(run / "models/model.keras"), data, "test", flip=params.evaluate.flip)
        write_text(out, table_of(data, "test", outputs).to_csv(index=False, lineterminator="\n"))
    return pd.read_csv(out, dtype={"image_id": str, "patient_id": str})


def print_comparison(tables: dict[str, list[pd.DataFrame]], seeds: list[int]) -> None:
    """Print each arm's AUROC, and its mean over the seeds against that of the first arm on the same resamples."""
    names = list(tables)
    first = tables[names[0]][0]
    labels = first[f"y_{PRIMARY}"].to_numpy(np.float64)
    resamples = resample(first["patient_id"].to_numpy(str), labels[:, None], SCORED)
    means = {}
    print(f"\n{len(first):,} test images of {resamples.n_patients:,} patients\n")
    heads = [*(f"seed {seed}" for seed in seeds), "mean (95% interval)", f"minus {names[0]}", "p"]
    print(f"| start | {' | '.join(heads)} |\n{'| --- ' * (len(heads) + 1)}|")
    for name in names:
        scores = stack([auroc(labels, one[f"p_{PRIMARY}"].to_numpy(np.float64), resamples) for one in tables[name]])
        means[name] = scores.mean()
        difference = means[name] - means[names[0]]
        cells = [*(f"{value:.3f}" for value in scores.point), interval(means[name])]
        cells += ["", ""] if name == names[0] else [interval(difference), f"{p_value(difference):.3f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def auroc(labels: Floats, scores: Floats, resamples: Resamples) -> Replicates:
    """Return one AUROC with its resamples of patients."""
    return replicate(rank_statistic(labels, scores, resamples), resamples)[[0]]


def interval(score: Replicates) -> str:
    """Return a score with its interval."""
    found = score.estimate()
    return f"{found.value:.3f} ({found.ci_low:.3f} to {found.ci_high:.3f})"


def main() -> None:
    """Score or train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("score", "train"))
    parser.add_argument("model", type=Path)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for the images and the trainings")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="score: whose images")
    parser.add_argument("--share", type=float, default=0.1, help="train: of the training and validation patients")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--backbone", default="ResNet50", help="the model's")
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()
    try:
        params = base(args.model, args.archive, args.backbone, Path(__file__).parent.parent / "configs")
        limits = {"epochs": args.epochs, "stop_patience": args.epochs}
        params = replace(params, train=replace(params.train, **limits))
        folder = args.work / args.what
        prepare(folder, params, args.share if args.what == "train" else 1)
        if args.what == "score":
            score(args.model, folder, args.splits)
        else:
            train(args.model, folder, params, args.seeds)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
