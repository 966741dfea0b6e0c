"""The classifier of balanced SupCon: class logits, and a class centre from each class's weights."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from supcon_tf.errors import UserError, check_integer
from supcon_tf.models.embedding import model_parts
from supcon_tf.models.heads import projection_head


@keras.saving.register_keras_serializable(package="supcon_tf")
class BalancedClassifier(layers.Layer):
    """A linear classifier whose weights also give the class centres of `BalancedSupConLoss`.

    The centre of class c is center_head(w_c), with the weights w_c of its logit (Zhu et al. 2022,
    arXiv 2207.09052). Logits and centres train the same kernel.

    Maps float [B, D] to float32 [B, C].

    Args:
      num_classes: C, at least 2.
      center_head: a built model from float [C, D] to the centres [C, P], such as
        `models.projection_head`.
      **kwargs: arguments of a Keras layer.

    Raises:
      UserError: if `num_classes` is below 2.
    """

    def __init__(self, num_classes: int, center_head: keras.Model, **kwargs: Any):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.num_classes = check_integer("num_classes", num_classes, at_least=2)
        self.center_head = center_head
        self.is_training = False

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], self.num_classes), initializer="glorot_uniform"
        )
        self.bias = self.add_weight(name="bias", shape=(self.num_classes,), initializer="zeros")

    def call(self, embeddings: Any, training: bool = False) -> Any:
        # Keras does not pass `training` to losses, which call `centers`.
        self.is_training = bool(training)
        return ops.matmul(embeddings, self.kernel) + self.bias

    def centers(self) -> Any:
        """The class centres, float32 [C, P]."""
        return self.center_head(ops.transpose(self.kernel), training=self.is_training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        center_head = keras.saving.serialize_keras_object(self.center_head)
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "center_head": center_head,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BalancedClassifier":
        center_head = keras.saving.deserialize_keras_object(config.pop("center_head"))
        return cls(center_head=center_head, **config)


def balanced_classifier(
    input_dim: int,
    num_classes: int,
    *,
    zero_init: bool = False,
    projection: Sequence[int] = (2048, 128),
    batch_norm: bool = False,
) -> layers.Layer:
    """The `classification_head` of a `contrastive_model` that `BalancedSupConLoss` trains.

    Args:
      input_dim: length of the embedding.
      num_classes: C, at least 2.
      zero_init: must be False, as zeros have no centre.
      projection: layer sizes of the network from a class's weights to its centre; the last one is
        the length of the model's projection.
      batch_norm: batch normalisation over the classes in its hidden layers.

    Returns:
      A `BalancedClassifier`.

    Raises:
      UserError: if an option is out of range.

    Example:
      >>> from functools import partial
      >>> from supcon_tf import models
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> head = partial(models.balanced_classifier, projection=(128, 128))
      >>> model = models.contrastive_model(encoder, image_shape=(32, 32, 3), num_classes=10,
      ...     projection=(128, 128), classification_head=head, stop_classifier_gradient=False)
      >>> models.find_balanced_classifier(model).centers().shape
      TensorShape([10, 128])
    """
    if zero_init:
        raise UserError("zero_init must be False with class centres, got True: zeros have none")
    center_head = projection_head(
        input_dim, units=projection, batch_norm=batch_norm, name="center_head"
    )
    return BalancedClassifier(num_classes, center_head, name="classifier")


def find_balanced_classifier(model: keras.Model) -> BalancedClassifier | None:
    """Returns the classifier that gives class centres, or None for a model without one."""
    classifier = model_parts(model).get("classifier")
    return classifier if isinstance(classifier, BalancedClassifier) else None
