"""Draws the views that a configuration trains on, or augmentations at several strengths.

examples:
  python tools/show_views.py --gin_file=cifar10/supcon_resnet18.gin --output=views.png
  python tools/show_views.py --gin_file=folder/supcon.gin --strengths --output=strengths.png \\
      --gin_param="sources.folder.root = '/data/photos'" \\
      --gin_param="views.Preprocessing.image_px = 224"

Each row is an image: its evaluation crop, then random views. Source, preprocessing, augmentation
and seed are pretraining's.

With --strengths, each row is an augmentation: random views of evaluation crops of these images, in
groups of low, medium and high strength. Only the jitter formulas of the configured augmentation
are used.
"""

import copy
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from supcon_tf import cli

if __name__ == "__main__":
    cli.start_tensorflow()  # Before the imports below, which load TensorFlow.

import tensorflow as tf
from absl import flags
from PIL import Image, ImageDraw, ImageFont

from supcon_tf import config
from supcon_tf.data import normalization
from supcon_tf.data.augment import blur, color, rng, warp
from supcon_tf.data.decode import decode
from supcon_tf.data.sources import Source
from supcon_tf.data.views import (
    Augmentation,
    Preprocessing,
    autoaugment,
    randaugment,
    stacked_randaugment,
)
from supcon_tf.errors import UserError
from supcon_tf.training.view_sheet import view_sheet

# float32 [N, H, W, 3] and seeds [N] -> the same shape.
Distortion = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

GAP_PX, LABEL_PX, MARGIN_PX = 2, 18, 150
MIN_SHOWN_PX = 96  # Views are enlarged to at least this size.


def pretrain_value(name: str) -> Any:
    """The value of a parameter of `pretrain.run` in the configuration."""
    bound = config.bound_value(f"pretrain.run.{name}")
    # Copying resolves a gin reference: it calls @name() and looks up %NAME.
    return copy.deepcopy(bound)


