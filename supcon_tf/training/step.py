"""The model as a stage compiles it: optimizer, losses, gradient clipping, gradient cache."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.losses import SuNCEtLoss, loss_input, loss_labels
from supcon_tf.models import MemoryLoss, ReplicatedModel, find_memory, freeze
from supcon_tf.optimizers import apply_weight_decay, multiply_learning_rates
from supcon_tf.training.batches import StepBatches, TrainingData
from supcon_tf.training.config import TrainingConfig
from supcon_tf.training.device_augmentation import augmenting_model
from supcon_tf.training.metrics import training_metrics
from supcon_tf.training.objective import Objective

# Steps per execution on cached features, where a step takes less time than the callbacks.
STEPS_ON_FEATURES = 8


def compile_model(
    network: keras.Model,
    parts: Mapping[str, keras.Model],
    objective: Objective,
    data: TrainingData,
    batches: StepBatches,
    config: TrainingConfig,
) -> keras.Model:
    """The compiled model that trains the variables of `network`, which it shares.

    Args:
      network: views -> {output: tensor}, or features -> {"logits": tensor}.
      parts: parts of the whole model, from `models.model_parts`.
      objective: the losses of the outputs.
      data: the images.
      batches: the batches made of them.
      config: settings of the stage.

    Raises:
      UserError: settings that exclude each other.
    """
    _check_labels(objective, batches)
    _freeze(network, parts["encoder"], config)
    with config.strategy.scope():
        optimizer = config.build_optimizer(batches.num_examples)
        _apply_weight_decay(optimizer, config.weight_decay, parts, objective.trained_parts)
        optimizer.build(network.trainable_variables)
        if config.learning_rate_multipliers:
            multiply_learning_rates(
                optimizer,
                network.trainable_variables,
                config.learning_rate_multipliers,
                parts={name: part.trainable_variables for name, part in parts.items()},
            )
        model = network
        if batches.is_deferred:
            model = augmenting_model(model, data.preprocessing, data.augmentation)
        if config.clip_norm is not None or config.gradient_cache_chunk is not None:
            _check_chunk(config, objective, batches.rows)
            model = TrainingModel(
                model.input,
                model.output,
                clip_norm=config.clip_norm,
                gradient_cache_chunk=config.gradient_cache_chunk,
            )
        one_device_on_features = data.features is not None and config.replicas == 1
        model.compile(
            optimizer,
            dict(objective.losses),
            loss_weights=dict(objective.weights),
            metrics={
                "logits": training_metrics(objective.losses, multi_label=data.source.is_multi_label)
            },
            jit_compile=config.jit_compile,
            steps_per_execution=STEPS_ON_FEATURES if one_device_on_features else 1,
        )
    return model


def _check_labels(objective: Objective, batches: StepBatches) -> None:
    """Rejects mixed labels for losses of class memberships, and class numbers for soft ones."""
    is_mixed = batches.labels.dtype.is_floating
    for loss in objective.losses.values():
        name, takes = type(loss).__name__, loss_labels(loss)
        takes_mixed = (
            loss_input(loss) == "logits"
            or isinstance(loss, SuNCEtLoss)
            or takes in ("soft", "none")
        )
        if is_mixed and not takes_mixed:
            raise UserError(
                f"{name} needs class memberships, mixed labels are none: take "
                "@losses.SoftSupConLoss() or set pipeline.training_batches.mixing = None"
            )
        if takes == "soft" and batches.labels.shape.rank == 1:
            raise UserError(
                f"{name} needs rows of class weights: set pipeline.training_batches.mixing = "
                "@mixing.mixup, or take @losses.SupConLoss() for class numbers"
            )


def _freeze(network: keras.Model, encoder: keras.Model, config: TrainingConfig) -> None:
    if config.freeze_through is None and config.freeze_batch_norm is False:
        return
    if find_memory(network) is not None:
        # The momentum encoder copies the variables that train, in their order.
        raise UserError(
            f"{config.stage}.run.freeze_through and .freeze_batch_norm are not for a model with a "
            "momentum encoder: set them to None and False"
        )
    freeze(encoder, through=config.freeze_through, batch_norm=config.freeze_batch_norm)


def _apply_weight_decay(
    optimizer: keras.optimizers.Optimizer,
    weight_decay: float,
    parts: Mapping[str, keras.Model],
    trained_parts: tuple[str, ...],
) -> None:
    def variables(names: Sequence[str]) -> list[keras.Variable]:
        return [variable for name in names for variable in parts[name].trainable_variables]

    others = [name for name in parts if name not in trained_parts]
    apply_weight_decay(
        optimizer, weight_decay, decayed=variables(trained_parts), others=variables(others)
    )


def _check_chunk(config: TrainingConfig, objective: Objective, rows: int | None) -> None:
    chunk, name = config.gradient_cache_chunk, f"{config.stage}.run.gradient_cache_chunk"
    if chunk is None:
        return
    if "prototypes" in objective.losses:
        raise UserError(
            f"{name} would compute SwAV's codes for each chunk alone, got {chunk}: set it to None"
        )
    if any(isinstance(loss, MemoryLoss) for loss in objective.losses.values()):
        raise UserError(
            f"{name} must be None with a momentum memory, whose encoder would move once for each "
            f"chunk, got {chunk}"
        )
    if rows and rows % chunk:
        raise UserError(
            f"{name} must divide the {rows} rows of a batch, labelled ones included, got {chunk}"
        )


class TrainingModel(ReplicatedModel):
    """A functional model with the training step of a stage.

    With `gradient_cache_chunk`, the encoder sees a batch in chunks and the loss sees all of it
    (Gao et al. 2021, arXiv 2101.06983): the outputs of all chunks are computed without a tape,
    the loss gives the gradient of each output, and every chunk runs forward again and backward
    from there. This needs the memory of one chunk and one more forward pass, and gives the gradient
    of the whole batch. Batch normalisation then normalises over chunks, and updates its averages
    once per chunk. One replica only.

    Args:
      inputs, outputs: inputs and outputs of a functional model.
      clip_norm: largest global norm of the gradient, summed over replicas; None for no limit.
      gradient_cache_chunk: samples at a time, a divisor of the batch; None for all at once.
      **kwargs: arguments of `keras.Model`.
    """

    def __init__(
        self,
        inputs: Any,
        outputs: Any,
        *,
        clip_norm: float | None = None,
        gradient_cache_chunk: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(inputs, outputs, **kwargs)
        self.clip_norm = clip_norm
        self.gradient_cache_chunk = gradient_cache_chunk

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update, and the metrics so far."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self.gradient_cache_chunk is None:
            with tf.GradientTape() as tape:
                outputs = self(x, training=True)
                loss = self.compute_loss(x, y, outputs, sample_weight, training=True)
                scaled_loss = self.optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled_loss, self.trainable_weights)
        else:
            gradients, outputs, loss = self._cached_gradients(x, y, sample_weight)
        if self.clip_norm is not None:
            # Loss scaling also scales the gradients; the optimizer divides them later.
            scaled_norm = self.optimizer.scale_loss(tf.constant(self.clip_norm, tf.float32))
            gradients = _clipped(gradients, scaled_norm)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        # Keras has divided the loss by the replicas, over which it sums the gradients.
        whole_loss = loss * self.distribute_strategy.num_replicas_in_sync
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(whole_loss, sample_weight=tf.shape(tf.nest.flatten(x)[0])[0])
        return self._logs_for_workers(self.compute_metrics(x, y, outputs, sample_weight))

    def _cached_gradients(self, x: Any, y: Any, sample_weight: Any) -> tuple[list, Any, tf.Tensor]:
        chunk = self.gradient_cache_chunk
        chunks = tf.nest.map_structure(
            # [B, ...] -> [B / chunk, chunk, ...]
            lambda values: tf.reshape(values, [-1, chunk, *values.shape[1:]]),
            x,
        )
        states = [variable for variable in self.variables if not variable.trainable]
        before = [tf.identity(variable) for variable in states]
        signature = tf.nest.map_structure(
            lambda output: tf.TensorSpec([chunk, *output.shape[1:]], output.dtype), self.output
        )
        cached = tf.map_fn(
            lambda part: self(part, training=True),
            chunks,
            fn_output_signature=signature,
            parallel_iterations=1,
        )
        # The second pass sees the averages and random states that the first one saw.
        for variable, value in zip(states, before, strict=True):
            variable.assign(value)
        outputs = tf.nest.map_structure(
            lambda values: tf.reshape(values, [-1, *values.shape[2:]]), cached
        )
        weights = [variable.value for variable in self.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = self.compute_loss(x, y, outputs, sample_weight, training=True)
            scaled_loss = self.optimizer.scale_loss(loss)
        of_outputs, of_weights = tape.gradient(
            scaled_loss, (outputs, weights), unconnected_gradients="zero"
        )
        of_chunks = tf.nest.map_structure(
            lambda values: tf.reshape(values, [-1, chunk, *values.shape[1:]]), of_outputs
        )

        def add_chunk(number: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list]:
            part, upstream = tf.nest.map_structure(lambda v: v[number], (chunks, of_chunks))
            with tf.GradientTape() as tape:
                again = self(part, training=True)
            gradients = tape.gradient(
                again, weights, output_gradients=upstream, unconnected_gradients="zero"
            )
            return number + 1, [a + b for a, b in zip(sums, gradients, strict=True)]

        num_chunks = tf.shape(tf.nest.flatten(chunks)[0])[0]
        _, gradients = tf.while_loop(
            lambda number, _: number < num_chunks,
            add_chunk,
            (tf.constant(0), of_weights),
            parallel_iterations=1,
        )
        return gradients, outputs, loss


def _clipped(gradients: list[tf.Tensor | None], clip_norm: tf.Tensor) -> list[tf.Tensor | None]:
    """Clips the global gradient; returns the share of each replica, which Keras sums."""
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas > 1:
        there = [gradient for gradient in gradients if gradient is not None]
        summed = iter(context.all_reduce("SUM", there))
        gradients = [None if gradient is None else next(summed) for gradient in gradients]
    clipped, _ = tf.clip_by_global_norm(gradients, clip_norm)
    return [None if gradient is None else gradient / replicas for gradient in clipped]
