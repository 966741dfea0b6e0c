"""Values of a loss with their gradients, and how far two results are apart."""

import numpy as np
import tensorflow as tf


def with_gradient(loss):
    """loss(labels, features) -> a function that also gives the gradient of the summed loss."""

    def value_and_gradient(labels, features, function=loss, **options):
        features = tf.constant(features)
        with tf.GradientTape() as tape:
            tape.watch(features)
            values = function(labels, features, **options)
            total = tf.reduce_sum(values)
        return values.numpy(), tape.gradient(total, features).numpy()

    return value_and_gradient


def relative_difference(actual, expected):
    """Largest difference in units of the largest expected number."""
    largest = np.max(np.abs(expected))
    return np.max(np.abs(actual - expected)) / (largest if largest > 0 else 1.0)
