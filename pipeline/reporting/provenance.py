"""Section: what it takes to make the same page again: commands, versions, hashes, parameters."""

import shlex
from pathlib import PurePath
from typing import Any

from pipeline.params import Params
from pipeline.params_file import as_dict
from pipeline.reporting.page import Section
from pipeline.tracking import without_secrets


def section(
    training: dict[str, Any], meta: dict[str, Any], hashes: dict[str, str], trained: Params, params: Params
) -> Section:
    """Gather commands, versions, hashes and parameters.

    Parameters
    ----------
    training, meta : dict
        `training.json` and the `meta.json` of the processed images.
    hashes : dict
        What is hashed to its SHA-256.
    trained, params : Params
        The parameters saved beside the model, and the present ones, of which `evaluate` and `report` are shown.
    """
    content = {
        "commands": commands(training["code_version"], trained),
        "dirty": code_caveat(training["code_version"]),
        "facts": facts(training),
        "hashes": rows_of_hashes(hashes, meta, training),
        "params": parameters(trained, params),
    }
    return Section("provenance", "Provenance", content)


def commands(code_version: str, trained: Params) -> list[str]:
    """Return the shell commands that repeat the run."""
    commit = code_version.removesuffix("-dirty")
    train = f"make train PRESET={shlex.quote(trained.dataset.preset)}"
    if trained.download.source == "local":
        train += " ARCHIVE=/path/to/the/archive"
    return [*([] if commit == "no git" else [f"git checkout {shlex.quote(commit)}"]), train]


def code_caveat(code_version: str) -> str:
    """Say where the recorded version does not pin the code, or nothing."""
    if code_version == "no git":
        return "The code was not under version control, so the commit is not known."
    if code_version.endswith("-dirty"):
        return "The code had changes that were not committed: the commit alone does not give the same code."
    return ""


def facts(training: dict[str, Any]) -> list[tuple[str, str]]:
    """Return code version, versions of libraries and the MLflow run."""
    rows = [("Code version", str(training["code_version"]))]
    rows += [(str(name), str(version)) for name, version in training["versions"].items()]
    if training["mlflow"]["run_id"]:
        rows.append(("MLflow run", str(training["mlflow"]["run_id"])))
    return rows


def rows_of_hashes(computed: dict[str, str], meta: dict[str, Any], training: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the SHA-256 of data, model and results, in the order in which they are made."""
    early = ("manifest", "processed images (meta.json)")
    rows = [("manifest", computed["manifest"]), ("splits", str(meta["splits_sha256"]))]
    rows += [(early[1], computed[early[1]]), ("model", str(training["model_sha256"]))]
    return rows + [(name, value) for name, value in computed.items() if name not in early]


def parameters(trained: Params, params: Params) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return all parameters by section.

    Those of the model come from the file saved beside it, `evaluate` and `report` from the present ones, which came
    after it. Of an archive only the name is shown, and no user or password of a tracking server.
    """
    values = as_dict(trained) | {name: as_dict(params)[name] for name in ("evaluate", "report")}
    uri = values["tracking"]["uri"]
    values["tracking"]["uri"] = without_secrets(uri)
    values["download"]["archive"] = PurePath(values["download"]["archive"]).name
    return [(name, [(key, _plain(value)) for key, value in keys.items()]) for name, keys in values.items()]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if str(value) else "(empty)"
