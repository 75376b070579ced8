"""What a DICOM header says against an input: another modality, another body part, a view that is not frontal.

Three code strings are read and compared with lists; none of their words ever leaves this module.
"""

from typing import TYPE_CHECKING

from pipeline.decoders.dicom_file import guarded, is_dicom, parse
from pipeline.decoders.film import silence

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_TAGS = ("Modality", "BodyPartExamined", "ViewPosition")
_RADIOGRAPHY = {"CR", "DX", "RG", "DR"}
"""PS3.3, section C.7.3.1.1.1: computed, digital and plain-film radiography; DR is no term of it, and is written."""
_NO_MODALITY = {"", "OT", "SC"}
"""Other, and a secondary capture's former term: they say nothing."""
_CHEST = ("CHEST", "THORAX", "LUNG", "RIB", "HEART", "CLAVICLE", "STERNUM", "MEDIASTINUM")
"""Of PS3.16, annex L, what a frontal chest film may be filed under; devices write them with other words around."""
_OTHER_VIEWS = {"LL", "RL", "RLD", "LLD", "RLO", "LLO"}
"""PS3.3, section C.8.1.1: laterals, decubitus and oblique views; AP and PA are the frontal ones."""


def header_reasons(data: bytes) -> tuple[str, ...]:
    """Return the reasons of `pipeline.gate.REASONS` that a file's header gives; none for other formats.

    Parameters
    ----------
    data : bytes
        The whole file, which has been decoded before.

    Returns
    -------
    tuple of str
        Of 'modality' (Modality (0008,0060) names another than radiography), 'body-part' (Body Part Examined (0018,0015)
        names another than the chest) and 'lateral' (View Position (0018,5101) is a lateral, a decubitus or an oblique
        one). An empty or missing element is no reason.
    """
    if not is_dicom(data):
        return ()
    with silence():
        header = parse(data, _TAGS).header
        modality, part, view = (_word(header, name) for name in _TAGS)
    found = {
        "modality": modality not in _RADIOGRAPHY | _NO_MODALITY,
        "body-part": bool(part) and not any(word in part for word in _CHEST),
        "lateral": view in _OTHER_VIEWS or "LAT" in view or "OBL" in view,
    }
    return tuple(name for name, holds in found.items() if holds)


def _word(header: "Dataset", name: str) -> str:
    """Return a code string in capitals; empty where it is missing or several."""
    value = guarded(lambda: header.get(name), f"damaged or truncated ({name})")
    return value.strip().upper() if isinstance(value, str) else ""