def strengths(jitter: Any) -> dict[str, list[tuple[str, Distortion]]]:
    """Augmentation -> (label, distortion) of low, medium and high strength."""

    def colour(strength: float) -> Distortion:
        # Probability 1: SimCLR's would leave some images unchanged.
        return lambda images, seeds: color.random_color_jitter(
            images, seed=seeds, strength=strength, jitter=jitter, probability=1.0
        )

    def blurred(low: float, high: float) -> Distortion:
        def blur_images(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
            sigma = low + (high - low) * rng.uniforms(seeds, 1)[:, 0]
            return blur.gaussian_blur(images, sigma=sigma)

        return blur_images

    def warped(length_px: float) -> Distortion:
        def warp_images(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
            numbers = tf.maximum(rng.uniforms(seeds, 8), 2.0**-25)
            normal = tf.math.ndtri(tf.reshape(numbers, [-1, 4, 2]))
            moves = normal * length_px / 224.0 * images.shape[1]
            each = [warp.thin_plate_warp(x, displacements=m) for x, m in zip(images, moves)]
            return tf.stack(each)

        return warp_images

    def by_policy(policy: Any) -> Distortion:
        return lambda images, seeds: autoaugment(images, seed=seeds, policy=policy)

    def layered(magnitude: float) -> Distortion:
        return lambda images, seeds: randaugment(images, seed=seeds, magnitude=magnitude)

    def stacked(strength: float, magnitude: float) -> Distortion:
        return lambda images, seeds: stacked_randaugment(
            images, seed=seeds, strength=strength, magnitude=magnitude, jitter=jitter
        )

    sigmas = ((0.1, 0.7), (0.7, 1.4), (1.4, 2.0))
    return {
        "simclr's colour jitter": [(f"strength {s}", colour(s)) for s in (0.25, 0.5, 1.0)],
        "blur": [(f"sigma {a} to {b} px", blurred(a, b)) for a, b in sigmas],
        "warp": [(f"{p} px at 224", warped(p)) for p in (6, 12, 23)],
        "autoaugment": [(f"policy {p}", by_policy(p)) for p in ("cifar10", "imagenet", "released")],
        "randaugment": [(f"magnitude {m}", layered(m)) for m in (3, 6, 10)],
        "stacked_randaugment": [
            (f"strength {s}, magnitude {m}", stacked(s, m))
            for s, m in ((0.25, 3), (0.5, 6), (1.0, 10))
        ],
    }


def evaluation_crops(
    source: Source, preprocessing: Preprocessing, *, seed: int, count: int
) -> Iterator[tf.Tensor]:
    """Evaluation crops of the first images of the sheet, float32 [H, W, 3] in [0, 1]."""
    count = min(count, source.train.num_examples)
    for image, _ in source.train.shuffled(seed=seed, start=0, stop=count):
        yield preprocessing.eval_crop(decode(image), size_px=preprocessing.image_px)


def strength_sheet(crops: tf.Tensor, jitter: Any, *, seed: int, num_views: int) -> bytes:
    """Draws a PNG with a row per augmentation and a group of views per strength.

    Args:
      crops: float32 [N, H, W, 3] in [0, 1]; view k of a group shows image k modulo N.
      jitter: formulas of the colour jitter.
      seed: seed of the views, the same in all groups of a row.
      num_views: random views per group.

    Returns:
      The PNG file.
    """
    images = tf.gather(crops, tf.range(num_views) % crops.shape[0])
    scale = math.ceil(MIN_SHOWN_PX / crops.shape[1])
    side = crops.shape[1] * scale
    rows = strengths(jitter)
    step, group = side + GAP_PX, num_views * (side + GAP_PX) + 4 * GAP_PX
    width = MARGIN_PX + step + 4 * GAP_PX + 3 * group
    sheet = Image.new("RGB", (width, len(rows) * (step + LABEL_PX)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)

    def paste(pixels: tf.Tensor, left: int, top: int) -> None:
        values = tf.image.convert_image_dtype(pixels, tf.uint8, saturate=True).numpy()
        enlarged = values.repeat(scale, axis=0).repeat(scale, axis=1)
        sheet.paste(Image.fromarray(enlarged), (left, top))

    for number, (name, columns) in enumerate(rows.items()):
        top = number * (step + LABEL_PX)
        pen.text((GAP_PX, top + LABEL_PX + side // 2), name, "black", font)
        pen.text((MARGIN_PX, top + 1), "image", "black", font)
        paste(crops[0], MARGIN_PX, top + LABEL_PX)
        seeds = rng.split(rng.fold_in(seed, number), num_views)
        for place, (label, distortion) in enumerate(columns):
            left = MARGIN_PX + step + 4 * GAP_PX + place * group
            pen.text((left, top + 1), label, "black", font)
            for view, pixels in enumerate(distortion(images, seeds)):
                paste(pixels, left + view * step, top + LABEL_PX)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the tool."""
    options = cli.new_flags()
    cli.define_gin_flags(options)
    flags.DEFINE_string("output", None, "FILE.png: the picture to write", flag_values=options)
    flags.DEFINE_boolean("strengths", False, "a row per augmentation", flag_values=options)
    flags.DEFINE_integer(
        "images",
        None,
        "number of images, default 8; with --strengths 1",
        lower_bound=1,
        flag_values=options,
    )
    flags.DEFINE_integer(
        "views",
        None,
        "views per image or group, default 10; with --strengths 4",
        lower_bound=1,
        flag_values=options,
    )
    flags.DEFINE_integer("seed", None, "default: pretraining's seed", flag_values=options)
    cli.parse(options, argv, __doc__)
    if not options.gin_file or options.output is None:
        raise UserError("--gin_file and --output are needed")
    default_images, default_views = (1, 4) if options.strengths else (8, 10)
    num_images, num_views = options.images or default_images, options.views or default_views
    config.parse(options.gin_file, options.gin_param)
    for name in ("source", "preprocessing", "augmentation"):
        if config.bound_value(f"pretrain.run.{name}") is None:
            raise UserError(
                f'pretrain.run.{name} is not set: add --gin_param="pretrain.run.{name} = ..."'
            )
    source: Source = pretrain_value("source")
    preprocessing: Preprocessing = pretrain_value("preprocessing")
    seed = options.seed if options.seed is not None else pretrain_value("seed") or 0
    if options.strengths:
        count = min(num_images, num_views)
        crops = list(evaluation_crops(source, preprocessing, seed=seed, count=count))
        jitter = config.bound_value("views.simclr.jitter") or "tensorflow"
        picture = strength_sheet(tf.stack(crops), jitter, seed=seed, num_views=num_views)
    else:
        preprocessing = normalization.with_measured_normalization(preprocessing, source.train)
        augmentation: Augmentation = pretrain_value("augmentation")
        picture = view_sheet(
            source.train,
            preprocessing,
            augmentation,
            seed=seed,
            num_images=num_images,
            num_views=num_views,
        )
    Path(options.output).write_bytes(picture)
    width, height = Image.open(io.BytesIO(picture)).size
    print(f"{options.output}: {width} x {height} pixels, seed {seed}")


if __name__ == "__main__":
    cli.run(main)
