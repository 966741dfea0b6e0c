"""Augmentation within the training step, on the device that trains."""

import keras
import tensorflow as tf

from supcon_tf.data.preprocessing import Augmentation, Preprocessing, instantiate
from supcon_tf.models.distributed import ReplicatedModel


def augmenting_model(
    model: keras.Model, preprocessing: Preprocessing, augmentation: Augmentation
) -> keras.Model:
    """The model on crops and seeds, as `training_batches` gives them with `defer_to_device`.

    It shares all variables with `model`, which evaluation and export use unchanged. With
    jit_compile, the augmentation needs static shapes: `views.simclr.exact = False` and
    `views.simclr.static_shapes = True`.

    Args:
      model: [B, ..., H, W, 3] -> its outputs.
      preprocessing, augmentation: what makes views of crops.

    Returns:
      {"crops": float32 [B, ..., H, W, 3], "seeds": int64 [B, ...]} -> the same outputs.
    """
    crops = keras.Input(model.input_shape[1:], dtype="float32", name="crops")
    seeds = keras.Input(model.input_shape[1:-3], dtype="int64", name="seeds")
    views = _Distorted(preprocessing, instantiate(augmentation))(crops, seeds)
    return ReplicatedModel({"crops": crops, "seeds": seeds}, model(views))


class _Distorted(keras.layers.Layer):
    def __init__(self, preprocessing: Preprocessing, augmentation: Augmentation):
        super().__init__(name="augmentation", dtype="float32", trainable=False)
        self.preprocessing, self.augmentation = preprocessing, augmentation

    def call(self, crops: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        return self.preprocessing.augment_and_scale(crops, self.augmentation, seed=seeds)
