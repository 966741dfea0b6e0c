"""Compares the random amounts and formulas of SimCLR's augmentations with torchvision's.

examples:
  python tools/compare_torchvision.py --peer_python ~/torch/bin/python
  python tools/compare_torchvision.py --seeds 10000 --strength 1

The first table has the mean and standard deviation over many seeds of every random amount, as drawn
and as measured on the augmented image. "agree" says whether supcon_tf, torchvision and the
definition are within four standard errors of each other, in mean and in deviation.

The second table has the largest difference of pixels in [0, 1] with the same amounts in the same
order, on float images: `color.color_jitter` and `blur.gaussian_blur` against
torchvision.transforms.functional.

torchvision runs in its own process. Without it, supcon_tf is compared with the definition only. The
exit code is 1 if something does not agree.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import contenders
import numpy as np
from augmentation_samples import (
    AREA,
    ASPECT,
    KINDS,
    SIGMA,
    SIZE,
    Samples,
    our_samples,
    torchvision_pixels,
    torchvision_samples,
    write_pixel_cases,
)

# Rounding to float32 in four steps.
PIXEL_TOLERANCE = 1e-5
STANDARD_ERRORS = 4.0


class Statistics(NamedTuple):
    """Mean, standard deviation, and the standard error of each (0 for exact values)."""

    mean: float
    spread: float
    mean_error: float = 0.0
    spread_error: float = 0.0


def statistics(values: np.ndarray) -> Statistics:
    """Statistics of a sample [n]."""
    values = values.astype(np.float64)
    mean, spread = values.mean(), values.std()
    fourth = np.mean((values - mean) ** 4)
    # The standard error of the variance, divided by the derivative of its root.
    error = np.sqrt(max(fourth - spread**4, 0.0) / len(values)) / max(2 * spread, 1e-12)
    return Statistics(mean, spread, spread / np.sqrt(len(values)), error)


def uniform(low: float, high: float) -> Statistics:
    """Statistics of a uniform distribution."""
    return Statistics((low + high) / 2, (high - low) / np.sqrt(12))


def rate(probability: float) -> Statistics:
    """Statistics of an event with this probability."""
    return Statistics(probability, np.sqrt(probability * (1 - probability)))


def crop_definition() -> tuple[Statistics, Statistics]:
    """Area share and log aspect of the first of ten tries that fits, in whole pixels."""
    rng = np.random.default_rng(0)
    shape, (height, width) = (400_000, 10), SIZE
    areas = height * width * rng.uniform(*AREA, shape)
    low, high = np.log(ASPECT)
    aspects = np.exp(rng.uniform(low, high, shape))
    widths, heights = np.round(np.sqrt(areas * aspects)), np.round(np.sqrt(areas / aspects))
    fits = (widths <= width) & (heights <= height)
    row, first = np.arange(len(fits)), np.argmax(fits, axis=1)
    # In one of 10,000 cases none fits, and the fallbacks differ.
    drawn = [sides[row, first][fits.any(1)] for sides in (heights, widths)]
    share, log_aspect = drawn[0] * drawn[1] / (height * width), np.log(drawn[1] / drawn[0])
    return statistics(share), statistics(log_aspect)


def definitions(strength: float) -> dict[str, Statistics]:
    """Quantity -> what the papers and torchvision's documentation define, in the table's order."""
    factor = uniform(max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength)
    values = dict.fromkeys(KINDS[:3], factor)
    values["hue"] = uniform(-0.2 * strength, 0.2 * strength)
    area, aspect = crop_definition()
    rows = {}
    for kind in KINDS:
        rows[f"{kind}, drawn"] = rows[f"{kind}, measured"] = values[kind]
    place = Statistics(1.5, np.sqrt(1.25))
    rows |= {"place of brightness": place, "place of hue": place}
    rows |= {"jitter rate": rate(0.8), "grey rate": rate(0.2)}
    rows |= {"crop area share, drawn": area, "crop area share, measured": area}
    rows |= {"crop log aspect, drawn": aspect, "crop log aspect, measured": aspect}
    rows |= {"flip rate": rate(0.5), "blur sigma": uniform(*SIGMA), "blur rate": rate(0.5)}
    return rows


def agree(one: Statistics, other: Statistics, *, has_spread: bool) -> bool:
    """Whether two differ only by chance; a rate's spread follows from its mean."""
    mean_error = np.hypot(one.mean_error, other.mean_error)
    spread_error = np.hypot(one.spread_error, other.spread_error)
    slack = 1e-4  # Measured amounts are rounded.
    means = abs(one.mean - other.mean) <= STANDARD_ERRORS * mean_error + slack
    spreads = abs(one.spread - other.spread) <= STANDARD_ERRORS * spread_error + slack
    return bool(means and (spreads or not has_spread))


