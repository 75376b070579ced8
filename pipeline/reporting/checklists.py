"""Reporting checklists, filled from the run: each item with its evidence, and empty where only a person can answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.params_file import read_yaml

_FOLDER = Path(__file__).parents[1] / "templates" / "checklists"
NAMES = ("claim2024", "tripod_ai")
"""Files of `pipeline/templates/checklists`, without .yaml."""


@dataclass(frozen=True)
class Item:
    """One line of a checklist; `answer` and `evidence` are empty where only a person can answer."""

    item: str
    section: str
    asks: str
    answer: str
    evidence: str


def fill(name: str, facts: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Fill a checklist.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    facts : dict
        See `pipeline.reporting.facts.run_facts`.

    Returns
    -------
    dict
        `name`, `source`, `answered` (a number) and `items`. An answer whose facts are empty is empty, and so is its
        evidence.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - Markdown and JSON, not HTML
    checklist = read_yaml(_FOLDER / f"{name}.yaml")
    items = []
    for entry in checklist["items"]:
        answer = " ".join(environment.from_string(entry.get("answer", "")).render(facts).split())
        evidence = str(entry.get("evidence", "")) if answer else ""
        items.append(Item(str(entry["item"]), entry["section"], entry["asks"], answer, evidence))
    answered = sum(bool(item.answer) for item in items)
    return {"name": checklist["name"], "source": checklist["source"], "answered": answered, "items": items}


def to_markdown(checklist: dict[str, Any]) -> str:
    """Return a filled checklist as a page of Markdown."""
    items: list[Item] = checklist["items"]
    about = (
        f"{checklist['source']}. Filled from the run: {checklist['answered']} of {len(items)} items. An empty answer "
        "is for the authors to give; the wording of the items is ours, so read the original before a submission."
    )
    lines = [
        f"# {checklist['name']}",
        "",
        about,
        "",
        "| Item | Section | Asks for | Answer | Evidence |",
        "| --- | --- | --- | --- | --- |",
    ]
    cells = ((entry.item, entry.section, entry.asks, entry.answer, entry.evidence) for entry in items)
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in cells]
    return "\n".join(lines) + "\n"


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
