"""Replicas: a strategy from its name, and the gather that lets a loss see the global batch."""

import functools
import os
from collections.abc import Callable
from typing import Literal, get_args

import tensorflow as tf

from supcon_tf.errors import UserError

StrategyName = Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"]


def strategy(name: StrategyName = "auto", *, cpu_replicas: int = 1) -> tf.distribute.Strategy:
    """The `tf.distribute` strategy of a name, one object for the whole process.

    A second one of the same kind would mix its collectives with the first one's. "multi_worker"
    must be asked for before TensorFlow runs its first operation.

    Args:
      name: "auto" is "mirrored" with two or more GPUs and else TensorFlow's default, which takes
        one GPU or the CPU; "multi_worker" reads the cluster from the `TF_CONFIG` variable; "tpu"
        reads the `TPU_NAME` variable.
      cpu_replicas: with "mirrored", so many parts of the CPU as replicas, to try what several
        devices do without having them. It is not faster, and must be asked for before TensorFlow
        runs its first operation.

    Returns:
      The strategy. Models and optimizers are built under its `scope()`.

    Raises:
      UserError: the name is not one of the five, cpu_replicas without "mirrored", or
        "multi_worker" without `TF_CONFIG`.

    Example:
      >>> from supcon_tf import distribution
      >>> distribution.strategy("one_device").num_replicas_in_sync
      1
    """
    if name not in get_args(StrategyName):
        raise UserError(f"strategy name must be one of {get_args(StrategyName)}, got {name!r}")
    if cpu_replicas < 1 or (cpu_replicas > 1 and name != "mirrored"):
        raise UserError(
            f'cpu_replicas must be >= 1, and 1 but for "mirrored", got {cpu_replicas} for {name!r}'
        )
    return _made(name, cpu_replicas)


@functools.cache
def _made(name: StrategyName, cpu_replicas: int) -> tf.distribute.Strategy:
    if cpu_replicas > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * cpu_replicas
        tf.config.set_logical_device_configuration(cpu, parts)
        return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(cpu_replicas)])
    if name == "multi_worker":
        if not os.environ.get("TF_CONFIG"):
            raise UserError(
                '"multi_worker" reads the cluster from TF_CONFIG, which is not set: export it on '
                "every worker, as docs/distribution.md shows"
            )
        # TensorFlow says nothing until the last one is there.
        print("waiting for all workers of TF_CONFIG", flush=True)
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


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one of its workers that writes the run's files."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return True
    jobs = resolver.cluster_spec().as_dict()
    first = "chief" if "chief" in jobs else "worker"
    return not jobs or (resolver.task_type, resolver.task_id) == (first, 0)


def wait_for_workers(strategy: tf.distribute.Strategy) -> None:
    """Returns when every worker has called it."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return

    # TensorFlow warns of a sum over replicas outside of a graph.
    @tf.function(autograph=False)
    def meet() -> None:
        strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("SUM", tf.ones([])))

    meet()


def input_of_replicas(
    strategy: tf.distribute.Strategy,
    batches_of_host: Callable[[int, int, int, int], tf.data.Dataset],
    start: int,
    stop: int,
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Batches of steps start ... stop - 1, split over replicas in the order of their rows.

    Args:
      strategy: whose replicas.
      batches_of_host: (host, number of hosts, start, stop) -> that part of each batch, whose rows
        its replicas share equally; how many rows there are may change from step to step.
      start, stop: steps.

    Raises:
      UserError: rows that the replicas of a host cannot share equally.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batches_of_host(0, 1, start, stop)

    def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
        parts = replicas // context.num_input_pipelines
        batches = batches_of_host(
            context.input_pipeline_id, context.num_input_pipelines, start, stop
        )
        for rows in {x.shape[0] for x in tf.nest.flatten(batches.element_spec)} - {None}:
            if rows % parts:
                raise UserError(
                    f"the batches of a host must be a multiple of its {parts} replicas, got {rows} "
                    "rows: change batch_size, or of labelled images samples_per_class"
                )
        return batches.flat_map(
            lambda *batch: tf.data.Dataset.from_tensor_slices(
                # [B, ...] -> [parts, B / parts, ...]
                tf.nest.map_structure(
                    lambda x: tf.reshape(
                        x, [parts, -1 if x.shape[0] is None else x.shape[0] // parts, *x.shape[1:]]
                    ),
                    batch,
                )
            )
        )

    return strategy.distribute_datasets_from_function(of_host)


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
    if values.shape[0]:
        # An input of the step stands on no device, and TensorFlow gathers between workers by it.
        return context.all_gather(tf.identity(values), axis=0)
    # TensorFlow dies of a gather without any row: each replica adds one, which is taken out again.
    padded = tf.pad(values, [[0, 1]] + [[0, 0]] * (values.shape.rank - 1))
    gathered = context.all_gather(padded, axis=0)
    ends = tf.cumsum(context.all_gather(tf.shape(padded)[:1], axis=0)) - 1
    is_value = tf.reduce_all(tf.range(tf.shape(gathered)[0])[:, None] != ends, axis=1)
    return tf.boolean_mask(gathered, tf.ensure_shape(is_value, [None]))


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
