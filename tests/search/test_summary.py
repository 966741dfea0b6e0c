"""What the console says about a calibration."""

import numpy as np
import pytest

from supcon_tf.search import Index, summary


def two_classes(num_images):
    """An index of images around (1, 0) and (0, 1)."""
    rng = np.random.default_rng(0)
    labels = np.arange(num_images) % 2
    embeddings = np.eye(2)[labels] + rng.uniform(0, 0.1, (num_images, 2))
    return Index(embeddings, [f"{i}.png" for i in range(num_images)], ["ab"[i] for i in labels])


@pytest.mark.parametrize(("num_images", "is_uncertain"), [(18, True), (40, False)])
def test_a_match_threshold_of_few_matches_is_called_uncertain(num_images, is_uncertain):
    index = two_classes(num_images)
    index.calibrate()
    # Both thresholds.
    assert summary(index).count("so few that it is uncertain") == 2 * is_uncertain


def test_unknown_images_like_the_known_ones_are_not_told_apart():
    index = two_classes(40)
    index.calibrate(unknown=[[1.0, 0.05], [0.05, 1.0]] * 10)
    assert "better than chance: ignore is_unknown" in summary(index)
    index.calibrate(unknown=[[-1.0, -1.0]] * 20)
    assert "chance" not in summary(index)
    assert "--unknown_score" not in summary(index)


def test_the_better_score_is_named():
    # Long, thin classes: an image beside them is near in Euclidean distance only.
    rng = np.random.default_rng(0)
    angles = np.concatenate([np.full(60, 0.0), np.full(60, 2.0)]) + rng.uniform(-0.4, 0.4, 120)
    rows = np.stack([np.cos(angles), np.sin(angles), rng.normal(0, 0.001, 120)], axis=1)
    index = Index(rows, [f"{i}.png" for i in range(120)], ["ab"[i // 60] for i in range(120)])
    unknown = [[1.0, 0.2, 0.03], [-0.4, 0.9, 0.03]]
    index.calibrate(unknown=unknown * 10, num_neighbors=20)
    detection = index.calibration.detection
    assert detection["mahalanobis"].auroc > detection["knn"].auroc
    advice = "mahalanobis has the higher AUROC here: --unknown_score=mahalanobis"
    assert advice in summary(index)
    index.calibrate(unknown=unknown, num_neighbors=20)  # Too few to tell.
    assert advice not in summary(index)


def test_a_new_calibration_keeps_the_settings_of_the_last_one():
    index = two_classes(40)
    index.calibrate(precision=0.8, known_share=0.9, unknown_score="mahalanobis")
    index.add([[0.0, 1.0]], ["new.png"], ["b"])
    calibration = index.calibrate(known_share=0.7)
    assert (calibration.match.wanted_precision, calibration.known_share) == (0.8, 0.7)
    assert calibration.unknown_score == "mahalanobis"
