"""Random amounts of SimCLR's augmentations, drawn and measured, for supcon_tf and torchvision.

Each `*_samples` function returns quantity -> samples [N]. The measured amounts come from the
augmented image: the slope of a ramp gives a crop's size and flip, a blurred point its sigma, and a
picture's mean, contrast, colourfulness and hue the factors of the jitter.
"""

from pathlib import Path
from typing import Any

import numpy as np

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
SIZE, CROP_PX = (120, 160), 32
SIGMA = (0.1, 2.0)
# Images of blurred points have this side; the kernel has three taps.
POINT_PX = 25
KINDS = ("brightness", "contrast", "saturation", "hue")

Samples = dict[str, np.ndarray]


def color_picture() -> np.ndarray:
    """Float32 [8, 8, 3] that stays in [0, 1] for jitter factors up to 1.8."""
    pattern = 0.04 * np.sin(np.arange(64)).reshape(8, 8, 1)
    return (np.array([0.5, 0.38, 0.32]) + pattern).astype(np.float32)


def ramp() -> np.ndarray:
    """Float32 [H, W, 3] with the column and row, scaled to [0, 1], as channels 0 and 1."""
    height, width = SIZE
    down, across = np.mgrid[:height, :width]
    planes = [across / width, down / height, np.zeros(SIZE)]
    return np.stack(planes, axis=-1).astype(np.float32)


