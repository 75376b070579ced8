"""Round findings: nodules and masses.

"Hansell 2008" is the glossary of the Fleischner Society, Radiology 2008;246:697-722.
"""

import cv2
import numpy as np

from pipeline.datasets.simulated.canvas import Line
from pipeline.datasets.simulated.scene import Scene
from pipeline.datasets.simulated.signs import Sign


def nodule(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw two to four round opacities of up to 3 cm (Hansell 2008, "nodule"): 16 to 29 mm.

    From above the density of soft tissue to three times of it, as healed granulomas with calcium have; those that
    are fainter or smaller are missed on films, and would be labels that nobody can learn at the network's size.
    """
    count = int(rng.integers(2, 5))
    density = 2.0 + 1.0 * sign.severity + float(rng.choice([0.0, 0.7]))
    for number, (across, down, more) in enumerate(rng.uniform((0.25, 0.1, 0), (0.85, 0.9, 2), (count, 3)).tolist()):
        side = sign.side if number % 2 == 0 or not sign.both else 1 - sign.side
        centre = scene.place(side, across, 0.18 + 0.72 * (number + down) / count)  # one under the other
        half = (16 + 11 * sign.severity + more) / 2
        near, here = scene.canvas.around(centre, half)
        chord = np.sqrt(np.clip(half**2 - near.radius(centre) ** 2, 0, None))
        scene.added[here] += scene.both_lungs[here] * chord * np.float32(0.2 * density)


def mass(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw one opacity of more than 3 cm (Hansell 2008, "mass"), 36 to 84 mm, lobulated or spiculated.

    Solid tissue where lung of a quarter to a third of its density was.
    Margins: Gurney, Radiology 1993;186:405-413, who gives the likelihood ratios of cancer for both.
    """
    canvas, severity = scene.canvas, sign.severity
    across, down, more, spiky = rng.uniform((0.25, 0.2, 0, 0), (0.65, 0.8, 4, 1)).tolist()
    (x, y), half = scene.place(sign.side, across, down), 18 + 22 * severity + more / 2
    waves = (rng.uniform((0, 0), (1, 2 * np.pi), (3, 2)) * [0.4 if spiky < 0.5 else 0.08, 1]).tolist()
    field = canvas.coarse
    angle = cv2.phase(field.x - np.float32(x) + 0 * field.y, field.y - np.float32(y) + 0 * field.x)
    rim = 1 + sum(much / k * np.cos(k * angle + phase) for k, (much, phase) in enumerate(waves, start=2))
    near, here = canvas.around((x, y), 1.5 * half + 16)  # the longest of waves and rays
    rim = near.enlarge(np.asarray(rim, np.float32))
    radius, lungs = near.radius((x, y)), scene.both_lungs[here]
    chord = 2 * np.sqrt(np.clip((half * rim) ** 2 - radius**2, 0, None)) / 10
    scene.added[here] += lungs * chord * np.float32(0.85 + 0.35 * severity)
    rays = _spicules(x, y, half, rng)
    if spiky >= 0.5:
        scene.added[here] += lungs * near.strokes(rays) * np.clip(radius - half + 2, 0, 1) * np.float32(0.6)


def _spicules(x: float, y: float, half: float, rng: np.random.Generator) -> list[Line]:
    rays: list[Line] = []
    for turn, reach in rng.uniform((0, 4), (2 * np.pi, 13), (22, 2)):
        away = np.array([np.cos(turn), np.sin(turn)])
        rays.append((np.stack([[x, y] + 0.8 * half * away, [x, y] + (half + reach) * away]), 1.3, 1.0))
    return rays
