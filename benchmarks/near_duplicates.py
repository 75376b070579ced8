"""How well `cxr audit` finds copies: recall per transform, false alarms on real films, time at the scale of NIH.

    python benchmarks/near_duplicates.py FOLDER_OF_IMAGES [--films 200] [--seed 7]

Recall: each film is changed and compared with its original. Precision: all pairs of different films of the folder are
compared; each pair found is a false alarm, unless the set really holds a film twice (look at those that are printed).
Films whose pixels are equal are taken once.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from pipeline.crops import cropped_pairs
from pipeline.images import Image, ImageError, perceptual_hash, pixel_sha256, read_image
from pipeline.near_duplicates import pairs_within, similarity
from pipeline.progress import track
from pipeline.thumbnails import thumbnail

DISTANCES = (2, 4, 6, 8, 10, 12)
SIMILARITIES = (0.98, 0.985, 0.99, 0.995, 0.998)
NIH_IMAGES = 112_120


def jpeg(quality: int) -> Callable[[Image], Image]:
    """Return a function that compresses and decompresses."""

    def apply(image: Image) -> Image:
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)

    return apply


def halved(image: Image) -> Image:
    """Halve both sides."""
    size = (max(1, image.shape[1] // 2), max(1, image.shape[0] // 2))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def crop(share: float, corner: bool = False) -> Callable[[Image], Image]:
    """Return a function that cuts a share of each side off, half of it at each end or all at one corner."""

    def apply(image: Image) -> Image:
        rows, columns = (round(side * share / 2) for side in image.shape)
        if corner:
            return np.ascontiguousarray(image[2 * rows :, 2 * columns :])
        return np.ascontiguousarray(image[rows : image.shape[0] - rows, columns : image.shape[1] - columns])

    return apply


def any_crop() -> Callable[[Image], Image]:
    """Return a function that cuts 2 to 12 % off each axis, each time other shares at other places."""
    rng = np.random.default_rng(3)

    def apply(image: Image) -> Image:
        kept = [round(side * (1 - rng.uniform(0.02, 0.12))) for side in image.shape]
        top, left = (int(rng.integers(side - size + 1)) for side, size in zip(image.shape, kept, strict=True))
        return np.ascontiguousarray(image[top : top + kept[0], left : left + kept[1]])

    return apply


def gray(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Image], Image]:
    """Return a function that changes gray values, given from 0 to 1, and cuts them off there."""
    return lambda image: np.round(255 * np.clip(change(image / 255), 0, 1)).astype(np.uint8)


TRANSFORMS: dict[str, Callable[[Image], Image]] = {
    "resize to half": halved,
    "JPEG quality 75": jpeg(75),
    "JPEG quality 30": jpeg(30),
    "half, JPEG 50": lambda image: jpeg(50)(halved(image)),
    "crop 2 %": crop(0.02),
    "crop 5 %": crop(0.05),
    "crop 5 % at a corner": crop(0.05, corner=True),
    "crop 10 %": crop(0.10),
    "crop 2 to 12 %": any_crop(),
    "brightness +20 %": gray(lambda x: x * 1.2),
    "brightness -20 %": gray(lambda x: x * 0.8),
    "gamma 0.8": gray(lambda x: x**0.8),
    "CLAHE": lambda image: np.asarray(cv2.createCLAHE(2.0, (8, 8)).apply(image), np.uint8),
}


def number(image: Image) -> np.uint64:
    """Return the perceptual hash as a number."""
    return np.uint64(int(perceptual_hash(image), 16))


def read(folder: Path) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Return names, hashes, thumbnails and copies of 32 x 32 pixels of the different films below a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    known: set[str] = set()
    names, hashes, thumbnails, small = [], [], [], []
    for path in track(paths, len(paths), "reading"):
        try:
            image = read_image(path)
        except ImageError:
            continue
        if (digest := pixel_sha256(image)) not in known:
            known.add(digest)
            names.append(str(path))
            hashes.append(number(image))
            thumbnails.append(thumbnail(image))
            small.append(cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA))
    return names, np.array(hashes, np.uint64), np.array(thumbnails), np.array(small)


def recall(paths: list[str]) -> None:
    """Print, per transform, the share of films found by the hash alone and by hash and thumbnails."""
    print(
        f"\nRecall on {len(paths)} films. Hash alone, by distance; then distance <= 8 and similarity from; then default"
    )
    names = "".join(f"{f'<= {d}':>7}" for d in DISTANCES) + "  |" + "".join(f"{s:>7}" for s in SIMILARITIES)
    print(f"{'':22}{names}  | with parts")
    images = [read_image(Path(path)) for path in paths]
    for name, change in TRANSFORMS.items():
        pairs = [(image, change(image)) for image in images]
        bits = np.array([np.bitwise_count(number(a) ^ number(b)) for a, b in pairs])
        places = np.arange(len(pairs))
        one, two = (np.array([thumbnail(pair[side]) for pair in pairs]) for side in (0, 1))
        alike = similarity(one, two, places, places)
        row = [f"{(bits <= d).mean():7.3f}" for d in DISTANCES]
        row += ["  |"] + [f"{((bits <= 8) & (alike >= s)).mean():7.3f}" for s in SIMILARITIES]
        found = (bits <= 8) & (alike >= 0.995)
        i, j, _ = cropped_pairs(one, two, 0.995)
        found[i[i == j]] = True
        row += [f"  | {found.mean():7.3f}"]
        print(f"{name:22}" + "".join(row))


def false_alarms(names: list[str], hashes: np.ndarray, thumbnails: np.ndarray) -> None:
    """Print how many pairs of different real films are found."""
    pairs = len(hashes) * (len(hashes) - 1) // 2
    print(f"\nPairs found among {len(hashes):,} different films ({pairs:,} pairs): by hash, then also similar from")
    print(f"{'distance':>10}{'by hash':>10}" + "".join(f"{s:>8}" for s in SIMILARITIES))
    for distance in DISTANCES:
        i, j, _ = pairs_within(hashes, hashes, distance)
        alike = similarity(thumbnails, thumbnails, i, j)
        print(f"{f'<= {distance}':>10}{len(i):>10,}" + "".join(f"{int((alike >= s).sum()):>8,}" for s in SIMILARITIES))
    i, j, alike = cropped_pairs(thumbnails, thumbnails, 0.995)
    print(f"\nOne like a part of the other, from 0.995: {len(i)}")
    for one, two, value in zip(i, j, alike, strict=True):
        print(f"  {value:.4f}  {Path(names[one]).name}  {Path(names[two]).name}")
    i, j, bits = pairs_within(hashes, hashes, 8)
    alike = similarity(thumbnails, thumbnails, i, j)
    print("\nThe most similar within 8 bits:")
    for place in np.argsort(-alike)[:8]:
        print(f"  {alike[place]:.4f} {bits[place]:2d} bits  {Path(names[i[place]]).name}  {Path(names[j[place]]).name}")


def scale(small: np.ndarray, seed: int) -> None:
    """Time the search on as many images as NIH has: mixtures of two real films, which are more alike than real ones."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, len(small), (2, NIH_IMAGES))
    weight = rng.uniform(0.3, 0.7, NIH_IMAGES)
    hashes, thumbnails = np.empty(NIH_IMAGES, np.uint64), np.empty((NIH_IMAGES, 16, 16), np.uint8)
    for k in track(range(NIH_IMAGES), NIH_IMAGES, "mixing"):
        mixed = np.round(weight[k] * small[first[k]] + (1 - weight[k]) * small[second[k]]).astype(np.uint8)
        hashes[k], thumbnails[k] = number(mixed), thumbnail(mixed)
    print(f"\n{NIH_IMAGES:,} mixtures, seconds of processor time:")
    for distance in (4, 6, 8):
        start = time.process_time()
        i, j, _ = pairs_within(hashes, hashes, distance)
        found = time.process_time()
        similarity(thumbnails, thumbnails, i, j, 0.995)
        done = time.process_time()
        text = f"{found - start:.1f} s to find, {done - found:.1f} s to compare"
        print(f"  distance <= {distance}: {len(i):,} pairs, {text}")
    start = time.process_time()
    i, _, _ = cropped_pairs(thumbnails, thumbnails, 0.995)
    print(f"  parts: {len(i):,} pairs, {time.process_time() - start:.1f} s")
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def main() -> None:
    """Run all of it on one folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--films", type=int, default=200, help="films that are changed")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    names, hashes, thumbnails, small = read(args.folder)
    if not names:
        parser.error(f"{args.folder} holds no image")
    rng = np.random.default_rng(args.seed)
    recall([names[k] for k in sorted(rng.choice(len(names), min(args.films, len(names)), replace=False))])
    false_alarms(names, hashes, thumbnails)
    scale(small, args.seed)


if __name__ == "__main__":
    main()
