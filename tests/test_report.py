import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from report_project import Page, Project, copy_of, nih_project, pneumonia_project

from pipeline.files import read_json, write_json
from pipeline.findings import readable
from pipeline.leaks import SUSPECT
from pipeline.manifest import read_table
from pipeline.params_file import as_dict

RESULTS = "Scores on the test images"
BOTH = pytest.mark.parametrize("name", ["nih", "pneumonia"])
SECTIONS = [
    "Results on the test images",
    "ROC and precision–recall curves",
    "Calibration",
    "Operating points",
    "Subgroups",
    "Where the model looks",
    "Hits, misses and false alarms",
    "Repeated trainings",
    "Data and exclusions",
    "Who is in the splits",
    "What the network sees",
    "Training",
    "Audit of the data",
    "Provenance",
    "Glossary",
]


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return nih_project(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def pneumonia(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return pneumonia_project(tmp_path_factory.getbasetemp())


@pytest.fixture
def copy(nih: Project, tmp_path: Path) -> Project:
    return copy_of(nih, tmp_path)


@BOTH
def test_page_needs_nothing_from_outside_and_runs_no_script(name: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(name).page
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>\n")
    assert not re.search(r"https?://|url\(|@import|javascript:", text)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "base", "form"}
    for tag, attributes in page.elements:
        assert not {key for key in attributes if key.startswith("on") or key in ("srcset", "action", "style")}
        if tag == "img":
            assert re.match(r"data:image/(png|jpeg);base64,", str(attributes["src"]))
    [policy] = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert len(text.encode()) < 2_000_000


@BOTH
def test_page_is_marked_up_for_screen_readers_and_the_keyboard(name: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(name).page)
    assert ("html", {"lang": "en"}) in page.elements
    assert all(page.captions)
    assert page.captions
    for tag, attributes in page.elements:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or (attributes["role"] == "img" and attributes["aria-label"])
        if tag == "th":
            assert attributes["scope"] in ("row", "col", "colgroup", "rowgroup")
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@BOTH
def test_links_lead_to_places_of_the_page(name: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(name).page)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    links = [str(a["href"]) for _, a in page.elements if "href" in a]
    assert links[0] == "#main"
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert all(link.startswith("#") for link in links)
    pointed = {str(a[key]) for _, a in page.elements for key in ("aria-labelledby", "aria-describedby") if key in a}
    assert pointed <= set(ids)


@BOTH
def test_sections_stand_in_order_and_in_the_contents(name: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(name).page)
    titles = [text for level, text in page.headings if level == 2]
    assert titles == ["Contents", *(f"{k}{title}" for k, title in enumerate(SECTIONS, start=1))]
    assert all(f"{k}{title}" in page.words for k, title in enumerate(SECTIONS, start=1))


@BOTH
def test_results_are_those_of_the_metrics_file(name: str, request: pytest.FixtureRequest) -> None:
    project = request.getfixturevalue(name)
    page, test = Page(project.page), project.document("metrics")["test"]
    floor = project.document("floor")
    defined = {key: row for key, row in test["findings"].items() if row["auc"] is not None}
    assert defined
    for finding, row in defined.items():
        cells = page.row(RESULTS, readable(finding))
        precision = f"{row['average_precision']:.3f} {row['average_precision_ci_low']:.3f}"
        assert cells[0] == f"{row['auc']:.3f} {row['ci_low']:.3f} to {row['ci_high']:.3f}"
        assert cells[-4:] == [
            f"{precision} to {row['average_precision_ci_high']:.3f}",
            f"{100 * row['prevalence']:.1f}%",
            str(row["n_positive"]),
            str(row["n_negative"]),
        ]
        if len(cells) == 8 and floor["differences"][finding]["difference"] is not None:
            assert cells[2] == f"{floor['findings'][finding]['auc']:.3f}"
            assert cells[3].split()[0] == f"{floor['differences'][finding]['difference']:+.3f}".replace("-", "−")
    macro = test["macro"]
    assert f"AUC {macro['auc']:.3f} (95% interval" in page.text or len(test["findings"]) == 1
    assert f"{macro['ci_low']:.3f} to {macro['ci_high']:.3f}" in page.text


def test_undefined_finding_is_named_and_never_a_number(nih: Project) -> None:
    page = Page(nih.page)
    assert page.row(RESULTS, "Hernia")[0] == "undefined: no positive image in the test split"
    assert "There is no AUC for Hernia (no positive image in the test split)." in page.text
    assert "over 13 of 14 findings" in page.text
    assert "Undefined: no positive image in the test split." in page.words  # of the curves
    assert "undefined: no validation image with the finding" in page.words  # of the operating points
    assert not re.search(r"\bnan\b", page.text.lower())
    assert "None" not in re.sub(r"None (had to be kept out|of \d+ differences)", "", page.text)


def test_operating_points_count_images(nih: Project) -> None:
    page = Page(nih.page)
    test = nih.document("operating_points")["findings"]["Mass"]["youden"]["test"]
    whole = re.search(
        r"Of 1,000 images like these, ([\d,]+) have mass; at this operating point the model flags", page.words
    )
    assert whole
    total = test["n_positive"] + test["n_negative"]
    assert abs(int(whole[1]) - 1000 * test["n_positive"] / total) < 1
    cells = page.row("Youden point", "Mass")
    assert cells[1].startswith(f"{100 * test['sensitivity']:.1f}%")
    assert f" {test['tp']} of {test['n_positive']} " in cells[1]


def test_subgroups_are_those_of_the_file(nih: Project) -> None:
    page, found = Page(nih.page), nih.document("subgroups")
    scored = [group for group in found["groups"] if group["scored"] and group["by"] == "sex"]
    assert scored
    for group in scored:
        cells = page.row("Scores by subgroup", group["group"].capitalize())
        assert cells[0].startswith(f"{100 * group['no_finding']['fpr']:.1f}% ")
        assert cells[0].endswith(f"of {group['no_finding']['n']} images")
        assert cells[3].startswith(f"{group['macro']['auc']:.3f} ")
        assert cells[3].endswith(f"{group['macro']['n_findings']} findings")
        assert cells[-2:] == [str(group["images"]), str(group["patients"])]
    small = [group for group in found["groups"] if not group["scored"]]
    assert all("not scored: fewer than 12 images" in page.words for _ in small)
    assert f"{found['n_comparisons']} differences between a group and the other images" in page.words


def test_cases_are_shown_with_their_words(nih: Project) -> None:
    page = Page(nih.page)
    assert [text for level, text in page.headings if text in ("True positives", "Misses", "False alarms")] == [
        "True positives",
        "Misses",
    ]
    assert "Shown: 1 of 7." in page.words
    assert "Output 0.25, threshold 0.5; PA view; 88% of the images have a higher output." in page.words
    alts = [str(a["alt"]) for tag, a in page.elements if tag == "img"]
    assert "Chest radiograph, PA view. Atelectasis: miss, labelled present." in alts


def test_most_cases_stay_within_three_megabytes(copy: Project) -> None:
    folder = copy.root / "reports" / "cases"
    cases = read_json(folder / "cases.json")
    noise = cv2.GaussianBlur(np.random.default_rng(1).normal(128, 300, (256, 520, 3)), (0, 0), 2).clip(0, 255)
    (folder / "001.png").write_bytes(cv2.imencode(".png", noise.astype(np.uint8))[1].tobytes())
    many = [case | {"file": "001.png"} for case in cases["cases"][:1] * 48]  # evaluate.cases is 12 at most
    before = len(copy.page)
    write_json(folder / "cases.json", cases | {"cases": many})
    assert len(copy.report()) - before < 3_000_000


def test_counts_are_those_of_the_split(nih: Project) -> None:
    page, summary = Page(nih.page), read_json(nih.root / "reports" / "data" / "split.json")
    parts = ("train", "val", "test")
    assert page.row("View, sex and age", "Images")[1:] == [str(summary[part]["images"]) for part in parts]
    assert page.row("View, sex and age", "Patients")[1:] == [str(summary[part]["patients"]) for part in parts]
    cells = page.row("How frequent", "Pleural thickening")
    assert cells[0::2] == [str(summary[part]["findings"]["Pleural_Thickening"]["positive"]) for part in parts]
    shares = [summary[part]["findings"]["Pleural_Thickening"]["prevalence"] for part in parts]
    assert cells[1::2] == [f"{100 * share:.1f}%" for share in shares]
    assert "neither a PNG nor a JPEG file" in page.text


@BOTH
def test_no_patient_and_no_image_is_named(name: str, request: pytest.FixtureRequest) -> None:
    project = request.getfixturevalue(name)
    table = read_table(project.root / "data" / "manifest.csv")
    text = project.page
    for column in ("image_id", "patient_id", "path", "sha256", "phash"):
        assert [value for value in table[column] if value in text] == []
    assert "70001" not in text  # the quarantined file
    assert "dr who" not in text


def test_one_finding_set_without_sex_and_age(pneumonia: Project) -> None:
    page = Page(pneumonia.page)
    auc = pneumonia.document("metrics")["test"]["findings"]["Pneumonia"]["auc"]
    assert f"Test AUC for pneumonia {auc:.3f} (95% interval" in page.text
    assert "protocol: the archive's own test folder" in page.text
    assert "Mean of" not in page.text
    assert "children" in page.text
    assert "make train PRESET=pneumonia ARCHIVE=" in page.text
    assert "Not known for any image: sex and age." in page.words
    assert "No group was compared with the others" in page.words
    assert "Not scored: there are no boxes" in page.words


def test_warnings_are_due_only_where_they_apply(nih: Project, pneumonia: Project) -> None:
    assert "knows nothing of real chests" in nih.page
    assert "knows nothing of real chests" not in pneumonia.page
    for project in (nih, pneumonia):
        assert "not a medical device" in project.page


def test_unknown_labels_get_their_columns(copy: Project) -> None:
    summary = read_json(copy.root / "reports" / "data" / "split.json")
    summary["test"]["findings"]["Mass"] |= {"known": 7, "positive": 0, "prevalence": 0.0}
    write_json(copy.root / "reports" / "data" / "split.json", summary)
    metrics = copy.document("metrics")
    metrics["test"]["findings"]["Edema"]["n_unknown"] = 3
    copy.write("metrics", metrics)
    page = Page(copy.report())
    assert page.row("How frequent", "Mass")[-3:] == ["0", "7", "0.0%"]
    assert page.row(RESULTS, "Edema")[-1] == "3"


@pytest.mark.parametrize("name", ["calibration", "operating_points", "subgroups", "floor", "localisation"])
def test_a_part_that_is_null_is_said_to_be_absent(copy: Project, name: str) -> None:
    copy.write(name, None)
    page = Page(copy.report())
    sentence = {
        "calibration": "No calibrator was fitted",
        "operating_points": "There is no operating point",
        "subgroups": "There are no subgroups to score",
        "floor": "There is no metadata floor",
        "localisation": "Not scored: there are no boxes",
    }[name]
    assert sentence in page.words


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


def test_parameters_are_complete(nih: Project) -> None:
    page = Page(nih.page)
    for keys in as_dict(nih.params).values():
        for key, value in keys.items():
            shown = {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
            assert [key, shown or "(empty)"] in page.rows


def test_report_parameters_are_the_present_ones(copy: Project) -> None:
    pictures = sum(tag == "img" for tag, _ in Page(copy.page).elements)
    params = replace(copy.params, report=replace(copy.params.report, examples=2))
    page = Page(copy.report(params))
    assert ["examples", "2"] in page.rows
    assert sum(tag == "img" for tag, _ in page.elements) == pictures - 3 * (copy.params.report.examples - 2)


def test_no_examples_on_request(copy: Project) -> None:
    params = replace(copy.params, report=replace(copy.params.report, examples=0))
    page = Page(copy.report(params))
    assert "What the network sees" not in page.text
    assert (2, "11Training") in page.headings


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
    assert page.row("Copies and leaks", "Nearly the same picture on two sides of the split") == ["9"]
    assert page.row("Copies and leaks", "Equal pixels on two sides of the split") == ["0"]
    assert "training and validation: 4 bits, correlation 0.997; different patients" in page.text
    assert page.text.count("Test image: not shown") == 5
    assert "names all images and 3 more pairs" in page.words
    assert sum(tag == "img" for tag, _ in page.elements) == before + 7  # one pair, and five sides of training
    table = read_table(copy.root / "data" / "manifest.csv")
    assert [name for name in table["image_id"] if name in copy.page] == []


def test_suspicious_films_in_use_are_counted(copy: Project) -> None:
    path = copy.root / "reports" / "data" / "ingest.json"
    reasons = {"inverted": {"count": 2, "example": "r = 0.61"}, "colour": {"count": 1, "example": "channels differ"}}
    write_json(path, read_json(path) | {"suspicious": 2, "suspicious_reasons": reasons})
    text = Page(copy.report()).text
    assert "2 of the images in use look suspicious" in text
    assert "seems to be inverted: white air, black bones (such as: r = 0.61)" in text


def test_page_says_when_mirror_images_were_averaged(copy: Project) -> None:
    sentence = "mean over the image and its mirror"
    assert sentence not in copy.page
    copy.write("metrics", copy.document("metrics") | {"flip": True})
    copy.report()
    assert sentence in copy.page
