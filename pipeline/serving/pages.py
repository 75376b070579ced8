"""The reading page, its style and script, and the model card: made once, at the start, with their hashes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from pipeline.exported import Manifest
from pipeline.files import read_json
from pipeline.findings import readable
from pipeline.serving.answers import RESEARCH_ONLY

_FOLDER = Path(__file__).parents[1] / "templates" / "reading"
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
_HTML = "text/html; charset=utf-8"
_YEAR = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Page:
    """Something to send as it is.

    Attributes
    ----------
    body : bytes
        The content.
    media_type : str
        Its type.
    cache : str
        Cache-Control.
    """

    body: bytes
    media_type: str
    cache: str = "no-cache"

    @property
    def digest(self) -> str:
        """Sixteen digits of the SHA-256."""
        return hashlib.sha256(self.body).hexdigest()[:16]

    def response(self, request: Request) -> Response:
        """Return it, or 304 where the browser has it already."""
        tag = f'"{self.digest}"'
        headers = {"ETag": tag, "Cache-Control": self.cache}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.media_type, headers=headers)


def assets() -> dict[str, Page]:
    """Return style, script and icon by names that hold their hash, so that a browser may keep them for ever."""
    found = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            page = Page(path.read_bytes(), _TYPES[path.suffix], _YEAR)
            found[f"{path.stem}.{page.digest}{path.suffix}"] = page
    return found


def reading_page(manifest: Manifest, files: Mapping[str, Page], *, token: bool) -> Page:
    """Return the page at `/`.

    Parameters
    ----------
    manifest : Manifest
        Of the model.
    files : mapping
        See `assets`.
    token : bool
        Whether the page has to ask for a token.
    """
    return _rendered("page.html", files, manifest=manifest, token=token, use=RESEARCH_ONLY)


def card_page(card: Path, manifest: Manifest, files: Mapping[str, Page]) -> Page:
    """Return the model card as a page: `model_card.json` of the report if it is this model's, else what is known.

    Every value is escaped, whatever the file holds.
    """
    found, missing = None, "No model card was found: run cxr report, and give its folder with --reports."
    if card.is_file():
        found = read_json(card)
        if found.get("identity", {}).get("model_sha256") != manifest.model_sha256:
            found, missing = None, "The model card at hand is another model's: run cxr report again."
    return _rendered("card.html", files, manifest=manifest, card=found, missing=missing, use=RESEARCH_ONLY)


def _rendered(name: str, files: Mapping[str, Page], **values: Any) -> Page:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["readable"] = readable
    # Relative addresses, so that a proxy may put the server below a path.
    links = {file.rpartition(".")[2]: f"assets/{file}" for file in files}
    return Page(environment.get_template(name).render(links=links, **values).encode(), _HTML)