def point() -> np.ndarray:
    """Float32 [S, S, 3], black with one white pixel in the middle."""
    image = np.zeros((POINT_PX, POINT_PX, 3), np.float32)
    image[POINT_PX // 2, POINT_PX // 2] = 1
    return image


def measured_jitter(kind: str, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The factor, or turns of hue, between [8, 8, 3] and each of [N, 8, 8, 3]."""
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
    # Not at the border, where the last pixels repeat.
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
    """Sigma of each blurred point [N, S, S], from the two middle weights of the kernel."""
    middle = POINT_PX // 2
    pair = blurred[:, middle, middle : middle + 2].astype(np.float64)
    return np.sqrt(-0.5 / np.log(pair[:, 1] / pair[:, 0]))


def is_changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Which of [N, ...] differ from the original image, bool [N]."""
    return np.any(after != before, axis=tuple(range(1, after.ndim)))


def our_samples(num_seeds: int, strength: float) -> Samples:
    """Samples of supcon_tf."""
    import tensorflow as tf

    from supcon_tf.data.augment.rng import split

    # Separate seeds, so that the quantities are independent.
    seeds, grey, crop, blur = tf.reshape(split(0, 4 * num_seeds), [4, num_seeds])
    return our_color(seeds, grey, strength) | our_crops(crop) | our_blur(blur)


def our_color(seeds: Any, grey_seeds: Any, strength: float) -> Samples:
    import tensorflow as tf

    from supcon_tf.data.augment import color
    from supcon_tf.data.augment.rng import uniforms

    picture = color_picture()
    pictures = tf.repeat(picture[None], len(seeds), axis=0)
    draw = color.draw_jitter(uniforms(seeds, 9)[:, :8], strength=strength, jitter="torchvision")
    neutral = color.JitterDraw(
        draw.order, *(tf.fill([len(seeds)], value) for value in (1.0, 1.0, 1.0, 0.0))
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
    samples["jitter rate"] = is_changed(picture, jittered.numpy())
    samples["grey rate"] = is_changed(picture, color.random_grey(pictures, seed=grey_seeds).numpy())
    return samples


def our_crops(seeds: Any) -> Samples:
    import tensorflow as tf

    from supcon_tf.data import crops, views

    windows = crops.draw_windows(
        tf.constant(SIZE),
        seeds,
        area_range=AREA,
        aspect_range=ASPECT,
        flip_probability=0.5,
        num_tries=10,
    )
    height, width = windows.height.numpy(), windows.width.numpy()
    cropped = tf.function(views.random_resized_crop, autograph=False)(
        tf.constant(ramp()), seed=seeds, size_px=CROP_PX, area_range=AREA, aspect_range=ASPECT
    )
    return {
        "crop area share, drawn": height * width / (SIZE[0] * SIZE[1]),
        "crop log aspect, drawn": np.log(width / height),
        **measured_crops(cropped.numpy()),
    }


def our_blur(seeds: Any) -> Samples:
    import tensorflow as tf

    from supcon_tf.data.augment import blur

    points = tf.repeat(point()[None], len(seeds), axis=0)
    always = blur.random_blur(points, seed=seeds, probability=1.0)
    sometimes = blur.random_blur(points, seed=seeds, probability=0.5)
    return {
        "blur sigma": measured_sigma(always[..., 0].numpy()),
        "blur rate": is_changed(point(), sometimes.numpy()),
    }


def write_pixel_cases(folder: Path) -> None:
    """Writes cases.npz: images, amounts, and the results of supcon_tf."""
    import tensorflow as tf

    from supcon_tf.data.augment import blur, color
    from supcon_tf.data.augment.rng import uniforms

    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 1, (5, 5, 3))
    weights = np.maximum(1 - np.abs(np.linspace(0, 4, 64)[:, None] - np.arange(5)), 0)
    smooth = np.einsum("ih,hwc,jw->ijc", weights, coarse, weights)
    noise = rng.uniform(0, 1, (64, 64, 3))
    # Pure and mixed colours, greys, black and white: hue and saturation are discontinuous there.
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


def to_torch(images: np.ndarray) -> Any:
    """[..., H, W, 3] -> a tensor [..., 3, H, W]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3)))


def to_numpy(images: Any) -> np.ndarray:
    """A list of tensors [3, H, W] -> [N, H, W, 3]."""
    import torch

    return np.moveaxis(torch.stack(images).numpy(), 1, -1)


def apply(transform: Any, image: np.ndarray, num_seeds: int) -> np.ndarray:
    """A torchvision transform of one image, repeated: [H, W, 3] -> [N, H, W, 3]."""
    tensor = to_torch(image)
    return to_numpy([transform(tensor) for _ in range(num_seeds)])


def torchvision_samples(num_seeds: int, strength: float) -> Samples:
    """Samples of torchvision."""
    import torch

    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    color = torchvision_color(num_seeds, strength)
    return color | torchvision_crops(num_seeds) | torchvision_blur(num_seeds)


def torchvision_color(num_seeds: int, strength: float) -> Samples:
    from torchvision import transforms as T

    limits = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    picture = color_picture()
    jitter = T.ColorJitter(*limits)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    draws = [T.ColorJitter.get_params(*ranges) for _ in range(num_seeds)]
    samples = {}
    for number, kind in enumerate(KINDS):
        samples[f"{kind}, drawn"] = np.array([draw[1 + number] for draw in draws])
        changed = apply(T.ColorJitter(**{kind: limits[number]}), picture, num_seeds)
        samples[f"{kind}, measured"] = measured_jitter(kind, picture, changed)
    places = np.argsort([draw[0].numpy() for draw in draws], axis=1)
    samples |= {"place of brightness": places[:, 0], "place of hue": places[:, 3]}
    jittered = apply(T.RandomApply([jitter], p=0.8), picture, num_seeds)
    samples["jitter rate"] = is_changed(picture, jittered)
    samples["grey rate"] = is_changed(picture, apply(T.RandomGrayscale(0.2), picture, num_seeds))
    return samples


def torchvision_crops(num_seeds: int) -> Samples:
    from torchvision import transforms as T

    crop = T.RandomResizedCrop(CROP_PX, scale=AREA, ratio=ASPECT)
    image = to_torch(ramp())
    sides = np.array([crop.get_params(image, AREA, ASPECT)[2:] for _ in range(num_seeds)])
    cropped = apply(T.Compose([crop, T.RandomHorizontalFlip()]), ramp(), num_seeds)
    return {
        "crop area share, drawn": sides.prod(1) / (SIZE[0] * SIZE[1]),
        "crop log aspect, drawn": np.log(sides[:, 1] / sides[:, 0]),
        **measured_crops(cropped),
    }


def torchvision_blur(num_seeds: int) -> Samples:
    from torchvision import transforms as T

    blur = T.GaussianBlur(3, SIGMA)
    # Float64: the outer weight of the narrowest kernel is 2e-22.
    exact_point = point().astype(np.float64)
    always = apply(blur, exact_point, num_seeds)
    sometimes = apply(T.RandomApply([blur], p=0.5), exact_point, num_seeds)
    return {
        "blur sigma": measured_sigma(always[..., 0]),
        "blur rate": is_changed(exact_point, sometimes),
    }


def torchvision_pixels(folder: Path) -> Samples:
    """torchvision's results for the images and amounts of cases.npz."""
    from torchvision.transforms import functional as F

    cases = np.load(folder / "cases.npz")
    adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    images, amounts = to_torch(cases["images"]), cases["amounts"].tolist()
    pixels = {}
    for number, kind in enumerate(KINDS):
        changed = [adjust[number](x, own[number]) for x, own in zip(images, amounts)]
        pixels[f"pixels, {kind}"] = to_numpy(changed)
    changed = []
    for x, own, order in zip(images, amounts, cases["order"].tolist()):
        for number in order:
            x = adjust[number](x, own[number])
        changed.append(x)
    pixels["pixels, all four, in 24 orders"] = to_numpy(changed)
    taps = 2 * (images.shape[-1] // 20) + 1
    sigmas = cases["sigmas"].tolist()
    blurred = [F.gaussian_blur(x, [taps] * 2, [sigma] * 2) for x, sigma in zip(images, sigmas)]
    return pixels | {"pixels, blur": to_numpy(blurred)}
