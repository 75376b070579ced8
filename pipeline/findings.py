"""The label vocabulary: names and their order live here and nowhere else."""

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

NO_FINDING = "No Finding"
"""What NIH writes when none of the fourteen was mined from the radiology report; not an output of the model."""


def in_order(names: list[str]) -> list[str]:
    """Sort findings into the order of the vocabulary; names it lacks follow in alphabetical order."""
    rank = {name: position for position, name in enumerate(NIH14)}
    return sorted(names, key=lambda name: (rank.get(name, len(rank)), name))


def readable(name: str) -> str:
    """Return a finding's name as prose writes it: `Pleural_Thickening` becomes `Pleural thickening`."""
    return name.replace("_", " ").capitalize()
