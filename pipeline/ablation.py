"""Ablations: one parameter changed at a time, each against the parameters as they are, on the validation images.

Which parameter to take is part of the training, so the test split has no part in it.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.ablation_table import BASELINE, write_table
from pipeline.errors import UserError
from pipeline.experiments import alone, fetch_files, finished, reproduce, require_git, run
from pipeline.files import sha256_text
from pipeline.params import Params, TrackingParams
from pipeline.params_file import load_params, read_yaml
from pipeline.progress import note, warn
from pipeline.project_copy import Copy, make_copy
from pipeline.tracking import configured_uri

_RESULTS = ("reports/predictions.csv", "models/training.json")
_STAGE = "evaluate"
_STAGES = ("download", "ingest", "split", "preprocess", "train", _STAGE)  # they decide the figures
_UNREGISTERED = "tracking.register=''"  # a variant is no version of the registered model


@dataclass(frozen=True)
class Variant:
    """One changed parameter.

    Attributes
    ----------
    name : str
        Of the variant.
    change : str
        The parameter and its value there, as `loss.name=focal`.
    """

    name: str
    change: str


def variants_of(params: Params) -> list[Variant]:
    """Return the variants: CLAHE, loss and augmentation the other way round, and the weights that are not used."""
    clahe = Variant("clahe", "preprocess.clahe=true"), Variant("no-clahe", "preprocess.clahe=false")
    loss = Variant("focal", "loss.name=focal"), Variant("cross-entropy", "loss.name=binary_crossentropy")
    augment = Variant("augmentation", "augment.enabled=true"), Variant("no-augmentation", "augment.enabled=false")
    weights = Variant("imagenet", "model.weights=imagenet"), Variant("random-weights", "model.weights=none")
    return [
        clahe[params.preprocess.clahe],
        loss[params.loss.name == "focal"],
        augment[params.augment.enabled],
        *(variant for variant in weights if variant.change != f"model.weights={params.model.weights}"),
    ]


def ablation(root: Path, out: Path, only: Sequence[str] = ()) -> bool:
    """Run the variants that are missing, one after another, and write the table after each.

    The project itself is brought up to date first (`dvc repro evaluate`): that is the baseline. The variants run in a
    copy of it (see `pipeline.project_copy`).

    Parameters
    ----------
    root : Path
        The project.
    out : Path
        Where `ablation.csv`, `ablation.md` and each variant's `predictions.csv` and `training.json` go.
    only : sequence of str
        Names of variants; empty: all.

    Returns
    -------
    bool
        Whether all variants succeeded.

    Raises
    ------
    UserError
        If there is no git repository, a variant is named that does not exist, another ablation is at work, or the
        baseline fails.
    """
    table = out / "ablation.md"
    root, out = root.resolve(), out.resolve()
    require_git(root)
    with alone(root) as lock:
        params = load_params(root / "params.yaml")
        variants, left_out = chosen(params, only)
        reproduce(root, _STAGE, lock)
        for path in _RESULTS:
            (out / BASELINE).mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / path, out / BASELINE / Path(path).name)
        failed = run_variants(root, out, params, variants, left_out, lock)
    note(f"table: {table}")
    return not failed


def chosen(params: Params, only: Sequence[str]) -> tuple[list[Variant], list[str]]:
    """Return the variants to run, and a sentence for each that is left out."""
    from pipeline.weights import imagenet_path

    offered = variants_of(params)
    if unknown := sorted(set(only) - {variant.name for variant in offered}):
        allowed = ", ".join(variant.name for variant in offered)
        raise UserError(f"there is no variant {', '.join(unknown)} of these parameters; allowed: {allowed}")
    wanted = [variant for variant in offered if not only or variant.name in only]
    path = imagenet_path(params.model.backbone)
    missing = [variant for variant in wanted if variant.name == "imagenet" and not path.is_file()]
    left_out = [f"{variant.name} is left out: its weights are not on this machine ({path})" for variant in missing]
    for reason in left_out:
        note(reason)
    return [variant for variant in wanted if variant not in missing], left_out


def run_variants(
    root: Path, out: Path, params: Params, variants: Sequence[Variant], left_out: Sequence[str], lock: int
) -> list[str]:
    """Run what is missing, gather the results, write the table; return a sentence for each variant that failed."""
    key = key_of(read_yaml(root / "dvc.lock"))
    copy: Copy | None = None
    changes: dict[str, str] = {}
    failed: list[str] = []
    write_table(out, changes, params, left_out)
    for number, variant in enumerate(variants, start=1):
        name = f"ablation-{variant.name}-{key}"
        if name not in finished(root):
            copy = copy or make_copy(root, linked_paths(root, params), absolute_uri(root, params.tracking))
        if copy is not None and name not in finished(root):  # an earlier copy may have held it
            note(f"variant {number} of {len(variants)}: {variant.name} ({variant.change})")
            run(copy, name, [variant.change, _UNREGISTERED], _STAGE, lock)
        if commit := finished(root).get(name):
            fetch_files(root, name, commit, _RESULTS, out / variant.name)
            changes[variant.name] = variant.change
        else:
            warn(f"variant {variant.name} failed, its message stands above; run this again to try it again")
            failed.append(f"{variant.name} ({variant.change}) failed")
        write_table(out, changes, params, [*left_out, *failed])
    return failed


def key_of(lock: dict[str, Any]) -> str:
    """Return eight letters that stand for all that decides the figures, from `dvc.lock`.

    Commands, code, data and parameters of the stages up to `evaluate`. Not the models, which follow from these.
    """
    parts = []
    for name in _STAGES:
        stage = lock.get("stages", {}).get(name, {})
        deps = sorted((dep["path"], dep.get("md5", "")) for dep in stage.get("deps", []))
        kept = [dep for dep in deps if not dep[0].startswith("models/")]
        parts.append((name, stage.get("cmd"), kept, stage.get("params")))
    return sha256_text(repr(parts))[:8]


def linked_paths(root: Path, params: Params) -> list[str]:
    """Return what the copy needs and neither git nor DVC's cache has: the raw folder, and weights of one's own."""
    own = [] if params.model.weights in ("imagenet", "none") else [params.model.weights]
    paths = ["data/raw", *(path for path in own if not Path(path).is_absolute())]
    return [path for path in paths if (root / path).exists()]


def absolute_uri(root: Path, params: TrackingParams) -> str:
    """Return where MLflow's runs go, a path in the project made absolute."""
    uri, sqlite = configured_uri(params), "sqlite:///"
    if uri.startswith(sqlite):
        return sqlite + str(root / uri.removeprefix(sqlite))
    return str(root / uri) if "://" not in uri and (root / uri).exists() else uri
