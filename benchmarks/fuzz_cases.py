"""Seed files, ways to break them, and the functions that read the result; see fuzz.py."""

import gzip
import io
import os
import random
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_PIXELS = 4_000_000
_FINDINGS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
_NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)


@dataclass(frozen=True)
class Seed:
    """A sound file: who reads it (`kind`), what it is called, its bytes."""

    kind: str
    name: str
    data: bytes


def make_seeds(real: Path | None = None) -> list[Seed]:
    """Return images in every format, DICOM files, label tables, a manifest and archives."""
    seeds = [Seed("image", name, data) for name, data in _images().items()]
    seeds += [Seed("dicom", path.name, path.read_bytes()) for path in _pydicom_files()]
    if real:
        seeds += [Seed("real", path.name, path.read_bytes()) for path in sorted(real.rglob("*")) if path.is_file()]
    seeds += [Seed(f"table {adapter}", adapter, text.encode()) for adapter, text in TABLES.items()]
    seeds.append(Seed("manifest", "manifest.csv", _manifest().encode()))
    return seeds + [Seed("archive", name, data) for name, data in _archives().items()]


def _images() -> dict[str, bytes]:
    from PIL import Image

    gray = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    pictures = {
        "gray": Image.fromarray(gray),
        "deep": Image.fromarray(gray.astype(np.uint16) * 16),
        "colour": Image.fromarray(np.dstack([gray, gray // 2, gray])),
        "alpha": Image.fromarray(np.dstack([gray, gray])),
        "palette": Image.fromarray(gray).convert("P"),
        "ink": Image.new("CMYK", (40, 50), (9, 9, 9, 9)),
    }
    found: dict[str, bytes] = {}
    for name, picture in pictures.items():
        for kind in ("PNG", "JPEG", "TIFF"):
            if (kind, name) in {
                ("PNG", "ink"),
                ("TIFF", "ink"),
                ("JPEG", "deep"),
                ("JPEG", "alpha"),
                ("JPEG", "palette"),
            }:
                continue
            for n, options in enumerate(_OPTIONS[kind]):
                buffer = io.BytesIO()
                picture.save(buffer, kind, **options)
                found[f"{name}{n}.{kind.lower()}"] = buffer.getvalue()
    return found


_OPTIONS: dict[str, list[dict[str, object]]] = {
    "PNG": [{}, {"bits": 4}],
    "JPEG": [{}, {"progressive": True}],
    "TIFF": [{"compression": kind} for kind in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")],
}


def _pydicom_files() -> list[Path]:
    import pydicom.data

    root = Path(pydicom.data.__file__).parent
    return [path for path in sorted(root.rglob("*.dcm")) if path.stat().st_size < 600_000]


TABLES = {
    "nih": _NIH
    + "00000001_000.png,Cardiomegaly|Effusion,0,1,57,M,PA,2682,2749,0.143,0.143\n"
    + "00000002_000.png,No Finding,0,2,80,F,AP,2500,2048,0.171,0.171\n",
    "chexpert": f"Path,Sex,Age,Frontal/Lateral,AP/PA,{_FINDINGS}\n"
    "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0\n"
    "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Male,87,Frontal,AP,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,\n",
    "vinbigdata": "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
    "50a418190bc3fb1ef1633bf9678929b3,No finding,14,R11,,,,\n"
    "9a5094b2563a1ef3ff50dc5c7ff71345,Cardiomegaly,3,R10,6.0,13.0,16.0,18.0\n",
    "rsna-pneumonia": "patientId,x,y,width,height,Target\n"
    "0004cfab-14fd-4e49-80ba-63a80b6bddd6,,,,,0\n00436515-870c-4b36-a041-de91049b9ab4,4.0,2.0,21.0,30.0,1\n",
    "folder": "image,patient,Mass,Nodule\na.png,p1,1,0\nb.png,p2,,1\n",
}
_TABLE_NAMES = {
    "nih": "Data_Entry_2017_v2020.csv",
    "chexpert": "CheXpert-v1.0-small/train.csv",
    "vinbigdata": "train.csv",
    "rsna-pneumonia": "stage_2_train_labels.csv",
    "folder": "labels.csv",
}


def _manifest() -> str:
    from pipeline.manifest import COLUMNS

    rows = [f"i{n},i{n}.png,p{n},PA,F,{40 + n},0,100,100,{'ab' * 32},{'0f' * 8},train_val,1,0\n" for n in range(5)]
    return ",".join([*COLUMNS, "Mass", "Nodule"]) + "\n" + "".join(rows)


def _archives() -> dict[str, bytes]:
    zipped, plain = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(4):
            archive.writestr(zipfile.ZipInfo(f"images/{n}.png"), bytes(range(100)) * n, zipfile.ZIP_DEFLATED)
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for n in range(4):
            member = tarfile.TarInfo(f"images/{n}.png")
            member.size = 100 * n
            tar.addfile(member, io.BytesIO(bytes(range(100)) * n))
    packed = gzip.compress(plain.getvalue(), mtime=0)  # no time of day: the same seed breaks the same bytes
    return {"a.zip": zipped.getvalue(), "a.tar": plain.getvalue(), "a.tar.gz": packed}


# --- breaking --------------------------------------------------------------------------------------------------------

_LENGTHS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF]
_CELLS = [
    "",
    "nan",
    "-1",
    "1e999",
    "../../x.png",
    "/etc/passwd",
    '"',
    "\0",
    "\r",
    "0x10",
    "９",
    "a" * 5000,
    "=1+1",
    "∞",
]


def mutate(seed: Seed, other: bytes, rng: random.Random) -> bytes:
    """Break a file in one to four places; half of the places lie in its first 300 bytes, where the headers are."""
    data = bytearray(seed.data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        text = seed.kind.startswith(("table", "manifest")) and rng.random() < 0.6
        rng.choice(_TEXT_WAYS if text else _WAYS)(data, other, rng)
        if not data:
            break
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        _mend_checksums(data)
    return bytes(data)


def _mend_checksums(data: bytearray) -> None:
    """Make the checksums of a PNG right again, so that the damage reaches what lies behind them."""
    position = 8
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[position + 4 : end]).to_bytes(4, "big")
        position = end + 4


def _place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(min(len(data), 300) if rng.random() < 0.5 else len(data))


def _flip(data: bytearray, _other: bytes, rng: random.Random) -> None:
    data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _truncate(data: bytearray, _other: bytes, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _splice(data: bytearray, other: bytes, rng: random.Random) -> None:
    start = rng.randrange(len(other))
    place = _place(data, rng)
    data[place : place + rng.randint(0, 64)] = other[start : start + rng.randint(1, 64)]


def _length(data: bytearray, _other: bytes, rng: random.Random) -> None:
    size = rng.choice([2, 4])
    value = rng.choice(_LENGTHS) % (1 << 8 * size)
    place = _place(data, rng)
    data[place : place + size] = value.to_bytes(size, rng.choice(["little", "big"]))


def _swap(data: bytearray, _other: bytes, rng: random.Random) -> None:
    size = rng.randint(1, 40)
    first, second = sorted((_place(data, rng), _place(data, rng)))
    if first + size <= second and second + size <= len(data):
        data[first : first + size], data[second : second + size] = (
            data[second : second + size],
            data[first : first + size],
        )


def _cell(data: bytearray, _other: bytes, rng: random.Random) -> None:
    lines = data.decode("latin-1").split("\n")
    line = rng.randrange(len(lines))
    cells = lines[line].split(",")
    cells[rng.randrange(len(cells))] = rng.choice(_CELLS).encode().decode("latin-1")
    lines[line] = ",".join(cells)
    data[:] = "\n".join(lines).encode("latin-1")


def _line(data: bytearray, _other: bytes, rng: random.Random) -> None:
    lines = data.decode("latin-1").split("\n")
    line = rng.randrange(len(lines))
    lines[line : line + rng.randint(0, 1)] = [rng.choice(lines)] * rng.randint(0, 2)
    data[:] = "\n".join(lines).encode("latin-1")


Way = Callable[[bytearray, bytes, random.Random], None]
_WAYS: list[Way] = [_flip, _flip, _flip, _length, _length, _splice, _swap, _truncate]
_TEXT_WAYS: list[Way] = [_cell, _cell, _line]


# --- reading ---------------------------------------------------------------------------------------------------------


def read(kind: str, name: str, data: bytes, folder: Path) -> None:
    """Give the bytes to whoever reads such files; raises what that raises."""
    reader = kind.split()[0]
    if reader == "planted":
        _planted(name)
    elif reader == "table":
        _read_table(name, data, folder)
    elif reader == "manifest":
        from pipeline.manifest import read_manifest

        (folder / "manifest.csv").write_bytes(data)
        read_manifest(folder / "manifest.csv")
    elif reader == "archive":
        from pipeline.sources.archives import unpack

        (folder / name).write_bytes(data)
        unpack(folder / name, folder / "out")
    else:
        _read_image(data, folder)


def _read_image(data: bytes, folder: Path) -> None:
    from pipeline.decoders.dicom import is_dicom, read_facts
    from pipeline.images import read_film

    (folder / "film").write_bytes(data)
    if is_dicom(data):
        read_facts(folder / "film")
    film = read_film(folder / "film", MAX_PIXELS)
    assert film.pixels.dtype == np.uint8
    assert film.pixels.ndim == 2
    assert 0 < film.pixels.size <= MAX_PIXELS


def _read_table(adapter: str, data: bytes, folder: Path) -> None:
    from pipeline.ingest import ingest
    from pipeline.params_file import parse_params

    raw = folder / "raw"
    table = raw / _TABLE_NAMES[adapter]
    table.parent.mkdir(parents=True)
    table.write_bytes(data)
    for path, content in _tree(adapter).items():
        (raw / path).parent.mkdir(parents=True, exist_ok=True)
        (raw / path).write_bytes(content)
    dataset = {"adapter": adapter, "table": "labels.csv" if adapter == "folder" else ""}
    params = parse_params({"dataset": dataset, "ingest": {"min_side": 8}}, "the benchmark")
    ingest(raw, folder / "manifest.csv", folder / "quarantine.csv", params, 1)


def _tree(adapter: str) -> dict[str, bytes]:
    png, dicom = _sound()
    lines = TABLES[adapter].strip().split("\n")[1:]
    first = [line.split(",")[0] for line in lines]
    if adapter == "chexpert":
        valid = TABLES["chexpert"].replace("/train/patient0000", "/valid/patient0010")
        first += [line.split(",")[0] for line in valid.strip().split("\n")[1:]]
        return {**dict.fromkeys(first, png), "CheXpert-v1.0-small/valid.csv": valid.encode()}
    if adapter == "rsna-pneumonia":
        return {f"stage_2_train_images/{name}.dcm": dicom for name in first}
    if adapter == "vinbigdata":
        return {f"train/{name}.dicom": dicom for name in first}
    return {f"images/{name}" if adapter == "nih" else name: png for name in first}


def _sound() -> tuple[bytes, bytes]:
    import pydicom.data
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.arange(4096, dtype=np.uint32).reshape(64, 64).astype(np.uint8)).save(buffer, "PNG")
    root = Path(pydicom.data.__file__).parent
    return buffer.getvalue(), next(root.rglob("MR_small.dcm")).read_bytes()


def _planted(name: str) -> None:
    """Do what a harness has to notice."""
    if name == "abort":
        os.abort()
    if name == "hang":
        time.sleep(3600)
    if name == "memory":
        held = bytearray(3 << 30)
        held[:: 1 << 12] = b"\1" * len(held[:: 1 << 12])
    if name == "traceback":
        raise KeyError(name)


def clear(folder: Path) -> None:
    """Empty a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
