"""Which unfinished training may go on: one of the same parameters, data and code."""

import dataclasses
import os
import shutil
from importlib.metadata import version
from pathlib import Path

from pipeline.files import read_json, sha256_file, sha256_text, write_json
from pipeline.params import Params
from pipeline.progress import note
from pipeline.shards import META, Processed

# What decides the numbers of a training, apart from the data.
_SECTIONS = ("augment", "model", "loss", "optimizer", "schedule", "finetune", "train")
_PACKAGES = ("tensorflow", "keras", "numpy", "albumentations", "opencv-python-headless")
_CODE = ("training", "input_pipeline.py", "augment.py", "metrics.py", "scoring_input.py", "shards.py", "weights.py")
_KEY = "key.json"


def key_of(data: Processed, params: Params) -> str:
    """Return a hash of all that decides a training's numbers, apart from the machine."""
    root = Path(__file__).parents[1]
    files = sorted(path for name in _CODE for path in [root / name, *(root / name).glob("*.py")] if path.is_file())
    parts = {
        "params": {name: dataclasses.asdict(getattr(params, name)) for name in _SECTIONS},
        "data": sha256_file(data.folder / META),
        "packages": {name: version(name) for name in _PACKAGES},
        "code": {str(path.relative_to(root)): sha256_file(path) for path in files},
    }
    return sha256_text(repr(parts))


def working_folder(folder: Path, key: str) -> bool:
    """Make the folder in which a training works, or keep it if it holds an unfinished training of that key.

    Returns
    -------
    bool
        Whether there is one to go on with.
    """
    stored = folder / _KEY
    if stored.is_file() and read_json(stored) == key:
        return True
    if folder.exists():
        if stored.is_file():
            note("an unfinished training had other parameters, data or code: this one starts anew")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(stored, key)
    return False


def publish(source: Path, target: Path) -> None:
    """Give a finished file, or every file of a folder, a name in its last place, under which it appears whole.

    The source stays: a process that is killed here does the same again.
    """
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file():
                publish(path, target / path.relative_to(source))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(source, temporary)
    temporary.replace(target)
    temporary.unlink(missing_ok=True)  # renaming one name of a file to another one of it does nothing (POSIX)
