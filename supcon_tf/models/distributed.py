"""A functional model that Keras can train on several replicas and workers."""

from typing import Any

import keras
import tensorflow as tf

from supcon_tf.errors import UserError


@keras.saving.register_keras_serializable(package="supcon_tf")
class ReplicatedModel(keras.Model):
    """A `keras.Model` whose `fit` and `evaluate` work under every `tf.distribute` strategy.

    Keras 3.15 builds a model from the mean of the replicas' batches, which makes floats of integer
    labels and fails between workers, and it averages the workers' logs over an axis that scalars
    have not. Here it builds from the first local replica's batch, and the logs have that axis.

    Example:
      >>> import keras
      >>> from supcon_tf.models.distributed import ReplicatedModel
      >>> inputs = keras.Input((4,))
      >>> ReplicatedModel(inputs, keras.layers.Dense(2)(inputs)).output_shape
      (None, 2)
    """

    def make_train_function(self, force: bool = False) -> Any:
        """Keras' own, which `fit` begins with, but refuses what goes wrong on several replicas.

        Raises:
          UserError: an optimizer that clips (each replica would clip its own part), jit_compile
            or steps_per_execution, for a model of several replicas that are no TPU's.
        """
        self._check_replicas()
        return super().make_train_function(force)

    def _check_replicas(self) -> None:
        replicas = self.distribute_strategy.num_replicas_in_sync
        if replicas == 1:
            return
        for name in ("clipnorm", "global_clipnorm", "clipvalue"):
            if (value := getattr(self.optimizer, name, None)) is not None:
                raise UserError(
                    f"{name} = {value} would clip on each of the {replicas} replicas before their "
                    "sum: leave it out; a run clips the sum by pretrain.run.clip_norm"
                )
        if isinstance(self.distribute_strategy, tf.distribute.TPUStrategy):
            return
        for name, possible in (("jit_compile", False), ("steps_per_execution", 1)):
            if (value := getattr(self, name)) != possible:
                raise UserError(
                    f"{name} = {value} does not work on {replicas} replicas: set it to {possible}"
                )
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            raise UserError(
                f"mixed_float16 does not work on {replicas} replicas, which would skip steps each "
                "for itself: use mixed_bfloat16 or float32"
            )

    def train_step(self, data: Any) -> dict[str, Any]:
        """Keras' step, or what a subclass makes of it."""
        return self._for_workers(super().train_step(data))

    def test_step(self, data: Any) -> dict[str, Any]:
        """Keras' step."""
        return self._for_workers(super().test_step(data))

    def _for_workers(self, logs: dict[str, Any]) -> dict[str, Any]:
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
