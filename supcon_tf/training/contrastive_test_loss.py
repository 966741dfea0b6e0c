"""The contrastive loss on the test split, as the released evaluation measures it."""

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.pipeline import training_batches
from supcon_tf.losses import SemiSupervisedLoss
from supcon_tf.training.batches import TrainingData
from supcon_tf.training.config import TrainingConfig
from supcon_tf.training.objective import Objective


def contrastive_test_loss(
    network: keras.Model,
    objective: Objective,
    data: TrainingData,
    config: TrainingConfig,
    *,
    rows_at_a_time: int,
) -> float | None:
    """Mean loss of the projections of augmented views of the test split, without training.

    The views and the batch size are those of training, because the loss depends on both; images
    of an incomplete last batch are left out. The encoder is in inference mode.

    Args:
      network: views [B, V, H, W, C] -> {"projection": [B, V, D], ...}.
      objective: with a loss of the projection.
      data: the images.
      config: of the stage.
      rows_at_a_time: samples that the encoder takes at a time.

    Returns:
      The loss, or None where the model takes other views or the loss is semi-supervised.
    """
    loss = objective.losses.get("projection")
    if loss is None or isinstance(loss, SemiSupervisedLoss) or isinstance(network.input, dict):
        return None
    test = data.source.test
    batch_size = min(config.batch_size, test.num_examples)
    steps = test.num_examples // batch_size
    batches = training_batches(
        test,
        preprocessing=data.preprocessing,
        augmentation=data.augmentation,
        num_views=network.input.shape[1],
        batch_size=batch_size,
        num_classes=data.source.num_classes,
        seed=config.seed,
    )

    # One trace for any number of rows.
    project = tf.function(
        lambda views: network(views, training=False)["projection"], autograph=False
    ).get_concrete_function(tf.TensorSpec(network.input.shape))

    values = []
    described = f"{config.stage}: loss of the test split"
    for views, labels in tqdm(
        batches(0, steps), desc=described, total=steps, leave=False, disable=None
    ):
        parts = [
            project(views[start : start + rows_at_a_time])
            for start in range(0, batch_size, rows_at_a_time)
        ]
        values.append(float(tf.reduce_mean(loss.call(labels, tf.concat(parts, axis=0)))))
    return float(np.mean(values))
