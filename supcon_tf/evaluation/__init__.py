"""Evaluation: accuracies, nearest neighbours, calibration and robustness."""

from supcon_tf.evaluation.calibration import (
    Reliability,
    expected_calibration_error,
    reliability,
)
from supcon_tf.evaluation.contrastive_accuracy import ContrastiveAccuracy
from supcon_tf.evaluation.corruption_error import (
    CorruptionError,
    mean_corruption_error,
    read_baseline,
)
from supcon_tf.evaluation.features import predict
from supcon_tf.evaluation.knn import (
    knn_probabilities,
    prototype_probabilities,
    soft_neighbor_probabilities,
)
from supcon_tf.evaluation.metrics import (
    average_precisions,
    mean_average_precision,
    mean_per_class_accuracy,
    top_k_accuracy,
    worst_class_accuracy,
)
from supcon_tf.evaluation.projections import projection_measures

__all__ = [
    "ContrastiveAccuracy",
    "CorruptionError",
    "Reliability",
    "average_precisions",
    "expected_calibration_error",
    "knn_probabilities",
    "mean_average_precision",
    "mean_corruption_error",
    "mean_per_class_accuracy",
    "predict",
    "projection_measures",
    "prototype_probabilities",
    "read_baseline",
    "reliability",
    "soft_neighbor_probabilities",
    "top_k_accuracy",
    "worst_class_accuracy",
]
