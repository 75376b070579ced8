"""Two models on the same images: published figures, sentences, refusals, and what must change nothing."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from test_delong import OVARIAN

from pipeline.cli import main
from pipeline.compare import compare_tables
from pipeline.compare_page import render
from pipeline.compare_text import sentences
from pipeline.files import without_nan
from pipeline.params import EvaluateParams
from pipeline.statistics.paired import holm

FINDINGS = ["Mass", "Edema", "Hernia"]
FEW = EvaluateParams(resamples=200, seed=4)


def table(seed, noise, images=None, patients=40):
    """Return a predictions table; the images and labels are the same for all seeds, Hernia has no positive."""
    rng = np.random.default_rng(11)
    owner = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    labels = rng.integers(0, 2, (len(owner), 3)).astype(float)
    labels[:, 2] = 0
    labels[::9, 1] = np.nan
    seen = np.nan_to_num(labels) + rng.normal(size=labels.shape)
    outputs = 1 / (1 + np.exp(-(seen + noise * np.random.default_rng(seed).normal(size=labels.shape))))
    rows = pd.DataFrame({"image_id": [f"film{k}xq.png" for k in range(len(owner))]})
    rows["patient_id"] = [f"secret{number:03d}" for number in owner]
    for k, name in enumerate(FINDINGS):
        rows[f"y_{name}"], rows[f"p_{name}"] = labels[:, k], outputs[:, k].round(6)
    return rows.iloc[:images]


@pytest.fixture
def pair(tmp_path):
    """Return the files of two models and a small parameter file."""
    table(1, 0.3).to_csv(tmp_path / "a.csv", index=False)
    table(2, 3.0).to_csv(tmp_path / "b.csv", index=False)
    (tmp_path / "params.yaml").write_text("evaluate: {resamples: 200}\n")
    return tmp_path


def run(folder, *arguments):
    params = ["--params", str(folder / "params.yaml")]
    return main(["compare", str(folder / "a.csv"), str(folder / "b.csv"), *params, *map(str, arguments)])


def result_of(a, b, params=FEW, findings=FINDINGS):
    result = without_nan(compare_tables(a, b, findings, params))
    extra = {"a": {"file": "a.csv", "sha256": "0"}, "b": {"file": "b.csv", "sha256": "1"}, "not_compared": []}
    result |= extra
    return result | {"sentences": sentences(result)}


def test_the_command_writes_what_scikit_learn_computes(pair, capsys):
    assert run(pair, "--out", pair / "out") == 0
    out = capsys.readouterr().out
    found = json.loads((pair / "out" / "compare.json").read_text())
    a, b = (pd.read_csv(pair / name) for name in ("a.csv", "b.csv"))
    scores = {"auc": roc_auc_score, "average_precision": average_precision_score, "brier": brier_score_loss}
    for name in ("Mass", "Edema"):
        known = a[f"y_{name}"].notna()
        row = found["findings"][name]
        for score, function in scores.items():
            values = [function(one.loc[known, f"y_{name}"], one.loc[known, f"p_{name}"]) for one in (a, b)]
            assert [row["a"][score], row["b"][score]] == pytest.approx(values, abs=1e-12)
            assert row["difference"][score] == pytest.approx(values[1] - values[0], abs=1e-12)
    assert found["findings"]["Hernia"]["difference"]["auc"] is None
    assert found["macro"]["undefined"] == "Hernia"
    for score in scores:
        of = [found["findings"][name]["difference"][score] for name in ("Mass", "Edema")]
        assert found["macro"]["difference"][score] == pytest.approx(np.mean(of), abs=1e-12)
    assert found["findings"]["Edema"]["n_unknown"] == a["y_Edema"].isna().sum()
    assert (found["images"], found["patients"]) == (len(a), a["patient_id"].nunique())
    for sentence in found["sentences"]:
        assert sentence in out
    assert "undefined" in next(line for line in out.splitlines() if line.startswith("Hernia"))


def test_the_table_holds_the_same_as_the_document(pair):
    run(pair, "--out", pair / "out", "-q")
    found = json.loads((pair / "out" / "compare.json").read_text())
    rows = pd.read_csv(pair / "out" / "compare.csv").set_index(["finding", "score"])
    assert len(rows) == 4 * 3
    mass = found["findings"]["Mass"]["difference"]
    assert rows.loc[("Mass", "auc"), "difference"] == pytest.approx(mass["auc"], rel=1e-8)
    assert rows.loc[("Mass", "brier"), "p_value"] == pytest.approx(mass["brier_p_value"], rel=1e-8)
    assert rows.loc[("Mass", "auc"), "n_positive"] == found["findings"]["Mass"]["n_positive"]
    assert rows.loc["Hernia"].loc["auc", ["a", "difference", "p_value"]].isna().all()
    ps = [found["findings"][name]["difference"]["p_value"] or np.nan for name in FINDINGS]
    adjusted = [rows.loc[(name, "auc"), "p_adjusted"] for name in FINDINGS]
    assert adjusted == pytest.approx(holm(ps).tolist(), rel=1e-8, nan_ok=True)


def test_nobody_is_named_and_nothing_is_fetched(pair):
    run(pair, "--out", pair / "out")
    for path in (pair / "out").iterdir():
        text = path.read_text()
        assert "secret" not in text
        assert "xq" not in text
    page = (pair / "out" / "compare.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") >= 3


def test_the_order_of_rows_and_the_names_of_patients_change_nothing(pair):
    run(pair, "--out", pair / "there")
    shuffled = pd.read_csv(pair / "a.csv", dtype=str, keep_default_na=False).sample(frac=1, random_state=1)
    for name in ("a.csv", "b.csv"):
        rows = pd.read_csv(pair / name, dtype=str, keep_default_na=False)
        rows = rows.set_index("image_id").loc[shuffled["image_id"]].reset_index() if name == "a.csv" else rows
        rows["patient_id"] = "other" + rows["patient_id"]  # names that sort as before
        rows.to_csv(pair / name, index=False)
    run(pair, "--out", pair / "here")
    there, here = (json.loads((pair / name / "compare.json").read_text()) for name in ("there", "here"))
    for one in (there, here):
        del one["a"]["sha256"], one["b"]["sha256"]
    assert there == here


def test_swapping_the_tables_turns_the_signs():
    a, b = table(1, 0.3), table(2, 3.0)
    there, back = result_of(a, b), result_of(b, a)
    for name in ("Mass", "Edema"):
        one, other = there["findings"][name]["difference"], back["findings"][name]["difference"]
        assert one["auc"] == -other["auc"]
        assert (one["ci_low"], one["ci_high"]) == pytest.approx((-other["ci_high"], -other["ci_low"]), abs=1e-9)
        assert one["p_value"] == pytest.approx(other["p_value"], abs=1e-5)
    assert there["sentences"][0].replace("lower", "higher") == back["sentences"][0]


def test_a_table_against_itself():
    found = result_of(table(1, 0.3), table(1, 0.3))
    for name in ("Mass", "Edema"):
        row = found["findings"][name]["difference"]
        assert (row["auc"], row["ci_low"], row["ci_high"], row["p_value"], row["p_adjusted"]) == (0, 0, 0, 1, 1)
    assert found["sentences"][0].startswith("The mean AUROC is the same for A and B on the same")
    assert "no difference of a finding could be shown" in found["sentences"][1]


def test_only_the_test_split_is_compared(pair, capsys):
    whole = {name: pd.read_csv(pair / name, dtype=str, keep_default_na=False) for name in ("a.csv", "b.csv")}
    split = np.where(whole["a.csv"]["patient_id"] < "secret015", "val", "test")
    for name, rows in whole.items():
        rows.assign(split=split).to_csv(pair / name, index=False)
    run(pair, "--out", pair / "marked")
    assert f"compared are the {(split == 'test').sum()} images of the test split" in capsys.readouterr().err
    for name, rows in whole.items():
        rows[split == "test"].to_csv(pair / name, index=False)
    run(pair, "--out", pair / "alone")
    marked, alone = (json.loads((pair / name / "compare.json").read_text()) for name in ("marked", "alone"))
    assert marked["findings"] == alone["findings"]


def test_the_patients_of_delong_1988_give_the_p_values_that_sas_prints():
    rows = np.array(OVARIAN.split(), float).reshape(-1, 4)
    about = pd.DataFrame({"image_id": [f"{k:02d}" for k in range(len(rows))], "y_Mass": rows[:, 3]})
    about["patient_id"] = about["image_id"]
    albumin, protein, score = rows[:, 0] / 10, rows[:, 1] / 10, 1 - rows[:, 2] / 10
    for one, area, p in ((albumin, 0.7366, 0.9102), (protein, 0.6478, 0.4561)):
        found = result_of(about.assign(p_Mass=score), about.assign(p_Mass=one), FEW, ["Mass"])
        difference = found["findings"]["Mass"]["difference"]
        assert found["findings"]["Mass"]["a"]["auc"] == pytest.approx(0.7258, abs=5e-5)
        assert found["findings"]["Mass"]["b"]["auc"] == pytest.approx(area, abs=5e-5)
        assert difference["delong_p_value"] == pytest.approx(p, abs=5e-5)
        assert difference["p_value"] == pytest.approx(p, abs=0.15)  # another method on 43 patients, 200 resamples
        assert (
            "No difference of the AUROC for mass could be shown on the same 43 images of 43 patients"
            in (found["sentences"][0])
        )
        assert "p, DeLong" in render(found)
    assert "delong_p_value" not in result_of(table(1, 1), table(2, 1))["findings"]["Mass"]["difference"]


def test_a_shown_difference_in_words():
    said = result_of(table(1, 0.3, patients=150), table(2, 3.0, patients=150), EvaluateParams(resamples=1000))
    macro = said["macro"]["difference"]
    assert said["sentences"][0] == (
        f"B's mean AUROC is lower by {-macro['auc']:.3f} (95% interval {-macro['ci_high']:.3f} to "
        f"{-macro['ci_low']:.3f}, {_p(macro['p_value'])}) on the same {said['images']} images of 150 patients."
    )
    assert said["sentences"][1].startswith("After Holm's correction 2 of 2 findings differ in AUROC: mass (B lower by ")
    assert "Brier score is higher (worse) by" in said["sentences"][3]
    assert said["sentences"][-1] == "Without a positive or without a negative image, and so undefined: hernia."


def test_a_difference_that_could_not_be_shown_says_what_is_ruled_out():
    said = result_of(table(1, 0.3), table(2, 0.3))
    macro = said["macro"]["difference"]
    most = max(abs(macro["ci_low"]), abs(macro["ci_high"]))
    assert "No difference of the mean AUROC could be shown" in said["sentences"][0]
    bound = float(said["sentences"][0].split("±")[1].split()[0])
    assert most <= bound < most + 0.001
    assert "no difference of" in said["sentences"][1]


def test_too_few_resamples_for_the_correction_are_said():
    rows = table(1, 0.3)
    many = [f"F{k:02d}" for k in range(20)]
    wide = rows[["image_id", "patient_id"]].assign(
        **{f"y_{name}": rows["y_Mass"] for name in many}, **{f"p_{name}": rows["p_Mass"] for name in many}
    )
    caveat = result_of(wide, wide, EvaluateParams(resamples=100), many)["sentences"][-1]
    assert caveat == "With 100 resamples no finding can pass Holm's correction; set evaluate.resamples to 800 or more."


REFUSED = {
    "images": (lambda t: t.iloc[1:], "images are not in"),
    "patients": (lambda t: t.assign(patient_id=["x", *t["patient_id"][1:]]), "give another patient_id for 1 of"),
    "labels": (lambda t: t.assign(y_Mass=["", "", *t["y_Mass"][2:]]), "give another y_Mass for 2 of"),
    "findings": (lambda t: t.rename(columns=lambda n: n.replace("Mass", "ILD")).iloc[:, :4], "no finding in common"),
    "columns": (lambda t: t.drop(columns="p_Mass"), "missing columns p_Mass"),
    "probabilities": (lambda t: t.assign(p_Edema="1.5"), "p_Edema is '1.5'"),
    "ids": (lambda t: pd.concat([t, t.iloc[:1]]), "stands in more than one row"),
    "no test": (lambda t: t.assign(split="val"), "no row of the test split"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refusals_are_one_line_and_name_no_patient(pair, fault, capsys):
    change, expected = REFUSED[fault]
    rows = pd.read_csv(pair / "b.csv", dtype=str, keep_default_na=False)
    change(rows).to_csv(pair / "b.csv", index=False)
    assert run(pair, "-q", "--out", pair / "out") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cxr compare: error: ")
    assert expected in err
    assert "secret" not in err
    assert err.count("\n") == 1
    assert not (pair / "out").exists()


def test_the_real_command_exits_with_1_and_one_line(pair):
    table(2, 3.0, images=10).to_csv(pair / "b.csv", index=False)
    command = [sys.executable, "-m", "pipeline.cli", "compare", "a.csv", "b.csv", "-q"]
    done = subprocess.run(command, cwd=pair, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "images are not in b.csv, first film10xq.png" in done.stderr


def test_a_finding_of_one_table_only_is_named(pair, capsys):
    rows = pd.read_csv(pair / "b.csv", dtype=str, keep_default_na=False)
    rows.drop(columns=["y_Hernia", "p_Hernia"]).to_csv(pair / "b.csv", index=False)
    assert run(pair, "--out", pair / "out") == 0
    assert "In one table only, and so not compared: hernia." in capsys.readouterr().out
    assert json.loads((pair / "out" / "compare.json").read_text())["not_compared"] == ["Hernia"]


def test_labels_from_another_table(pair):
    run(pair, "--out", pair / "one")
    for name in ("a.csv", "b.csv"):
        rows = pd.read_csv(pair / name, dtype=str, keep_default_na=False)
        labels = rows.drop(columns=[f"p_{finding}" for finding in FINDINGS])
        labels.to_csv(pair / "labels.csv", index=False)
        rows[["image_id", *(f"p_{finding}" for finding in FINDINGS)]].to_csv(pair / name, index=False)
    run(pair, "--out", pair / "two", "--labels", pair / "labels.csv")
    one, two = (json.loads((pair / name / "compare.json").read_text()) for name in ("one", "two"))
    assert one["findings"] == two["findings"]


def _p(value):
    return "p <0.001" if value < 0.001 else f"p = {value:.3f}"
