"""The split: every image once, no patient and no picture on two sides, findings where they should be."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nih_table import IMAGES, PATIENTS, POSITIVES, nih_table

from pipeline import split as stage
from pipeline.errors import UserError
from pipeline.leaks import find_leaks, require_no_leak
from pipeline.manifest import COLUMNS, SPLITS, read_manifest, read_splits, write_manifest
from pipeline.params import SplitParams
from pipeline.split import describe_split, group_patients, split, split_images


def manifest(rows: list[tuple[str, str, object, object]], official: str = "") -> pd.DataFrame:
    """Make a manifest from rows of patient, sha256, Hernia and Mass."""
    table = pd.DataFrame(rows, columns=["patient_id", "sha256", "Hernia", "Mass"])
    table["image_id"] = [f"i{number:05d}" for number in range(len(table))]
    table["path"] = [f"{name}.png" for name in table["image_id"]]
    table["official_split"] = official
    for name in ("view", "sex", "phash"):
        table[name] = ""
    for name in ("age", "followup", "width", "height"):
        table[name] = pd.array([None] * len(table), dtype="Float64")
    table = table.astype({"patient_id": "str", "sha256": "str", "Hernia": "Int8", "Mass": "Int8"})
    return table[[*COLUMNS, "Hernia", "Mass"]]


def many(patients: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        for _ in range(rng.integers(1, 6)):
            rows.append((f"{patient:03d}", f"s{len(rows)}", int(rng.random() < 0.1), int(rng.random() < 0.4)))
    return manifest(rows)


def shared(table: pd.DataFrame, splits: pd.DataFrame, column: str) -> list[str]:
    """Return the values of a column that stand in more than one split, found without the project's audit."""
    value = dict(zip(table["image_id"], table[column], strict=True))
    sides = defaultdict(set)
    for image, side in zip(splits["image_id"], splits["split"], strict=True):
        sides[value[image]].add(side)
    return [key for key, found in sides.items() if len(found) > 1]


def images_of(splits: pd.DataFrame, side: str) -> set[str]:
    return set(splits.loc[splits["split"] == side, "image_id"])


