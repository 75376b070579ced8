"""What the report says of each data set, for someone who does not know it, and of its own words.

docs/datasets says more of the data sets.
"""

from pipeline.params import Params
from pipeline.reporting.page import Section
from pipeline.reporting.text import level

ABOUT = {
    "simulated": (
        "Simulated radiographs: drawn by a program, in the file layout of NIH's sample. They show no real person, and "
        "the findings are drawn by simple rules."
    ),
    "nih": (
        "Frontal chest radiographs in the layout of NIH ChestX-ray14 (Wang et al., CVPR 2017). There the findings "
        "were mined from the radiology reports by software; they are not a radiologist's reading of the films for "
        "this purpose, and some of them are wrong."
    ),
    "pneumonia": (
        "Radiographs in the layout of the paediatric pneumonia set (Kermany et al., Cell 2018;172:1122): "
        "anterior-posterior films of children of one to five years from one hospital, each either normal or "
        "pneumonia. What is learned from them need not hold for adults."
    ),
    "chexpert": (
        "Chest radiographs in the layout of CheXpert (Irvin et al., AAAI 2019), from one hospital. The findings of its "
        "training films were mined from the radiology reports by software, which also marks what a report leaves "
        "uncertain or does not mention; dataset.uncertain and dataset.blank say what became of these."
    ),
    "covid-radiography": (
        "Radiographs in the layout of the COVID-19 Radiography Database (Chowdhury et al., IEEE Access 2020;8:132665). "
        "Each class comes from other sources, so a model can tell the sources apart instead of the findings. No "
        "patient is known: films of one person may stand in training and test. Its films are also in RSNA's, NIH's and "
        "the paediatric pneumonia set, so it is no external test for a model that has seen those."
    ),
    "rsna-pneumonia": (
        "Frontal radiographs in the layout of the RSNA Pneumonia Detection Challenge (Shih et al., Radiology: "
        "Artificial Intelligence 2019;1:e180041): opacities that a radiologist thinks may be pneumonia. The films come "
        "from NIH ChestX-ray14, so this is no external test for a model trained there; without RSNA's mapping to "
        "NIH no patient is known."
    ),
    "vinbigdata": (
        "Radiographs in the layout of VinBigData's competition (VinDr-CXR, Nguyen et al., Scientific Data 2022;9:429), "
        "each read by three radiologists, who disagree; dataset.readers says how many must see a finding. No patient "
        "is known: films of one person may stand in training and test."
    ),
    "folder": (
        "Radiographs from a folder of the user's own. Who read them, and for what purpose, the pipeline does not know. "
        "If neither a column nor a pattern names the patients, films of one person may stand in training and test."
    ),
}
"""Adapter (or `simulated`) to a paragraph."""


def about_data(trained: Params) -> str:
    """Describe the data set for someone who does not know it."""
    return ABOUT["simulated" if trained.download.source == "simulated" else trained.dataset.adapter]


def glossary(confidence: float) -> Section:
    """Return the section that explains the words of the page; `confidence` is the level of its intervals."""
    return Section("glossary", "Glossary", {"level": level(confidence)})
