"""The evaluation on anybody's predictions: scikit-learn's figures, the stages' files, refusals, no tuning on test."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.assess import assess
from pipeline.cli import main
from pipeline.files import without_nan
from pipeline.params import EvaluateParams
from pipeline.predictions_file import load_predictions

FINDINGS = ["Mass", "Edema"]


@pytest.fixture(scope="module")
def rows():
    """Return a table of 160 patients in val and test, with view, sex and age."""
    rng = np.random.default_rng(3)
    owner = np.repeat(np.arange(160), rng.integers(1, 4, 160))
    labels = (rng.random((len(owner), 2)) < 0.4).astype(int)
    outputs = 1 / (1 + np.exp(-(2 * labels - 1 + rng.normal(size=labels.shape))))
    table = pd.DataFrame({"image_id": [f"film{k}xq" for k in range(len(owner))]})
    table["patient_id"] = [f"secret{number:03d}" for number in owner]
    table["split"] = np.where(owner < 60, "val", "test")
    for k, name in enumerate(FINDINGS):
        table[f"y_{name}"], table[f"p_{name}"] = labels[:, k], outputs[:, k].round(6)
    table["view"] = np.where(owner % 3, "PA", "AP")
    table["sex"] = np.where(owner % 2, "F", "M")
    return table.assign(age=20 + owner % 60)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "params.yaml").write_text("evaluate: {resamples: 100, subgroup_images: 30}\n")
    return tmp_path


def run(folder, table, *arguments, out="out"):
    table.to_csv(folder / "table.csv", index=False)
    paths = ["score", str(folder / "table.csv"), "--out", str(folder / out), "--params", str(folder / "params.yaml")]
    return main([*paths, *map(str, arguments)])


def document(folder, name, out="out"):
    return json.loads((folder / out / f"{name}.json").read_text())


def test_the_scores_are_scikit_learns_on_the_test_images(folder, rows, capsys):
    assert run(folder, rows) == 0
    printed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    test = rows[rows["split"] == "test"]
    found = document(folder, "metrics")["test"]
    for name in FINDINGS:
        expected = roc_auc_score(test[f"y_{name}"], test[f"p_{name}"])
        assert found["findings"][name]["auc"] == pytest.approx(expected, abs=1e-12)
        precision = average_precision_score(test[f"y_{name}"], test[f"p_{name}"])
        assert found["findings"][name]["average_precision"] == pytest.approx(precision, abs=1e-12)
        assert f" {expected:.3f}  " in printed[name]
    assert (found["images"], found["patients"]) == (len(test), test["patient_id"].nunique())


def test_the_documents_are_those_of_the_stages(folder, rows):
    run(folder, rows)
    params = EvaluateParams(resamples=100, subgroup_images=30)
    expected = assess(load_predictions(folder / "table.csv").table, ["Mass", "Edema"], params)
    for name, value in expected.documents.items():
        assert document(folder, name) == json.loads(json.dumps(without_nan(value))), name
    for name, table in expected.plots.items():
        assert len(pd.read_csv(folder / "out" / "plots" / f"{name}.csv")) == len(table)
    assert document(folder, "calibration") is not None
    assert document(folder, "operating_points") is not None
    assert document(folder, "subgroups")["groups"]


def test_test_images_decide_nothing(folder, rows):
    run(folder, rows, out="there")
    changed = rows.copy()
    test = changed["split"] == "test"
    changed.loc[test, [f"p_{name}" for name in FINDINGS]] = changed.loc[test, [f"p_{name}" for name in FINDINGS]] ** 2
    run(folder, changed, out="here")
    assert document(folder, "calibration", "there") == document(folder, "calibration", "here")
    points = [document(folder, "operating_points", out)["findings"] for out in ("there", "here")]
    for name in FINDINGS:
        for rule in points[0][name]:
            assert points[0][name][rule]["threshold"] == points[1][name][rule]["threshold"]


def test_one_split_alone_is_neither_calibrated_nor_thresholded_and_that_is_said(folder, rows, capsys):
    run(folder, rows[rows["split"] == "test"].drop(columns="split"))
    assert "no validation images: nothing is calibrated, and no threshold is chosen" in capsys.readouterr().err
    assert document(folder, "calibration") is None
    assert document(folder, "operating_points") is None
    page = (folder / "out" / "report.html").read_text()
    assert "No validation images: nothing is calibrated, and no threshold is chosen." in page
    assert "calibrated_brier" not in document(folder, "metrics")["test"]["findings"]["Mass"]


def test_a_table_without_view_sex_and_age_has_no_subgroups(folder, rows):
    assert run(folder, rows.drop(columns=["view", "sex", "age"])) == 0
    assert "There are no subgroups to score" in (folder / "out" / "report.html").read_text()


def test_the_page_says_where_its_figures_come_from_and_names_nobody(folder, rows):
    run(folder, rows)
    page = (folder / "out" / "report.html").read_text()
    record = document(folder, "score")
    assert record["predictions"]["sha256"] in page
    assert "table.csv" in page
    assert "took part in no decision" not in page  # which a table of predictions cannot know
    for path in (folder / "out").rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert "secret" not in text
            assert "xq" not in text
    assert "<script" not in page


def test_training_images_are_left_out_and_counted(folder, rows, capsys):
    run(folder, rows, out="there")
    train = rows[:30].assign(split="train", image_id=[f"t{k}" for k in range(30)], patient_id="secret999", p_Mass=0.5)
    run(folder, pd.concat([train, rows]), out="here")
    assert "not scored: 30 training images" in capsys.readouterr().err
    assert document(folder, "metrics", "there") == document(folder, "metrics", "here")


def test_the_same_table_gives_the_same_bytes_and_may_be_scored_again(folder, rows):
    run(folder, rows)
    before = {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
    assert run(folder, rows) == 0
    assert before == {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}


def test_labels_from_another_table_and_patients_from_nihs_names(folder, rows):
    named = rows.assign(image_id=[f"{int(p[6:]):08d}_{k % 1000:03d}.png" for k, p in enumerate(rows["patient_id"])])
    named = named.assign(patient_id=[name[:8] for name in named["image_id"]])
    run(folder, named, out="there")
    named[["image_id", "split", "y_Mass", "y_Edema", "view", "sex", "age"]].to_csv(folder / "labels.csv", index=False)
    outputs = named.rename(columns={"image_id": "Image Index", "p_Mass": "prob_Mass", "p_Edema": "prob_Edema"})
    outputs = outputs[["Image Index", "prob_Mass", "prob_Edema"]]
    assert run(folder, outputs, "--labels", folder / "labels.csv", "--patients", "nih", out="here") == 0
    assert document(folder, "metrics", "there") == document(folder, "metrics", "here")
    assert document(folder, "score", "here")["labels"]["file"] == "labels.csv"


REFUSED = {
    "no test": (lambda t: t.assign(split="val"), "has no row of the test split; remove the column split"),
    "leak": (lambda t: t.assign(split=["val", "test"] * (len(t) // 2) + ["val"] * (len(t) % 2)), "have images in val"),
    "outside": (lambda t: t.assign(p_Mass=t["p_Mass"] * 100), "p_Mass is "),
    "twice": (lambda t: pd.concat([t, t]), "image_id stands in more than one row"),
    "missing": (lambda t: t.drop(columns="y_Mass"), "missing columns y_Mass"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refusals_are_one_line_name_no_patient_and_write_nothing(folder, rows, fault, capsys):
    change, expected = REFUSED[fault]
    assert run(folder, change(rows), "-q") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cxr score: error: ")
    assert expected in err
    assert "secret" not in err
    assert err.count("\n") == 1
    assert not (folder / "out").exists()


def test_a_folder_with_other_files_is_left_alone(folder, rows, capsys):
    (folder / "out").mkdir()
    (folder / "out" / "metrics.json").write_text("{}")
    assert run(folder, rows) == 1
    assert "holds other files" in capsys.readouterr().err
    assert (folder / "out" / "metrics.json").read_text() == "{}"


def test_the_real_command_exits_with_1_and_one_line(folder, rows):
    rows.assign(p_Mass="high").to_csv(folder / "table.csv", index=False)
    command = [sys.executable, "-m", "pipeline.cli", "score", "table.csv", "--out", "out", "-q"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"p_Mass is 'high' in {len(rows)} rows, first line 2 (image film0xq)" in done.stderr
