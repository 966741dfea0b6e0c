"""The exact loss in linear memory: similarities are computed tile by tile and not stored."""

from supcon_tf.losses.streaming.loss import is_self_contrast, streaming_supcon

__all__ = ["is_self_contrast", "streaming_supcon"]
