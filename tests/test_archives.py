import gzip
import io
import os
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.sources.archive_guard import Budget, DamagedArchiveError, split_name
from pipeline.sources.archives import content_sha256, folder_files, unpack, unpack_all

FILES = {
    "images/片 1.png": b"\x89PNG" + bytes(range(256)) * 50,
    "images/deep/b c.png": b"",
    "影像/数据 表.csv": "名,年龄\n甲,60\n".encode(),
}
KINDS = ("zip", "tar", "tar.gz", "tgz")


def make(path: Path, members: dict[str, bytes]) -> Path:
    if path.name.endswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of the repeated names that are made on purpose
            for name, data in members.items():
                zipped.writestr(name, data)
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def tar_of(path: Path, *infos: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for info in infos:
            tar.addfile(info)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive: Path, word: str, **bounds: int) -> None:
    out = archive.parent / "out"
    with pytest.raises(UserError, match=word) as error:
        unpack(archive, out, Budget(**bounds))
    assert "\n" not in str(error.value)
    assert not out.exists()  # nothing is written before every member has been looked at


@pytest.mark.parametrize("kind", KINDS)
def test_comes_back_byte_for_byte(tmp_path: Path, kind: str) -> None:
    archive = make(tmp_path / f"胸 片.{kind}", FILES)
    assert unpack(archive, tmp_path / "目标 夹") == len(FILES)
    assert tree(tmp_path / "目标 夹") == FILES


def test_folders_and_dot_prefixes_are_harmless(tmp_path: Path) -> None:
    source = tmp_path / "src"
    (source / "a" / "empty").mkdir(parents=True)
    (source / "a" / "x.txt").write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(source, arcname=".")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.mkdir("a")
        zipped.mkdir("a/empty")
        zipped.writestr("a/x.txt", b"x")
    for archive in ("a.tar", "a.zip"):
        out = tmp_path / f"out {archive}"
        assert unpack(tmp_path / archive, out) == 1
        assert tree(out) == {"a/x.txt": b"x"}
        assert (out / "a" / "empty").is_dir()


def test_modes_in_the_archive_are_ignored(tmp_path: Path) -> None:
    info = tarfile.TarInfo("run")
    info.mode = 0o6777
    unpack(tar_of(tmp_path / "a.tar", info), tmp_path / "out")
    assert (tmp_path / "out" / "run").stat().st_mode & 0o7111 == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("../evil", "leads out"),
        ("a/../../evil", "leads out"),
        ("a/..", "leads out"),
        ("/etc/evil", "absolute"),
        ("C:/evil", "absolute"),
        ("a\\..\\evil", "backslash"),
        ("a\nb", "cannot be printed"),
        ("a\x7fb", "cannot be printed"),
        ("a\u202egnp.exe", "cannot be printed"),  # shown as aexe.png
        ("a.png:evil", "colon"),
        ("a/.. /evil", "leads out"),  # Windows drops the space
        ("a/.../evil", "leads out"),
        ("NUL", "device"),
        ("a/com1.png", "device"),
        ("a/Aux .tar.gz", "device"),
        ("lpt\u00b9", "device"),
    ],
)
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, kind: str, name: str, word: str) -> None:
    refused(make(tmp_path / f"a.{kind}", {"good": b"1", name: b"2"}), word)
    assert not (tmp_path / "evil").exists()


