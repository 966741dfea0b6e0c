"""Two logical CPUs as replicas: import this before TensorFlow's first operation."""

import functools

import tensorflow as tf

_CPU = tf.config.list_physical_devices("CPU")[0]
if tf.config.get_logical_device_configuration(_CPU) is None:
    tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * 2)


@functools.cache
def two_replicas() -> tf.distribute.Strategy:
    """One strategy per process: TensorFlow would mix up the collectives of two."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
