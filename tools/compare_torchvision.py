"""Compares random draws and formulas of SimCLR's recipe with torchvision's and the definition.

python tools/compare_torchvision.py --peer_python ~/torch/bin/python

Over many seeds, mean and spread (standard deviation) of every random amount: as drawn, and as
measured on what comes out. Measured are the slope of a ramp after a crop (its size, and mirrored
where negative), the change of a picture's mean, contrast, colourfulness and hue after a jitter of
that kind alone, and the width of a blurred point. The last column says whether ours agree with
torchvision and with the definition within four standard errors, in mean and in spread.

Then the largest differences of pixels in [0, 1] with the same amounts in the same order, on float
images: `color.color_jitter` and `blur.gaussian_blur` against torchvision.transforms.functional.

Torchvision runs in a process of its own; --peer_python names an interpreter that has it. Without
it, ours are compared with the definition only. Exits with 1 where something does not agree.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
SIZE, CROP_PX = (120, 160), 32
SIGMA = (0.1, 2.0)
# Blurred points lie in images of so many pixels, where the kernel has three taps.
POINT_PX = 25
KINDS = ("brightness", "contrast", "saturation", "hue")
# What rounding to float32 may change in four steps.
PIXEL_TOLERANCE = 1e-5
STANDARD_ERRORS = 4.0


class Statistics(NamedTuple):
    """Mean and spread, and the standard error of each (0 where they are known)."""

    mean: float
    spread: float
    mean_error: float = 0.0
    spread_error: float = 0.0


def statistics(values: np.ndarray) -> Statistics:
    """Of a sample [n]."""
    values = values.astype(np.float64)
    mean, spread = values.mean(), values.std()
    fourth = np.mean((values - mean) ** 4)
    # Of the variance, then of its root.
    error = np.sqrt(max(fourth - spread**4, 0.0) / len(values)) / max(2 * spread, 1e-12)
    return Statistics(mean, spread, spread / np.sqrt(len(values)), error)


def uniform(low: float, high: float) -> Statistics:
    """Of the uniform distribution."""
    return Statistics((low + high) / 2, (high - low) / np.sqrt(12))


def rate(probability: float) -> Statistics:
    """Of a coin."""
    return Statistics(probability, np.sqrt(probability * (1 - probability)))


def crop_definition() -> tuple[Statistics, Statistics]:
    """Of area share and log aspect: the first of ten tries that fits, in whole pixels."""
    rng = np.random.default_rng(0)
    shape, (height, width) = (400_000, 10), SIZE
    areas = height * width * rng.uniform(*AREA, shape)
    low, high = np.log(ASPECT)
    aspects = np.exp(rng.uniform(low, high, shape))
    widths, heights = np.round(np.sqrt(areas * aspects)), np.round(np.sqrt(areas / aspects))
    fits = (widths <= width) & (heights <= height)
    row, first = np.arange(len(fits)), np.argmax(fits, axis=1)
    # Where none fits, once in 10,000, the fallbacks differ.
    drawn = [sides[row, first][fits.any(1)] for sides in (heights, widths)]
    share, log_aspect = drawn[0] * drawn[1] / (height * width), np.log(drawn[1] / drawn[0])
    return statistics(share), statistics(log_aspect)


def definitions(strength: float) -> dict[str, Statistics]:
    """The quantities in the order of the table."""
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


def color_picture() -> np.ndarray:
    """Float32 [8, 8, 3] that stays within [0, 1] when a factor is at most 1.8."""
    pattern = 0.04 * np.sin(np.arange(64)).reshape(8, 8, 1)
    return (np.array([0.5, 0.38, 0.32]) + pattern).astype(np.float32)


def ramp() -> np.ndarray:
    """Float32 [H, W, 3] whose channels are the places across and down, in [0, 1]."""
    height, width = SIZE
    down, across = np.mgrid[:height, :width]
    planes = [across / width, down / height, np.zeros(SIZE)]
    return np.stack(planes, axis=-1).astype(np.float32)


def point() -> np.ndarray:
    """Float32 [S, S, 3], white in the middle."""
    image = np.zeros((POINT_PX, POINT_PX, 3), np.float32)
    image[POINT_PX // 2, POINT_PX // 2] = 1
    return image


def measured_jitter(kind: str, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The factor, or turns of hue, from [8, 8, 3] to each of [N, 8, 8, 3]."""
    before, after = before.astype(np.float64), after.astype(np.float64)
    if kind == "brightness":
        return after.mean((1, 2, 3)) / before.mean()
    if kind == "contrast":
        return after.std((1, 2)).mean(1) / before.std((0, 1)).mean()
    if kind == "saturation":
        chroma = (after[..., 0] - after[..., 2]).mean((1, 2))
        return chroma / (before[..., 0] - before[..., 2]).mean()
    turned = hue_of(after.mean((1, 2))) - hue_of(before.mean((0, 1)))
    return (turned + 0.5) % 1.0 - 0.5