@given(st.lists(st.sampled_from(["..", ".", "", "a", "B", "b", "/", "\\", "C:", "片"]), min_size=1, max_size=6))
def test_no_name_leads_outside(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.mktemp("root")
    archive = make(root / "a.tar", {"/".join(parts): b"data"})
    out = root / "in" / "out"
    try:
        assert unpack(archive, out) == 1
    except UserError:
        assert not out.exists()
    assert {path for path in tree(root) if not path.startswith("in/out/")} == {"a.tar"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_special_files_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "good"
    refused(tar_of(tmp_path / "a.tar", tarfile.TarInfo("good"), info), "link or a special file")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_special_files_in_a_zip_are_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(info, "/etc/passwd")
    refused(tmp_path / "a.zip", "link or a special file")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        ("a/X.png", "a/x.png", "differs"),
        ("A/x.png", "a/y.png", "differs"),
        ("Straße", "STRASSE", "differs"),
        ("\u00e9.png", "e\u0301.png", "differs"),
        ("a", "a/b", "both a file and a folder"),
        ("a/b", "a", "both a file and a folder"),
        ("./a", "a", "twice"),
        ("a.png", "a.png.", "differs"),
        ("a /b", "a/c", "differs"),
    ],
)
def test_names_that_collide_are_refused(tmp_path: Path, kind: str, first: str, second: str, word: str) -> None:
    refused(make(tmp_path / f"a.{kind}", {first: b"1", second: b"2"}), word)


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_on_files_and_bytes(tmp_path: Path, kind: str) -> None:
    archive = make(tmp_path / f"a.{kind}", {f"{number}.bin": bytes(100) for number in range(10)})
    refused(archive, "too many", max_files=9)
    refused(archive, "beyond 999 bytes", max_bytes=999)
    assert unpack(archive, tmp_path / "out", Budget(max_files=10, max_bytes=1000)) == 10


@pytest.mark.parametrize("kind", KINDS)
def test_many_folders_count_too(tmp_path: Path, kind: str) -> None:
    refused(make(tmp_path / f"a.{kind}", {"/".join("abcdefghij"): b""}), "too many", max_files=9)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_decompression_bomb_is_refused(tmp_path: Path, kind: str) -> None:
    refused(make(tmp_path / f"a.{kind}", {"bomb": bytes(32 * 2**20)}), "decompression bomb|times the archive's size")


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    # Fifield's construction in small: many directory entries that point at the same bytes.
    data = make(tmp_path / "one.zip", {"a": os.urandom(5000)}).read_bytes()
    start = data.index(b"PK\x01\x02")
    entry, end = data[start : data.index(b"PK\x05\x06")], data[data.index(b"PK\x05\x06") :]
    at = entry.index(b"a", 46)
    entries = b"".join(entry[:at] + bytes([letter]) + entry[at + 1 :] for letter in b"abcdefgh")
    end = struct.pack("<4s4H2LH", end[:4], 0, 0, 8, 8, len(entries), start, 0)
    (tmp_path / "a.zip").write_bytes(data[:start] + entries + end)
    refused(tmp_path / "a.zip", "overlap")


def zip_with(path: Path, edit: Callable[[bytearray], None], members: dict[str, bytes] | None = None) -> Path:
    """Write a zip and change bytes of it."""
    data = bytearray(make(path, members or {"a": bytes(range(256)) * 40}).read_bytes())
    edit(data)
    path.write_bytes(data)
    return path


def test_partly_overlapping_members_are_refused(tmp_path: Path) -> None:
    # A whole zip as the content of a member, and a directory entry that points into it: the sum of the packed sizes
    # stays below the archive's size.
    inner = make(tmp_path / "inner.zip", {"i": b"12345"}).read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("o", inner + os.urandom(500))
        zipped.writestr("i", b"12345")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    directory = data.rindex(b"PK\x01\x02")  # the last entry: "i"
    struct.pack_into("<L", data, directory + 42, data.index(b"PK\x03\x04", 4))
    (tmp_path / "a.zip").write_bytes(data)
    refused(tmp_path / "a.zip", "overlap|corrupt")


def test_many_small_bombs_are_one(tmp_path: Path) -> None:
    members = {f"{number}": bytes(9 * 2**20) for number in range(3)}  # each below the size from which one counts
    refused(make(tmp_path / "a.zip", members), "times the archive's size")


