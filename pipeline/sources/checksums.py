"""Checksums that a server announces for a file, and whether the file has them."""

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

_BLOCK = 2**20


def announced_checksums(headers: Mapping[str, str]) -> dict[str, str]:
    """Read what an answer's headers say of the whole file.

    Parameters
    ----------
    headers : mapping
        Of an answer with the whole file (status 200).

    Returns
    -------
    dict
        `crc32c` and `md5` in base64, from `x-goog-hash` (Google Cloud Storage, "Response headers"; several are joined
        by commas) and `Content-MD5` (RFC 1864); `etag-md5` in hexadecimal where the ETag looks like one. What is no
        checksum is left out.
    """
    found = {}
    for item in headers.get("x-goog-hash", "").split(","):
        name, _, value = item.strip().partition("=")
        found[name] = value.strip()
    found.setdefault("md5", headers.get("Content-MD5", "").strip())
    sizes = {"crc32c": 4, "md5": 16}
    sums = {name: value for name, value in found.items() if len(_decoded(value)) == sizes.get(name)}
    etag = headers.get("ETag", "")
    if "md5" not in sums and re.fullmatch(r'"[0-9a-f]{32}"', etag):
        sums["etag-md5"] = etag.strip('"')
    return sums


def check_file(path: Path, sums: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Compare a file with checksums.

    Returns
    -------
    verified, wrong : list of str
        Names of the checksums that agree, and of those that do not. An ETag that does not agree is in neither: it
        identifies a version and need not be a checksum (RFC 9110, 8.8.3; storages that encrypt send other values).
    """
    if not sums:
        return [], []
    crc32c = import_module("google_crc32c").Checksum()  # by name, since it comes without type information
    md5 = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            if "crc32c" in sums:
                crc32c.update(block)
            if len(sums) > ("crc32c" in sums):
                md5.update(block)
    have = {
        "crc32c": base64.b64encode(crc32c.digest()).decode(),
        "md5": base64.b64encode(md5.digest()).decode(),
        "etag-md5": md5.hexdigest(),
    }
    verified = [name for name, value in sums.items() if have.get(name) == value]
    wrong = [name for name in sums if name not in verified and name != "etag-md5"]
    return [name.removeprefix("etag-") for name in verified], wrong


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return b""
