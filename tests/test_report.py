import dataclasses
import json
import re
import shutil
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.assess import assess, roc_points, write_table
from pipeline.audit import audit
from pipeline.errors import UserError
from pipeline.files import read_json, sha256_file, write_json
from pipeline.findings import NIH14
from pipeline.ingest import ingest
from pipeline.leaks import SUSPECT
from pipeline.manifest import read_manifest, read_table
from pipeline.params import Params
from pipeline.params_file import as_dict, parse_params, write_yaml
from pipeline.preprocess import preprocess
from pipeline.report import report
from pipeline.reporting.examples import choose_examples, draw_example
from pipeline.reporting.figures import line_chart, nice_ticks, roc_path
from pipeline.reporting.tables import inclusion, parameters
from pipeline.reporting.text import headline, notices, protocol
from pipeline.shards import META
from pipeline.split import split
from pipeline.tracking import Run

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


class Page(HTMLParser):
    """Checks that tags close in order, and collects elements and the text of table rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in OPEN_SVG
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self.stack) and "svg" not in self.stack:
            self.rows[-1][-1] += data.strip()

    def row(self, name: str, cells: int) -> list[str]:
        [row] = [row for row in self.rows if row and row[0] == name and len(row) == cells]
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
    processed = data / "processed"
    preprocess(data / "manifest.csv", data / "splits.csv", processed, data / "raw", params, workers=1)
    write_models(root / "models", processed, params)
    index, meta = read_table(processed / "index.csv"), read_json(processed / META)
    rows = index[index["split"] != "train"]
    rng = np.random.default_rng(11)
    predictions = rows[["image_id", "patient_id", "split"]].copy()
    for name in meta["findings"]:
        predictions[f"y_{name}"] = rows[name].astype(float)
        predictions[f"p_{name}"] = 0.4 * predictions[f"y_{name}"] + 0.6 * rng.random(len(rows))
    head = {"dataset": meta["dataset"], "protocol": meta["protocol"]}
    write_json(
        reports / "metrics.json", head | assess(predictions, meta["findings"], params.evaluate).documents["metrics"]
    )
    write_table(reports / "predictions.csv", predictions)
    write_table(reports / "plots" / "roc.csv", roc_points(predictions, meta["findings"]))


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
    values = {"preprocess": {"size": 32, "tiles": 2}, "evaluate": {"resamples": 200}} | values
    project = Project(root, parse_params(values, "test"))
    run_stages(root, project.params)
    project.report()
    return project


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("nih") / "胸片 报告"
    (root / "data" / "raw").mkdir(parents=True)
    nih_raw(root / "data" / "raw")
    return make(root, {"split": {"train": 0.5, "val": 0.2, "test": 0.3}})


@pytest.fixture(scope="module")
def pneumonia(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("pneumonia") / "a b"
    (root / "data" / "raw").mkdir(parents=True)
    pneumonia_raw(root / "data" / "raw")
    dataset, source = (
        {"preset": "pneumonia", "adapter": "pneumonia"},
        {"source": "local", "archive": "/home/dr who/a.zip"},
    )
    return make(root, {"dataset": dataset, "download": source, "split": {"protocol": "folder"}})


@pytest.fixture
def copy(nih: Project, tmp_path: Path) -> Project:
    root = tmp_path / "副本 1"
    shutil.copytree(nih.root, root)
    return Project(root, nih.params)


@pytest.mark.parametrize("name", ["nih", "pneumonia"])
def test_page_is_well_formed_accessible_and_needs_nothing_from_outside(
    name: str, request: pytest.FixtureRequest
) -> None:
    text = request.getfixturevalue(name).page
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>\n")
    assert ("html", {"lang": "en"}) in page.elements
    assert not re.search(r"https?://|url\(|@import|javascript:", text)
    assert {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "base", "form", "style"} == {
        "style"
    }
    for tag, attributes in page.elements:
        assert not {key for key in attributes if key.startswith("on") or key in ("href", "srcset", "action", "style")}
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/png;base64,")
            assert attributes["alt"]
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col", "colgroup")
    [policy] = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert len(text) < 2_000_000


@pytest.mark.parametrize("name", ["nih", "pneumonia"])
def test_results_are_those_of_the_metrics_file(name: str, request: pytest.FixtureRequest) -> None:
    project = request.getfixturevalue(name)
    page = Page(project.page)
    metrics = json.loads((project.root / "reports" / "metrics.json").read_text(encoding="utf-8"))
    defined = {key: row for key, row in metrics["test"]["findings"].items() if row["auc"] is not None}
    assert defined
    for finding, row in defined.items():
        assert page.row(finding.replace("_", " ").capitalize(), 8) == [
            f"{row['auc']:.3f}",
            f"{row['ci_low']:.3f} to {row['ci_high']:.3f}",
            "",
            f"{row['average_precision']:.3f}",
            f"{row['average_precision_ci_low']:.3f} to {row['average_precision_ci_high']:.3f}",
            str(row["n_positive"]),
            str(row["n_negative"]),
        ]
    macro = metrics["test"]["macro"]
    assert f"AUC {macro['auc']:.3f} (95% interval" in page.text or len(metrics["test"]["findings"]) == 1
    assert f"{macro['ci_low']:.3f} to {macro['ci_high']:.3f}" in page.text


def test_undefined_finding_is_named_and_never_a_number(nih: Project) -> None:
    page = Page(nih.page)
    assert page.row("Hernia", 4)[0] == "undefined: no positive image in the test split"
    assert "There is no AUC for Hernia (no positive image in the test split)." in page.text
    assert "over 13 of 14 findings" in page.text
    assert "nan" not in page.text.lower().replace("finance", "")
    assert "None" not in re.sub(r"None had to be kept out", "", page.text)


def test_counts_are_those_of_the_split(nih: Project) -> None:
    page, summary = Page(nih.page), read_json(nih.root / "reports" / "data" / "split.json")
    parts = ("train", "val", "test")
    assert page.row("Images", 4) == [str(summary[part]["images"]) for part in parts]
    assert page.row("Patients", 4) == [str(summary[part]["patients"]) for part in parts]
    cells = page.row("Pleural thickening", 7)
    assert cells[0::2] == [str(summary[part]["findings"]["Pleural_Thickening"]["positive"]) for part in parts]
    shares = [summary[part]["findings"]["Pleural_Thickening"]["prevalence"] for part in parts]
    assert cells[1::2] == [f"{100 * share:.1f}%" for share in shares]
    assert "neither a PNG nor a JPEG file" in page.text


@pytest.mark.parametrize("name", ["nih", "pneumonia"])
def test_no_patient_and_no_image_is_named(name: str, request: pytest.FixtureRequest) -> None:
    project = request.getfixturevalue(name)
    table = read_table(project.root / "data" / "manifest.csv")
    text = project.page
    for column in ("image_id", "patient_id", "path", "sha256", "phash"):
        assert [value for value in table[column] if value in text] == []
    assert "70001" not in text  # the quarantined file
    assert "dr who" not in text


def test_one_finding_set(pneumonia: Project) -> None:
    page = Page(pneumonia.page)
    auc = read_json(pneumonia.root / "reports" / "metrics.json")["test"]["findings"]["Pneumonia"]["auc"]
    assert f"Test AUC for pneumonia {auc:.3f} (95% interval" in page.text
    assert "protocol: the archive's own test folder" in page.text
    assert "Mean of" not in page.text
    assert "children" in page.text
    assert "make train PRESET=pneumonia ARCHIVE=" in page.text


def test_warnings_are_due_only_where_they_apply(nih: Project, pneumonia: Project) -> None:
    assert "knows nothing of real chests" in nih.page
    assert "knows nothing of real chests" not in pneumonia.page
    for project in (nih, pneumonia):
        assert "not a medical device" in project.page
    metrics = read_json(pneumonia.root / "reports" / "metrics.json")
    row = metrics["test"]["findings"]["Pneumonia"]
    assert [notice.title for notice in notices(metrics, "local")] == ["For research only, not a medical device"]
    row |= {"n_positive": 9, "n_resamples": 199}
    titles = [notice.title for notice in notices(metrics, "local")]
    assert titles[:2] == ["Very few cases", "Intervals that rest on fewer resamples"]
    assert "Pneumonia (9 positive)" in notices(metrics, "local")[0].text


def test_all_undefined_says_so_instead_of_a_number() -> None:
    row = {"auc": None, "ci_low": None, "ci_high": None, "n_positive": 0, "n_negative": 0, "n_unknown": 5}
    macro = {"auc": None, "ci_low": None, "ci_high": None, "n_findings": 0}
    test = {"images": 5, "patients": 4, "findings": {"Mass": row}, "macro": macro}
    metrics = {"confidence": 0.95, "resamples": 100, "test": test}
    assert headline(metrics, Params().split).startswith("Test AUC is undefined for every finding; 5 images of 4 pat")
    assert notices(metrics, "local")[0].text == (
        "There is no AUC for Mass (its label is unknown in all 5 test images)."
    )


def test_unknown_labels_get_their_columns(copy: Project) -> None:
    summary = read_json(copy.root / "reports" / "data" / "split.json")
    summary["test"]["findings"]["Mass"] |= {"known": 7, "positive": 0, "prevalence": 0.0}
    write_json(copy.root / "reports" / "data" / "split.json", summary)
    metrics = read_json(copy.root / "reports" / "metrics.json")
    metrics["test"]["findings"]["Edema"]["n_unknown"] = 3
    write_json(copy.root / "reports" / "metrics.json", metrics)
    page = Page(copy.report())
    assert page.row("Mass", 10)[-3:] == ["0", "7", "0.0%"]
    assert page.row("Edema", 9)[-1] == "3"


def test_text_from_parameters_and_files_is_escaped(copy: Project) -> None:
    title = "<script>alert('胸')</script>"
    params = replace(copy.params, report=replace(copy.params.report, title=title))
    summary = read_json(copy.root / "reports" / "data" / "ingest.json")
    summary["quarantine_reasons"] = {"<img src=x onerror=y>": {"count": 1, "example": "<b>"}}
    write_json(copy.root / "reports" / "data" / "ingest.json", summary)
    text = copy.report(params)
    assert "<script" not in text
    assert "<img src=x" not in text
    assert title in Page(text).text
    assert "<img src=x onerror=y>" in Page(text).text


def test_same_inputs_same_bytes(nih: Project, copy: Project) -> None:
    assert copy.report() == nih.page


def test_parameters_are_complete_and_keep_no_secret(nih: Project) -> None:
    page = Page(nih.page)
    for keys in as_dict(nih.params).values():
        for key, value in keys.items():
            shown = {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
            assert [key, shown or "(empty)"] in page.rows
    values = {"uri": "https://example.org/ml?token=secret"}
    trained = parse_params({"tracking": values, "download": {"archive": "/home/dr who/a.zip"}}, "test")
    shown = dict(parameters(trained, trained))
    assert ("uri", "https://example.org/ml") in shown["tracking"]
    assert ("archive", "a.zip") in shown["download"]


def test_evaluation_parameters_are_the_present_ones(copy: Project) -> None:
    params = replace(copy.params, report=replace(copy.params.report, examples=2))
    page = Page(copy.report(params))
    assert ["examples", "2"] in page.rows
    assert sum(tag == "img" for tag, _ in page.elements) == 6


def test_no_examples_on_request(copy: Project) -> None:
    params = replace(copy.params, report=replace(copy.params.report, examples=0))
    page = Page(copy.report(params))
    assert "Example images" not in page.text
    assert "6 How to reproduce" in page.text


@pytest.mark.parametrize(
    "name",
    [
        "reports/data/ingest.json",
        "reports/data/split.json",
        "reports/data/audit.json",
        "reports/data/audit.csv",
        "reports/metrics.json",
        "reports/predictions.csv",
        "reports/plots/roc.csv",
        "data/manifest.csv",
        "data/processed/meta.json",
        "data/processed/index.csv",
        "models/history.csv",
        "models/params.yaml",
        "models/training.json",
    ],
)
def test_missing_input_is_named(copy: Project, name: str) -> None:
    (copy.root / name).unlink()
    (copy.root / "reports" / "report.html").unlink()
    with pytest.raises(UserError, match=re.escape(Path(name).name)):
        copy.report()
    assert not (copy.root / "reports" / "report.html").exists()


def test_a_mixture_of_runs_is_refused(copy: Project) -> None:
    training = copy.root / "models" / "training.json"
    write_json(training, read_json(training) | {"processed_sha256": "0" * 64})
    with pytest.raises(UserError, match=r"training.json and the processed images do not belong to the same run"):
        copy.report()


def plant_suspects(project: Project, count: int) -> None:
    """Write `count` pairs as the audit does: train and val first, then train and test."""
    index = read_table(project.root / "data" / "processed" / "index.csv")
    names = {part: index.loc[index["split"] == part, "image_id"].tolist() for part in ("train", "val", "test")}
    rows = [
        {
            "kind": "near-duplicate",
            "severity": "warning",
            "image_a": names["train"][k],
            "image_b": names["test" if k else "val"][k],
            "split_a": "train",
            "split_b": "test" if k else "val",
            "distance": 4,
            "similarity": 0.9971,
            "detail": "nearly the same picture; different patients",
        }
        for k in range(count)
    ]
    data = project.root / "reports" / "data"
    pd.DataFrame(rows, columns=SUSPECT).to_csv(data / "audit.csv", index=False)
    summary = read_json(data / "audit.json")
    summary["kinds"]["near-duplicate"] = count
    write_json(data / "audit.json", summary)


def test_the_audit_shows_counts_and_a_few_suspects_but_no_test_image(copy: Project) -> None:
    before = sum(tag == "img" for tag, _ in Page(copy.page).elements)
    plant_suspects(copy, 9)
    page = Page(copy.report())
    assert page.row("Nearly the same picture on two sides of the split", 2) == ["9"]
    assert page.row("Equal pixels on two sides of the split", 2) == ["0"]
    assert "training and validation: 4 bits, correlation 0.997; different patients" in page.text
    assert page.text.count("Test image: not shown") == 5
    assert "names all images and 3 more pairs" in " ".join(page.text.split())
    assert sum(tag == "img" for tag, _ in page.elements) == before + 7  # one pair, and five sides of training
    table = read_table(copy.root / "data" / "manifest.csv")
    assert [name for name in table["image_id"] if name in copy.page] == []


def test_an_audit_of_other_tables_is_refused(copy: Project) -> None:
    path = copy.root / "reports" / "data" / "audit.json"
    write_json(path, read_json(path) | {"splits_sha256": "0" * 64})
    with pytest.raises(UserError, match=r"audit\.json and the processed images do not belong to the same run"):
        copy.report()


def test_suspicious_films_in_use_are_counted(copy: Project) -> None:
    path = copy.root / "reports" / "data" / "ingest.json"
    reasons = {"inverted": {"count": 2, "example": "r = 0.61"}, "colour": {"count": 1, "example": "channels differ"}}
    write_json(path, read_json(path) | {"suspicious": 2, "suspicious_reasons": reasons})
    text = Page(copy.report()).text
    assert "2 of the images in use look suspicious" in text
    assert "seems to be inverted: white air, black bones (such as: r = 0.61)" in text


def test_changed_image_is_refused(copy: Project) -> None:
    manifest = read_manifest(copy.root / "data" / "manifest.csv")
    draw_films([copy.root / "data" / "raw" / path for path in manifest["path"]], side=50)
    with pytest.raises(UserError, match="has changed since it was ingested"):
        copy.report()


@pytest.mark.filterwarnings("ignore")  # those of MLflow and what it imports
def test_report_joins_the_training_run(copy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri = "sqlite:///runs.db"
    tracking = replace(copy.params.tracking, uri=uri, system_metrics=False)
    run = Run(tracking, name="training")
    run.end()
    training = copy.root / "models" / "training.json"
    write_json(training, read_json(training) | {"mlflow": {"run_id": run.id, "uri": uri}})
    copy.report(replace(copy.params, tracking=tracking))
    from mlflow import MlflowClient

    assert [item.path for item in MlflowClient(uri).list_artifacts(run.id)] == ["report.html"]
    assert MlflowClient(uri).get_run(run.id).info.status == "FINISHED"


def test_without_a_run_it_says_so(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    copy.report()
    assert "the training has no MLflow run" in capsys.readouterr().err


def test_protocol_in_words() -> None:
    params = Params().split
    assert protocol(params) == "whole patients, 7:2:1"
    assert protocol(dataclasses.replace(params, train=0.7, val=0.15, test=0.15)) == "whole patients, 70:15:15"


def test_only_the_most_frequent_reasons_are_listed() -> None:
    reasons = {f"code-{k:02d}": {"count": 1 + (k == 19), "example": "why"} for k in range(20)}
    counts = {"images": 5, "quarantined": 21, "quarantine_reasons": reasons, "left_out": {}, "patients": 3}
    counts |= {"suspicious": 3, "suspicious_reasons": {"inverted": {"count": 3, "example": "r = 0.5"}}}
    part = {"images": 1, "patients": 1}
    unused = {"in none of the source's lists": 2}
    flow = inclusion(counts, {"left_out_reasons": unused, "train": part, "val": part, "test": part})
    assert flow["quarantined"][0] == ("code-19 (such as: why)", 2)
    assert flow["quarantined"][-1] == ("other reasons", 8)
    assert sum(count for _, count in flow["quarantined"]) == 21
    assert flow["unused"] == [("in none of the source's lists", 2)]
    assert flow["suspicious"] == [("seems to be inverted: white air, black bones (such as: r = 0.5)", 3)]


@given(
    st.lists(st.lists(st.sampled_from([0, 1, None]), min_size=3, max_size=3), min_size=1, max_size=12),
    st.integers(0, 15),
)
def test_examples_differ_and_show_findings_first(rows: list[list[int | None]], count: int) -> None:
    labels = pd.DataFrame({f"f{k}": pd.array([row[k] for row in rows], dtype="Float64") for k in range(3)})
    chosen = choose_examples(labels, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(rows))
    if count >= 4:
        for k in range(3):
            has = {place for place, row in enumerate(rows) if row[k] == 1}
            assert not has or has & set(chosen)


def test_pictures_on_the_page_stay_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    film = cv2.GaussianBlur(rng.normal(128, 400, (1024, 800)), (0, 0), 6).clip(0, 255).astype(np.uint8)
    path = tmp_path / "胸 片.png"
    path.write_bytes(cv2.imencode(".png", film)[1].tobytes())
    from pipeline.images import pixel_sha256

    pictures = draw_example(path, pixel_sha256(film), replace(Params().preprocess, size=512))
    assert [(item["width"], item["height"]) for item in pictures] == [(200, 256), (256, 256), (256, 256)]
    assert 24 * sum(len(item["uri"]) for item in pictures) < 1_800_000
    assert [
        item["title"] for item in draw_example(path, pixel_sha256(film), replace(Params().preprocess, clahe=False))
    ] == [
        "As read",
        "Resized to 256 × 256",
    ]


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_the_values(low: float, span: float) -> None:
    ticks, digits = nice_ticks(low, low + span)
    assert 2 <= len(ticks) <= 8
    tolerance = 1e-6 * max(1.0, abs(low), span)
    assert ticks[0] <= low + tolerance
    assert ticks[-1] >= low + span - tolerance
    assert len({f"{tick:.{digits}f}" for tick in ticks}) == len(ticks)


def test_roc_path_is_in_the_square_and_upright() -> None:
    assert roc_path([0, 0, 0.00001, 1], [0, 0.5, 0.5, 1]) == "M0 100 L0 50 L100 0"
    assert roc_path([], []) == ""


def test_chart_leaves_a_gap_where_nothing_is_known_and_takes_one_epoch() -> None:
    chart = line_chart([1, 2, 3], {"train": [1.0, float("nan"), 3.0], "val": [float("nan")] * 3}, 2)
    assert re.fullmatch(r"M\S+ \S+ M\S+ \S+", chart["lines"][0]["path"])
    assert chart["lines"][1]["end"] is None
    assert chart["best"] == pytest.approx((chart["box"][0] + chart["box"][2]) / 2)
    assert len(line_chart([1], {"train": [0.5]}, 1)["x_ticks"]) == 1


def test_page_says_when_mirror_images_were_averaged(copy: Project) -> None:
    sentence = "mean over the image and its mirror"
    assert sentence not in copy.page
    path = copy.root / "reports" / "metrics.json"
    write_json(path, read_json(path) | {"flip": True})
    copy.report()
    assert sentence in copy.page
