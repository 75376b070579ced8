"""What a run says of itself, in sentences: the model card and the checklists are filled from these and nothing else.

A sentence is empty where the run cannot know the answer.
"""

from pipeline.findings import readable
from pipeline.params import Params
from pipeline.reporting import summary, text
from pipeline.reporting.about import about_data
from pipeline.reporting.inputs import Inputs
from pipeline.reporting.provenance import commands
from pipeline.reporting.training import LOSSES

_METHODS = {"none": "left as they are", "temperature": "temperature", "platt": "Platt", "isotonic": "isotonic"}


def run_facts(inputs: Inputs) -> dict[str, dict[str, str]]:
    """Return the facts of a run by subject: data, preprocess, split, model, training, evaluation, results, software.

    Returns
    -------
    dict
        Subject to name to sentence.
    """
    return {
        "study": {"design": "Retrospective: the images were taken before, for other purposes."},
        "data": _data(inputs),
        "preprocess": {"steps": _steps(inputs.trained)},
        "split": _split(inputs),
        "model": _model(inputs),
        "training": _training(inputs),
        "evaluation": _evaluation(inputs),
        "results": _results(inputs),
        "software": _software(inputs),
    }


def _data(inputs: Inputs) -> dict[str, str]:
    ingest, trained = inputs.ingest, inputs.trained
    examined = ingest["images"] + ingest["quarantined"]
    unknown = sum(row["n_unknown"] for row in inputs.metrics["test"]["findings"].values())
    subset = f"Only these files were fetched: {', '.join(trained.download.files)}." if trained.download.files else ""
    views = "Films known to be lateral are left out." if trained.dataset.views == "frontal" else "All views are used."
    return {
        "about": about_data(trained),
        "source": _source(trained),
        "criteria": (
            f"{views} A file that cannot be read whole, is blank, or has a side below {trained.ingest.min_side} pixels "
            "is kept out, with its reason."
        ),
        "subset": f"{subset} {views}".strip(),
        "deidentification": (
            "No identifying DICOM attribute is read into a table, a log or a picture; names of patients in tables are "
            "those that the source gave. Whether the source removed what identifies a person was not checked."
        ),
        "unknown": f"Unknown labels among the test images, over all findings: {unknown:,}.",
        "reference": about_data(trained),
        "test_labels": "As those of the training images: test images are part of the same source.",
        "flow": (
            f"{examined:,} files or rows were examined, {ingest['quarantined']:,} kept out, {ingest['images']:,} "
            f"images of {ingest['patients']:,} patients used; {inputs.split['left_out']:,} of them are in no split."
        ),
        "poor_input": "A file that is truncated, blank or no radiograph's size is refused with a reason, not guessed.",
    }


def _source(trained: Params) -> str:
    return {
        "simulated": "drawn by the project's simulator",
        "local": "a local archive or folder",
        "kaggle": f"Kaggle, {trained.download.kaggle}",
    }[trained.download.source]


def _steps(trained: Params) -> str:
    pixels = trained.preprocess
    fit = "aspect kept, padded with black" if pixels.fit == "letterbox" else "stretched"
    clahe = f"CLAHE (clip limit {pixels.clip_limit:g}, {pixels.tiles}x{pixels.tiles} tiles)"
    return (
        f"Grayscale with bone bright, resized to {pixels.size}x{pixels.size} ({fit}), "
        f"{clahe if pixels.clahe else 'no CLAHE'}; ImageNet's mean is subtracted inside the model."
    )


def _split(inputs: Inputs) -> dict[str, str]:
    sizes = "; ".join(
        f"{name}: {inputs.split[key]['images']:,} images of {inputs.split[key]['patients']:,} patients"
        for key, name in (("train", "training"), ("val", "validation"), ("test", "test"))
    )
    found = inputs.audit["errors"]
    audit = (
        "The audit found no patient and no picture on two sides."
        if not found
        else f"The audit found {found:,} patients or pictures on two sides."
    )
    return {
        "explained": summary.explain_protocol(inputs.trained.split),
        "disjoint": f"Patients. {audit} Pictures that only look alike: {inputs.audit['warnings']:,} pairs to look at.",
        "sizes": f"{sizes}.",
        "differences": "Images, patients, view, sex, age and the prevalence of each finding stand side by side.",
    }


def _model(inputs: Inputs) -> dict[str, str]:
    params, training = inputs.trained.model, inputs.training
    names = list(inputs.meta["findings"])
    weights = {"imagenet": "ImageNet weights, checked by SHA-256", "none": "random weights"}
    outputs = f"{len(names)} sigmoid outputs" if len(names) > 1 else "one sigmoid output"
    return {
        "backbone": params.backbone,
        "outputs": outputs,
        "findings": ", ".join(readable(name) for name in names),
        "described": (
            f"{params.backbone} without its top, global average pooling, dropout {params.dropout:g}, {outputs}: "
            f"{', '.join(readable(name) for name in names)}."
        ),
        "initialisation": (
            f"Backbone: {weights.get(params.weights, 'weights of a given file')}; the head starts at the findings' "
            "prevalences."
        ),
        "sha256": str(training["model_sha256"]),
    }


