"""A picture of what the model is trained on."""

import tensorflow as tf

from supcon_tf.data.augment.rng import fold_in
from supcon_tf.data.augment.rng import split as split_seed
from supcon_tf.data.decode import decode
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.splits import Split


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
      split: where the images come from.
      preprocessing, augmentation: what makes the views.
      seed: of the choice and of the views.
      num_images: rows.
      num_views: random views in each row.
      gap_px: white between the pictures.
    """
    rows = []
    count = min(num_images, split.num_examples)
    for number, (image, _) in enumerate(split.shuffled(seed=seed, start=0, stop=count)):
        whole = preprocessing.evaluation_view(decode(image))
        views = preprocessing.training_views(
            image, augmentation, seed=split_seed(fold_in(seed, number), num_views)
        )
        shown = preprocessing.unscale(tf.concat([whole[None], views], axis=0))
        framed = tf.pad(shown, [[0, 0], [0, gap_px], [0, gap_px], [0, 0]], constant_values=1.0)
        rows.append(tf.concat(tf.unstack(framed), axis=1))
    sheet = tf.image.convert_image_dtype(tf.concat(rows, axis=0), tf.uint8, saturate=True)
    return tf.io.encode_png(sheet).numpy()
