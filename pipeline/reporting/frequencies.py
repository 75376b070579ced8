"""Natural frequencies: what an operating point does to 1,000 images, in whole images that add up.

People reason better with counts of one reference class than with conditional probabilities (Gigerenzer and Hoffrage,
Psychological Review 1995;102:684-704).
"""

from typing import Any

from pipeline.reporting.text import prose

CELLS = ("fn", "tp", "fp", "tn")
"""In the order of the bar: so those with the finding, and those that are flagged, each stand together."""
_BASES = (1_000, 10_000, 100_000, 1_000_000)
_BAR = 1000.0
_LEAST = 4.0  # units of the bar; what is there is seen


def frequencies(counts: dict[str, int]) -> dict[str, int]:
    """Scale the four counts of a decision to images out of a round number.

    Rounded down, and what is missing given to the largest remainders (Hamilton's method), so that the four add up.

    Parameters
    ----------
    counts : dict
        `tp`, `fp`, `tn`, `fn` in images, not all 0.

    Returns
    -------
    dict
        The same keys, and `base`: 1,000, or the first larger power of ten of which at least one has the finding.
    """
    total, positive = sum(counts[name] for name in CELLS), counts["tp"] + counts["fn"]
    base = next((base for base in _BASES if positive * base >= total), _BASES[-1]) if positive else _BASES[0]
    whole = {name: counts[name] * base // total for name in CELLS}
    by_rest = sorted(CELLS, key=lambda name: (-(counts[name] * base % total), CELLS.index(name)))
    for name in by_rest[: base - sum(whole.values())]:
        whole[name] += 1
    return {**whole, "base": base}


def sentence(finding: str, counts: dict[str, int]) -> str:
    """Say what an operating point does, as: Of 1,000 images like these, 62 have effusion; the model flags 140: …."""
    n = frequencies(counts)
    have, flagged = n["tp"] + n["fn"], n["tp"] + n["fp"]
    # What is rounded to 0 though it happened is not called none.
    missed = f"{n['fn']:,}" if n["fn"] else "fewer than 1" if counts["fn"] else "none"
    return (
        f"Of {n['base']:,} images like these, {have:,} {'has' if have == 1 else 'have'} {prose(finding)}; at this "
        f"operating point the model flags {flagged:,}: {n['tp']:,} of the {have:,} and {n['fp']:,} without it; "
        f"{missed} {'is' if n['fn'] <= 1 else 'are'} missed."
    )


def bar(counts: dict[str, int]) -> list[dict[str, Any]]:
    """Lay out the bar of the four counts: `name`, `x` and `width` in thousandths of its length, empty ones left out.

    A part that is there is at least 4 thousandths wide, at the expense of the widest.
    """
    total = sum(counts[name] for name in CELLS)
    widths = {name: max(_LEAST, _BAR * counts[name] / total) for name in CELLS if counts[name]}
    widest = max(widths, key=lambda name: widths[name])
    widths[widest] -= sum(widths.values()) - _BAR
    parts, x = [], 0.0
    for name, width in widths.items():
        parts.append({"name": name, "x": round(x, 1), "width": round(width, 1)})
        x += width
    return parts
