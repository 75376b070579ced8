"""Documents say what is so: the command's help, the presets, the targets, the result and where it comes from."""

import importlib.machinery
import importlib.util
import re
from pathlib import Path

import pytest

from pipeline.cli import build_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_cli_page_is_what_the_parser_says(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    loader = importlib.machinery.SourceFileLoader("cli_docs", str(ROOT / "scripts" / "cli-docs"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("cli_docs", loader))
    loader.exec_module(module)
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8") == module.render(), "run scripts/cli-docs"


def test_readme_names_every_preset():
    named = set(re.findall(r"^\| `([\w-]+)`", README, re.M))
    assert named == {path.stem for path in (ROOT / "configs").glob("*.yaml")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_targets_in_the_pages_exist(page):
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.M)) <= targets
    parser = build_parser()
    commands = set(next(action.choices for action in parser._actions if action.dest == "command"))
    assert set(re.findall(r"`cxr ([a-z]+)", text)) <= commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_files_that_the_architecture_names_exist():
    rooms = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("## Rooms")[1].split("## ")[0]
    for name in re.findall(r"\b(\w+\.py)\b", rooms):
        assert (ROOT / "pipeline" / name).exists() or (ROOT / "tests" / name).exists(), name
