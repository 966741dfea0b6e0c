"""Search among embeddings: nearest neighbours, match thresholds and unknown scores.

Nothing here imports TensorFlow, except `search.images`.
"""

from supcon_tf.search.answers import answers
from supcon_tf.search.calibration import Calibration
from supcon_tf.search.detection import Detection, detection
from supcon_tf.search.index import Index, Neighbors
from supcon_tf.search.index_files import check_new_index, model_checksum
from supcon_tf.search.load import load_index
from supcon_tf.search.matching import MatchThreshold, match_threshold
from supcon_tf.search.summary import class_warning, summary
from supcon_tf.search.unknown import ClassStatistics, class_statistics

__all__ = [
    "Calibration",
    "ClassStatistics",
    "Detection",
    "Index",
    "MatchThreshold",
    "Neighbors",
    "answers",
    "check_new_index",
    "class_statistics",
    "class_warning",
    "detection",
    "load_index",
    "match_threshold",
    "model_checksum",
    "summary",
]
