"""Presets: small files in `configs/` that override the defaults; `params.yaml` is one of them written out in full."""

import dataclasses
import io
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from pipeline.errors import UserError
from pipeline.files import write_text
from pipeline.params import Params
from pipeline.params_file import as_dict, load_params, parse_params, read_yaml
from pipeline.progress import note

_HEADER = """\
The parameters of every stage; DVC watches this file. Change a value and run `make train` or `dvc repro`.
`cxr preset NAME` (or `make train PRESET=NAME`) writes the file anew from configs/NAME.yaml.
"""


def preset_names(folder: Path) -> list[str]:
    """Return the names of the presets in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_preset(name: str, folder: Path) -> Params:
    """Resolve a preset against the defaults.

    Raises
    ------
    UserError
        If there is no such preset (names those there are), or it holds an unknown key or a bad value.
    """
    if name not in preset_names(folder):
        raise UserError(f"preset {name!r} is not in {folder}/; allowed: {', '.join(preset_names(folder))}")
    values = read_yaml(folder / f"{name}.yaml")
    section = values.setdefault("dataset", {})
    if isinstance(section, dict):  # anything else is refused by name below
        section["preset"] = name
    return parse_params(values, str(folder / f"{name}.yaml"))


def with_archive(params: Params, archive: Path) -> Params:
    """Return the parameters with a local archive or folder, pinned by its SHA-256, as their source.

    Raises
    ------
    UserError
        If the archive does not exist or cannot be read.
    """
    from pipeline.sources.archives import content_sha256

    if not archive.exists():
        raise UserError(f"ARCHIVE {str(archive)!r} does not exist; a .zip, .tar or .tar.gz, or a folder, is needed")
    source = dataclasses.replace(
        params.download, source="local", archive=str(archive.resolve()), sha256=content_sha256(archive)
    )
    return dataclasses.replace(params, download=source)


def apply_preset(name: str, archive: Path | None, folder: Path, target: Path) -> None:
    """Write `params.yaml` from a preset, unless it already is that preset with that archive.

    A file that is already made from this preset keeps the values that were changed in it by hand; one that is made
    from another preset is replaced, and kept as `params.yaml.bak` if it had been changed by hand.

    Parameters
    ----------
    name : str
        The preset.
    archive : Path or None
        A local archive or folder, instead of the preset's own source.
    folder, target : Path
        `configs` and `params.yaml`.
    """
    wanted = load_preset(name, folder)
    current = load_params(target) if target.is_file() else None
    same = current is not None and current.dataset.preset == name
    if current is not None and same:
        wanted = dataclasses.replace(current, download=wanted.download if archive else current.download)
    if archive is not None:
        if wanted.download.source == "simulated":
            others = [other for other in preset_names(folder) if other != name]
            raise UserError(f"preset {name} draws its own images; with ARCHIVE give PRESET={' or '.join(others)}")
        wanted = with_archive(wanted, archive)
    if current is not None and not same and not _is_pristine(current, folder):
        backup = target.with_name(target.name + ".bak")
        write_text(backup, target.read_text(encoding="utf-8"))
        note(f"{target} had been changed by hand; it is kept as {backup}")
    if wanted != current:
        write_text(target, render(wanted))
        note(f"{target} now holds preset {name}")


def render(params: Params) -> str:
    """Return the text of `params.yaml`: every key, each with its description as a comment."""
    document = CommentedMap()
    document.yaml_set_start_comment(_HEADER)
    for section, values in as_dict(params).items():
        block = CommentedMap(values)
        owner: Any = Params.__dataclass_fields__[section].type
        for item in dataclasses.fields(owner):
            if description := _description(item):
                block.yaml_add_eol_comment(description, item.name, column=28)
        document[section] = block
        document.yaml_set_comment_before_after_key(section, before="\n" + (owner.__doc__ or "").strip())
    yaml = YAML()
    yaml.width = 4096
    yaml.representer.add_representer(str, _quote_if_empty)
    text = io.StringIO()
    yaml.dump(document, text)
    return text.getvalue()


def _description(item: "dataclasses.Field[Any]") -> str:
    """Find pydantic's description among the annotations of a field."""
    texts = [meta.description for meta in getattr(item.type, "__metadata__", ()) if isinstance(meta, FieldInfo)]
    return next((text for text in texts if text), "")


def _is_pristine(params: Params, folder: Path) -> bool:
    """Say whether the file is some preset as it stands, apart from the archive."""
    name = params.dataset.preset
    if name not in preset_names(folder):
        return False
    return dataclasses.replace(params, download=load_preset(name, folder).download) == load_preset(name, folder)


def _quote_if_empty(representer: Any, value: str) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:str", value, style=None if value else '"')
