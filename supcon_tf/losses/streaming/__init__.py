"""The exact loss in linear memory: tiles of similarities that are made, used and dropped."""

from supcon_tf.losses.streaming.streaming_supcon import streaming_supcon, visits_pairs_once

__all__ = ["streaming_supcon", "visits_pairs_once"]
