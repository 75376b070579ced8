"""How often `ingest` suspects real films, and how often it notices films that were spoilt on purpose.

    python benchmarks/quality.py FOLDER_OF_IMAGES

Every readable image below the folder is taken as it is (each suspicion is then a false alarm, unless the film is really
odd: some are printed), and spoilt in each of the ways below.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.images import Image, ImageError, read_image
from pipeline.parallel import run_all
from pipeline.quality import suspicions
from pipeline.quarantine import Reason


def gray(image: Image, gain: float, offset: float) -> Image:
    """Change brightness and contrast."""
    return np.clip(np.round(image * gain + offset), 0, 255).astype(np.uint8)


SPOILT: dict[str, tuple[Callable[[Image], Image], Reason]] = {
    "inverted": (lambda image: 255 - image, Reason.INVERTED),
    "turned by 90": (lambda image: np.rot90(image, -1), Reason.ROTATED),
    "turned by 180": (lambda image: np.rot90(image, 2), Reason.ROTATED),
    "turned by 270": (lambda image: np.rot90(image, 1), Reason.ROTATED),
    "a third as bright": (partial(gray, gain=1 / 3, offset=0), Reason.TOO_DARK),
    "faded to white": (partial(gray, gain=1 / 4, offset=191), Reason.TOO_BRIGHT),
    "a quarter of the contrast": (partial(gray, gain=1 / 4, offset=96), Reason.LOW_CONTRAST),
}


def look(path: Path) -> list[list[Reason]] | None:
    """Return the codes of one film as it is and after each way of spoiling it; None if it cannot be read."""
    try:
        image = read_image(path)
    except ImageError:
        return None
    films = [image, *(np.ascontiguousarray(spoil(image)) for spoil, _ in SPOILT.values())]
    return [[code for code, _ in suspicions(film)] for film in films]


def main() -> None:
    """Look at all films of one folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    looked = dict(zip(paths, run_all(look, paths, "looking"), strict=True))
    seen = {path: codes for path, codes in looked.items() if codes is not None}
    flagged = {path: codes[0] for path, codes in seen.items() if codes[0]}
    print(f"{len(seen):,} films, {len(flagged)} suspected as they are ({100 * len(flagged) / len(seen):.2f} %)")
    for code, count in Counter(code for codes in flagged.values() for code in codes).most_common():
        examples = [path.name for path, codes in flagged.items() if code in codes][:5]
        print(f"  {code.value:14}{count:6}  {100 * count / len(seen):5.2f} %  {', '.join(examples)}")
    print("noticed after spoiling:")
    for place, (name, (_, code)) in enumerate(SPOILT.items(), start=1):
        hits = sum(code in codes[place] for codes in seen.values())
        print(f"  {name:27}{code.value:14}{100 * hits / len(seen):6.1f} %")


if __name__ == "__main__":
    main()
