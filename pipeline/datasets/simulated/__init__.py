"""Simulated frontal chest radiographs, drawn from numbers alone: no patient, no download, no licence.

They stand in for NIH ChestX-ray14 so that the whole pipeline runs, and learns something, on a machine without data.
A model trained on them knows nothing of real chests.
"""

from pathlib import Path

from pipeline.params import SimulateParams


def simulate(params: SimulateParams, out: Path, workers: int | None = None) -> int:
    """Write a data set in the layout of NIH's sample as Kaggle serves it.

    `OUT/sample/images/00000001_000.png` and so on, `OUT/sample/sample_labels.csv`, and the same table again as
    `OUT/sample_labels.csv`; beside it `OUT/BBox_List_2017.csv`, which NIH has for the full set only, with the place of
    every finding that shows on its film (`boxes`). The bytes of a patient's films depend on the parameters and on his
    number, not on how many others there are.

    Beside Kaggle's tables: `OUT/truth.csv`, a row for each finding that a film shows or its label names (`Severity` and
    `Side` as drawn, `Drawn` and `Labelled` 1 or 0); with `unusable`, `OUT/unusable.csv`, the spoilt films and the code
    that `ingest` should give them; with `format: dicom`, `OUT/labels.csv`, the labels as the adapter `folder` reads
    them (`dataset.table: labels.csv`), because the adapter `nih` reads PNG files only.

    Parameters
    ----------
    params : SimulateParams
        Who is drawn, how, and into what files.
    out : Path
        A folder that does not exist or is empty; what a killed run left in it is removed.
    workers : int, optional
        Processes; by default one for each core.

    Returns
    -------
    int
        How many images were written.

    Raises
    ------
    UserError
        If `out` is a file or holds something.

    Notes
    -----
    With `prevalence: even`, some 7 to 13 % of the films show each finding and a third none: far more than in NIH
    ChestX-ray14, where 0.2 % show a hernia, because the test split of a few thousand films must hold enough of each for
    an AUROC with a usable interval. `prevalence: nih` has the prevalences and pairs of ChestX-ray14 (`course`).
    Findings come in company, persist partly from film to film of a patient, and are drawn by what defines them on a
    radiograph (`signs` and `opacities`). View, devices, detector, age and follow-up number say next to nothing about
    them, unless `shortcut` makes view and devices do so (`circumstances`). `label_noise` is a text-mined set's
    (`labels`).
    """
    from pipeline.datasets.simulated.write import write_tree

    return write_tree(params, out, workers)
