"""Predictions tables at the door: what is read, what is refused with its first rows, and what a message never tells."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.findings import NIH14
from pipeline.manifest import COLUMNS
from pipeline.predictions import arrays_of, findings_of_predictions
from pipeline.predictions_file import load_predictions, read_predictions

TABLE = """image_id,patient_id,split,y_Mass,y_Edema,p_Mass,p_Edema,view,sex,age
a.png,secret1,val,1,0,0.9,0.25,PA,F,60
b.png,secret1,val,0,,0.1,1e-05,AP,female,0.5
c.png,secret2,test,0,1,0,1,,M,058Y
d.png,secret3,test,1.0,0.0,1.0,0.5,L,,414
"""


@pytest.fixture
def write(tmp_path):
    """Return `write(text, name='a.csv')`: a file of that text."""

    def write(text, name="a.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def frame():
    return pd.read_csv(io.StringIO(TABLE), dtype=str, keep_default_na=False)


def text_of(table):
    return table.to_csv(index=False, lineterminator="\n")


def refusal(path, *arguments):
    with pytest.raises(UserError) as caught:
        load_predictions(path, *arguments)
    message = str(caught.value)
    assert "secret" not in message
    assert "\n" not in message
    return message


def test_a_table_as_evaluate_writes_it(write):
    found = load_predictions(write(TABLE))
    assert found.findings == ["Mass", "Edema"] == findings_of_predictions(found.table)
    labels, probabilities = arrays_of(found.table, found.findings)
    assert np.array_equal(labels, [[1, 0], [0, np.nan], [0, 1], [1, 0]], equal_nan=True)
    assert probabilities.tolist() == [[0.9, 0.25], [0.1, 1e-05], [0, 1], [1, 0.5]]
    assert found.table["patient_id"].tolist() == ["secret1", "secret1", "secret2", "secret3"]
    assert found.table["view"].tolist() == ["PA", "AP", "", "L"]
    assert found.table["sex"].tolist() == ["F", "F", "M", ""]
    assert found.table["age"].tolist()[:3] == [60, 0.5, 58]
    assert np.isnan(found.table["age"][3])
    assert found.notes == ["age missing or impossible: unknown (1 image)"]


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(write):
    plain = load_predictions(write(TABLE)).table
    marked = load_predictions(write(b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode(), "b.csv")).table
    pd.testing.assert_frame_equal(plain, marked)


def test_without_a_split_all_is_the_test_split_and_that_is_said(write, capsys):
    table = read_predictions(write(text_of(frame().drop(columns=["split", "view", "sex", "age"]))))
    assert set(table["split"]) == {"test"}
    assert table[["view", "sex"]].eq("").all(axis=None)
    assert table["age"].isna().all()
    assert "all images are the test split" in capsys.readouterr().err


def test_findings_stand_in_the_order_and_the_words_of_the_vocabulary(write):
    renamed = frame().rename(columns={"y_Edema": "y_edema", "p_Edema": "prob_EDEMA", "p_Mass": "prob_Mass"})
    pd.testing.assert_frame_equal(
        load_predictions(write(text_of(renamed[renamed.columns[::-1]]), "b.csv")).table,
        load_predictions(write(TABLE)).table,
    )


# Each case: what is done to the table, and what the message must say.
FAULTS = {
    "missing id": (lambda t: t.drop(columns="image_id"), r"image_id \(or Image Index\) is missing; found patient_id"),
    "missing patient": (lambda t: t.drop(columns="patient_id"), r"patient_id is missing; .*--patients nih"),
    "no labels": (lambda t: t.drop(columns=["y_Mass", "y_Edema"]), r"no labels .*--labels"),
    "no findings": (lambda t: t[["image_id", "patient_id"]], r"no columns y_<Finding> and p_<Finding>; found image_id"),
    "label alone": (lambda t: t.drop(columns="p_Edema"), r"missing columns p_Edema"),
    "output alone": (lambda t: t.drop(columns="y_Mass"), r"missing columns y_Mass"),
    "same id": (
        lambda t: t.assign(image_id=["a", "b", "a", "b"]),
        r"image_id .* in 2 rows, first line 4 \(image a\), li",
    ),
    "empty id": (lambda t: t.assign(image_id=["a", "", "c", "d"]), r"image_id is empty in 1 row, first line 3"),
    "empty patient": (lambda t: t.assign(patient_id=["x", "x", "", ""]), r"patient_id is empty in 2 rows, .*c\.png"),
    "uncertain": (
        lambda t: t.assign(y_Mass=["-1", "0", "1", "-1"]),
        r"y_Mass is '-1' in 2 rows, first line 2 .*a\.png",
    ),
    "half": (
        lambda t: t.assign(y_Mass=["1", "0.5", "1", "0"]),
        r"y_Mass is '0\.5' in 1 row, .*allowed: 1, 0, or nothing",
    ),
    "word": (lambda t: t.assign(y_Mass=["yes", "0", "1", "0"]), r"y_Mass is 'yes' in 1 row"),
    "above": (
        lambda t: t.assign(p_Mass=["0", "1.2", "7", "0"]),
        r"p_Mass is '1\.2', '7' in 2 rows, first line 3 .*0 to 1",
    ),
    "below": (
        lambda t: t.assign(p_Edema=["0", "-0.01", "0", "0"]),
        r"p_Edema is '-0\.01' .*not outputs before the sig",
    ),
    "no number": (lambda t: t.assign(p_Mass=["0", "nan", "0", "0"]), r"p_Mass is 'nan' in 1 row"),
    "infinite": (lambda t: t.assign(p_Mass=["0", "inf", "0", "0"]), r"p_Mass is 'inf' in 1 row"),
    "empty": (lambda t: t.assign(p_Mass=["0", "", "0", "0"]), r"p_Mass is empty in 1 row, first line 3"),
    "split": (
        lambda t: t.assign(split=["val", "dev", "test", ""]),
        r"split is 'dev', empty in 2 rows, .*train, val, test",
    ),
    "no rows": (lambda t: t.iloc[:0], r"has a header and no rows"),
    "twice the finding": (lambda t: t.assign(p_mass=t["p_Mass"]), r"columns p_Mass, p_mass mean the same finding"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_table_is_refused_with_its_first_rows(write, fault):
    change, expected = FAULTS[fault]
    message = refusal(write(text_of(change(frame()))))
    assert pd.Series([message]).str.contains(expected).item(), message


def test_many_faulty_rows_are_counted_and_three_are_named(write):
    table = pd.DataFrame(
        {"image_id": [f"i{k}" for k in range(500)], "patient_id": "secret", "y_Mass": "1", "p_Mass": "2"}
    )
    message = refusal(write(text_of(table)))
    assert "in 500 rows, first line 2 (image i0), line 3 (image i1), line 4 (image i2);" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        (TABLE.replace(",", ";"), "a.csv", "separated by semicolons"),
        (TABLE.replace(",", "\t"), "a.tsv", "separated by tabs"),
        (TABLE.encode("utf-16"), "a.csv", "not a CSV table in UTF-8"),
        (TABLE, "a.csv.gz", "is packed; unpack it first"),
        ("", "a.csv", "not a CSV table"),
        (TABLE + "e.png,p,test,1,1,0.5,0.5,PA,F,1,2,3\n", "a.csv", "not a CSV table"),
        (TABLE.replace("p_Edema", "p_Mass", 1), "a.csv", "'p_Mass' stands twice in the header"),
    ],
)
def test_what_is_no_table_is_refused(write, text, name, expected):
    assert expected in refusal(write(text, name))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "is missing" in refusal(tmp_path / "none.csv")
    assert "cannot be read" in refusal(tmp_path)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(b"image_id,patient_id,y_Mass,p_Mass\n" + data)
    with contextlib.suppress(UserError):
        assert len(load_predictions(path).table)


@given(st.data())
def test_numbers_come_back_as_they_were_written(tmp_path_factory, data):
    n = data.draw(st.integers(1, 6))
    labels = data.draw(st.lists(st.sampled_from([1.0, 0.0, np.nan]), min_size=n, max_size=n))
    probabilities = data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))
    path = tmp_path_factory.getbasetemp() / "numbers.csv"
    table = pd.DataFrame({"image_id": [f"i{k}" for k in range(n)], "patient_id": "1", "y_ILD": labels})
    table.assign(p_ILD=probabilities).to_csv(path, index=False)
    found = load_predictions(path).table
    assert np.array_equal(found["y_ILD"], labels, equal_nan=True)
    assert found["p_ILD"].tolist() == pytest.approx(probabilities, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("prefix", ["y_", ""])
@pytest.mark.parametrize("output", ["p_", "prob_", ""])
def test_two_files_give_what_one_gives(write, prefix, output):
    whole = frame()
    about = ["image_id", "patient_id", "split", "view", "sex", "age"]
    labels = whole[about].assign(**{f"{prefix}{name}": whole[f"y_{name}"] for name in ("Edema", "Mass")})
    outputs = whole[["image_id"]].assign(**{f"{output}{name}": whole[f"p_{name}"] for name in ("Mass", "Edema")})
    found = load_predictions(write(text_of(outputs), "p.csv"), write(text_of(labels[::-1]), "l.csv"))
    pd.testing.assert_frame_equal(found.table, load_predictions(write(TABLE)).table)


def test_two_files_must_hold_the_same_images(write):
    whole = frame()
    labels, outputs = whole[["image_id", "patient_id", "y_Mass"]], whole[["image_id", "p_Mass"]]
    first = write(text_of(outputs), "p.csv"), write(text_of(labels.iloc[:1]), "l.csv")
    assert "3 of 4 images have no row in" in refusal(*first)
    assert "first b.png, c.png, d.png" in refusal(*first)
    second = write(text_of(outputs.iloc[1:]), "p.csv"), write(text_of(labels), "l.csv")
    assert "1 of 4 images have no row in" in refusal(*second)


def test_two_files_must_fit_each_other(write):
    whole = frame()
    both, labels = write(TABLE), write(text_of(whole[["image_id", "patient_id", "y_Mass"]]), "l.csv")
    assert "has labels of its own" in refusal(both, labels)
    outputs = whole[["image_id", "patient_id", "p_Mass", "p_Edema"]]
    assert "no labels for Edema; it has Mass" in refusal(write(text_of(outputs), "p.csv"), labels)
    other = outputs.drop(columns="p_Edema").assign(patient_id=["secret9", *whole["patient_id"][1:]])
    assert "give another patient_id in 1 row, first line 2 (image a.png)" in refusal(
        write(text_of(other), "p.csv"), labels
    )


def test_labels_without_a_prediction_are_named(write):
    whole = frame()
    labels = write(text_of(whole[["image_id", "patient_id", "y_Mass", "y_Edema"]]), "l.csv")
    found = load_predictions(write(text_of(whole[["image_id", "p_Edema"]]), "p.csv"), labels)
    assert found.findings == ["Edema"]
    assert "findings without a prediction, not scored: Mass" in found.notes


def test_a_manifest_serves_as_labels_and_may_hold_more_images(write):
    manifest = pd.DataFrame("", index=range(3), columns=[*COLUMNS, "Mass", "Edema"])
    manifest = manifest.assign(image_id=["x", "y", "z"], patient_id=["1", "1", "2"], Mass=["1", "0", ""], view="AP")
    outputs = pd.DataFrame({"image_id": ["z", "x"], "p_Mass": ["0.5", "0.25"]})
    found = load_predictions(write(text_of(outputs), "p.csv"), write(text_of(manifest), "m.csv"))
    assert found.table["patient_id"].tolist() == ["2", "1"]
    assert np.array_equal(found.table["y_Mass"], [np.nan, 1], equal_nan=True)
    assert set(found.table["view"]) == {"AP"}
    assert "scored are the 2 predicted images of the 3 in m.csv" in found.notes


def test_published_predictions_and_nihs_own_table_need_no_renaming(write, shared_data):
    # Columns as in the preds.csv of github.com/jrzech/reproduce-chexnet, and the head of NIH's real table.
    labels = shared_data / "tables" / "nih_Data_Entry_2017_v2020.head.csv"
    rows = pd.read_csv(labels, dtype=str, index_col=False)
    chosen = rows.iloc[5:200:3]
    outputs = pd.DataFrame({"Image Index": chosen["Image Index"]})
    for position, name in enumerate(NIH14):
        outputs[f"prob_{name}"] = np.linspace(0.01 * position, 0.5, len(chosen))
    found = load_predictions(write(text_of(outputs[::-1]), "preds.csv"), labels)
    assert found.findings == list(NIH14)
    table = found.table.set_index("image_id").loc[chosen["Image Index"]]
    for name in NIH14:
        expected = [name in text.split("|") for text in chosen["Finding Labels"]]
        assert table[f"y_{name}"].astype(bool).tolist() == expected
    assert table["patient_id"].tolist() == [name[:8] for name in chosen["Image Index"]]
    assert table["age"].tolist() == [float(text.strip("Y")) for text in chosen["Patient Age"]]
    assert table["view"].tolist() == chosen["View Position"].tolist()


def test_patients_from_nihs_names(write):
    table = frame().assign(image_id=[f"000000{k}_00{k % 10}.png" for k in (13, 14, 15, 16)]).drop(columns="patient_id")
    path = write(text_of(table))
    assert load_predictions(path, None, "nih").table["patient_id"].tolist() == [f"000000{k}" for k in (13, 14, 15, 16)]
    assert "cannot be read from image_id in 4 rows, first line 2 (image a.png)" in refusal(write(TABLE), None, "nih")


def test_columns_without_a_use_are_named(write):
    found = load_predictions(write(text_of(frame().assign(site="here"))))
    assert "columns of a.csv that are not used: site" in found.notes


def test_a_message_names_no_hostile_text_as_it_is(write):
    path = write(text_of(frame().assign(image_id=["\x1b[31m" + "x" * 500, "b", "c", "d"], p_Mass="9")))
    message = refusal(path)
    assert "\x1b" not in message
    assert len(message) < 400 + len(str(Path(path)))
