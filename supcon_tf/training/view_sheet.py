"""A picture of the augmented views that a model is trained on."""

import logging

import tensorflow as tf

from supcon_tf.data.augment.rng import fold_in
from supcon_tf.data.augment.rng import split as split_seed
from supcon_tf.data.decode import decode
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.splits import Split
from supcon_tf.errors import UserError
from supcon_tf.evaluation.thumbnails import rgb
from supcon_tf.files import replacing
from supcon_tf.run_dir import RunDir
from supcon_tf.training.batches import TrainingData

# Larger views are scaled down.
MAX_VIEW_PX = 256


def save_view_sheet(run_dir: RunDir, data: TrainingData, *, seed: int) -> None:
    """Writes the picture of the first stage that trains on images into the run directory.

    A picture that cannot be drawn is logged and left out. A run of metrics only has none.
    """
    if not run_dir.is_chief or run_dir.metrics_only:
        return
    if data.features is not None or run_dir.view_sheet.exists():
        return
    try:
        sheet = view_sheet(data.source.train, data.preprocessing, data.augmentation, seed=seed)
    except UserError:
        raise
    except Exception:
        logging.getLogger(__name__).exception("no picture of the augmented views")
        return
    with replacing(run_dir.view_sheet) as partial:
        partial.write_bytes(sheet)


def view_sheet(
    split: Split,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    *,
    seed: int,
    num_images: int = 8,
    num_views: int = 10,
    gap_px: int = 2,
) -> bytes:
    """A PNG with a row per image: its evaluation crop, then random views.

    Args:
      split: the images.
      preprocessing, augmentation: make the views.
      seed: seed of the random choice of images and of the views.
      num_images: number of rows.
      num_views: random views in each row.
      gap_px: white space between the pictures.
    """
    rows = []
    count = min(num_images, split.num_examples)
    for number, (image, _) in enumerate(split.shuffled(seed=seed, start=0, stop=count)):
        whole = preprocessing.evaluation_view(decode(image))
        views = preprocessing.training_views(
            image, augmentation, seed=split_seed(fold_in(seed, number), num_views)
        )
        shown = rgb(preprocessing.unscale(tf.concat([whole[None], views], axis=0)))
        height, width = shown.shape[1:3]
        if max(height, width) > MAX_VIEW_PX:
            size = [max(1, side * MAX_VIEW_PX // max(height, width)) for side in (height, width)]
            shown = tf.image.resize(shown, size, antialias=True)
        framed = tf.pad(shown, [[0, 0], [0, gap_px], [0, gap_px], [0, 0]], constant_values=1.0)
        rows.append(tf.concat(tf.unstack(framed), axis=1))
    sheet = tf.image.convert_image_dtype(tf.concat(rows, axis=0), tf.uint8, saturate=True)
    return tf.io.encode_png(sheet).numpy()
