"""A Keras model that `fit` trains correctly on several replicas and workers."""

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.models.momentum_queue import KeyMemory, MemoryLoss


@keras.saving.register_keras_serializable(package="supcon_tf")
class ReplicatedModel(keras.Model):
    """A functional `keras.Model` that can be trained under every `tf.distribute` strategy.

    All models of this package are of this class. Differences from `keras.Model` of Keras 3.15:

    - It builds from the first replica's batch. Keras builds from the mean of the replicas' batches,
      which turns integer labels into floats and fails between workers.
    - Its logs have an axis over which Keras averages the logs of workers.
    - On several replicas it rejects settings with which Keras would be wrong or fail: see
      `make_train_function`.
    - It builds the optimizer before the first step. `keras.optimizers.ScheduleFreeAdamW` copies the
      weights when it is built, and Keras builds it in a graph that is never run.

    docs/distribution.md says what a stock `keras.Model` can do with the losses of this package.

    Args:
      *args, **kwargs: arguments of a functional `keras.Model`: inputs, outputs, name.

    Example:
      >>> import keras
      >>> from supcon_tf.models import ReplicatedModel
      >>> inputs = keras.Input((4,))
      >>> ReplicatedModel(inputs, keras.layers.Dense(2)(inputs)).output_shape
      (None, 2)
    """

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as `keras.Model.fit` does, after the checks of `make_train_function`."""
        self._check_memory()
        self._check_replicas()
        return super().fit(*args, **kwargs)

    def make_train_function(self, force: bool = False) -> Any:
        """Checks the compiled settings, then makes the training function as Keras does.

        Raises:
          UserError: on several replicas, if the optimizer was created outside the strategy's
            scope, clips gradients, accumulates them or overwrites weights by their moving average,
            if the loss is scaled (mixed_float16), or, except on TPUs, with jit_compile or
            steps_per_execution.
        """
        self._check_replicas()
        if self.built and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def _check_memory(self) -> None:
        """Checks that the losses and the model have the same queue of keys, or none."""
        memories = [layer for layer in self.layers if isinstance(layer, KeyMemory)]
        losses = keras.tree.flatten(self.loss) if self.compiled else []
        with_memory = [loss for loss in losses if isinstance(loss, MemoryLoss)]
        if any(loss.memory not in (*memories, None) for loss in with_memory):
            raise UserError(
                "MemoryLoss has the queue of another model: compile with MemoryLoss(loss, "
                "find_memory(model))"
            )
        if losses and memories and not with_memory:
            raise UserError(
                "a model with a memory never fills it without a MemoryLoss: compile with "
                "MemoryLoss(loss, find_memory(model))"
            )

    def _check_replicas(self) -> None:
        strategy = self.distribute_strategy
        num_replicas = strategy.num_replicas_in_sync
        if num_replicas == 1 or not self.compiled:
            return
        for optimizer in with_inner(self.optimizer):
            _check_optimizer(optimizer, strategy)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            raise UserError(
                f"mixed_float16 does not work on {num_replicas} replicas: each would skip steps on "
                "its own; use mixed_bfloat16 or float32"
            )
        if isinstance(strategy, tf.distribute.TPUStrategy):
            return
        for name, possible in (("jit_compile", False), ("steps_per_execution", 1)):
            value = getattr(self, name)
            if value != possible:
                raise UserError(
                    f"{name} = {value} does not work on {num_replicas} replicas: set it to "
                    f"{possible}"
                )

    def train_step(self, data: Any) -> dict[str, Any]:
        """Keras' training step."""
        return self._logs_for_workers(super().train_step(data))

    def test_step(self, data: Any) -> dict[str, Any]:
        """Keras' evaluation step."""
        return self._logs_for_workers(super().test_step(data))

    def _logs_for_workers(self, logs: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return logs
        return {name: tf.reshape(value, [1]) for name, value in logs.items()}

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        strategy = self.distribute_strategy
        if iterator is not None and strategy.num_replicas_in_sync > 1:
            _, _, batches = next(iter(iterator))
            data_batch = tf.nest.map_structure(
                lambda values: strategy.experimental_local_results(values)[0], next(batches)
            )
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)


_CLIPPING = (
    "each would clip its own part of the gradient",
    "leave it out; a run clips the whole gradient with pretrain.run.clip_norm",
)
# Option of a Keras optimizer, what Keras would do on several replicas, what to do instead.
_WRONG_ON_REPLICAS = (
    ("clipnorm", *_CLIPPING),
    ("global_clipnorm", *_CLIPPING),
    ("clipvalue", *_CLIPPING),
    (
        "gradient_accumulation_steps",
        "Keras cannot update the replicas' weights conditionally",
        "leave it out; on one device, a run compares larger batches with "
        "pretrain.run.gradient_cache_chunk",
    ),
    (
        "ema_overwrite_frequency",
        "Keras cannot update the replicas' weights conditionally",
        "set it to None: fit overwrites the weights by their average when it ends",
    ),
)


def _check_optimizer(
    optimizer: keras.optimizers.Optimizer, strategy: tf.distribute.Strategy
) -> None:
    num_replicas = strategy.num_replicas_in_sync
    for name, reason, fix in _WRONG_ON_REPLICAS:
        value = getattr(optimizer, name, None)
        if name == "ema_overwrite_frequency" and not optimizer.use_ema:
            continue
        if value is not None:
            raise UserError(
                f"{name} = {value} of {optimizer.name} does not work on {num_replicas} replicas: "
                f"{reason}; {fix}"
            )
    if optimizer._distribution_strategy is not strategy:
        raise UserError(
            f"{optimizer.name} was created outside of the scope of the strategy, where each of "
            f"{num_replicas} replicas would count its steps: create it under strategy.scope()"
        )


def with_inner(optimizer: keras.optimizers.Optimizer) -> Iterator[keras.optimizers.Optimizer]:
    """The optimizer, and the optimizers inside a `MultiOptimizer` or a `LossScaleOptimizer`."""
    yield optimizer
    inner = getattr(optimizer, "inner_optimizer", None)
    for part in (*([] if inner is None else [inner]), *getattr(optimizer, "optimizers", ())):
        yield from with_inner(part)
