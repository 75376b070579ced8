"""Stage `preprocess`: every image to the network's pixels, once, in shards that training reads without decoding."""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import pandas as pd

from pipeline import images, shards
from pipeline.engines import run_on_cluster
from pipeline.errors import UserError
from pipeline.files import read_json, sha256_file, sha256_text, write_json
from pipeline.images import Image
from pipeline.manifest import SPLITS, findings_of, read_manifest, read_splits
from pipeline.parallel import run_all
from pipeline.params import Params, PreprocessParams
from pipeline.preparing import Recipe, process_file
from pipeline.progress import note

_OURS = re.compile(r"^(index\.csv|(train|val|test)-\d{5,}\.(tfrecord|json)|\..+\.partial\.(tfrecord|json|csv))$")
_KEPT = ["image_id", "patient_id", "view", "sex", "age", "followup", "width", "height", "sha256"]


def layout(manifest: pd.DataFrame, splits: pd.DataFrame, shard_images: int) -> pd.DataFrame:
    """Decide which image lies where.

    Returns
    -------
    DataFrame
        `row, shard, split, path`, the kept columns and the findings. Within a split the order is that of a hash of
        the image's name: as good as shuffled, so that a small shuffle buffer mixes patients and findings, and the
        same whatever the order of the tables.
    """
    table = splits[["image_id", "split"]].merge(manifest, on="image_id", how="left", validate="one_to_one")
    if lost := table.loc[table["path"].isna(), "image_id"].tolist():
        raise UserError(f"{len(lost)} split images are not in the manifest, first {lost[0]}: run `cxr split` again")
    if table.empty:
        raise UserError("the splits name no image: run `cxr split` again")
    table["order"] = table["image_id"].map(sha256_text)
    table["rank"] = table["split"].map(SPLITS.index)
    table = table.sort_values(["rank", "order"]).reset_index(drop=True)
    place = table.groupby("split").cumcount() // shard_images
    table["row"] = range(len(table))
    table["shard"] = [f"{split}-{n:05d}.tfrecord" for split, n in zip(table["split"], place, strict=True)]
    return table[["row", "shard", "split", "path", *_KEPT, *findings_of(manifest)]]


def preprocess(
    manifest_path: Path, splits_path: Path, out: Path, raw: Path, params: Params, workers: int | None = None
) -> None:
    """Write shards, index and, last, `meta.json`, without which the folder counts as unfinished.

    Whole shards of an interrupted run are kept when their inputs, parameters, code and checksum are the same; the
    bytes depend neither on the engine nor on the number of workers.

    Parameters
    ----------
    manifest_path, splits_path : Path
        What `ingest` and `split` wrote.
    out : Path
        The folder of processed images.
    raw : Path
        What the manifest's paths are relative to.
    params : Params
        Sections `dataset`, `split` (for the record) and `preprocess`.
    workers : int or None
        Processes of this machine; None takes all cores.
    """
    table = layout(read_manifest(manifest_path), read_splits(splits_path), params.preprocess.shard_images)
    out.mkdir(parents=True, exist_ok=True)
    (out / shards.META).unlink(missing_ok=True)
    _remove_strangers(out, set(table["shard"]))
    done = _write_shards(table, out, raw, params.preprocess, workers)
    index_sha256 = shards.write_index(out / shards.INDEX, table.drop(columns="path"))
    meta: dict[str, Any] = {
        "dataset": params.dataset.preset,
        "protocol": params.split.protocol,
        "size": params.preprocess.size,
        "findings": findings_of(table.drop(columns="path")),
        "preprocess": _recorded(params.preprocess),
        "manifest_sha256": sha256_file(manifest_path),
        "splits_sha256": sha256_file(splits_path),
        "shards": done,
        "index_sha256": index_sha256,
    }
    write_json(out / shards.META, meta)
    note(f"{len(table)} images of {params.preprocess.size}x{params.preprocess.size} in {len(done)} shards in {out}")


@dataclass(frozen=True)
class Shard:
    """One shard to write: all that a worker has to be told.

    Attributes
    ----------
    name, key : str
        The file, and the hash of all that decides its bytes.
    rows : tuple of int
        Row numbers of its images.
    items : tuple of (path, sha256)
        Their files and the hashes of their pixels.
    """

    name: str
    key: str
    rows: tuple[int, ...]
    items: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return self.name


