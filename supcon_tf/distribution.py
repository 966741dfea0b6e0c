"""Replicas: a strategy from its name, and the gather that lets a loss see the global batch."""

from typing import Literal, get_args

import tensorflow as tf

StrategyName = Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"]


def strategy(name: StrategyName = "auto") -> tf.distribute.Strategy:
    """Builds a `tf.distribute` strategy from its name.

    Args:
      name: "auto" is "mirrored" with two or more GPUs and else TensorFlow's default, which takes
        one GPU or the CPU; "multi_worker" reads the cluster from the `TF_CONFIG` variable; "tpu"
        reads the `TPU_NAME` variable.

    Returns:
      The strategy. Models and optimizers are built under its `scope()`.

    Raises:
      ValueError: the name is not one of the five.

    Example:
      >>> from supcon_tf import distribution
      >>> distribution.strategy("one_device").num_replicas_in_sync
      1
    """
    if name not in get_args(StrategyName):
        raise ValueError(f"strategy name must be one of {get_args(StrategyName)}, got {name!r}")
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy()
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy("GPU:0" if gpus else "CPU:0")
    return tf.distribute.get_strategy()


def gather(values: tf.Tensor) -> tf.Tensor:
    """Concatenates every replica's rows along axis 0, in replica order, with a gradient.

    The gradient of a row is the sum of its gradients over all replicas, so a loss of local
    anchors against gathered rows needs no correction factor.

    Args:
      values: [N, ...], this replica's rows.

    Returns:
      [R * N, ...]; `values` itself on one replica or outside a replica's own code.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf import distribution
      >>> distribution.gather(tf.range(3)).numpy().tolist()
      [0, 1, 2]
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_gather(values, axis=0)


def first_row(num_rows: int | tf.Tensor) -> tf.Tensor:
    """Position of this replica's first row in what `gather` returns, an int32 scalar.

    Args:
      num_rows: how many rows this replica holds; the replicas may differ.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.constant(0)
    rows_of_replicas = gather(tf.reshape(tf.cast(num_rows, tf.int32), [1]))
    return tf.reduce_sum(rows_of_replicas[: context.replica_id_in_sync_group])
