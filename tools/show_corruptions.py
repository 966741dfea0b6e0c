"""Draws a contact sheet: a row for each corruption, a column for each severity, of one image.

examples:
  python tools/show_corruptions.py --image=photo.jpg --output=corruptions.png
  python tools/show_corruptions.py --image=photo.jpg --output=large.png --shown_px=224 --seed=3

As in ImageNet-C, the image is shrunk to a short side of at most 256 px and cropped to a centre
square of at most 224 px. The same seed gives the same sheet.
"""

from collections.abc import Sequence

from supcon_tf import cli

if __name__ == "__main__":
    cli.start_tensorflow()  # Before the imports below, which load TensorFlow.

import numpy as np
import tensorflow as tf
from absl import flags
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from supcon_tf.data.corruptions.base import shrink
from supcon_tf.data.image_files import read_image
from supcon_tf.data.imagenet_c import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    corrupt,
)
from supcon_tf.errors import UserError

MAX_PX, GAP_PX, LABEL_PX, MARGIN_PX = 224, 4, 18, 150


def centre_square(image: np.ndarray) -> np.ndarray:
    """The middle of the image, at most 224 px, uint8 [S, S, 3]."""
    height, width = image.shape[:2]
    side = min(height, width, MAX_PX)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def sheet(image: np.ndarray, *, seed: int, shown_px: int) -> Image.Image:
    """Draws the clean image and its corruptions at every severity, each `shown_px` wide."""
    names = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
    step = shown_px + GAP_PX
    size = (MARGIN_PX + (len(SEVERITIES) + 1) * step, LABEL_PX + len(names) * step)
    picture = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)

    def paste(pixels: np.ndarray, column: int, row: int) -> None:
        # Keep the pixels of a small image sharp.
        how = Image.Resampling.NEAREST if len(pixels) < shown_px else Image.Resampling.LANCZOS
        shown = Image.fromarray(pixels).resize((shown_px, shown_px), how)
        picture.paste(shown, (MARGIN_PX + column * step, LABEL_PX + row * step))

    for column, label in enumerate(("clean", *(f"severity {s}" for s in SEVERITIES))):
        pen.text((MARGIN_PX + column * step, 1), label, "black", font)
    for row, name in enumerate(tqdm(names, desc="corrupting", leave=False, disable=None)):
        pen.text((GAP_PX, LABEL_PX + row * step + shown_px // 2 - 8), name, "black", font)
        paste(image, 0, row)
        for severity in SEVERITIES:
            made = corrupt(image, corruption=name, severity=severity, seed=seed, number=0)
            paste(made, severity, row)
    return picture


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the tool."""
    options = cli.new_flags()
    flags.DEFINE_string("image", None, "FILE: a photo", flag_values=options)
    flags.DEFINE_string("output", None, "FILE.png: the picture to write", flag_values=options)
    flags.DEFINE_integer("seed", 0, "default 0", lower_bound=0, flag_values=options)
    flags.DEFINE_integer(
        "shown_px", 112, "side of each image, default 112", lower_bound=1, flag_values=options
    )
    cli.parse(options, argv, __doc__)
    if not options.image or not options.output:
        raise UserError("--image and --output are needed")
    pixels = tf.constant(read_image(options.image))
    image = centre_square(shrink(pixels).numpy())
    picture = sheet(image, seed=options.seed, shown_px=options.shown_px)
    picture.save(options.output)
    print(f"{options.output}: {picture.width} x {picture.height} pixels, seed {options.seed}")


if __name__ == "__main__":
    cli.run(main)