def test_zip64_sizes_count(tmp_path: Path) -> None:
    # APPNOTE 4.5.3: a size of 0xFFFFFFFF stands in the extra field instead, where it has 64 bits.
    size = 2**50

    def edit(data: bytearray) -> None:
        start = data.index(b"PK\x01\x02")
        extra = struct.pack("<HHQ", 1, 8, size)
        struct.pack_into("<L", data, start + 24, 0xFFFFFFFF)
        struct.pack_into("<H", data, start + 30, len(extra))
        data[start + 47 : start + 47] = extra  # after the name of one letter
        end = data.index(b"PK\x05\x06")
        struct.pack_into("<L", data, end + 12, end - start)

    refused(zip_with(tmp_path / "a.zip", edit), f"beyond {200 * 2**30:,} bytes")


def test_a_local_header_with_another_name_is_refused(tmp_path: Path) -> None:
    archive = zip_with(tmp_path / "a.zip", lambda data: data.__setitem__(30, ord("b")))
    with pytest.raises(DamagedArchiveError):
        unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {}


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    def edit(data: bytearray) -> None:
        data[:] = data.replace(b"a.png_.exe", b"a.png\0.exe")

    refused(zip_with(tmp_path / "a.zip", edit, {"a.png_.exe": b"1"}), "cannot be printed")


def test_a_directory_without_end_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    def edit(data: bytearray) -> None:
        struct.pack_into("<HH", data, data.index(b"PK\x05\x06") + 8, 60_000, 60_000)

    refused(zip_with(tmp_path / "a.zip", edit), "too many", max_files=59_999)


def test_lzma_that_asks_for_memory_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as zipped:
        zipped.writestr("a", b"1")
    refused(tmp_path / "a.zip", "kind of compression")


def test_headers_in_headers_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type = tarfile.XHDTYPE
    (tmp_path / "a.tar").write_bytes(info.tobuf() * 3000)
    with pytest.raises(DamagedArchiveError):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_a_pax_header_may_not_change_a_harmless_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("good.png")
        info.pax_headers = {"path": "../evil.png"}
        tar.addfile(info)
    refused(tmp_path / "a.tar", "leads out")


@settings(max_examples=150)
@given(st.sampled_from(KINDS), st.data())
def test_any_change_of_bytes_gives_files_inside_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("root")
    archive = make(root / f"a.{kind}", {"a/b.png": b"PNG" * 50, "c": b"", "d.csv": bytes(700)})
    content = bytearray(archive.read_bytes())
    if kind in ("tar.gz", "tgz") and data.draw(st.booleans()):
        content = bytearray(gzip.decompress(content))
    for place in data.draw(st.lists(st.integers(0, min(len(content), 3000) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    packed = kind in ("tar.gz", "tgz") and not content.startswith(b"\x1f\x8b")
    archive.write_bytes(gzip.compress(content) if packed else content)
    with suppress(UserError):
        unpack(archive, root / "in" / "out", Budget(max_files=100, max_bytes=2**20))
    assert {path for path in tree(root) if not path.startswith("in/out/")} == {archive.name}
    assert not any(path.is_symlink() for path in root.rglob("*"))


def test_several_archives_share_their_bounds(tmp_path: Path) -> None:
    pairs = [(make(tmp_path / f"{n}.tar", {f"{n}.bin": bytes(100)}), tmp_path / f"out {n}") for n in range(4)]
    assert unpack_all(pairs, Budget(max_files=4, max_bytes=400)) == 4
    assert [tree(out) for _, out in pairs] == [{f"{n}.bin": bytes(100)} for n in range(4)]
    again = [(archive, tmp_path / f"again {n}") for n, (archive, _) in enumerate(pairs)]
    with pytest.raises(UserError, match="beyond 399 bytes"):
        unpack_all(again, Budget(max_bytes=399))
    assert unpack_all([]) == 0


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = make(tmp_path / "a.zip", {"a": b"secret"})
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    archive.write_bytes(data)
    refused(archive, "encrypted")


def test_a_zip_that_announces_less_than_it_holds_writes_no_more_than_announced(tmp_path: Path) -> None:
    archive = make(tmp_path / "a.zip", {"a": bytes(range(256)) * 100})
    data = bytearray(archive.read_bytes())
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, 10)  # uncompressed size in the directory
    archive.write_bytes(data)
    with pytest.raises(DamagedArchiveError):
        unpack(archive, tmp_path / "out")
    assert sum(map(len, tree(tmp_path / "out").values())) <= 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.99])
