"""The model as a stage trains it: gradients clipped over replicas, batches larger than memory."""

from typing import Any

import keras
import tensorflow as tf

from supcon_tf.models.distributed import ReplicatedModel


class TrainingModel(ReplicatedModel):
    """A functional model with the training step of a stage.

    With `gradient_cache_chunk`, the encoder sees a batch in chunks and the loss sees all of it
    (Gao et al. 2021, arXiv 2101.06983): the outputs of all chunks are computed without a tape,
    the loss gives the gradient of each output, and every chunk runs forward again and backward
    from there. The memory is that of one chunk, the gradient that of the whole batch, the cost one
    more forward pass. Batch normalisation then normalises over chunks, and moves its averages once
    for each. One replica only.

    Args:
      inputs, outputs: of a functional model.
      clip_norm: largest global norm of the gradient, which is the sum over replicas; None for any.
      gradient_cache_chunk: samples at a time, a divisor of the batch; None for all at once.
      **kwargs: of `keras.Model`.
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
            # Of a scaled loss the gradients are scaled too; the optimizer divides them after this.
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
    """The sum over replicas scaled to at most this norm, divided so that Keras' sum is that."""
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas > 1:
        there = [gradient for gradient in gradients if gradient is not None]
        summed = iter(context.all_reduce("SUM", there))
        gradients = [None if gradient is None else next(summed) for gradient in gradients]
    clipped, _ = tf.clip_by_global_norm(gradients, clip_norm)
    return [None if gradient is None else gradient / replicas for gradient in clipped]
