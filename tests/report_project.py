"""Small projects for the tests of the report: every file that the earlier stages write, without a training."""

import functools
import shutil
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pipeline.assess import assess, write_assessment, write_table
from pipeline.audit import audit
from pipeline.evaluate import complete
from pipeline.files import read_json, sha256_file, write_json
from pipeline.findings import NIH14
from pipeline.ingest import ingest
from pipeline.params import Params
from pipeline.params_file import as_dict, parse_params, write_yaml
from pipeline.preprocess import preprocess
from pipeline.report import report
from pipeline.shards import META, Processed, open_processed
from pipeline.split import split

VOID = {"meta", "img", "br"}
OPEN_SVG = {"path", "circle", "rect"}  # written with a slash


@dataclass(frozen=True)
class Project:
    root: Path
    params: Params

    @property
    def page(self) -> str:
        return (self.root / "reports" / "report.html").read_text(encoding="utf-8")

    def report(self, params: Params | None = None) -> str:
        names = ("reports", "data/manifest.csv", "data/raw", "data/processed", "models")
        report(*(self.root / name for name in names), params or self.params)
        return self.page

    def document(self, name: str) -> dict:
        return read_json(self.root / "reports" / f"{name}.json")

    def write(self, name: str, value: object) -> None:
        write_json(self.root / "reports" / f"{name}.json", value)


class Page(HTMLParser):
    """Checks that tags close in order, and collects elements, headings and the text of table rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.headings: list[tuple[int, str]] = []
        self.captions: list[str] = []
        self.table_of_row: list[int] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs))
        if tag == "table":
            self.captions.append("")
        if tag == "tr":
            self.rows.append([])
            self.table_of_row.append(len(self.captions) - 1)
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("h1", "h2", "h3"):
            self.headings.append((int(tag[1]), ""))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in OPEN_SVG
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.text += data
        if "caption" in self.stack:
            self.captions[-1] += data
        if {"td", "th"} & set(self.stack) and "svg" not in self.stack:
            self.rows[-1][-1] = " ".join([*self.rows[-1][-1].split(), *data.split()])
        if {"h1", "h2", "h3"} & set(self.stack):
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    def row(self, caption: str, name: str) -> list[str]:
        """Return the cells of the only row of that name in the only table whose caption begins so."""
        [number] = [k for k, text in enumerate(self.captions) if text.startswith(caption)]
        [row] = [r for r, k in zip(self.rows, self.table_of_row, strict=True) if k == number and r[:1] == [name]]
        return row[1:]


def draw_films(paths: list[Path], side: int = 72) -> None:
    rng = np.random.default_rng(3)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        film = cv2.resize(rng.integers(0, 255, (9, 8), dtype=np.uint8), (side, side + 8), interpolation=cv2.INTER_CUBIC)
        path.write_bytes(cv2.imencode(".png", film)[1].tobytes())


def nih_raw(raw: Path, images: int = 120) -> None:
    rng = np.random.default_rng(5)
    names = [f"{70001 + k // 2:08d}_{k % 2:03d}.png" for k in range(images)]
    draw_films([raw / "sample" / "images" / name for name in names])
    (raw / "sample" / "images" / names[0]).write_bytes(b"no image <at all>")
    common = NIH14[:-1]  # nobody has a hernia
    found = ["|".join(name for name in common if rng.random() < 0.2) or "No Finding" for _ in names]
    pd.DataFrame(
        {
            "Image Index": names,
            "Finding Labels": found,
            "Follow-up #": 0,
            "Patient ID": [name[:8] for name in names],
            "Patient Age": [f"{20 + k % 60:03d}Y" for k in range(images)],
            "Patient Gender": ["F" if k % 4 < 2 else "M" for k in range(images)],
            "View Position": ["PA" if k % 3 else "AP" for k in range(images)],
        }
    ).to_csv(raw / "sample_labels.csv", index=False)
    (raw / "train_val_list.txt").write_text("\n".join(names[:80]), encoding="utf-8")


def pneumonia_raw(raw: Path) -> None:
    root = raw / "chest_xray"
    draw_films([root / "train" / "NORMAL" / f"IM-{k:04d}-0001.png" for k in range(24)])
    sick = [root / "train" / "PNEUMONIA" / f"person{k + 100}_virus_{k}.png" for k in range(24)]
    tests = [root / "test" / "NORMAL" / f"IM-{k:04d}-0001.png" for k in range(50, 62)]
    tests += [root / "test" / "PNEUMONIA" / f"person{k + 200}_bacteria_{k}.png" for k in range(12)]
    rng = np.random.default_rng(4)
    for path in sick + tests:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", rng.integers(0, 255, (70, 90), dtype=np.uint8))[1].tobytes())


def run_stages(root: Path, params: Params) -> None:
    data, reports = root / "data", root / "reports"
    ingest(data / "raw", data / "manifest.csv", reports / "data" / "quarantine.csv", params, workers=1)
    split(data / "manifest.csv", data / "splits.csv", reports / "data" / "split.json", params.split)
    audit(data / "manifest.csv", data / "splits.csv", reports / "data" / "audit.csv", params.audit)
    preprocess(data / "manifest.csv", data / "splits.csv", data / "processed", data / "raw", params, workers=1)
    write_models(root / "models", data / "processed", params)
    processed = open_processed(data / "processed")
    predictions = made_up_predictions(processed)
    assessment = assess(predictions, processed.findings, params.evaluate)
    complete(assessment, processed, params.evaluate, None)
    assessment.documents["localisation"] = None
    write_table(reports / "predictions.csv", predictions)
    write_assessment(assessment, reports)
    write_cases(reports / "cases", processed.findings)


def made_up_predictions(data: Processed) -> pd.DataFrame:
    """Return outputs that tend to be higher where the finding is."""
    rows = pd.concat([data.rows(name) for name in ("val", "test")], ignore_index=True)
    rng = np.random.default_rng(11)
    table = rows[["image_id", "patient_id", "split"]].copy()
    for name in data.findings:
        table[f"y_{name}"] = rows[name].astype("Int8")
    for name in data.findings:
        table[f"p_{name}"] = 0.4 * table[f"y_{name}"].astype(float) + 0.6 * rng.random(len(rows))
    return table.join(rows[["view", "sex", "age"]])


def write_cases(folder: Path, findings: list[str]) -> None:
    """Write a true positive and a miss as `evaluate` does."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(2)
    cases = []
    for number, (kind, output) in enumerate((("true positive", 0.75), ("miss", 0.25)), start=1):
        name = f"{number:03d}.png"
        picture = rng.integers(0, 255, (256, 520, 3), dtype=np.uint8)
        (folder / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        cases.append(
            {"file": name, "kind": kind, "finding": findings[0], "label": 1, "probability": output, "threshold": 0.5}
            | {"confidence": 0.875, "view": "PA", "width": 520, "height": 256, "has_box": False, "has_map": True}
            | {"alt": f"Chest radiograph, PA view. {findings[0]}: {kind}, labelled present."}
        )
    available = {"true positive": 7, "miss": 5, "false alarm": 0, "confident mistake": 5}
    write_json(folder / "cases.json", {"split": "test", "available": available, "cases": cases})


def write_models(models: Path, processed: Path, params: Params) -> None:
    write_yaml(models / "params.yaml", as_dict(params))
    history = {"epoch": [0, 1, 2], "loss": [0.5, 0.4, 0.3], "val_loss": [0.6, float("nan"), 0.5]}
    history |= {"train_auc": [0.6, 0.7, 0.8], "val_auc": [0.5, 0.75, 0.7]}
    pd.DataFrame(history).to_csv(models / "history.csv", index=False, na_rep="nan")
    training = {
        "best_epoch": 2,
        "epochs": 3,
        "val_auc": 0.75,
        "model_sha256": "ab" * 32,
        "processed_sha256": sha256_file(processed / META),
        "findings": read_json(processed / META)["findings"],
        "preprocess": read_json(processed / META)["preprocess"],
        "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"},
        "code_version": "0123456789012345678901234567890123456789-dirty",
        "mlflow": {"run_id": "", "uri": ""},
    }
    write_json(models / "training.json", training)


