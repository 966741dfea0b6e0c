"""Keras and KerasCV layers as an augmentation."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from supcon_tf.data.augment.batching import apply_batched, image_size
from supcon_tf.data.augment.dispatch import map_images
from supcon_tf.data.augment.rng import split
from supcon_tf.errors import UserError, check_number


class KerasLayers:
    """Augments images with Keras layers, one after another, in training mode.

    Layers with a `keras.random.SeedGenerator`, as all random layers of `keras.layers`, are exact:
    their state is set from the seed for each call, so the same seed gives the same image, also in a
    parallel `tf.data` map and in a resumed run. KerasCV layers draw from a `tf.random.Generator`
    instead, in an order that depends on the threads. A run with them cannot be repeated or resumed
    bit for bit, even if they have a `seed`.

    Args:
      layers: layers that take images [N, H, W, 3] and keep their shape.
      value_range: lowest and highest value of the images that the layers take. KerasCV layers and
        most of `keras.layers` take (0, 255); where a layer has its own `value_range`, both must
        agree.
      per_image: call the layers on one image at a time. Many Keras layers make one random choice
        per batch, which would give all views of an image the same operation. False is faster, and
        right for layers that choose per image, as KerasCV's do; a batch then uses the seed
        of its first image.

    Raises:
      UserError: an option has a wrong value; when called, a layer that changes the images' shape
        or has state besides its seed generators.

    Example:
      >>> import keras
      >>> import tensorflow as tf
      >>> from supcon_tf.data import views
      >>> flip = views.keras_layers([keras.layers.RandomFlip("horizontal")])
      >>> image = tf.random.stateless_uniform([4, 32, 32, 3], [0, 0])
      >>> flip(image, seed=[1, 2, 3, 4]).shape
      TensorShape([4, 32, 32, 3])
    """

    def __init__(
        self,
        layers: Sequence[keras.layers.Layer] = (),
        *,
        value_range: tuple[float, float] = (0, 255),
        per_image: bool = True,
    ) -> None:
        is_sequence = isinstance(layers, Sequence) and len(layers) > 0
        if not is_sequence or not all(isinstance(layer, keras.layers.Layer) for layer in layers):
            raise UserError(
                "keras_layers.layers must be a tuple of layers with brackets, such as "
                f"(@keras.layers.RandomFlip(),), got {layers!r}"
            )
        if not isinstance(value_range, Sequence) or len(value_range) != 2:
            raise UserError(f"value_range must be such as (0, 255), got {value_range!r}")
        check_number("value_range[0]", value_range[0])
        check_number("value_range[1]", value_range[1], above=value_range[0])
        self.layers, self.value_range, self.per_image = tuple(layers), value_range, per_image
        # With AutoGraph, which some KerasCV layers need and this package's own graphs do without.
        self._call_layers = tf.function(self._call)

    def __call__(self, image: tf.Tensor, *, seed: int | tf.Tensor) -> tf.Tensor:
        """Augments image float32 [..., H, W, 3] in [0, 1] with seed int64 [...]."""

        def augmented(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
            self._build(images)
            if self.per_image:
                return map_images(
                    lambda x, seed: self._call_layers(x[None], seed)[0], images, seeds
                )
            return self._call_layers(images, seeds[0])

        return apply_batched(image, seed, augmented)

    def _build(self, images: tf.Tensor) -> None:
        """Calls the layers once eagerly, which creates their variables, and checks them."""
        size = [side if isinstance(side, int) else 32 for side in image_size(images)]
        with tf.init_scope():
            image = tf.zeros([1, *size, 3])
            for layer in self.layers:
                shape = tuple(layer(image, training=True).shape)
                if shape != tuple(image.shape):
                    raise UserError(
                        f"keras_layers.layers must keep the shape of images, got {layer.name}: "
                        f"{tuple(image.shape)} -> {shape}"
                    )
                with keras.StatelessScope() as scope:
                    layer(image, training=True)
                # Other state, such as Keras' global generator's, would be the same in every call.
                if scope.state_mapping.keys() - {id(state) for state in _seed_states(layer)}:
                    raise UserError(
                        "keras_layers.layers must draw from a keras.random.SeedGenerator of their "
                        f"own and keep no other state, got {layer.name}"
                    )

    def _call(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        low, high = self.value_range
        images = low + (high - low) * images
        states = [state for layer in self.layers for state in _seed_states(layer)]
        seeds = tf.unstack(split(seed, max(len(states), 1)))
        mapping = [
            (state, tf.cast(tf.stack([seed, 0]), state.dtype)) for state, seed in zip(states, seeds)
        ]
        # The scope replaces the variables' values, which parallel calls would otherwise share.
        with keras.StatelessScope(state_mapping=mapping):
            for layer in self.layers:
                images = layer(images, training=True)
        images = (tf.cast(images, tf.float32) - low) / (high - low)
        return tf.clip_by_value(images, 0.0, 1.0)


def _seed_states(layer: keras.layers.Layer) -> list[keras.Variable]:
    return [v for v in layer.non_trainable_variables if v.name == "seed_generator_state"]
