"""Where the initial weights of an encoder come from."""

import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class Origin:
    """The source of a new encoder.

    Args:
      name: its network, such as "efficientnet_lite0".
      weights: its initial weights in words: "ImageNet", "random" or "file NAME".
    """

    name: str
    weights: str

    @property
    def is_pretrained(self) -> bool:
        """Whether the weights come from another training."""
        return self.weights != "random"


def with_origin(encoder: keras.Model, origin: Origin) -> keras.Model:
    """Notes the origin of a new encoder on it; a saved model does not keep it."""
    encoder.origin = origin
    return encoder


def origin_of(encoder: object) -> Origin | None:
    """The origin of an encoder that this package has made; None for others."""
    return getattr(encoder, "origin", None)
