"""Which layer's heat maps point into the boxes, by Grad-CAM and by LayerCAM; on validation films, where it is chosen.

    make train && python benchmarks/heat_maps.py [--model models/model.keras] [--processed data/processed]
                                                 [--boxes data/boxes.csv] [--layers NAME ...]

Prints the share of maps whose peak lies in the box (the pointing game), over all pairs of a film and a boxed finding,
and in how many findings it is above the chance of a random point. The default layers are those at which the blocks of
ResNet50 end.
"""

import argparse
from pathlib import Path

import numpy as np

from pipeline.box_places import boxed_pairs, inside, read_boxes
from pipeline.explain import METHODS, build_explainer
from pipeline.heat_maps import is_flat, peaks
from pipeline.localise import pair_maps
from pipeline.map_scores import chance_of
from pipeline.quiet import load_tensorflow
from pipeline.shards import open_processed

LAYERS = ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "backbone")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/model.keras"))
    parser.add_argument("--processed", type=Path, default=Path("data/processed"))
    parser.add_argument("--boxes", type=Path, default=Path("data/boxes.csv"))
    parser.add_argument("--layers", nargs="+", default=LAYERS)
    args = parser.parse_args()
    load_tensorflow()
    from pipeline.model import load_model

    data, model = open_processed(args.processed), load_model(args.model)
    pairs = boxed_pairs(data, read_boxes(args.boxes), "val")
    truth = [inside(places, data.size) for places in pairs.places]
    chance = np.array([chance_of(mask, pairs.films[k]) for k, mask in enumerate(truth)])
    print(f"{len(truth)} pairs of a validation film and a finding; a random point hits {chance.mean():.3f}\n")
    print("| layer | places | method | pointing game | findings above chance |\n| --- | --- | --- | --- | --- |")
    for layer in args.layers:
        for method in METHODS:
            maps = pair_maps(build_explainer(model, layer, method), data, "val", pairs)
            hits = np.array([pointing(heat, mask) for heat, mask in zip(maps, truth, strict=True)])
            above = [hits[pairs.finding == f].mean() > chance[pairs.finding == f].mean() for f in set(pairs.finding)]
            cells = layer, f"{maps.shape[1]} x {maps.shape[2]}", method, f"{hits.mean():.3f}", f"{sum(above)}"
            print(f"| {' | '.join(cells)} of {len(above)} |", flush=True)


def pointing(heat: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of the map's peaks that lie in the boxes; a flat map points nowhere."""
    if is_flat(heat):
        return 0.0
    columns, rows = peaks(heat, len(mask)).astype(int).T
    return float(mask[rows, columns].mean())


if __name__ == "__main__":
    main()
