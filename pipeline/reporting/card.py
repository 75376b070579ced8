"""The model card, as Markdown and as JSON (Mitchell et al., FAT* 2019; the sections are those of its section 4)."""

from typing import Any

from pipeline.findings import readable
from pipeline.reporting import text
from pipeline.reporting.facts import run_facts
from pipeline.reporting.inputs import Inputs

_SECTIONS = (
    ("Model details", ("model.described", "model.initialisation", "training.described", "training.selection",
                       "training.ensemble", "software.versions", "software.code")),
    ("Intended use", ("use.intended", "use.not_intended")),
    ("Factors", ("evaluation.fairness", "evaluation.robustness")),
    ("Metrics", ("evaluation.metrics", "evaluation.uncertainty", "results.operating_points")),
    ("Training data", ("data.about", "data.flow", "split.explained", "split.sizes", "preprocess.steps")),
    ("Evaluation data", ("split.disjoint", "data.test_labels", "data.unknown")),
    ("Quantitative analyses", ("results.headline", "results.events", "results.calibration", "evaluation.explanation")),
    ("Ethical considerations", ("data.deidentification",)),
    ("Caveats and recommendations", ("results.limitations",)),
)  # fmt: skip

_USE = {
    "intended": "Research on chest radiographs like those it was trained on, and teaching.",
    "not_intended": (
        "Diagnosis, treatment, or any decision about a person: it has not been validated for that and is not a medical "
        "device."
    ),
}


def model_card(inputs: Inputs) -> dict[str, Any]:
    """Return the model card.

    Returns
    -------
    dict
        `name`, `sections` (title to sentences), `results` (a row per finding: AUROC, bounds, counts) and `identity`
        (hashes of model and data, code version, run).
    """
    facts = run_facts(inputs) | {"use": _USE}
    sections = {title: [found for name in names if (found := _look_up(facts, name))] for title, names in _SECTIONS}
    training = inputs.training
    return {
        "name": f"{training.get('name') or inputs.meta['dataset']}-{inputs.trained.model.backbone}",
        "sections": sections,
        "confidence": inputs.metrics["confidence"],
        "results": [_row(name, scores) for name, scores in inputs.metrics["test"]["findings"].items()],
        "identity": {
            "model_sha256": training["model_sha256"],
            "processed_sha256": training["processed_sha256"],
            "code_version": training["code_version"],
            "mlflow_run": training["mlflow"]["run_id"],
            **{f"{name} SHA-256": value for name, value in inputs.hashes.items()},
        },
    }


def to_markdown(card: dict[str, Any]) -> str:
    """Return a model card as a page of Markdown."""
    lines = [f"# Model card: {card['name']}", ""]
    for title, sentences in card["sections"].items():
        if sentences:
            lines += [f"## {title}", "", *(f"- {sentence}" for sentence in sentences), ""]
    lines += [
        "## Test results by finding",
        "",
        f"| Finding | AUROC | {text.level(card['confidence'])} interval | Positive | Negative | Unknown |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(_markdown_row(row) for row in card["results"]),
        "",
        "## Identity",
        "",
        *(f"- {name}: `{value}`" for name, value in card["identity"].items()),
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, scores: dict[str, Any]) -> dict[str, Any]:
    kept = ("auc", "ci_low", "ci_high", "n_positive", "n_negative", "n_unknown")
    return {"finding": name, **{key: scores[key] for key in kept}}


def _markdown_row(row: dict[str, Any]) -> str:
    counts = " | ".join(f"{row[key]:,}" for key in ("n_positive", "n_negative", "n_unknown"))
    return f"| {readable(row['finding'])} | {text.number(row['auc'])} | {text.interval(row)} | {counts} |"


def _look_up(facts: dict[str, dict[str, str]], name: str) -> str:
    subject, _, key = name.partition(".")
    return facts[subject][key]
