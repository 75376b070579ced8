"""Section: scores by sex, age and view; underdiagnosis first, because a missed sick patient is the worst mistake."""

from typing import Any

from pipeline.findings import readable
from pipeline.reporting.figures import forest_axis, forest_mark
from pipeline.reporting.page import Section
from pipeline.reporting.summary import Document
from pipeline.reporting.text import bounds, cell, counted, estimate, level, listed, p_value, percent, percent_interval

_SIGNIFICANT = 0.05
_MOST_ROWS = 30
_SCORES = {"auc": "AUC", "fnr": "share missed", "fpr": "share flagged in vain"}
_OVERALL = {"fpr": "underdiagnosis", "fnr": "overdiagnosis"}


def section(subgroups: Document, metrics: dict[str, Any]) -> Section:
    """Gather the groups and their differences.

    Parameters
    ----------
    subgroups : dict or None
        `subgroups.json`; None where view, sex and age are not known.
    metrics : dict
        `metrics.json`, for the level and for the row of all images.
    """
    found = subgroups or {"groups": [], "differences": []}
    groups = found["groups"]
    scored = [group for group in groups if group["scored"]]
    auc_axis = forest_axis([*(group["macro"] for group in scored), metrics["test"]["macro"]])
    rate_axis = forest_axis([group["no_finding"] for group in scored], "fpr", reference=None, top=0.0)
    rows = [_row(group, auc_axis, rate_axis) for group in groups]
    single = [row for row in rows if " x " not in row["by"]]
    differences = found["differences"]
    content = {
        "tables": _by_attribute(single),
        "crossings": _by_attribute([row for row in rows if " x " in row["by"]]),
        "many": len(metrics["test"]["findings"]) > 1,
        "any_scored": bool(scored),
        "all_images": estimate(metrics["test"]["macro"]),
        "n_findings": metrics["test"]["macro"]["n_findings"],
        "auc_axis": auc_axis,
        "rate_axis": rate_axis,
        "by_finding": _by_finding(groups),
        "level": level(metrics["confidence"]),
        "min_images": found.get("min_images"),
        "unknown": listed(list(found.get("unknown_for_all", []))),
        "without_threshold": listed([readable(name) for name in found.get("without_threshold", [])]),
        "multiplicity": _in_words(str(found.get("multiplicity", ""))),
        "n_comparisons": found.get("n_comparisons", len(differences)),
        "verdict": verdict(differences, found.get("n_comparisons", len(differences))),
        "differences": [_difference(row) for row in shown_differences(differences)],
        "all_differences": len(differences),
    }
    return Section("subgroups", "Subgroups", content)


def shown_differences(differences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose the differences that the page names: those over all findings, and those that remain after adjustment.

    At most 30 of the latter, the smallest p first.
    """
    overall = [row for row in differences if row["finding"] in ("macro", "No Finding")]
    rest = sorted(
        (row for row in differences if row not in overall and row["p_adjusted"] < _SIGNIFICANT),
        key=lambda row: (row["p_value"], row["by"], row["group"], row["finding"]),
    )
    return overall + rest[:_MOST_ROWS]


def verdict(differences: list[dict[str, Any]], n_comparisons: int) -> str:
    """Say how many differences remain after the adjustment for their number."""
    if not n_comparisons:
        return "No group was compared with the others: no group and its complement are both large enough."
    found = sum(row["p_adjusted"] < _SIGNIFICANT for row in differences)
    number = "None" if not found else f"{found:,}"
    return (
        f"{number} of {counted(n_comparisons, 'difference')} between a group and the other images "
        f"{'has' if found in (0, 1) else 'have'} an adjusted p below {_SIGNIFICANT:g}. "
        "A difference that is not found is not shown to be absent: the intervals say how large it may be."
    )


def _in_words(multiplicity: str) -> str:
    """Return the sentence of subgroups.json with the heading of the page's column in place of the key's name."""
    return multiplicity.replace(". p_adjusted", ". The adjusted p").replace("p_adjusted", "adjusted p")


def _row(group: dict[str, Any], auc_axis: dict[str, Any], rate_axis: dict[str, Any]) -> dict[str, Any]:
    row = {
        "by": group["by"],
        "name": group["group"][:1].upper() + group["group"][1:],
        "images": f"{group['images']:,}",
        "patients": f"{group['patients']:,}",
        "scored": group["scored"],
    }
    if not group["scored"]:
        return row
    healthy, macro = group["no_finding"], group["macro"]
    return row | {
        "underdiagnosis": _share(healthy, "fpr"),
        "n": f"of {counted(healthy['n'], 'image')}",
        "overdiagnosis": _share(healthy, "fnr"),
        "n_healthy": f"of {counted(healthy['n_healthy'], 'image')}" if "n_healthy" in healthy else "",
        "rate_mark": forest_mark(healthy, rate_axis, "fpr"),
        "auc": cell(macro),
        "n_findings": counted(macro["n_findings"], "finding"),
        "auc_mark": forest_mark(macro, auc_axis),
    }


def _by_attribute(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the rows of each attribute together, in the order they come."""
    names = list(dict.fromkeys(row["by"] for row in rows))
    return [
        {
            "name": name.replace(" x ", " and ").capitalize(),
            "rows": [row for row in rows if row["by"] == name],
        }
        for name in names
    ]


def _by_finding(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a table for each attribute: a row for each finding, a column for each scored group."""
    tables = []
    for by in dict.fromkeys(group["by"] for group in groups if group["scored"] and " x " not in group["by"]):
        columns = [group for group in groups if group["by"] == by and group["scored"]]
        rows = [
            (readable(name), [_cell(group["findings"][name]) for group in columns]) for name in columns[0]["findings"]
        ]
        tables.append({"name": by.capitalize(), "columns": [group["group"] for group in columns], "rows": rows})
    return tables


def _cell(scores: dict[str, Any]) -> dict[str, str]:
    return {
        "auc": estimate(scores),
        "missed": _with_interval(scores, "fnr"),
        "vain": _with_interval(scores, "fpr"),
        "n_positive": f"{scores['n_positive']:,}",
        "n_negative": f"{scores['n_negative']:,}",
    }


def _share(scores: dict[str, Any], name: str) -> dict[str, str]:
    if scores.get(name) is None:
        return {"value": "undefined", "interval": ""}
    return {"value": percent(scores[name]), "interval": percent_interval(scores, name)}


def _with_interval(scores: dict[str, Any], name: str) -> str:
    share = _share(scores, name)
    return f"{share['value']} ({share['interval']})" if share["interval"] else share["value"]


def _difference(row: dict[str, Any]) -> dict[str, Any]:
    finding, score = row["finding"], row.get("score", "auc")
    if finding == "macro":
        n = row.get("n_findings")
        what = "mean AUC" + (f" of {counted(n, 'finding')}" if n else "")
    elif finding == "No Finding":
        what = _OVERALL.get(score, score)
    else:
        what = f"{readable(finding)}: {_SCORES.get(score, score)}"
    low, high = bounds(row, "difference")
    return {
        "group": f"{row['by'].capitalize()}: {row['group']}",
        "what": what[:1].upper() + what[1:],
        "difference": cell(row, "difference", plus=True),
        "beyond": low is not None and high is not None and (low > 0 or high < 0),
        "p": p_value(row["p_value"]),
        "p_adjusted": p_value(row["p_adjusted"]),
        "found": row["p_adjusted"] < _SIGNIFICANT,
    }