def make(root: Path, values: dict[str, dict[str, object]]) -> Project:
    small = {"preprocess": {"size": 32, "tiles": 2}, "evaluate": {"resamples": 200, "subgroup_images": 12}}
    project = Project(root, parse_params(small | values, "test"))
    run_stages(root, project.params)
    project.report()
    return project


@functools.cache
def nih_project(folder: Path) -> Project:
    """Return 120 films in NIH's layout; made once for all tests, which work on copies."""
    root = folder / "nih" / "胸片 报告"
    (root / "data" / "raw").mkdir(parents=True)
    nih_raw(root / "data" / "raw")
    return make(root, {"split": {"train": 0.5, "val": 0.2, "test": 0.3}})


@functools.cache
def pneumonia_project(folder: Path) -> Project:
    """Return 72 films with one finding, of which neither sex nor age is known."""
    root = folder / "pneumonia" / "a b"
    (root / "data" / "raw").mkdir(parents=True)
    pneumonia_raw(root / "data" / "raw")
    dataset = {"preset": "pneumonia", "adapter": "pneumonia"}
    source = {"source": "local", "archive": "/home/dr who/a.zip"}
    return make(root, {"dataset": dataset, "download": source, "split": {"protocol": "folder"}})


def copy_of(project: Project, folder: Path) -> Project:
    root = folder / "副本 1"
    shutil.copytree(project.root, root)
    return Project(root, project.params)
