import dataclasses
import hashlib
import io
import json
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kaggle_server import Kaggle, running, sign_in

from pipeline.download import download
from pipeline.errors import UserError
from pipeline.params import DownloadParams, Params, SimulateParams
from pipeline.sources.archives import content_sha256

FILES = {"sample/images/片 1.png": b"\x89PNG 1", "sample/images/2.png": b"\x89PNG 2", "sample_labels.csv": b"a,b\n"}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)
    return path


def spread(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def local(archive: Path | str, sha256: str = "") -> Params:
    return Params(download=DownloadParams(source="local", archive=str(archive), sha256=sha256))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A raw folder with an earlier content."""
    return spread(tmp_path / "数据 data" / "raw", {"old/1.png": b"old"})


def only_out(out: Path) -> bool:
    return [path.name for path in out.parent.iterdir()] == ["raw"]


def test_an_archive_takes_the_place_of_the_old_content(tmp_path: Path, out: Path) -> None:
    download(local(pack(tmp_path / "胸 片.zip", FILES)), out)
    assert tree(out) == FILES
    assert only_out(out)


def test_a_first_run_makes_the_folder(tmp_path: Path) -> None:
    download(local(pack(tmp_path / "a.zip", FILES)), tmp_path / "new" / "data" / "raw")
    assert tree(tmp_path / "new" / "data" / "raw") == FILES


def test_a_folder_takes_no_second_room(tmp_path: Path, out: Path) -> None:
    source = spread(tmp_path / "来源 folder", FILES)
    (source / "again.png").symlink_to("sample/images/2.png")
    download(local(source), out)
    assert tree(out) == FILES | {"again.png": FILES["sample/images/2.png"]}
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert (out / "sample_labels.csv").stat().st_ino == (source / "sample_labels.csv").stat().st_ino
    assert only_out(out)


def test_the_next_run_does_not_touch_a_linked_source(tmp_path: Path, out: Path) -> None:
    source = spread(tmp_path / "source", FILES)
    download(local(source), out)
    download(local(pack(tmp_path / "a.zip", {"1.png": b"1"})), out)
    assert tree(out) == {"1.png": b"1"}
    assert tree(source) == FILES


@pytest.mark.parametrize("hostile", ["archive", "link", "missing", "empty", "none", "hash", "damaged"])
def test_a_failed_run_leaves_the_old_content(tmp_path: Path, out: Path, hostile: str) -> None:
    good = pack(tmp_path / "good.zip", FILES)
    if hostile == "archive":
        params = local(pack(tmp_path / "a.zip", FILES | {"../evil": b""}))
    elif hostile == "link":
        (spread(tmp_path / "folder", FILES) / "zz").symlink_to(good)
        params = local(tmp_path / "folder")
    elif hostile == "damaged":  # found in the middle: the last member's bytes are wrong
        last = b"\x89PNG 2"
        good.write_bytes(good.read_bytes().replace(last, last[::-1]))
        params = local(good)
    elif hostile == "hash":
        params = local(good, "0" * 64)
    else:
        empty = pack(tmp_path / "empty.zip", {})
        params = local({"missing": tmp_path / "none.zip", "empty": empty, "none": ""}[hostile])
    with pytest.raises(UserError) as error:
        download(params, out)
    assert "\n" not in str(error.value)
    assert tree(out) == {"old/1.png": b"old"}
    assert only_out(out)


def test_what_a_killed_run_left_is_not_taken_over(tmp_path: Path, out: Path) -> None:
    spread(out.with_name("raw.partial"), {"half.png": b"half"})
    spread(out.with_name("raw.old.partial"), {"older.png": b"older"})
    download(local(pack(tmp_path / "a.zip", FILES)), out)
    assert tree(out) == FILES
    assert only_out(out)


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.download import download
from pipeline.params import DownloadParams, Params

event, word, archive, out = sys.argv[1:]

def hook(name, arguments):
    if name == event and word in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
download(Params(download=DownloadParams(source="local", archive=archive)), Path(out))
"""


@pytest.mark.parametrize(
    ("event", "word", "left"),
    [
        ("open", "raw.partial/sample/images/2.png", {"old/1.png": b"old"}),  # while unpacking
        ("os.rename", "data/raw", {"old/1.png": b"old"}),  # just before the old content goes
        ("os.rename", "raw.partial", {}),  # between the two renames
        ("shutil.rmtree", "raw.old.partial", FILES),  # the new content is in its place
    ],
)
def test_a_killed_run_leaves_the_old_content_or_none_or_the_new(
    tmp_path: Path, out: Path, event: str, word: str, left: dict[str, bytes]
) -> None:
    archive = pack(tmp_path / "a.zip", FILES)
    child = subprocess.run([sys.executable, "-c", KILLED, event, word, str(archive), str(out)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert tree(out) == left
    download(local(archive), out)
    assert tree(out) == FILES
    assert only_out(out)


def test_the_recorded_hash_is_asked_for(tmp_path: Path, out: Path) -> None:
    archive = pack(tmp_path / "a.zip", FILES)
    recorded = hashlib.sha256(archive.read_bytes()).hexdigest()
    download(local(archive, recorded), out)
    assert tree(out) == FILES
    pack(archive, FILES | {"new.png": b"new"})
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(UserError, match=f"{found}.*{recorded}.*cxr preset simulated --archive"):
        download(local(archive, recorded), out)


def test_a_folder_has_a_hash_too(tmp_path: Path, out: Path) -> None:
    source = spread(tmp_path / "source", FILES)
    params = local(source, content_sha256(source))
    download(params, out)
    (source / "sample_labels.csv").write_bytes(b"other")
    with pytest.raises(UserError, match="cxr preset"):
        download(params, out)


@pytest.mark.parametrize("where", ["same", "parent", "inside"])
def test_a_source_that_overlaps_the_raw_folder_is_refused(out: Path, where: str) -> None:
    archive = {"same": out, "parent": out.parent, "inside": pack(out / "a.zip", FILES)}[where]
    with pytest.raises(UserError, match="overlap"):
        download(local(archive), out)
    assert (out / "old" / "1.png").exists()


def test_a_raw_folder_that_is_a_link_stays_one(tmp_path: Path, out: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(out)
    download(local(pack(tmp_path / "a.zip", FILES)), link)
    assert link.is_symlink()
    assert tree(out) == FILES


def test_a_file_in_the_place_of_the_raw_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"mine")
    with pytest.raises(UserError, match="move it away"):
        download(local(pack(tmp_path / "a.zip", FILES)), tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == b"mine"


def test_the_simulator_fills_the_folder(out: Path) -> None:
    download(Params(simulate=SimulateParams(patients=3, size=64)), out)
    assert any(name.endswith(".png") for name in tree(out))
    assert only_out(out)


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kaggle]:
    with running() as server:
        sign_in(monkeypatch, tmp_path / "home", server)
        yield server


def from_kaggle(slug: str = "nih-chest-xrays/sample") -> Params:
    return Params(download=DownloadParams(source="kaggle", kaggle=slug))


def test_kaggle_fills_the_folder_and_leaves_no_archive(tmp_path: Path, out: Path, kaggle: Kaggle) -> None:
    kaggle.archive = pack(tmp_path / "a.zip", FILES).read_bytes()
    download(from_kaggle(), out)
    assert tree(out) == FILES
    assert only_out(out)


def test_a_damaged_archive_from_kaggle_is_fetched_anew(tmp_path: Path, out: Path, kaggle: Kaggle) -> None:
    good = pack(tmp_path / "a.zip", FILES).read_bytes()
    kaggle.archive = good.replace(b"PNG 2", b"PNG 3")
    with pytest.raises(UserError, match="run the stage again"):
        download(from_kaggle(), out)
    assert tree(out) == {"old/1.png": b"old"}
    assert only_out(out)
    kaggle.archive, kaggle.etag = good, '"version-2"'
    download(from_kaggle(), out)
    assert tree(out) == FILES


def test_a_part_of_an_archive_survives_a_failed_run(tmp_path: Path, out: Path, kaggle: Kaggle) -> None:
    kaggle.archive = pack(tmp_path / "a.zip", FILES | {"../evil": b""}).read_bytes()
    with pytest.raises(UserError, match="leads out"):
        download(from_kaggle(), out)
    assert [path.name for path in out.with_name("raw.download").glob("*.zip")] == ["sample.zip"]
    assert not (out.parent / "evil").exists()


def test_a_part_from_kaggle_survives_other_sources(tmp_path: Path, out: Path) -> None:
    part = spread(out.with_name("raw.download"), {"sample.zip.part": b"part"})
    download(local(pack(tmp_path / "a.zip", FILES)), out)
    assert tree(part) == {"sample.zip.part": b"part"}


def test_kaggle_without_a_name_is_refused(out: Path) -> None:
    with pytest.raises(UserError, match=r"download\.kaggle is empty"):
        download(from_kaggle(""), out)


def test_the_parameters_stay_as_they_are(tmp_path: Path, out: Path) -> None:
    params = local(pack(tmp_path / "a.zip", FILES))
    before = json.dumps(dataclasses.asdict(params))
    download(params, out)
    assert json.dumps(dataclasses.asdict(params)) == before


def nih_archives(folder: Path) -> dict[str, bytes]:
    """Write a folder as NIH's own site gives it, and return what becomes of it."""
    folder.mkdir()
    expected = {}
    for number in (1, 2, 3):
        name, data = f"images/{number:08}_000.png", b"\x89PNG" + bytes([number]) * 1000
        with tarfile.open(folder / f"images_{number:03}.tar.gz", "w:gz") as tar:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        expected[f"images_{number:03}/{name}"] = data
    (folder / "Data_Entry_2017_v2020.csv").write_bytes(b"Image Index\n")
    return expected | {"Data_Entry_2017_v2020.csv": b"Image Index\n"}


def test_a_folder_of_archives_is_unpacked_into_kaggles_layout(tmp_path: Path, out: Path) -> None:
    expected = nih_archives(tmp_path / "nih")
    params = local(tmp_path / "nih", content_sha256(tmp_path / "nih"))
    download(params, out)
    assert tree(out) == expected
    assert only_out(out)


def test_one_bad_archive_of_several_leaves_the_old_content(tmp_path: Path, out: Path) -> None:
    nih_archives(tmp_path / "nih")
    bad = tmp_path / "nih" / "images_002.tar.gz"
    bad.write_bytes(bad.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"images_002\.tar\.gz is cut short"):
        download(local(tmp_path / "nih"), out)
    assert tree(out) == {"old/1.png": b"old"}
    assert only_out(out)


def test_an_archive_beside_its_own_content_is_left_out(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = spread(tmp_path / "mine", {"sample/1.png": b"1"})
    pack(folder / "sample.zip", {"1.png": b"1"})
    download(local(folder), out)
    assert tree(out) == {"sample/1.png": b"1"}
    assert "sample.zip is left out" in capsys.readouterr().err


def test_two_archives_for_one_folder_are_refused(tmp_path: Path, out: Path) -> None:
    folder = spread(tmp_path / "mine", {})
    folder.mkdir()
    pack(folder / "Sample.zip", FILES)
    with tarfile.open(folder / "sample.tar", "w"):
        pass
    with pytest.raises(UserError, match=r"Sample\.zip and sample\.tar"):
        download(local(folder), out)


@pytest.mark.parametrize("place", ["top", "below"])
def test_a_linked_image_folder_is_refused_in_one_line(tmp_path: Path, out: Path, place: str) -> None:
    folder = spread(tmp_path / "mine", {"sub/sample_labels.csv": b"x"})
    elsewhere = spread(tmp_path / "elsewhere", {"1.png": b"1"})
    ((folder if place == "top" else folder / "sub") / "images").symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"images is a link to a folder: put the files themselves in"):
        download(local(folder), out)


def test_a_killed_unpacking_of_several_archives_is_redone(tmp_path: Path, out: Path) -> None:
    expected = nih_archives(tmp_path / "nih")
    word = "raw.partial/images_003/images/00000003_000.png"
    child = subprocess.run([sys.executable, "-c", KILLED, "open", word, str(tmp_path / "nih"), str(out)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert tree(out) == {"old/1.png": b"old"}
    download(local(tmp_path / "nih"), out)
    assert tree(out) == expected
    assert only_out(out)


def test_the_real_sample(shared_data: Path, out: Path) -> None:
    archive = shared_data / "nih-sample.zip"
    download(local(archive, content_sha256(archive)), out)
    assert len(list(out.rglob("*.png"))) == 246
    assert [path.name for path in out.rglob("sample_labels.csv")] == ["sample_labels.csv"] * 2


@pytest.mark.parametrize("name", ["...zip", "..zip"])
def test_an_archive_is_never_unpacked_beside_its_folder(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with zipfile.ZipFile(source / name, "w") as zipped:
        zipped.writestr("evil/escaped.csv", "x")
    (source / "a.png").write_bytes(b"x")
    params = Params(download=DownloadParams(source="local", archive=str(source)))
    with pytest.raises(UserError, match=r"would be unpacked into '.*': rename it"):
        download(params, tmp_path / "data" / "raw")
    assert not list(tmp_path.rglob("escaped.csv"))
