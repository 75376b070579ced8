"""The label vocabulary: names, their order and what each data set calls them live here and nowhere else."""

NIH14 = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""The fourteen findings of NIH ChestX-ray14, in the order of Wang et al., CVPR 2017, table 1 and its update."""

VOCABULARY = (
    *NIH14,
    "Enlarged_Cardiomediastinum",
    "Lung_Opacity",
    "Lung_Lesion",
    "Pleural_Other",
    "Fracture",
    "Support_Devices",
    "Aortic_Enlargement",
    "Calcification",
    "ILD",
    "Nodule_or_Mass",
    "Other_Lesion",
    "COVID-19",
)
"""Every finding that a data set of `pipeline.datasets` names, in the order in which tables and reports list them."""

NO_FINDING = "No Finding"
"""What NIH writes when none of the fourteen was mined from the radiology report; not an output of the model."""

CHEXPERT = {
    "Enlarged Cardiomediastinum": "Enlarged_Cardiomediastinum",
    "Cardiomegaly": "Cardiomegaly",
    "Lung Opacity": "Lung_Opacity",
    "Lung Lesion": "Lung_Lesion",
    "Edema": "Edema",
    "Consolidation": "Consolidation",
    "Pneumonia": "Pneumonia",
    "Atelectasis": "Atelectasis",
    "Pneumothorax": "Pneumothorax",
    "Pleural Effusion": "Effusion",
    "Pleural Other": "Pleural_Other",
    "Fracture": "Fracture",
    "Support Devices": "Support_Devices",
}
"""Columns of CheXpert (Irvin et al., AAAI 2019, table 1) to findings."""

VINBIGDATA = {
    "Aortic enlargement": "Aortic_Enlargement",
    "Atelectasis": "Atelectasis",
    "Calcification": "Calcification",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "ILD": "ILD",
    "Infiltration": "Infiltration",
    "Lung Opacity": "Lung_Opacity",
    "Nodule/Mass": "Nodule_or_Mass",
    "Other lesion": "Other_Lesion",
    "Pleural effusion": "Effusion",
    "Pleural thickening": "Pleural_Thickening",
    "Pneumothorax": "Pneumothorax",
    "Pulmonary fibrosis": "Fibrosis",
}
"""Class names of VinBigData's train.csv, in the order of their class_id from 0, to findings."""

NIH_BOXES = {name: name for name in NIH14} | {"Infiltrate": "Infiltration"}
"""Finding labels of NIH's BBox_List_2017.csv, which alone writes `Infiltrate`, to findings."""

COVID_RADIOGRAPHY = {"COVID": "COVID-19", "Lung_Opacity": "Lung_Opacity", "Viral Pneumonia": "Pneumonia"}
"""Class folders of the COVID-19 Radiography Database to findings; `Normal` has none."""

RSNA = {"Lung Opacity": "Pneumonia"}
"""The positive class of the RSNA challenge: an opacity that may be pneumonia (Shih et al. 2019)."""


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


# Not COVID_RADIOGRAPHY and RSNA: there the words are classes of one set, and mean less, or more, than they say.
_SYNONYMS = {_plain(name): name for name in VOCABULARY} | {
    _plain(published): name for names in (CHEXPERT, VINBIGDATA) for published, name in names.items()
}


def canonical(name: str) -> str:
    """Return the vocabulary's name of a finding, or the name itself with underscores for blanks.

    Capitals, blanks and underscores do not matter: `pleural effusion` and `Pleural_Effusion` become `Effusion`.
    """
    return _SYNONYMS.get(_plain(name), "_".join(name.split()))


def in_order(names: list[str]) -> list[str]:
    """Sort findings into the order of the vocabulary; names it lacks follow in alphabetical order."""
    rank = {name: position for position, name in enumerate(VOCABULARY)}
    return sorted(names, key=lambda name: (rank.get(name, len(rank)), name))


def readable(name: str) -> str:
    """Return a finding's name as prose writes it: `Pleural_Thickening` becomes `Pleural thickening`, `ILD` stays."""
    words = [word if word.isupper() else word.lower() for word in name.split("_")]
    prose = " ".join(words)
    return prose[:1].upper() + prose[1:]
