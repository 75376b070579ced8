"""Every adapter has its module, its preset, its page and its sentence in the report; the page's example works."""

import importlib
import re
import types
import typing
from pathlib import Path

import pytest
from catalogues import check_catalogue, codes, labels
from conftest import DrawPng

from pipeline.datasets import module_of
from pipeline.params import DatasetParams, Params
from pipeline.params_file import load_params
from pipeline.presets import load_preset, preset_names, render
from pipeline.reporting.about import ABOUT

ADAPTERS = typing.get_args(typing.get_args(typing.get_type_hints(DatasetParams, include_extras=True)["adapter"])[0])
PAGES = ("nih", "pneumonia", "chexpert", "covid-radiography", "rsna-pneumonia", "vinbigdata", "folder", "simulated")


def test_adapters_and_pages(repository: Path) -> None:
    assert {*ADAPTERS, "simulated"} == set(PAGES)
    assert {path.stem for path in (repository / "docs" / "datasets").glob("*.md")} == {*PAGES, "README"}
    assert set(ABOUT) == set(PAGES)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_adapter_can_be_found_and_has_a_preset(adapter: str, repository: Path) -> None:
    assert callable(importlib.import_module(module_of(adapter)).read)
    configs = repository / "configs"
    assert adapter in {load_preset(name, configs).dataset.adapter for name in preset_names(configs)}
    overview = (repository / "docs" / "datasets" / "README.md").read_text(encoding="utf-8")
    assert f"| `{adapter}` |" in overview


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_where_it_is_from_and_how_to_cite_it(name: str, repository: Path) -> None:
    text = (repository / "docs" / "datasets" / f"{name}.md").read_text(encoding="utf-8").lower()
    for word in ("**from**", "licence", "patients", "what is odd", "**cite**"):
        assert word in text, word
    assert re.search(rf"^# .*`{name}`", text)


def test_presets_of_kaggle_name_what_their_page_names(repository: Path) -> None:
    for name in preset_names(repository / "configs"):
        params = load_preset(name, repository / "configs")
        page = next((page for page in ("nih", "simulated", "pneumonia") if name.startswith(page)), name)
        text = (repository / "docs" / "datasets" / f"{page}.md").read_text(encoding="utf-8")
        assert params.download.kaggle in text


def test_the_page_s_adapter_of_thirty_lines_works(repository: Path, tmp_path: Path, draw_png: DrawPng) -> None:
    text = (repository / "docs" / "datasets" / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.S)
    assert code
    assert len(code[1].splitlines()) <= 32
    module = types.ModuleType("example")
    exec(compile(code[1], "example", "exec"), module.__dict__)
    for seed, name in enumerate(("a.png", "b.png", "d.png")):
        draw_png(tmp_path / "films" / name, seed)
    (tmp_path / "labels.csv").write_text("file,person,hernia\na.png,1,yes\nb.png,1,\nc.png,2,no\n", encoding="utf-8")
    catalogue = module.read(tmp_path, DatasetParams())
    check_catalogue(catalogue, tmp_path)
    assert (labels(catalogue, "a.png"), labels(catalogue, "b.png")) == ({"Hernia": 1}, {"Hernia": None})
    assert codes(catalogue) == {"c.png": "label-without-image", "films/d.png": "image-without-label"}


@pytest.mark.parametrize(
    "dataset",
    [
        DatasetParams(adapter="chexpert", uncertain_findings={"Edema": "ones", "Effusion": "zeros"}, blank="zeros"),
        DatasetParams(adapter="folder", table="a b.csv", finding_columns=["Mass", "no: #x"], patient_column=""),
        DatasetParams(adapter="folder", patient_pattern=r"^(p\d{1,3}): #"),
    ],
)
def test_lists_and_mappings_are_written_and_read_back(dataset: DatasetParams, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(render(Params(dataset=dataset)), encoding="utf-8")
    assert load_params(tmp_path / "params.yaml").dataset == dataset
