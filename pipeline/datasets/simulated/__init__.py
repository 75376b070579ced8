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
    every finding that shows on its film (`boxes`). The bytes depend on `params` alone; those of one patient on seed,
    size and his number.

    Parameters
    ----------
    params : SimulateParams
        How many patients, the seed, and the pixels a side.
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
    Some 7 to 13 % of the films show each finding and a third none: far more than in NIH ChestX-ray14, where 0.2 % show
    a hernia, because the test split of a few thousand films must hold enough of each for an AUROC with a usable
    interval. Findings come in company (effusion with edema and cardiomegaly), persist partly from film to film of a
    patient, and are drawn by what defines them on a radiograph (`signs` and `opacities`). View, age and follow-up
    number say next to nothing about them.
    """
    from pipeline.datasets.simulated.write import write_tree

    return write_tree(params, out, workers)