def hue_of(colors: np.ndarray) -> np.ndarray:
    """HSV's hue of [..., 3], in turns."""
    red, green, blue = np.moveaxis(colors, -1, 0)
    value, chroma = colors.max(-1), np.ptp(colors, axis=-1)
    side = np.where(
        red == value,
        (green - blue) / chroma,
        np.where(green == value, 2 + (blue - red) / chroma, 4 + (red - green) / chroma),
    )
    return side / 6 % 1.0


def measured_crops(crops: np.ndarray) -> dict[str, np.ndarray]:
    """Area share, log aspect and flip from crops [N, s, s, 3] of the ramp."""
    # Away from the border, where the last pixels repeat.
    low, high = CROP_PX // 4, 3 * CROP_PX // 4
    slopes = np.stack(
        [
            (crops[:, low:high, high, 0] - crops[:, low:high, low, 0]).mean(1),
            (crops[:, high, low:high, 1] - crops[:, low, low:high, 1]).mean(1),
        ]
    ).astype(np.float64)
    across, down = slopes * CROP_PX / (high - low)
    return {
        "crop area share, measured": np.abs(across) * down,
        "crop log aspect, measured": np.log(np.abs(across) * SIZE[1] / (down * SIZE[0])),
        "flip rate": across < 0,
    }


def measured_sigma(blurred: np.ndarray) -> np.ndarray:
    """From points blurred to [N, S, S]: the two middle weights of a kernel give its sigma."""
    middle = POINT_PX // 2
    pair = blurred[:, middle, middle : middle + 2].astype(np.float64)
    return np.sqrt(-0.5 / np.log(pair[:, 1] / pair[:, 0]))


