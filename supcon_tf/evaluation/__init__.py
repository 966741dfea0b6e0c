"""Evaluation: accuracies, nearest neighbours, calibration and robustness."""

from supcon_tf.evaluation.bootstrap import Interval, bootstrap_difference, bootstrap_interval
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
from supcon_tf.evaluation.intervals import classification_intervals, retrieval_intervals
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
from supcon_tf.evaluation.retrieval import Retrieval, mean_average_precision_at_r, recall_at_k
from supcon_tf.evaluation.scoring_rules import (
    brier_score,
    brier_scores,
    negative_log_likelihood,
    negative_log_likelihoods,
)
from supcon_tf.evaluation.selective import augrc, aurc
from supcon_tf.evaluation.temperature import fit_temperature, scale_probabilities

__all__ = [
    "ContrastiveAccuracy",
    "CorruptionError",
    "Interval",
    "Reliability",
    "Retrieval",
    "augrc",
    "aurc",
    "average_precisions",
    "bootstrap_difference",
    "bootstrap_interval",
    "brier_score",
    "brier_scores",
    "classification_intervals",
    "expected_calibration_error",
    "fit_temperature",
    "knn_probabilities",
    "mean_average_precision",
    "mean_average_precision_at_r",
    "mean_corruption_error",
    "mean_per_class_accuracy",
    "negative_log_likelihood",
    "negative_log_likelihoods",
    "predict",
    "projection_measures",
    "prototype_probabilities",
    "read_baseline",
    "recall_at_k",
    "reliability",
    "retrieval_intervals",
    "scale_probabilities",
    "soft_neighbor_probabilities",
    "top_k_accuracy",
    "worst_class_accuracy",
]