PATIENT = st.lists(st.tuples(st.sampled_from([None, 0, 1]), st.sampled_from([0, 1])), min_size=1, max_size=4)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Draw at least 12 patients; up to three pictures are filed under two of them."""
    rows = [
        (f"{number:02d}", f"s{number}-{image}", *labels)
        for number, images in enumerate(draw(st.lists(PATIENT, min_size=12, max_size=40)))
        for image, labels in enumerate(images)
    ]
    table = manifest(rows)
    for _ in range(draw(st.integers(0, 3))):
        one, other = draw(st.integers(0, len(rows) - 1)), draw(st.integers(0, len(rows) - 1))
        table.loc[one, "sha256"] = table.loc[other, "sha256"]
    return table


@settings(max_examples=50)
@given(table=tables(), seed=st.integers(0, 3), order=st.integers(0, 3))
def test_every_image_once_no_patient_and_no_picture_twice_in_any_order(
    table: pd.DataFrame, seed: int, order: int
) -> None:
    params = SplitParams(seed=seed)
    splits = split_images(table, params)
    assert sorted(splits["image_id"]) == sorted(table["image_id"])
    assert not shared(table, splits, "patient_id")
    assert not shared(table, splits, "sha256")
    assert not find_leaks(table, splits)
    assert set(splits["split"]) == set(SPLITS)
    shuffled = table.sample(frac=1, random_state=order)
    pd.testing.assert_frame_equal(split_images(shuffled, params), splits)


@pytest.mark.parametrize("shares", [(0.7, 0.2, 0.1), (0.8, 0.1, 0.1), (0.34, 0.33, 0.33)])
@pytest.mark.parametrize("seed", [0, 7])
def test_with_many_patients_the_shares_are_the_wanted(shares: tuple[float, float, float], seed: int) -> None:
    table = many(300, seed)
    params = SplitParams(train=shares[0], val=shares[1], test=shares[2], seed=seed)
    splits = split_images(table, params)
    for side, share in zip(SPLITS, shares, strict=True):
        images = images_of(splits, side)
        assert len(images) / len(table) == pytest.approx(share, abs=0.01)
        for finding in ("Hernia", "Mass"):
            positive = table.loc[table["image_id"].isin(images), finding].sum()
            assert positive / table[finding].sum() == pytest.approx(share, abs=0.05)


def test_another_seed_is_another_split() -> None:
    table = many(60, 1)
    assert not split_images(table, SplitParams(seed=1)).equals(split_images(table, SplitParams(seed=2)))


def test_the_split_of_this_table_is_pinned() -> None:
    """A change here moves patients between train and test for everybody, and makes old and new scores incomparable."""
    rows = [(f"p{number % 20:02d}", f"s{number}", int(number % 7 == 0), int(number % 3 == 0)) for number in range(50)]
    splits = split_images(manifest(rows), SplitParams(seed=7))
    patients = {side: sorted(set(splits.loc[splits["split"] == side, "patient_id"])) for side in ("val", "test")}
    assert patients == {"val": ["p00", "p09", "p11", "p18"], "test": ["p02", "p19"]}


def test_the_full_nih_table_keeps_shares_and_prevalences() -> None:
    table = nih_table(seed=3)
    assert (len(table), table["patient_id"].nunique()) == (IMAGES, PATIENTS)
    splits = split_images(table.sample(frac=1, random_state=0), SplitParams())
    assert splits["image_id"].is_unique
    assert len(splits) == IMAGES
    assert splits.groupby("patient_id")["split"].nunique().max() == 1
    description = describe_split(table, splits, "patient")
    for side, share in zip(SPLITS, (0.7, 0.2, 0.1), strict=True):
        assert description[side]["share"] == pytest.approx(share, abs=0.001)
        for finding, positives in POSITIVES.items():
            found = description[side]["findings"][finding]
            assert found["prevalence"] == pytest.approx(positives / IMAGES, rel=0.015), (side, finding)


def test_patients_who_share_a_picture_are_one_group_through_any_chain() -> None:
    rows = [("d", "1", 0, 0), ("c", "1", 0, 0), ("c", "2", 0, 0), ("b", "2", 0, 0), ("a", "3", 0, 0), ("b", "4", 0, 0)]
    groups = group_patients(manifest(rows))
    assert groups.tolist() == ["b", "b", "b", "b", "a", "b"]


@pytest.mark.parametrize("patients", [0, 1, 2])
def test_too_few_patients_are_one_line(patients: int) -> None:
    rows = [(f"p{number}", f"s{number}", 0, 1) for number in range(patients)]
    with pytest.raises(UserError, match="no patient is left for"):
        split_images(manifest(rows), SplitParams())


def test_ten_patients_with_one_image_each_are_enough() -> None:
    splits = split_images(manifest([(f"p{n}", f"s{n}", 0, 1) for n in range(10)]), SplitParams())
    assert splits["split"].value_counts().to_dict() == {"train": 7, "val": 2, "test": 1}


def write(table: pd.DataFrame, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(table, folder / "manifest.csv")
    return folder / "manifest.csv"


def run(table: pd.DataFrame, folder: Path, params: SplitParams) -> tuple[pd.DataFrame, dict[str, object]]:
    split(write(table, folder), folder / "splits.csv", folder / "split.json", params)
    return read_splits(folder / "splits.csv"), json.loads((folder / "split.json").read_text(encoding="utf-8"))


def test_the_stage_writes_the_splits_and_a_summary(tmp_path: Path) -> None:
    table = many(40, 2)
    splits, summary = run(table, tmp_path / "胸片 out", SplitParams())
    assert splits.columns.tolist() == ["image_id", "patient_id", "split"]
    assert sorted(splits["image_id"]) == sorted(table["image_id"])
    assert summary["protocol"] == "patient"
    assert summary["left_out"] == 0
    side = summary["val"]
    assert isinstance(side, dict)
    assert side["images"] == int((splits["split"] == "val").sum())
    rows = table[table["image_id"].isin(images_of(splits, "val"))]
    assert side["patients"] == rows["patient_id"].nunique()
    assert side["findings"]["Mass"]["positive"] == int(rows["Mass"].sum())


def test_unknown_is_neither_positive_nor_counted() -> None:
    table = manifest([(f"p{n}", f"s{n}", None if n % 2 else 1, 0) for n in range(40)])
    splits = split_images(table, SplitParams())
    description = describe_split(table, splits, "patient")
    for side in SPLITS:
        found = description[side]["findings"]["Hernia"]
        assert found["prevalence"] == 1
        assert found["known"] == found["positive"] < description[side]["images"]


@pytest.fixture
def official() -> pd.DataFrame:
    """Return 40 patients; the last 10 are the source's test set, and patient 003 also has an image there."""
    table = many(40, 3)
    table["official_split"] = np.where(table["patient_id"] >= "030", "test", "train_val")
    table.loc[table.index[table["patient_id"] == "003"][0], "official_split"] = "test"
    # A picture of the test set that is also filed under a training patient.
    table.loc[table.index[table["patient_id"] == "005"][0], "sha256"] = table["sha256"].iloc[-1]
    return table


