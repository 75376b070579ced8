"""What `cxr promote` decides, as the dictionary that its record holds: outcome, reason, evidence, rule, checks."""

import dataclasses
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import __version__
from pipeline.errors import UserError
from pipeline.files import sha256_file
from pipeline.metrics import macro_auroc
from pipeline.params import Params
from pipeline.promotion_evidence import Evidence, champion_folder, pair_of, read_champion, require_same_images
from pipeline.promotion_records import Reign
from pipeline.promotion_rule import Check, accepted, calibration, compare, first
from pipeline.registry import Registry
from pipeline.tracking import code_version

_EVALUATE = ("resamples", "confidence", "interval", "seed", "age_bands", "subgroup_images")


def judge(candidate: Evidence, reign: Reign | None, version: str, folder: Path, params: Params) -> dict[str, Any]:
    """Return the decision on a candidate: outcome, reason, both models, the rule and all checks.

    Parameters
    ----------
    candidate : Evidence
        What the candidate did on the test images.
    reign : Reign or None
        The champion; None if there is none.
    version : str
        The candidate's, in the registry.
    folder : Path
        Where the champions' evidence lies.
    params : Params
        Sections `promote` and `evaluate`.

    Raises
    ------
    UserError
        If the champion's evidence is missing or changed, or is of other images.
    """
    champion = None
    if reign is None:
        labels, probabilities = candidate.labels, candidate.probabilities
        checks = [first(macro_auroc(labels, probabilities), params.promote.macro_margin)]
    else:
        place = champion_folder(folder, reign.evidence)
        champion = read_champion(folder, reign.evidence, reign.version)
        require_same_images(candidate, champion, place)
        checks = compare(pair_of(candidate, champion, params.evaluate), params.promote, params.evaluate)
    checks.append(_calibration_of(candidate, params))
    passed = accepted(checks)
    return {
        "outcome": "promoted" if passed else "refused",
        "reason": _reason(checks, passed=passed, version=version, champion=reign),
        "undoes": None,
        "candidate": _about(candidate, version),
        "champion": _about(champion, reign.version) if champion and reign else None,
        "rule": {
            "promote": dataclasses.asdict(params.promote),
            "evaluate": {name: getattr(params.evaluate, name) for name in _EVALUATE},
        },
        "checks": [dataclasses.asdict(check) for check in checks],
    }


def adopt(candidate: Evidence, version: str, reigns: list[Reign], folder: Path) -> dict[str, Any] | None:
    """Return the decision to store new evidence of the champion itself; None if it is stored already."""
    known = reigns and reigns[-1].version == version
    if known:
        try:
            stored = read_champion(folder, reigns[-1].evidence, version)
        except UserError:
            reason = "the champion's evidence was missing or changed, and is stored anew"
        else:
            if stored.predictions_sha256 == candidate.predictions_sha256:
                return None
            reason = "the champion was evaluated anew, and its evidence is stored"
    else:
        reason = "the alias was moved by others than cxr promote; the evidence is stored, and nothing was judged"
    about = _about(candidate, version)
    return {
        "outcome": "recorded",
        "reason": f"version {version} is champion: {reason}",
        "undoes": None,
        "candidate": about,
        "champion": about,
        "rule": None,
        "checks": [],
    }


def _reason(checks: list[Check], *, passed: bool, version: str, champion: Reign | None) -> str:
    if not passed:
        stays = f"version {champion.version} stays champion" if champion else "there is no champion still"
        return "; ".join([*(check.reason for check in checks if check.outcome == "fail"), stays])
    if champion is None:
        return f"version {version} is the first champion: there was none to compare with, and the other conditions hold"
    return f"version {version} takes the place of version {champion.version}: all conditions hold"


def _calibration_of(candidate: Evidence, params: Params) -> Check:
    """Check the calibration error that the evaluation wrote: of calibrated probabilities, if they were calibrated."""
    macro = candidate.metrics["test"]["macro"]
    name = "calibrated_ece" if "calibrated_ece" in macro else "ece"
    value, low, high = (macro.get(key) for key in (name, f"{name}_ci_low", f"{name}_ci_high"))
    figures = [np.nan if item is None else float(item) for item in (value, low, high)]
    return calibration(figures[0], params.promote, figures[1], figures[2])


def _about(evidence: Evidence, version: str) -> dict[str, Any]:
    training = evidence.training
    return {
        "version": version,
        "run_id": training["mlflow"]["run_id"],
        "model_sha256": training["model_sha256"],
        "predictions_sha256": evidence.predictions_sha256,
        "metrics_sha256": sha256_file(evidence.files["metrics.json"]),
        "processed_sha256": training.get("processed_sha256"),
        "code_version": training.get("code_version"),
        "dataset": evidence.metrics.get("dataset"),
        "protocol": evidence.metrics.get("protocol"),
    }


def test_images(candidate: Evidence, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return which test images these are, and how many decisions already rest on them."""
    sha256 = candidate.test_sha256
    earlier = sum(item["test"]["sha256"] == sha256 and item["outcome"] in ("promoted", "refused") for item in records)
    patients = candidate.test["patient_id"].nunique()
    return {"images": len(candidate.test), "patients": patients, "sha256": sha256, "earlier_decisions": earlier}


def registry_state(
    registry: Registry, alias: str, version: str, before: str | None, after: str | None
) -> dict[str, str | None]:
    """Return where the alias is before and after a decision on a version."""
    about = {"address": registry.address, "model": registry.name, "alias": alias}
    return about | {"version": version, "before": before, "after": after}


def made_by() -> dict[str, Any]:
    """Return the code that decides."""
    versions = {name: metadata.version(name) for name in ("mlflow", "numpy", "scipy")}
    own = {"cxr": __version__, "python": platform.python_version()}
    return {"code_version": code_version(), "versions": own | versions}
