"""Draws a contact sheet: a row for each corruption, a column for each severity, of one image.

examples:
  python tools/show_corruptions.py --image=photo.jpg --output=corruptions.png
  python tools/show_corruptions.py --image=photo.jpg --output=large.png --shown_px=224 --seed=3

The image is shrunk to a short side of at most 256 px and cut to its centre square of at most
224 px, as ImageNet-C's were; a smaller one stays as it is. The same seed gives the same sheet.
"""

from pathlib import Path

from supcon_tf import cli  # Before TensorFlow, whose start it makes quiet.

# isort: split
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from supcon_tf.data.corruptions.base import shrunk
from supcon_tf.data.corruptions.imagenet_c import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    corrupt,
)
from supcon_tf.data.decode import decode

MAX_PX, GAP_PX, LABEL_PX, MARGIN_PX = 224, 4, 18, 150


def centre_square(image: np.ndarray) -> np.ndarray:
    """At most 224 px of the middle, uint8 [S, S, 3]."""
    height, width = image.shape[:2]
    side = min(height, width, MAX_PX)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def sheet(image: np.ndarray, *, seed: int, shown_px: int) -> Image.Image:
    """The clean image and its corruptions at every severity, each shown in so many pixels."""
    names = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
    step = shown_px + GAP_PX
    size = (MARGIN_PX + (len(SEVERITIES) + 1) * step, LABEL_PX + len(names) * step)
    picture = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)

    def paste(pixels: np.ndarray, column: int, row: int) -> None:
        # Pixels of a small image stay squares.
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


def main(arguments: list[str] | None = None) -> None:
    """Runs the tool."""
    parser = cli.Parser(__doc__, prog="show_corruptions")
    parser.prog = "tools/show_corruptions.py"
    parser.add_argument("--image", required=True, metavar="FILE", help="a photo")
    parser.add_argument("--output", required=True, metavar="FILE.png", help="the picture to write")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn, default 0")
    parser.add_argument("--shown_px", type=int, default=112, help="side of each, default 112")
    options = parser.parse_args(arguments)
    if options.seed < 0 or options.shown_px < 1:
        parser.error("--seed must be >= 0 and --shown_px >= 1")
    if not Path(options.image).is_file():
        raise FileNotFoundError(f"no image {options.image!r}")
    encoded = tf.constant(Path(options.image).read_bytes())
    try:
        decoded = decode(encoded)
    except tf.errors.InvalidArgumentError:
        raise ValueError(f"{options.image!r} cannot be read as an image") from None
    image = centre_square(shrunk(decoded).numpy())
    picture = sheet(image, seed=options.seed, shown_px=options.shown_px)
    picture.save(options.output)
    print(f"{options.output}: {picture.width} x {picture.height} pixels, seed {options.seed}")


if __name__ == "__main__":
    cli.run(main)