@pytest.mark.parametrize("protocol", ["official", "folder"])
def test_the_source_s_test_set_is_taken_as_it_is(official: pd.DataFrame, tmp_path: Path, protocol: str) -> None:
    if protocol == "folder":
        official["official_split"] = official["official_split"].replace("train_val", "train")
        official.loc[official["patient_id"].isin(["010", "011"]), "official_split"] = "val"
    splits, summary = run(official, tmp_path, SplitParams(protocol=protocol))
    assert images_of(splits, "test") == set(official.loc[official["official_split"] == "test", "image_id"])
    assert not shared(official, splits, "patient_id")
    assert not shared(official, splits, "sha256")
    require_no_leak(official, splits)
    left_out = official[~official["image_id"].isin(splits["image_id"])]
    assert set(left_out["patient_id"]) == {"003", "005"}
    assert summary["left_out"] == len(left_out)
    val, train = len(images_of(splits, "val")), len(images_of(splits, "train"))
    assert val / (val + train) == pytest.approx(0.2 / 0.9, abs=0.03)


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ("official", ["", "", ""]),
        ("folder", ["", "", ""]),
        ("official", ["train", "val", "test"]),
        ("folder", ["train_val", "train_val", "test"]),
        ("official", ["test", "test", "test"]),
        ("official", ["train_val", "train_val", "train_val"]),
    ],
)
def test_a_source_without_these_lists_is_one_line_and_nothing_is_written(
    tmp_path: Path, protocol: str, words: list[str]
) -> None:
    table = many(30, 4)
    table["official_split"] = [words[number % 3] for number in range(len(table))]
    with pytest.raises(UserError, match=f"split.protocol is '{protocol}'.*allowed here: patient"):
        run(table, tmp_path, SplitParams(protocol=protocol))
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.csv"]


def test_an_official_set_whose_patients_are_all_in_the_test_set_is_one_line() -> None:
    table = manifest([("a", "1", 0, 1), ("a", "2", 0, 1), ("b", "3", 0, 1)])
    table["official_split"] = ["train_val", "test", "test"]
    with pytest.raises(UserError, match="no patient is left for train and val"):
        split_images(table, SplitParams(protocol="official"))


def test_images_in_no_official_list_are_left_out(official: pd.DataFrame) -> None:
    official.loc[official["patient_id"] == "020", "official_split"] = ""
    splits = split_images(official, SplitParams(protocol="official"))
    assert "020" not in set(splits["patient_id"])
    out = official[~official["image_id"].isin(splits["image_id"])]
    unlisted = int((out["patient_id"] == "020").sum())
    assert describe_split(official, splits, "official")["left_out_reasons"] == {
        "the patient, or the same picture, is also in the given test set": len(out) - unlisted,
        "in none of the source's lists": unlisted,
    }


