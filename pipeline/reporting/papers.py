"""The model card and the checklists as files beside the report."""

import dataclasses
from pathlib import Path

from pipeline.files import write_json, write_text
from pipeline.reporting import card, checklists
from pipeline.reporting.facts import run_facts
from pipeline.reporting.inputs import Inputs


def write_papers(inputs: Inputs, reports: Path) -> list[Path]:
    """Write `model_card.md`, `model_card.json`, `checklists.json` and a page of Markdown for each checklist.

    Returns
    -------
    list of Path
        What was written.
    """
    written = [reports / "model_card.md", reports / "model_card.json", reports / "checklists.json"]
    content = card.model_card(inputs)
    write_text(written[0], card.to_markdown(content))
    write_json(written[1], content)
    facts = run_facts(inputs)
    filled = {name: checklists.fill(name, facts) for name in checklists.NAMES}
    lists = {
        name: {**each, "items": [dataclasses.asdict(item) for item in each["items"]]} for name, each in filled.items()
    }
    write_json(written[2], lists)
    for name, each in filled.items():
        written.append(reports / f"{name}.md")
        write_text(written[-1], checklists.to_markdown(each))
    return written
