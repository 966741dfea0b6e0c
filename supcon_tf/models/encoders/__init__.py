"""Pretrained encoders, each with its preprocessing inside."""

from supcon_tf.models.encoders.input_scaling import InputScaling
from supcon_tf.models.encoders.pretrained import pretrained

__all__ = ["InputScaling", "pretrained"]