def test_the_audit_finds_a_planted_patient_and_a_planted_picture() -> None:
    table = many(40, 5)
    splits = split_images(table, SplitParams())
    assert find_leaks(table, splits) == []
    patient = next(name for name, rows in splits.groupby("patient_id") if len(rows) > 1)
    moved = splits.copy()
    row = moved.index[moved["patient_id"] == patient][0]
    moved.loc[row, "split"] = "test" if moved.loc[row, "split"] != "test" else "train"
    leaks = find_leaks(table, moved)
    assert len(leaks) == 1
    assert leaks[0].startswith(f"patient {patient} is in ")
    copied = table.copy()
    train, test = sorted(images_of(splits, "train"))[0], sorted(images_of(splits, "test"))[0]
    copied.loc[copied["image_id"] == train, "sha256"] = copied.loc[copied["image_id"] == test, "sha256"].item()
    leaks = find_leaks(copied, splits)
    assert len(leaks) == 1
    assert "picture" in leaks[0]
    assert train in leaks[0]
    assert test in leaks[0]
    assert "test and train" in leaks[0]


def test_the_audit_does_not_believe_the_splits_own_patients() -> None:
    """Whoever renames a patient in one table only must not get a leak past the audit."""
    table = manifest([("a", "1", 0, 1), ("a", "2", 0, 1), ("b", "3", 0, 1)])
    splits = pd.DataFrame(
        {"image_id": ["i00000", "i00001", "gone"], "patient_id": ["a", "x", "b"], "split": ["train", "test", "val"]}
    )
    leaks = " ".join(find_leaks(table, splits))
    assert "image gone is split but not in the manifest" in leaks
    assert "image i00001 has another patient" in leaks
    assert "patient a is in test and train" in leaks


@pytest.mark.parametrize("planted", ["patient", "picture"])
def test_the_stage_writes_nothing_when_the_audit_finds_a_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    """`split_images` makes no leak, so one is put behind it, as a later mistake in it would."""
    table = many(40, 6)
    if planted == "picture":
        table.loc[table.index[-1], "sha256"] = table["sha256"].iloc[0]
    honest = split_images

    def leaking(rows: pd.DataFrame, params: SplitParams) -> pd.DataFrame:
        splits = honest(rows, params)
        image = rows.loc[rows["sha256"].duplicated(), "image_id"].iloc[0] if planted == "picture" else "i00000"
        patient = rows.loc[rows["image_id"] == image, "patient_id"].item()
        chosen = splits["patient_id"] == patient if planted == "picture" else splits["image_id"] == image
        return splits.assign(split=splits["split"].mask(chosen, "val" if planted == "patient" else "test"))

    assert honest(table, SplitParams()).iloc[0]["split"] == "train"
    monkeypatch.setattr(stage, "split_images", leaking)
    with pytest.raises(UserError, match=f"1 leaks between the splits: {planted}"):
        run(table, tmp_path, SplitParams())
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.csv"]


def test_a_stage_that_fails_leaves_the_old_split(tmp_path: Path) -> None:
    run(many(40, 7), tmp_path, SplitParams())
    before = (tmp_path / "splits.csv").read_bytes()
    with pytest.raises(UserError):
        run(many(40, 7), tmp_path, SplitParams(protocol="official"))
    assert (tmp_path / "splits.csv").read_bytes() == before


@pytest.mark.parametrize("protocol", ["patient", "folder"])
def test_the_real_pneumonia_set(pneumonia_manifest: Path, tmp_path: Path, protocol: str) -> None:
    split(pneumonia_manifest, tmp_path / "s.csv", tmp_path / "s.json", SplitParams(protocol=protocol))
    table, splits = read_manifest(pneumonia_manifest), read_splits(tmp_path / "s.csv")
    summary = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert not shared(table, splits, "patient_id")
    assert not shared(table, splits, "sha256")
    assert summary["left_out"] == len(table) - len(splits)
    if protocol == "folder":
        assert images_of(splits, "test") == set(table.loc[table["official_split"] == "test", "image_id"])
        assert len(images_of(splits, "test")) == 624
        assert summary["left_out"] > 0  # patients' numbers that stand in train and test
    else:
        assert len(splits) == 5856
        for side, share in zip(SPLITS, (0.7, 0.2, 0.1), strict=True):
            assert summary[side]["share"] == pytest.approx(share, abs=0.005)
