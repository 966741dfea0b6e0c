"""Predictions of a whole split."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.evaluation import predict


def test_predict_runs_every_batch_in_inference_mode():
    images = keras.Input((4,))
    dropped = keras.layers.Dropout(0.9)(images)
    model = keras.Model(images, {"same": dropped})
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    batches = tf.data.Dataset.from_tensor_slices((rows, np.arange(5))).batch(2)
    outputs, labels = predict(model, batches, num_batches=3, description="testing")
    np.testing.assert_array_equal(outputs["same"], rows)
    assert labels.tolist() == [0, 1, 2, 3, 4]


def test_no_batches_are_rejected():
    images = keras.Input((4,))
    batches = tf.data.Dataset.from_tensor_slices((np.zeros((0, 4)), np.zeros(0, int))).batch(2)
    with pytest.raises(UserError, match="testing: no images"):
        predict(
            keras.Model(images, {"same": images}), batches, num_batches=0, description="testing"
        )