def shares(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Which of [N, ...] differ from the one before."""
    return np.any(after != before, axis=tuple(range(1, after.ndim)))


def ours(folder: Path, num_seeds: int, strength: float) -> dict[str, np.ndarray]:
    """Samples [N] of every quantity; writes images with amounts and results for the peer."""
    from supcon_tf import cli

    cli.start_tensorflow()

    # isort: split
    import tensorflow as tf

    from supcon_tf.data import crops, views
    from supcon_tf.data.augment import blur, color
    from supcon_tf.data.augment.rng import split, uniforms

    # Seeds of their own for each, that what is drawn for one says nothing of the others.
    seeds, grey_seeds, crop_seeds, blur_seeds = tf.reshape(split(0, 4 * num_seeds), [4, num_seeds])
    picture = color_picture()
    pictures = tf.repeat(picture[None], num_seeds, axis=0)
    draw = color.draw_jitter(uniforms(seeds, 9)[:, :8], strength=strength, jitter="torchvision")
    neutral = color.JitterDraw(
        draw.order, *(tf.fill([num_seeds], value) for value in (1.0, 1.0, 1.0, 0.0))
    )
    samples = {}
    for kind in KINDS:
        amounts = getattr(draw, kind)
        alone = neutral._replace(**{kind: amounts})
        changed = color.color_jitter(pictures, alone, jitter="torchvision").numpy()
        samples[f"{kind}, drawn"] = amounts.numpy()
        samples[f"{kind}, measured"] = measured_jitter(kind, picture, changed)
    places = np.argsort(draw.order.numpy(), axis=1)
    samples |= {"place of brightness": places[:, 0], "place of hue": places[:, 3]}
    jittered = color.random_color_jitter(
        pictures, seed=seeds, strength=strength, jitter="torchvision"
    )
    samples["jitter rate"] = shares(picture, jittered.numpy())
    samples["grey rate"] = shares(picture, color.random_grey(pictures, seed=grey_seeds).numpy())

    windows = crops.draw_windows(
        tf.constant(SIZE),
        crop_seeds,
        area_range=AREA,
        aspect_range=ASPECT,
        flip_probability=0.5,
        num_tries=10,
    )
    height, width = windows.height.numpy(), windows.width.numpy()
    samples["crop area share, drawn"] = height * width / (SIZE[0] * SIZE[1])
    samples["crop log aspect, drawn"] = np.log(width / height)
    cropped = tf.function(views.random_resized_crop, autograph=False)(
        tf.constant(ramp()),
        seed=crop_seeds,
        size_px=CROP_PX,
        area_range=AREA,
        aspect_range=ASPECT,
    )
    samples |= measured_crops(cropped.numpy())
    points = tf.repeat(point()[None], num_seeds, axis=0)
    always = blur.random_blur(points, seed=blur_seeds, probability=1.0)
    samples["blur sigma"] = measured_sigma(always[..., 0].numpy())
    sometimes = blur.random_blur(points, seed=blur_seeds, probability=0.5)
    samples["blur rate"] = shares(point(), sometimes.numpy())
    _write_pixel_cases(folder)
    return samples


def _write_pixel_cases(folder: Path) -> None:
    """cases.npz: images, amounts, and what ours make of them."""
    import tensorflow as tf

    from supcon_tf.data.augment import blur, color
    from supcon_tf.data.augment.rng import uniforms

    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 1, (5, 5, 3))
    weights = np.maximum(1 - np.abs(np.linspace(0, 4, 64)[:, None] - np.arange(5)), 0)
    smooth = np.einsum("ih,hwc,jw->ijc", weights, coarse, weights)
    noise = rng.uniform(0, 1, (64, 64, 3))
    # Pure and mixed colours, greys, black and white, where hue and saturation jump.
    corners = np.stack(np.meshgrid(*[np.linspace(0, 1, 16)] * 3), axis=-1).reshape(64, 64, 3)
    images = np.stack([smooth, noise, corners]).astype(np.float32)
    orders = np.array(np.meshgrid(*[np.arange(4)] * 4)).reshape(4, -1).T
    orders = orders[[len(set(order)) == 4 for order in orders.tolist()]]
    per_image = np.tile(orders, (2, 1))
    repeated = np.repeat(images, len(per_image), axis=0)
    numbers = uniforms(tf.range(len(repeated), dtype=tf.int64), 8)
    draw = color.draw_jitter(numbers, strength=1.0, jitter="torchvision")
    draw = draw._replace(order=tf.constant(np.tile(per_image, (3, 1)), tf.int32))
    result = {
        "images": repeated,
        "order": draw.order.numpy(),
        "amounts": np.stack([amount.numpy() for amount in draw[1:]], axis=1),
        "all four, in 24 orders": color.color_jitter(repeated, draw, jitter="torchvision").numpy(),
    }
    ones, zeros = tf.ones([len(repeated)]), tf.zeros([len(repeated)])
    neutral = color.JitterDraw(draw.order, ones, ones, ones, zeros)
    for kind in KINDS:
        alone = neutral._replace(**{kind: getattr(draw, kind)})
        result[kind] = color.color_jitter(repeated, alone, jitter="torchvision").numpy()
    result["sigmas"] = np.linspace(*SIGMA, len(repeated)).astype(np.float32)
    result["blur"] = blur.gaussian_blur(
        tf.constant(repeated), sigma=tf.constant(result["sigmas"])
    ).numpy()
    np.savez(folder / "cases.npz", **result)  # type: ignore[arg-type]


def measure_torchvision(folder: Path, num_seeds: int, strength: float) -> None:
    """Writes peer.npz: the same samples, and its results of the pixel cases."""
    import torch
    from torchvision import transforms as T
    from torchvision.transforms import functional as F

    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    most = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)

    def tensor(image: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, -3)))

    def sample(transform: Any, image: np.ndarray) -> np.ndarray:
        given = tensor(image)
        results = torch.stack([transform(given) for _ in range(num_seeds)])
        return np.moveaxis(results.numpy(), 1, -1)

    picture = color_picture()
    jitter = T.ColorJitter(*most)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    draws = [T.ColorJitter.get_params(*ranges) for _ in range(num_seeds)]
    samples = {}
    for number, kind in enumerate(KINDS):
        samples[f"{kind}, drawn"] = np.array([draw[1 + number] for draw in draws])
        changed = sample(T.ColorJitter(**{kind: most[number]}), picture)
        samples[f"{kind}, measured"] = measured_jitter(kind, picture, changed)
    places = np.argsort([draw[0].numpy() for draw in draws], axis=1)
    samples |= {"place of brightness": places[:, 0], "place of hue": places[:, 3]}
    samples["jitter rate"] = shares(picture, sample(T.RandomApply([jitter], p=0.8), picture))
    samples["grey rate"] = shares(picture, sample(T.RandomGrayscale(0.2), picture))

    crop = T.RandomResizedCrop(CROP_PX, scale=AREA, ratio=ASPECT)
    image = tensor(ramp())
    sides = np.array([crop.get_params(image, AREA, ASPECT)[2:] for _ in range(num_seeds)])
    samples["crop area share, drawn"] = sides.prod(1) / (SIZE[0] * SIZE[1])
    samples["crop log aspect, drawn"] = np.log(sides[:, 1] / sides[:, 0])
    samples |= measured_crops(sample(T.Compose([crop, T.RandomHorizontalFlip()]), ramp()))
    # In float64, as the outer weight of the narrowest kernel is 2e-22.
    blur = T.GaussianBlur(3, SIGMA)
    exact_point = point().astype(np.float64)
    samples["blur sigma"] = measured_sigma(sample(blur, exact_point)[..., 0])
    sometimes = sample(T.RandomApply([blur], p=0.5), exact_point)
    samples["blur rate"] = shares(exact_point, sometimes)

    cases = np.load(folder / "cases.npz")
    adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    images, amounts = tensor(cases["images"]), cases["amounts"].tolist()
    for number, kind in enumerate(KINDS):
        rows = [adjust[number](x, own[number]) for x, own in zip(images, amounts)]
        samples[f"pixels, {kind}"] = np.moveaxis(torch.stack(rows).numpy(), 1, -1)
    rows = []
    for x, own, order in zip(images, amounts, cases["order"].tolist()):
        for number in order:
            x = adjust[number](x, own[number])
        rows.append(x)
    samples["pixels, all four, in 24 orders"] = np.moveaxis(torch.stack(rows).numpy(), 1, -1)
    taps = 2 * (images.shape[-1] // 20) + 1
    rows = [
        F.gaussian_blur(x, [taps, taps], [sigma, sigma])
        for x, sigma in zip(images, cases["sigmas"].tolist())
    ]
    samples["pixels, blur"] = np.moveaxis(torch.stack(rows).numpy(), 1, -1)
    np.savez(folder / "peer.npz", **samples)  # type: ignore[arg-type]


def run_peer(folder: Path, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """`measure_torchvision` in a process of its own; nothing, and a line why, where that fails."""
    command = [args.peer_python, __file__, "--measure", str(folder)]
    command += ["--seeds", str(args.seeds), "--strength", str(args.strength)]
    try:
        finished = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        print(f"torchvision left out: {error}", file=sys.stderr)
        return {}
    if finished.returncode:
        why = finished.stderr.strip().splitlines()[-1:] or [f"exit {finished.returncode}"]
        print(f"torchvision left out: {why[0]}", file=sys.stderr)
        return {}
    return dict(np.load(folder / "peer.npz"))


def agree(one: Statistics, other: Statistics, *, has_spread: bool) -> bool:
    """Whether two differ by no more than chance; the spread of a coin follows from its mean."""
    mean_error = np.hypot(one.mean_error, other.mean_error)
    spread_error = np.hypot(one.spread_error, other.spread_error)
    # Measured amounts are rounded.
    slack = 1e-4
    means = abs(one.mean - other.mean) <= STANDARD_ERRORS * mean_error + slack
    spreads = abs(one.spread - other.spread) <= STANDARD_ERRORS * spread_error + slack
    return bool(means and (spreads or not has_spread))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2000, help="draws of each, default 2,000")
    parser.add_argument(
        "--strength", type=float, default=0.5, help="of the jitter, up to 1, default 0.5"
    )
    parser.add_argument("--peer_python", default=sys.executable, help="interpreter with the peer")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure_torchvision(args.measure, args.seeds, args.strength)
        return
    if args.seeds < 2 or not 0 < args.strength <= 1:
        parser.error("--seeds must be at least 2, and --strength above 0 and at most 1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        own = ours(folder, args.seeds, args.strength)
        peer = run_peer(folder, args)
        cases = dict(np.load(folder / "cases.npz"))
    verdicts = []
    print("| quantity | ours | torchvision | definition | agree |")
    print("| --- | --- | --- | --- | --- |")
    for name, expected in definitions(args.strength).items():
        mine = statistics(own[name])
        has_spread = own[name].dtype != bool
        others = [expected, statistics(peer[name])] if name in peer else [expected]
        verdicts.append(all(agree(mine, other, has_spread=has_spread) for other in others))
        shown = [mine, statistics(peer[name]) if name in peer else None, expected]
        cells = [f"{s.mean:.4f} ± {s.spread:.4f}" if s else "-" for s in shown]
        print(f"| {name} | {' | '.join(cells)} | {'yes' if verdicts[-1] else 'NO'} |")
    if peer:
        print("\n| pixels in [0, 1], the same amounts | largest difference | agree |")
        print("| --- | --- | --- |")
        for name in (*KINDS, "all four, in 24 orders", "blur"):
            difference = np.abs(cases[name] - peer[f"pixels, {name}"]).max()
            verdicts.append(bool(difference <= PIXEL_TOLERANCE))
            print(f"| {name} | {difference:.1e} | {'yes' if verdicts[-1] else 'NO'} |")
    sys.exit(0 if all(verdicts) else 1)


if __name__ == "__main__":
    main()