def write_one(shard: Shard, out: Path, raw: Path, params: PreprocessParams, code: str) -> tuple[str, str]:
    """Write a shard on a worker of a cluster; return its name and SHA-256.

    Raises
    ------
    UserError
        As `process_file`; or if the program or OpenCV is of another version here than where `code` was computed.
    """
    if code != _code():
        raise UserError(f"{shard}: a worker has another version of this program or of OpenCV ({cv2.__version__})")
    return _write(shard, (process_file(item, raw, params) for item in shard.items), out)


def _write_shards(
    table: pd.DataFrame, out: Path, raw: Path, params: PreprocessParams, workers: int | None
) -> list[dict[str, Any]]:
    """Write the shards that are not there yet; return all, as `meta.json` lists them."""
    code = _code()
    groups = [(str(name), group) for name, group in table.groupby("shard", sort=False)]
    keys = {name: _key(group, params, code) for name, group in groups}
    kept = {name: _sha256_if_done(out / name, keys[name]) for name, _ in groups}
    pending = [
        Shard(name, keys[name], tuple(map(int, group["row"])), tuple(zip(group["path"], group["sha256"], strict=True)))
        for name, group in groups
        if kept[name] is None
    ]
    if params.engine == "local":
        written = _write_locally(pending, out, raw, params, workers)
    else:
        function = partial(write_one, out=out.resolve(), raw=raw.resolve(), params=params, code=code)
        written = run_on_cluster(function, pending, "preprocessing", params.engine, params.address, workers)
    done = kept | dict(written)
    if lost := [name for name, _ in groups if not (out / name).is_file()]:
        raise UserError(f"{out / lost[0]} was written and is not here: all machines must see the same folder {out}")
    return [
        {"name": name, "split": group["split"].iloc[0], "images": len(group), "sha256": done[name]}
        for name, group in groups
    ]


def _write_locally(
    pending: list[Shard], out: Path, raw: Path, params: PreprocessParams, workers: int | None
) -> Iterator[tuple[str, str]]:
    """Spread images, not shards, over the processes: a few small shards keep all of them busy too."""
    items = [item for shard in pending for item in shard.items]
    process = partial(process_file, raw=raw, params=Recipe.of(params))
    prepared = run_all(process, items, "preprocessing", workers, on_crash=partial(_crashed, raw=raw))
    with closing(prepared):
        for shard in pending:
            yield _write(shard, islice(prepared, len(shard.rows)), out)


def _write(shard: Shard, prepared: Iterable[Image], out: Path) -> tuple[str, str]:
    sha256 = shards.write_shard(out / shard.name, zip(shard.rows, prepared, strict=True))
    write_json(_note_of(out / shard.name), {"key": shard.key, "sha256": sha256})
    return shard.name, sha256


def _crashed(item: tuple[str, str], raw: Path) -> Image:
    raise UserError(
        f"{raw / item[0]}: the process that read it died; remove the file and run `cxr ingest` again, or free memory"
    )


def _recorded(params: PreprocessParams) -> dict[str, Any]:
    """Return what decides the images; who computed them does not."""
    return {key: value for key, value in dataclasses.asdict(params).items() if key not in ("engine", "address")}


def _code() -> str:
    """Hash the code that makes pixels and shards."""
    files = [sha256_file(path) for path in (*images.PIXEL_MODULES, Path(shards.__file__))]
    return sha256_text(json.dumps([*files, cv2.__version__]))


def _key(group: pd.DataFrame, params: PreprocessParams, code: str) -> str:
    """Hash all that decides a shard's bytes: parameters, rows, pixels and the code that makes them."""
    rows = [f"{row} {sha256}" for row, sha256 in zip(group["row"], group["sha256"], strict=True)]
    return sha256_text(json.dumps([_recorded(params), code, rows], sort_keys=True))


def _sha256_if_done(path: Path, key: str) -> str | None:
    """Return the checksum of a shard that an earlier run finished; a damaged note counts as none."""
    if not path.is_file() or not _note_of(path).is_file():
        return None
    try:
        known = read_json(_note_of(path))
    except UserError:
        return None
    if not isinstance(known, dict) or known.get("key") != key:
        return None
    return sha256 if known.get("sha256") == (sha256 := sha256_file(path)) else None


def _note_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _remove_strangers(out: Path, wanted: set[str]) -> None:
    """Remove shards, notes and partial files of an earlier, different run; a user's own files are left alone."""
    keep = wanted | {_note_of(Path(name)).name for name in wanted}
    for path in out.iterdir():
        if _OURS.match(path.name) and path.name not in keep:
            path.unlink()
