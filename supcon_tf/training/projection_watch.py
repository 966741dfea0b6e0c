"""Watches the projections of a batch during training: does the model learn, or has it collapsed?"""

import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from supcon_tf.data.pipeline import training_batches
from supcon_tf.evaluation import projection_measures
from supcon_tf.losses import SimCLRLoss, SINCERELoss, SuNCEtLoss, SupConLoss
from supcon_tf.training.batches import TrainingData
from supcon_tf.training.config import TrainingConfig
from supcon_tf.training.objective import Objective

MAX_IMAGES = 256
# Below this effective rank, the projections have collapsed.
COLLAPSED_RANK = 1.5
# A loss above this share of the loss of identical projections has not begun to fall.
PLATEAU = 0.99


class ProjectionWatch:
    """Measures the same views of the same training images at every call.

    Args:
      network: views [B, V, H, W, C] -> {"projection": [B, V, D], ...}.
      objective: the losses that are trained.
      data: the images.
      config: settings of the stage.

    The attribute `is_possible` is False for models of other views, without a loss of projections,
    and for a single view in a batch.
    """

    def __init__(
        self,
        network: keras.Model,
        objective: Objective,
        data: TrainingData,
        config: TrainingConfig,
    ):
        loss = objective.losses.get("projection")
        takes_views = not isinstance(network.input, dict) and len(network.input.shape) == 5
        # With a momentum encoder the projections have more views.
        self.is_possible = (
            loss is not None
            and takes_views
            and network.output["projection"].shape[1] == network.input.shape[1]
            and config.batch_size * network.input.shape[1] > 1
        )
        self._network, self._loss, self._data, self._config = network, loss, data, config
        self._project = tf.function(lambda views: network(views, training=False)["projection"])
        self._has_advised = False

    @functools.cached_property
    def _batch(self) -> tuple[tf.Tensor, np.ndarray | None]:
        """Views [B, V, H, W, C] and labels [B] or [B, C]; None without labels."""
        source = self._data.source
        count = min(self._config.batch_size, source.train.num_examples, MAX_IMAGES)
        batches = training_batches(
            source.train,
            preprocessing=self._data.preprocessing,
            augmentation=self._data.augmentation,
            num_views=self._network.input.shape[1],
            batch_size=count,
            num_classes=source.num_classes,
            seed=self._config.seed,
        )(0, 1)
        views, labels = next(iter(batches))
        return views, labels.numpy() if source.has_labels else None

    def measures(self) -> dict[str, float]:
        """The measures of `evaluation.projection_measures`; none of projections with NaN."""
        views, labels = self._batch
        per_call = self._config.gradient_cache_chunk or self._config.batch_size
        parts = [
            self._project(views[start : start + per_call]).numpy()
            for start in range(0, len(views), per_call)
        ]
        projections = np.concatenate(parts)
        # The next step will stop the run, by its loss.
        return projection_measures(projections, labels) if np.isfinite(projections).all() else {}

    def advise(self, record: Mapping[str, Any]) -> str | None:
        """One line if the record of an epoch shows a collapse, or a loss that does not fall; once.

        Args:
          record: of the curve, with "epoch", "loss" and these measures.
        """
        is_early = record["epoch"] < max(3, self._config.epochs // 10)
        if self._has_advised or is_early or "effective_rank" not in record:
            return None
        advice = None
        if record["effective_rank"] < COLLAPSED_RANK:
            advice = (
                f"the projections have collapsed (effective rank {record['effective_rank']:.2f}): "
                "lower base_learning_rate, or check the labels and the augmentation"
            )
        elif self._collapsed_loss is not None and record["loss"] > PLATEAU * self._collapsed_loss:
            advice = (
                f"the loss {record['loss']:.4f} is still near that of identical projections, "
                f"{self._collapsed_loss:.4f}: if it stays there, try a higher base_learning_rate, "
                "a lower temperature or more images per class in a batch"
            )
        self._has_advised = advice is not None
        return advice and f"{self._config.stage}: {advice}"

    @functools.cached_property
    def _collapsed_loss(self) -> float | None:
        """The loss of a whole batch of identical projections; None for losses of other kinds."""
        if not isinstance(self._loss, SupConLoss | SINCERELoss | SimCLRLoss | SuNCEtLoss):
            return None
        labels, size = self._batch[1], self._config.batch_size
        if labels is not None:
            labels = np.resize(labels, (size, *labels.shape[1:]))
        same = tf.ones([size, self._network.input.shape[1], 1])
        return float(self._loss(labels, same))
