"""The contrastive loss on the test split, as the released evaluation measures it."""

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.pipeline import training_batches
from supcon_tf.losses import SemiSupervisedLoss, loss_labels
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
    """Mean loss of the projections of augmented test images, with the encoder in inference mode.

    The batches are as large as in training, because the loss depends on the batch size, but drawn
    at random without regard to classes. They are projected in parts: memory holds the views of one
    part and the projections of the whole split.

    Args:
      network: views [B, V, H, W, C] -> {"projection": [B, V, D], ...}.
      objective: has a loss of the projection.
      data: the images.
      config: settings of the stage.
      rows_at_a_time: maximum number of samples in a part.

    Returns:
      The loss. None if the model takes other views, the loss is semi-supervised, the test split is
      smaller than a batch, or memory is too small (a message says so).
    """
    loss, batch_size = objective.losses.get("projection"), config.batch_size
    takes_views = not isinstance(network.input, dict) and len(network.input.shape) == 5
    steps = data.source.test.num_examples // batch_size
    if loss is None or isinstance(loss, SemiSupervisedLoss) or not takes_views or not steps:
        return None
    try:
        labels, projections = _project_batches(
            network, data, config, steps=steps, rows_at_a_time=rows_at_a_time
        )
        # [parts, steps, rows, ...] -> [steps, parts * rows, ...]
        by_step = [np.concatenate(parts) for parts in zip(*projections, strict=True)]
        labels_by_step = [np.concatenate(parts) for parts in zip(*labels, strict=True)]
        if loss_labels(loss) == "soft" and not data.source.is_multi_label:
            one_hot = np.eye(data.source.num_classes, dtype=np.float32)
            labels_by_step = [one_hot[numbers] for numbers in labels_by_step]
        values = [float(loss(y, z)) for y, z in zip(labels_by_step, by_step, strict=True)]
    except tf.errors.ResourceExhaustedError:
        print(f"{config.stage}: no test_loss, a batch of {batch_size} needs too much memory")
        return None
    return float(np.mean(values))


def _project_batches(
    network: keras.Model,
    data: TrainingData,
    config: TrainingConfig,
    *,
    steps: int,
    rows_at_a_time: int,
) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
    """Labels and projections [rows, V, D] of each part of each batch: [parts][steps]."""
    parts = next(
        count
        for count in range(1, config.batch_size + 1)
        if config.batch_size % count == 0 and config.batch_size // count <= rows_at_a_time
    )
    project = tf.function(lambda views: network(views, training=False)["projection"])
    labels: list[list[np.ndarray]] = []
    projections: list[list[np.ndarray]] = []
    with tqdm(
        desc=f"{config.stage}: loss of the test split",
        total=parts * steps,
        leave=False,
        disable=None,
    ) as progress:
        for part in range(parts):
            batches = training_batches(
                data.source.test,
                preprocessing=data.preprocessing,
                augmentation=data.augmentation,
                num_views=network.input.shape[1],
                batch_size=config.batch_size,
                num_classes=data.source.num_classes,
                seed=config.seed,
                shard=(part, parts),
            )(0, steps)
            labels.append([])
            projections.append([])
            for views, batch_labels in batches:
                labels[-1].append(batch_labels.numpy())
                projections[-1].append(project(views).numpy())
                progress.update()
    return labels, projections
