"""Twenty small images, ingested and split, for the tests that preprocess them."""

from dataclasses import dataclass
from pathlib import Path

from conftest import WriteNih

from pipeline.ingest import ingest
from pipeline.params import Params, PreprocessParams, SplitParams
from pipeline.preprocess import preprocess
from pipeline.split import split

PARAMS = Params(preprocess=PreprocessParams(size=32, tiles=4, shard_images=4))


@dataclass(frozen=True)
class Case:
    folder: Path

    @property
    def raw(self) -> Path:
        return self.folder / "raw 胸片"

    @property
    def tables(self) -> tuple[Path, Path]:
        return self.folder / "manifest.csv", self.folder / "splits.csv"

    def run(self, out: str = "processed", params: Params = PARAMS, workers: int = 1) -> Path:
        preprocess(*self.tables, self.folder / out, self.raw, params, workers)
        return self.folder / out


def make_case(folder: Path, write_nih: WriteNih) -> Case:
    """Write 20 patients with one image each, ingest them, split them 14:4:2."""
    case = Case(folder)
    write_nih(case.raw, [f"{n:08d}_000.png,Mass,0,{n},060Y,F,PA,,,0.1,0.1" for n in range(1, 21)])
    ingest(case.raw, case.tables[0], folder / "quarantine.csv", Params(), 1)
    split(*case.tables, folder / "split.json", SplitParams())
    return case


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.tfrecord")}
