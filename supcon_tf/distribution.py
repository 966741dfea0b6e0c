"""Strategies by name, batches split over replicas, and the gather that losses use."""

import functools
import os
from collections.abc import Callable
from typing import Literal, get_args

import tensorflow as tf

from supcon_tf.errors import UserError, check_integer

StrategyName = Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"]


def strategy(name: StrategyName = "auto", *, cpu_replicas: int = 1) -> tf.distribute.Strategy:
    """Returns the `tf.distribute` strategy of a name; the same object for the same arguments.

    TensorFlow would mix up the collectives of two strategies of one kind in one process.

    Args:
      name: "auto" is "mirrored" with two or more GPUs, otherwise TensorFlow's default strategy (one
        GPU or the CPU). "multi_worker" reads the cluster from the environment variable `TF_CONFIG`,
        and "tpu" reads `TPU_NAME`.
      cpu_replicas: with "mirrored", number of replicas that the CPU is split into, to test a run on
        several devices without having them. This is not faster.

    "multi_worker" and `cpu_replicas` configure TensorFlow, so call this before its first operation.

    Returns:
      The strategy. Build models and optimizers under its `scope()`.

    Raises:
      UserError: for an unknown name, `cpu_replicas` without "mirrored", a missing or wrong
        `TF_CONFIG`, no TPU, or a call after TensorFlow's first operation.

    Example:
      >>> from supcon_tf import distribution
      >>> distribution.strategy("one_device").num_replicas_in_sync
      1
    """
    if name not in get_args(StrategyName):
        raise UserError(f"strategy name must be one of {get_args(StrategyName)}, got {name!r}")
    cpu_replicas = check_integer("cpu_replicas", cpu_replicas, at_least=1)
    if cpu_replicas > 1 and name != "mirrored":
        raise UserError(f'cpu_replicas is for "mirrored" only, got {cpu_replicas} for {name!r}')
    return _create(name, cpu_replicas)


@functools.cache
def _create(name: StrategyName, cpu_replicas: int) -> tf.distribute.Strategy:
    if cpu_replicas > 1:
        return _split_cpu(cpu_replicas)
    if name == "multi_worker":
        return _connect_workers()
    if name == "tpu":
        return _connect_tpu()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy()
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy("GPU:0" if gpus else "CPU:0")
    return tf.distribute.get_strategy()


def _split_cpu(replicas: int) -> tf.distribute.Strategy:
    (cpu,) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
        )
    except RuntimeError as error:
        raise UserError(
            f"cpu_replicas = {replicas} must be set before TensorFlow's first operation: call "
            "distribution.strategy first"
        ) from error
    return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])


def _connect_workers() -> tf.distribute.Strategy:
    if not os.environ.get("TF_CONFIG"):
        raise UserError(
            '"multi_worker" reads the cluster from TF_CONFIG, which is not set: export it on '
            "every worker, as docs/distribution.md shows"
        )
    # TensorFlow is silent until all workers have connected.
    print("waiting for all workers of TF_CONFIG", flush=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot connect the workers of TF_CONFIG, got {os.environ['TF_CONFIG']!r}: {error}"
        ) from error


def _connect_tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise UserError(
            f"no TPU was found with TPU_NAME = {os.environ.get('TPU_NAME')!r}: set it to the TPU's "
            f"name, or take another strategy ({error})"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process writes the run's files: one of several workers does."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return True
    jobs = resolver.cluster_spec().as_dict()
    first = "chief" if "chief" in jobs else "worker"
    return not jobs or (resolver.task_type, resolver.task_id) == (first, 0)


def wait_for_workers(strategy: tf.distribute.Strategy) -> None:
    """Blocks until every worker has called this function."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return

    # In a graph, because TensorFlow warns about an eager sum over replicas.
    @tf.function(autograph=False)
    def all_reduce() -> None:
        strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("SUM", tf.ones([])))

    all_reduce()


def distribute_batches(
    strategy: tf.distribute.Strategy,
    host_batches: Callable[[int, int, int, int], tf.data.Dataset],
    start: int,
    stop: int,
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Batches of the steps start ... stop - 1, split over replicas in the order of their rows.

    Args:
      strategy: its replicas get the rows.
      host_batches: (host, number of hosts, start, stop) -> the host's part of each batch, which its
        replicas share equally. The number of rows may change from step to step.
      start: first step.
      stop: step after the last one.

    Raises:
      UserError: if the rows of a host cannot be shared equally by its replicas.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return host_batches(0, 1, start, stop)

    def split(context: tf.distribute.InputContext) -> tf.data.Dataset:
        parts = replicas // context.num_input_pipelines
        batches = host_batches(context.input_pipeline_id, context.num_input_pipelines, start, stop)
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

    return strategy.distribute_datasets_from_function(split)


def gather(values: tf.Tensor) -> tf.Tensor:
    """Concatenates the rows of all replicas along axis 0, in replica order, with a gradient.

    The gradient of a row is the sum of its gradients over all replicas, so a loss of local anchors
    against gathered rows needs no correction factor.

    Args:
      values: [N, ...], the rows of this replica; replicas may differ in N. Any dtype but bool.

    Returns:
      [R * N, ...] for R replicas; `values` on one replica or outside a replica context.

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
        # tf.identity gives values a device, which gathering between workers needs.
        return context.all_gather(tf.identity(values), axis=0)
    # TensorFlow crashes when it gathers zero rows: each replica adds one, which is removed again.
    padded = tf.pad(values, [[0, 1]] + [[0, 0]] * (values.shape.rank - 1))
    gathered = context.all_gather(padded, axis=0)
    ends = tf.cumsum(context.all_gather(tf.shape(padded)[:1], axis=0)) - 1
    is_value = tf.reduce_all(tf.range(tf.shape(gathered)[0])[:, None] != ends, axis=1)
    return tf.boolean_mask(gathered, tf.ensure_shape(is_value, [None]))


def first_row(num_rows: int | tf.Tensor) -> tf.Tensor:
    """Position of this replica's first row in the result of `gather`, an int32 scalar.

    Args:
      num_rows: number of rows of this replica; replicas may differ.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.constant(0)
    rows_per_replica = gather(tf.reshape(tf.cast(num_rows, tf.int32), [1]))
    return tf.reduce_sum(rows_per_replica[: context.replica_id_in_sync_group])
