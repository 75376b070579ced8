"""A trained network on disk. It takes uint8 (batch, height, width, 1); its layers do what comes after."""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.files import atomic_path

if TYPE_CHECKING:
    import keras

BACKBONE = "backbone"
HEAD = "findings"


def load_model(path: Path) -> "keras.Model":
    """Load a trained model for inference.

    Raises
    ------
    UserError
        If the file is missing or is not a Keras model.
    """
    import keras

    if not path.is_file():
        raise UserError(f"{path} is missing: run `cxr train` (or `dvc repro`) first, or name another model")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a model that this version can load: {str(error)[:200]}") from None


def save_model(model: "keras.Model", path: Path) -> None:
    """Write a model as a .keras file whose bytes follow from the model alone, whole or not at all.

    Keras puts the time of writing into the file, so that the same training twice would give files that differ. The
    archive is written anew without it, members stored as they are.

    Parameters
    ----------
    model : keras.Model
        The model.
    path : Path
        The file, ending in .keras.
    """
    with atomic_path(path) as temporary:
        dated = temporary.with_suffix(".dated.keras")
        try:
            model.save(dated)
            with zipfile.ZipFile(dated) as source, zipfile.ZipFile(temporary, "w") as target:
                for name in sorted(source.namelist()):
                    content = _undated(source.read(name)) if name == "metadata.json" else source.read(name)
                    target.writestr(zipfile.ZipInfo(name), content)  # whose date is 1980
        finally:
            dated.unlink(missing_ok=True)


def _undated(metadata: bytes) -> bytes:
    return json.dumps({key: value for key, value in json.loads(metadata).items() if key != "date_saved"}).encode()
