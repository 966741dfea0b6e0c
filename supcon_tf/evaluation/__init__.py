"""What a trained encoder is worth: features, accuracies, neighbours, calibration, robustness."""

from supcon_tf.evaluation.accuracy import top_k_accuracy
from supcon_tf.evaluation.calibration import expected_calibration_error
from supcon_tf.evaluation.corruption_error import CorruptionError, mean_corruption_error
from supcon_tf.evaluation.features import predict
from supcon_tf.evaluation.knn import knn_probabilities

__all__ = [
    "CorruptionError",
    "expected_calibration_error",
    "knn_probabilities",
    "mean_corruption_error",
    "predict",
    "top_k_accuracy",
]
