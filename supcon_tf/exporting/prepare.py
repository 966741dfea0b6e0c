"""Prepares images for the `pixels` input of an exported model; needs only NumPy.

`python -m supcon_tf.export --format=...` writes a copy of this file, prepare.py, beside the model,
and the options of `prepare` into model.json:

    import json
    from pathlib import Path
    import numpy as np
    from PIL import Image
    from prepare import prepare

    options = json.loads(Path("model.json").read_text())["pixels"]
    image = np.asarray(Image.open("photo.jpg").convert("RGB"))
    pixels = prepare(image, **options)[None]  # float32 [1, H, W, 3]
"""

import numpy as np


def prepare(
    image: np.ndarray,
    *,
    image_px: int,
    eval_crop: str,
    padding_px: int,
    scale: list[float],
    offset: list[float],
) -> np.ndarray:
    """The evaluation view of an image: crop, resize, scale.

    Args:
      image: RGB, uint8 [H, W, 3].
      image_px: side of the result.
      eval_crop: "resize_then_crop" resizes the short side to image_px + padding_px and takes the
        centre. "crop_then_resize" takes the centre square of image_px / (image_px + padding_px) of
        the short side and resizes it, "crop_then_distort" that share of each side. "none" resizes
        the whole image.
      padding_px: see `eval_crop`.
      scale: one number per channel, see `offset`.
      offset: the result is crop / 255 * scale + offset.

    Returns:
      float32 [image_px, image_px, 3].
    """
    full = image_px + padding_px
    height, width = image.shape[:2]
    short = min(height, width)
    if eval_crop == "resize_then_crop":
        image = _centre(image, min(height, 4 * width), min(width, 4 * height))
        height, width = image.shape[:2]
        new_size = max(full * height // short, full), max(full * width // short, full)
        crop = _centre(_resize(image, new_size), image_px, image_px)
    elif eval_crop in ("crop_then_resize", "crop_then_distort", "none"):
        if eval_crop == "crop_then_resize":
            side = max(image_px * short // full, 1)
            image = _centre(image, side, side)
        elif eval_crop == "crop_then_distort":
            image = _centre(
                image, max(image_px * height // full, 1), max(image_px * width // full, 1)
            )
        crop = _resize(image, (image_px, image_px))
    else:
        raise ValueError(f"unknown eval_crop {eval_crop!r}: give the model images, not pixels")
    return (crop / 255 * np.array(scale) + np.array(offset)).astype(np.float32)


def _centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear; an image that shrinks to less than half along both sides is halved first."""
    image = image.astype(np.float64)
    if all(side > 2 * new for side, new in zip(image.shape[:2], size)):
        while any(side > 2 * new for side, new in zip(image.shape[:2], size)):
            halved = [
                (side + 1) // 2 if side > 2 * new else side
                for side, new in zip(image.shape[:2], size)
            ]
            image = _interpolate(_interpolate(image, halved[0], 0), halved[1], 1)
    return _interpolate(_interpolate(image, size[0], 0), size[1], 1)


def _interpolate(image: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Linear interpolation of one axis; pixel i covers [i, i + 1]."""
    length = image.shape[axis]
    centre = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    low = np.floor(centre).astype(int)
    high = np.minimum(low + 1, length - 1)
    share = (centre - low).reshape([-1 if each == axis else 1 for each in range(image.ndim)])
    return image.take(low, axis) * (1 - share) + image.take(high, axis) * share