def torchvision_results(folder: Path, args: argparse.Namespace) -> Samples:
    """torchvision's samples and pixels, from its own process; empty if that fails."""
    command = [args.peer_python, __file__, "--measure", str(folder)]
    command += ["--seeds", str(args.seeds), "--strength", str(args.strength)]
    if contenders.run_alone("torchvision", command) is None:
        return {}
    return dict(np.load(folder / "torchvision.npz"))


def show_amounts(ours: Samples, peer: Samples, strength: float) -> bool:
    """Prints the table of amounts and returns whether all agree."""
    verdicts = []
    print("| quantity | ours | torchvision | definition | agree |")
    print("| --- | --- | --- | --- | --- |")
    for name, expected in definitions(strength).items():
        own = statistics(ours[name])
        other = statistics(peer[name]) if name in peer else None
        has_spread = ours[name].dtype != bool
        references = [expected, other] if other else [expected]
        verdicts.append(all(agree(own, each, has_spread=has_spread) for each in references))
        cells = [f"{s.mean:.4f} ± {s.spread:.4f}" if s else "-" for s in (own, other, expected)]
        print(f"| {name} | {' | '.join(cells)} | {'yes' if verdicts[-1] else 'NO'} |")
    return all(verdicts)


def show_pixels(ours: Samples, peer: Samples) -> bool:
    """Prints the table of pixels and returns whether all agree."""
    verdicts = []
    print("\n| pixels in [0, 1], the same amounts | largest difference | agree |")
    print("| --- | --- | --- |")
    for name in (*KINDS, "all four, in 24 orders", "blur"):
        difference = np.abs(ours[name] - peer[f"pixels, {name}"]).max()
        verdicts.append(bool(difference <= PIXEL_TOLERANCE))
        print(f"| {name} | {difference:.1e} | {'yes' if verdicts[-1] else 'NO'} |")
    return all(verdicts)


def main() -> None:
    parser = contenders.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="samples of each, default 2,000")
    parser.add_argument(
        "--strength", type=float, default=0.5, help="of the jitter, up to 1, default 0.5"
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        samples = torchvision_samples(args.seeds, args.strength) | torchvision_pixels(args.measure)
        np.savez(args.measure / "torchvision.npz", **samples)  # type: ignore[arg-type]
        print(json.dumps({}))
        return
    if args.seeds < 2 or not 0 < args.strength <= 1:
        parser.error("--seeds must be at least 2, and --strength above 0 and at most 1")
    from supcon_tf import cli  # The peer's interpreter does not have this package's dependencies.

    cli.start_tensorflow()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = our_samples(args.seeds, args.strength)
        write_pixel_cases(folder)
        peer = torchvision_results(folder, args)
        pixels = dict(np.load(folder / "cases.npz"))
    agrees = show_amounts(ours, peer, args.strength)
    if peer:
        agrees = show_pixels(pixels, peer) and agrees
    sys.exit(0 if agrees else 1)


if __name__ == "__main__":
    main()
