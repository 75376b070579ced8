"""Small things that many tests draw and write; the real archives, where they are at hand."""

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from coded import write_coded
from hypothesis import settings
from PIL import Image

from pipeline.parallel import available_cores
from pipeline.progress import set_quiet

# No test may fail because the machine is slow.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"
NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y\n"
)

# Files of minutes begin first, so that none of them runs alone at the end while the other cores wait.
LONGEST_FIRST = (
    "test_train.py",
    "test_pipeline.py",
    "test_cluster.py",
    "test_killed.py",
    "test_sweep.py",
    "test_ablation.py",
    "test_fused_norm.py",
    "test_backbones.py",
    "test_serve_page.py",
    "test_memory.py",
)

DrawPng = Callable[..., Path]
WriteNih = Callable[..., Path]


def pytest_xdist_auto_num_workers() -> int:
    """Return one more than there are cores, for tests wait for other processes a quarter of their time; 4 GiB each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(available_cores() + 1, memory // 2**32))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of `LONGEST_FIRST` first; the order within a file stays."""
    order = {name: position for position, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(autouse=True)
def not_quiet() -> Iterator[None]:
    """Undo `-q` of commands that a test ran in this process."""
    yield
    set_quiet(False)


@pytest.fixture(autouse=True)
def own_tracking_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the store of an earlier test: `mlflow.set_tracking_uri` leaves it in the environment of the process."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the folder that holds `params.yaml`, `configs` and `pipeline`."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real archives, which are no part of the repository; skip without it."""
    if not SHARED.is_dir():
        pytest.skip("needs the real archives in ../shared/data")
    return SHARED


@pytest.fixture(scope="session")
def draw_png() -> DrawPng:
    """Return `draw(path, seed=0, shape=(72, 80))`: write noise as grayscale PNG (or JPEG, by the suffix)."""

    def draw(path: Path, seed: int = 0, shape: tuple[int, int] = (72, 80)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(path, format="PNG" if path.suffix.lower() == ".png" else "JPEG")
        return path

    return draw


@pytest.fixture(scope="session")
def write_nih(draw_png: DrawPng) -> WriteNih:
    """Return `write(folder, lines)`: a tree in the layout of NIH's sample.

    Each line is a row of `sample_labels.csv`; `files` (default: each row's) are drawn below `images`, every one with
    other pixels. `header` and `encoding` are the table's.
    """

    def write(
        folder: Path,
        lines: Sequence[str],
        files: Sequence[str] | None = None,
        header: str = NIH_HEADER,
        encoding: str = "utf-8",
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        text = header + "".join(line + "\n" for line in lines)
        (folder / "sample_labels.csv").write_bytes(text.encode(encoding))
        for seed, name in enumerate([line.split(",")[0] for line in lines] if files is None else files):
            draw_png(folder / "images" / name, seed)
        return folder

    return write


@pytest.fixture(scope="session")
def nih_sample(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the unpacked `nih-sample.zip`: 246 original images of NIH ChestX-ray14."""
    return _unpacked(shared_data / "nih-sample.zip", tmp_path_factory)


@pytest.fixture(scope="session")
def pneumonia_archive(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the unpacked `chest-xray-pneumonia.zip`: 5,856 images, a Mac's junk and a nested second copy."""
    return _unpacked(shared_data / "chest-xray-pneumonia.zip", tmp_path_factory)


def _unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(archive.stem)
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def pneumonia_manifest(pneumonia_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the manifest of the real pneumonia archive (`quarantine.csv` beside it)."""
    from pipeline.ingest import ingest
    from pipeline.params import DatasetParams, Params

    out = tmp_path_factory.mktemp("pneumonia")
    params = Params(dataset=DatasetParams(adapter="pneumonia"))
    ingest(pneumonia_archive, out / "manifest.csv", out / "quarantine.csv", params)
    return out / "manifest.csv"


@pytest.fixture(scope="session")
def coded_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of processed images that say which they are (see `coded`)."""
    return write_coded(tmp_path_factory.mktemp("coded"))
