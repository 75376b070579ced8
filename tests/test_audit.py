"""The audit: planted leaks and copies with a known answer, hostile tables, the real archives."""

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.audit import audit, shown
from pipeline.cli import main
from pipeline.errors import UserError
from pipeline.images import Image, perceptual_hash, pixel_sha256
from pipeline.leaks import SUSPECT, find_leaks
from pipeline.manifest import COLUMNS, read_manifest
from pipeline.params import AuditParams, SplitParams
from pipeline.split import split
from pipeline.thumbnails import thumbnail, write_thumbnails

PARAMS = AuditParams()
Film = tuple[str, str, Image]  # patient, split ('' for none), picture


def picture(seed: int) -> Image:
    coarse = np.random.default_rng(seed).integers(20, 220, (9, 8), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (120, 140), interpolation=cv2.INTER_CUBIC), np.uint8)


def compressed(image: Image) -> Image:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def write_set(folder: Path, films: dict[str, Film], thumbnails: bool = True, files: bool = False) -> tuple[Path, Path]:
    """Write manifest, splits and what else is asked for; return the two tables."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, (patient, _, image) in films.items():
        row = dict.fromkeys(COLUMNS, "") | {"image_id": name, "path": f"{name}.png", "patient_id": patient}
        rows.append(row | {"sha256": pixel_sha256(image), "phash": perceptual_hash(image), "Hernia": "0"})
        if files:
            (folder / "raw").mkdir(exist_ok=True)
            (folder / "raw" / f"{name}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    table = pd.DataFrame(rows, dtype="str")
    table.to_csv(folder / "manifest.csv", index=False)
    lines = [f"{name},{patient},{side}\n" for name, (patient, side, _) in films.items() if side]
    (folder / "splits.csv").write_text("image_id,patient_id,split\n" + "".join(lines), encoding="utf-8")
    if thumbnails:
        pixels = np.array([thumbnail(image) for _, _, image in films.values()])
        write_thumbnails(folder / "thumbnails.npy", table["sha256"], pixels)
    return folder / "manifest.csv", folder / "splits.csv"


def found(out: Path) -> list[tuple[str, str, str, str]]:
    with out.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    return [(row["kind"], row["severity"], row["image_a"], row["image_b"]) for row in rows]


FILMS: dict[str, Film] = {
    "a1": ("A", "train", picture(1)),
    "a2": ("A", "train", picture(2)),
    "b1": ("B", "train", picture(3)),
    "b2": ("B", "test", picture(4)),  # patient B on two sides
    "c1": ("C", "val", picture(1)),  # a1's pixels on another side
    "d1": ("D", "train", picture(5)),
    "e1": ("E", "test", compressed(picture(5))),  # d1 again
    "f1": ("F", "val", picture(6)),
    "f2": ("F", "val", picture(6)),  # one picture under two names
    "g1": ("G", "val", compressed(picture(6))),  # and once more
    "h1": ("H", "", picture(2)),  # in no split: no leak
    "i1": ("I", "test", picture(7)),
    "k1": ("K", "", compressed(picture(7))),  # in no split either
}
EXPECTED = [
    ("patient", "error", "b2", "b1"),  # test before train
    ("identical", "error", "a1", "c1"),
    ("near-duplicate", "warning", "d1", "e1"),
    ("copy", "warning", "f1", "f2"),
    ("near-copy", "warning", "f1", "g1"),
]


@pytest.mark.parametrize("source", ["thumbnails", "files"])
def test_what_was_planted_is_found_and_nothing_else(tmp_path: Path, source: str) -> None:
    tables = write_set(tmp_path, FILMS, thumbnails=source == "thumbnails", files=source == "files")
    out = tmp_path / "reports" / "audit.csv"
    errors = audit(*tables, out, PARAMS, raw=tmp_path / "raw")
    assert found(out) == EXPECTED
    assert errors == [
        "patient B is in test and train (images b1, b2)",
        f"picture {pixel_sha256(picture(1))} is in train and val (images a1, c1)",
    ]
    rows = pd.read_csv(out).set_index("kind")
    assert tuple(pd.read_csv(out).columns) == SUSPECT
    assert rows.loc["near-duplicate", ["split_a", "split_b"]].tolist() == ["train", "test"]
    assert rows.loc["near-duplicate", "distance"] <= PARAMS.distance
    assert rows.loc["near-duplicate", "similarity"] >= PARAMS.similarity
    assert rows.loc["near-duplicate", "detail"] == "nearly the same picture; different patients"
    assert rows.loc["copy", "detail"] == "equal pixels; the same patient"
    summary = json.loads(out.with_name("audit.json").read_text(encoding="utf-8"))
    assert {kind: n for kind, n in summary["kinds"].items() if n} == dict.fromkeys([row[0] for row in EXPECTED], 1)
    assert (summary["errors"], summary["warnings"]) == (2, 3)
    assert (summary["compared"]["images"], summary["compared"]["patients"]) == (11, 8)
    assert summary["compared"]["thumbnails"] == summary["compared"]["candidates"] > 0


def test_the_order_of_the_rows_changes_nothing(tmp_path: Path) -> None:
    for name, films in (("one", FILMS), ("two", dict(reversed(FILMS.items())))):
        audit(*write_set(tmp_path / name, films), tmp_path / name / "audit.csv", PARAMS)

    def both(name: str) -> set[tuple[str, frozenset[str]]]:
        return {(kind, frozenset((a, b))) for kind, _, a, b in found(tmp_path / name / "audit.csv")}

    assert both("one") == both("two")


def test_a_patient_on_three_sides_is_three_leaks() -> None:
    table = pd.DataFrame({"image_id": ["1", "2", "3"], "patient_id": "p", "sha256": ["x", "y", "z"]})
    splits = pd.DataFrame({"image_id": ["1", "2", "3"], "patient_id": "p", "split": ["val", "train", "test"]})
    sides = [re.findall("train|val|test", text) for text in find_leaks(table, splits)]
    assert sides == [["test", "train"], ["test", "val"], ["train", "val"]]


def test_without_anything_to_compare_only_nearly_equal_hashes_are_suspects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = write_set(tmp_path, FILMS, thumbnails=False)
    text = tables[0].read_text(encoding="utf-8")
    old = perceptual_hash(compressed(picture(6)))
    for bits, expected in ((2, 1), (3, 0)):
        new = int(perceptual_hash(picture(6)), 16) ^ ((1 << bits) - 1)
        tables[0].write_text(text.replace(f"{pixel_sha256(compressed(picture(6)))},{old}", f"{'9' * 64},{new:016x}"))
        audit(*tables, tmp_path / "audit.csv", PARAMS, raw=tmp_path / "raw")
        rows = pd.read_csv(tmp_path / "audit.csv")
        assert (rows["kind"] == "near-copy").sum() == expected
        assert rows["similarity"].isna().all()
    assert "have no thumbnail and no file to read" in capsys.readouterr().err


def test_equal_hashes_of_unlike_pictures_are_no_suspects(tmp_path: Path) -> None:
    tables = write_set(tmp_path, {name: FILMS[name] for name in ("a1", "f1", "i1")})
    text = tables[0].read_text(encoding="utf-8")
    for seed in (6, 7):
        text = text.replace(perceptual_hash(picture(seed)), perceptual_hash(picture(1)))
    tables[0].write_text(text, encoding="utf-8")
    audit(*tables, tmp_path / "audit.csv", PARAMS)
    assert found(tmp_path / "audit.csv") == []
    assert json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))["compared"]["candidates"] == 3


def test_a_file_that_is_another_picture_is_not_compared(tmp_path: Path) -> None:
    tables = write_set(tmp_path, FILMS, thumbnails=False, files=True)
    for name in ("d1", "e1"):
        (tmp_path / "raw" / f"{name}.png").write_bytes(cv2.imencode(".png", picture(99))[1].tobytes())
    audit(*tables, tmp_path / "audit.csv", PARAMS, raw=tmp_path / "raw")
    summary = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))["compared"]
    assert summary["candidates"] - summary["thumbnails"] == 2


def test_another_set_must_share_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean = {name: FILMS[name] for name in ("a1", "d1", "i1")} | {"v1": ("V", "val", picture(8))}
    manifest, splits = write_set(tmp_path / "ours", clean)
    theirs = {"x": ("X", "", compressed(picture(5))), "y": ("Y", "", picture(7)), "z": ("Z", "", picture(9))}
    other, _ = write_set(tmp_path / "theirs", theirs)
    out = tmp_path / "audit.csv"
    (tmp_path / "params.yaml").write_text("", encoding="utf-8")
    command = ["audit", str(manifest), str(splits), "--out", str(out), "--params", str(tmp_path / "params.yaml")]
    command += ["--thumbnails", str(manifest.with_name("thumbnails.npy")), "--raw", str(tmp_path / "none"), "-q"]
    assert main(command) == 0
    assert found(out) == []
    assert main([*command, "--against", str(other)]) == 1
    assert found(out) == [("overlap", "error", "i1", "y"), ("near-overlap", "warning", "d1", "x")]
    assert f"image i1 has the pixels of y in {other}" in capsys.readouterr().out
    summary = json.loads(out.with_name("audit.json").read_text(encoding="utf-8"))
    assert summary["compared"]["against"] == ["theirs/manifest.csv"]
    with pytest.raises(UserError, match="is the manifest that is audited"):
        audit(manifest, splits, out, PARAMS, against=[manifest])


def test_the_terminal_gets_few_lines_and_no_control_characters() -> None:
    lines = shown(["image \x1b[31mred\n is split", *["x"] * 30])
    assert lines[0] == "image \N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER} is split"
    assert lines[-1] == "… and 11 more"
    assert shown([]) == []


def test_a_damaged_file_of_thumbnails_is_one_line(tmp_path: Path) -> None:
    tables = write_set(tmp_path, FILMS)
    (tmp_path / "thumbnails.npy").write_bytes(b"no")
    with pytest.raises(UserError, match=r"thumbnails\.npy is not a file of thumbnails"):
        audit(*tables, tmp_path / "audit.csv", PARAMS)


CELL = st.one_of(
    st.sampled_from(["", "0" * 16, "f" * 16, "0" * 64, "0" * 15, "-1", "1e400", "nan", "=1+1", "../x", "é" * 16]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("pq"), CELL, CELL, CELL), max_size=6),
    st.lists(st.tuples(st.sampled_from("abcde"), CELL, st.sampled_from(["train", "val", "test", "x"])), max_size=4),
)
def test_tables_of_others_are_audited_or_refused_in_one_line(
    tmp_path: Path, rows: list[tuple[str, str, str, str, str]], sides: list[tuple[str, str, str]]
) -> None:
    manifest, splits = tmp_path / "m.csv", tmp_path / "s.csv"
    columns = ("image_id", "patient_id", "path", "sha256", "phash")
    with manifest.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, [*COLUMNS, "Hernia"], restval="")
        writer.writeheader()
        writer.writerows(dict(zip(columns, row, strict=True)) for row in rows)
    with splits.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([("image_id", "patient_id", "split"), *sides])
    refusal = ""
    try:
        audit(manifest, splits, tmp_path / "audit.csv", PARAMS)
    except UserError as error:
        refusal = str(error)
    if refusal:
        assert "\n" not in refusal
        return
    kinds = {row[0] for row in found(tmp_path / "audit.csv")}
    lost = {side[0] for side in sides} - {row[0] for row in rows}
    assert ("unknown-image" in kinds) == bool(lost)


def test_the_real_nih_sample(nih_sample: Path, tmp_path: Path) -> None:
    from pipeline.ingest import ingest
    from pipeline.params import Params

    ingest(nih_sample, tmp_path / "manifest.csv", tmp_path / "quarantine.csv", Params())
    split(tmp_path / "manifest.csv", tmp_path / "splits.csv", tmp_path / "split.json", SplitParams())
    assert audit(tmp_path / "manifest.csv", tmp_path / "splits.csv", tmp_path / "audit.csv", PARAMS) == []
    assert found(tmp_path / "audit.csv") == [("copy", "warning", "00002658_001.png", "00002658_002.png")]


def test_the_real_pneumonia_archive(pneumonia_manifest: Path, tmp_path: Path) -> None:
    """Its own folders leak; whole patients do not, and the 32 pictures that it holds twice are on one side each."""
    split(pneumonia_manifest, tmp_path / "splits.csv", tmp_path / "split.json", SplitParams())
    assert audit(pneumonia_manifest, tmp_path / "splits.csv", tmp_path / "audit.csv", PARAMS) == []
    kinds = pd.Series([row[0] for row in found(tmp_path / "audit.csv")]).value_counts().to_dict()
    assert kinds.pop("copy") == 32
    assert sum(kinds.values()) <= 3
    table = read_manifest(pneumonia_manifest)
    published = table[["image_id", "patient_id"]].assign(split=table["official_split"])
    published.to_csv(tmp_path / "published.csv", index=False)
    errors = audit(pneumonia_manifest, tmp_path / "published.csv", tmp_path / "audit.csv", PARAMS)
    assert any(text.startswith("patient ") for text in errors)