def _training(inputs: Inputs) -> dict[str, str]:
    trained, training = inputs.trained, inputs.training
    optimizer, params = trained.optimizer, trained.train
    seeds = len(training.get("repeats") or [0])
    augmented = "images augmented" if inputs.trained.augment.enabled else "images as they are"
    ensemble = "the outputs of all of them are averaged" if inputs.metrics.get("ensemble") else "none is averaged"
    return {
        "described": (
            f"{LOSSES[trained.loss.name]}, {optimizer.name} from {optimizer.learning_rate:g} "
            f"({trained.schedule.name}), {params.batch_size} images a step, {augmented}, {params.precision}, "
            f"seed {params.seed}; {training['epochs']} epochs."
        ),
        "selection": (
            f"The epoch with the best mean AUROC on the validation split, number {training['best_epoch']} of "
            f"{training['epochs']}. The test split was opened once, by the evaluation."
        ),
        "ensemble": f"{seeds} training(s) with different seeds; {ensemble}.",
        "imbalance": (
            f"{LOSSES[trained.loss.name]}; images are not resampled. Probabilities are calibrated afterwards, on the "
            "validation split."
        ),
    }


def _evaluation(inputs: Inputs) -> dict[str, str]:
    metrics = inputs.metrics
    level = text.level(metrics["confidence"])
    groups = [group for group in (inputs.subgroups or {}).get("groups", []) if group["scored"]]
    floor = inputs.floor and inputs.floor["macro"]["auc"]
    flip = "averaged over each image and its mirror image" if metrics.get("flip") else "one for each image"
    return {
        "metrics": (
            "Exact AUROC and average precision; Brier score with its parts and the expected calibration error; "
            "sensitivity, specificity and predictive values at operating points chosen on the validation split."
        ),
        "uncertainty": (
            f"{level} intervals from {metrics['resamples']:,} resamples of whole patients "
            f"({metrics.get('interval', 'percentile')}); differences between subgroups with p values corrected "
            "for their number."
        ),
        "robustness": (
            f"{len(groups)} subgroups were scored." if groups else "No subgroup was large enough to be scored."
        )
        + (f" A model of the acquisition alone has a mean AUROC of {text.number(floor)}." if floor else ""),
        "explanation": _explanation(inputs),
        "calibration": "A calibrator was fitted on the validation split; the model itself was not updated.",
        "prediction": f"Probabilities of the model's best epoch, {flip}.",
        "fairness": f"AUROC, missed and false findings in {len(groups)} subgroups by sex, age and view."
        if groups
        else "",
    }


def _explanation(inputs: Inputs) -> str:
    if not inputs.localisation:
        return "Heat maps (Grad-CAM or LayerCAM); there are no boxes to check them against."
    macro, method = inputs.localisation["macro"], inputs.localisation["method"]
    return (
        f"{method}. Its peak lies in a reader's box in {text.percent(macro['pointing'])} of the cases; a point at "
        f"random would in {text.percent(macro['chance'])}, a model with shuffled weights in "
        f"{text.percent(macro['shuffled']['pointing'])}."
    )


def _results(inputs: Inputs) -> dict[str, str]:
    metrics = inputs.metrics
    notices = [notice.text for notice in summary.notices(metrics, inputs.trained.download.source)]
    points = inputs.operating_points or {}
    events = "; ".join(
        f"{readable(name)} {row['n_positive']:,} of {row['n_positive'] + row['n_negative']:,}"
        for name, row in metrics["test"]["findings"].items()
    )
    return {
        "headline": summary.headline(metrics, summary.protocol(inputs.trained.split)),
        "limitations": " ".join(notices),
        "events": f"Positive test images: {events}.",
        "operating_points": (
            f"Operating points ({', '.join(points['points'])}) were chosen on the validation split and applied "
            "unchanged to the test split."
            if points
            else ""
        ),
        "calibration": _calibration(inputs),
        "failures": "Misses, false alarms and the most confident mistakes are shown with the model's heat maps."
        if inputs.cases
        else "",
    }


def _calibration(inputs: Inputs) -> str:
    if not inputs.calibration:
        return ""
    macro = inputs.metrics["test"]["macro"]
    methods = [row["method"] for row in inputs.calibration["findings"].values()]
    used = ", ".join(f"{_METHODS[name]} {methods.count(name)}" for name in _METHODS if name in methods)
    before, after = text.number(macro.get("ece")), text.number(macro.get("calibrated_ece"))
    return f"Findings by method: {used}. Mean expected calibration error on test: {before} before, {after} after."


def _software(inputs: Inputs) -> dict[str, str]:
    versions = ", ".join(f"{name} {version}" for name, version in inputs.training["versions"].items())
    lines = commands(inputs.training["code_version"], inputs.trained)
    return {
        "versions": f"{versions}; all packages are pinned in uv.lock.",
        "code": f"Code version {inputs.training['code_version']};",
        "command": " && ".join(lines),
    }
