"""Sections: from the files to the splits with every exclusion, and who is in them."""

from typing import Any

import pandas as pd

from pipeline.manifest import SPLITS
from pipeline.params import Params
from pipeline.quarantine import MEANINGS
from pipeline.reporting import tables
from pipeline.reporting.about import about_data
from pipeline.reporting.page import Section
from pipeline.reporting.summary import explain_protocol
from pipeline.reporting.text import SPLITS as SPLIT_NAMES

_MOST_REASONS = 12


def flow_section(ingest: dict[str, Any], split: dict[str, Any], preset: str, trained: Params) -> Section:
    """Gather the flow of inclusion.

    Parameters
    ----------
    ingest, split : dict
        `ingest.json` and `split.json`.
    preset : str
        The preset's name.
    trained : Params
        The parameters saved beside the model.
    """
    content = {
        "preset": preset,
        "about": about_data(trained),
        "protocol": explain_protocol(trained.split),
        "flow": inclusion(ingest, split),
        "notes": list(ingest["notes"].items()),
    }
    return Section("flow", "Data and exclusions", content)


def people_section(index: pd.DataFrame, split: dict[str, Any], findings: list[str]) -> Section:
    """Gather who is in the splits: view, sex, age, and how frequent each finding is.

    Parameters
    ----------
    index : DataFrame
        `index.csv`, a row for each image in use.
    split : dict
        `split.json`.
    findings : list of str
        In the order of the page.
    """
    groups = {"All": index, **{SPLIT_NAMES[name]: index[index["split"] == name] for name in SPLITS}}
    content = {
        "characteristics": tables.characteristics(groups),
        "prevalence": tables.prevalence(split, findings),
    }
    return Section("people", "Who is in the splits", content)


def inclusion(ingest: dict[str, Any], split: dict[str, Any]) -> dict[str, Any]:
    """Return the flow from files to splits.

    Returns
    -------
    dict
        `examined`, `included`, `patients`, `splits` (name, images, patients) and four lists of (reason, count):
        `quarantined` (a fault in a file or row), `suspicious` (used, but should be looked at), `left_out` (part of
        the archive as published, such as its second copy of itself) and `unused` (in no split). Only the most
        frequent reasons are named, the rest summed.
    """
    return {
        "examined": ingest["images"] + ingest["quarantined"],
        "quarantined_total": ingest["quarantined"],
        "quarantined": _most(_by_code(ingest["quarantine_reasons"])),
        "suspicious_total": ingest["suspicious"],
        "suspicious": _most(_by_code(ingest["suspicious_reasons"])),
        "left_out": _most(ingest["left_out"]),
        "left_out_total": sum(ingest["left_out"].values()),
        "included": ingest["images"],
        "patients": ingest["patients"],
        "unused": _most(split["left_out_reasons"]),
        "unused_total": sum(split["left_out_reasons"].values()),
        "splits": [(SPLIT_NAMES[name], split[name]["images"], split[name]["patients"]) for name in SPLITS],
    }


def _by_code(counts: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Put the codes of the quarantine into words, with an example of what was found."""
    words = {code.value: meaning for code, meaning in MEANINGS.items()}
    return {f"{words.get(code, code)} (such as: {row['example']})": row["count"] for code, row in counts.items()}


def _most(reasons: dict[str, int]) -> list[tuple[str, int]]:
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[_MOST_REASONS:])
    return ordered[:_MOST_REASONS] + ([("other reasons", rest)] if rest else [])