def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    archive = make(tmp_path / f"a.{kind}", {f"{number}": os.urandom(3000) for number in range(4)})
    data = archive.read_bytes().rstrip(b"\0") if kind == "tar" else archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DamagedArchiveError, match="cut short or corrupt") as error:
        unpack(archive, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    archive = make(tmp_path / "a.tar", {"a": bytes(512), "b": bytes(512)})
    archive.write_bytes(archive.read_bytes()[:1024])
    refused(archive, "cut short")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    for kind in ("zip", "tgz"):
        archive = make(tmp_path / f"a.{kind}", {"a": os.urandom(5000)})
        data = bytearray(archive.read_bytes())
        data[2500] ^= 16
        archive.write_bytes(data)
        with pytest.raises(DamagedArchiveError):
            unpack(archive, tmp_path / f"out {kind}")


def test_a_header_that_asks_for_gigabytes_of_memory_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 64 * 2**20
    with gzip.open(tmp_path / "a.tgz", "wb") as stream:
        stream.write(info.tobuf() + bytes(64 * 2**20))
    with pytest.raises(UserError):
        unpack(tmp_path / "a.tgz", tmp_path / "out")


@pytest.mark.parametrize("name", ["a.rar", "a.7z", "missing.zip"])
def test_other_files_are_named(tmp_path: Path, name: str) -> None:
    if not name.startswith("missing"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"\.tar\.gz"):
        unpack(tmp_path / name, tmp_path / "out")


def test_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert content_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_hash_of_a_folder_is_that_of_names_and_contents(tmp_path: Path) -> None:
    one = write_tree(tmp_path / "one", FILES)
    two = write_tree(tmp_path / "two", dict(reversed(FILES.items())))
    lines = b"".join(f"{sha256(FILES[name]).hexdigest()} {name}\0".encode() for name in sorted(FILES))
    assert content_sha256(one) == content_sha256(two) == sha256(lines).hexdigest()
    (two / "影像" / "数据 表.csv").write_bytes(b"other")
    assert content_sha256(one) != content_sha256(two)
    (two / "影像" / "数据 表.csv").write_bytes(FILES["影像/数据 表.csv"])
    (two / "images" / "deep" / "b c.png").rename(two / "images" / "deep" / "b.png")
    assert content_sha256(one) != content_sha256(two)


def test_links_in_a_folder(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "one", {"a": b"1"})
    (folder / "inside").symlink_to("a")
    assert folder_files(folder) == [("a", folder / "a"), ("inside", folder / "a")]
    (tmp_path / "secret").write_bytes(b"2")
    (folder / "outside").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="outside is a link that leaves"):
        content_sha256(folder)
    (folder / "outside").unlink()
    (folder / "circle").symlink_to(".")
    with pytest.raises(UserError, match="circle is a link to a folder"):
        content_sha256(folder)
    (folder / "circle").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(UserError, match="pipe"):
        content_sha256(folder)


def test_hash_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        content_sha256(tmp_path / "none")


def test_the_real_pneumonia_archive_unpacks_whole(shared_data: Path, tmp_path: Path) -> None:
    unpack(shared_data / "chest-xray-pneumonia.zip", tmp_path / "out")
    images = [name for name in tree(tmp_path / "out") if name.endswith(".jpeg") and "__MACOSX" not in name]
    assert len([name for name in images if not name.startswith("chest_xray/chest_xray")]) == 5856


@pytest.mark.parametrize("name", ["a/" * 65 + "x", "a" * 1025])
def test_a_name_deeper_or_longer_than_any_data_set_is_refused(name: str) -> None:
    assert split_name(name) == ([], "is longer or deeper than any data set's")
    assert split_name("a/" * 64 + "x")[1] == ""
