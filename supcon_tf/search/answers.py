"""What an index says about images, as outputs to write."""

import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.search.index import Index


def answers(index: Index, embeddings: np.ndarray, *, num_neighbors: int) -> dict[str, np.ndarray]:
    """Neighbours, and with a calibration matches and unknown images.

    Args:
      index: the index.
      embeddings: [n, D] of its model.
      num_neighbors: k; all images of the index if there are fewer.

    Returns:
      "neighbor_paths", "neighbor_labels" (text) and "neighbor_similarities" (float32), [n, k], the
      most similar first. With a calibration also, [n] each, "is_match" (bool, if images have
      labels): whether the nearest neighbour passes the match threshold; "unknown_score" (float32)
      and "is_unknown" (bool).

    Raises:
      UserError: embeddings of another size than those of the index, or an index without images.
    """
    if not len(index):
        raise UserError("the index has no images")
    neighbors = index.search(embeddings, num_neighbors)
    outputs = {
        "neighbor_paths": neighbors.paths.astype(str),
        "neighbor_labels": neighbors.labels.astype(str),
        "neighbor_similarities": neighbors.similarities,
    }
    calibration = index.calibration
    if calibration is None:
        return outputs
    if calibration.match is not None:
        threshold = calibration.match.similarity
        outputs["is_match"] = neighbors.similarities[:, 0] >= (
            np.inf if threshold is None else threshold
        )
    scores = index.unknown_scores(embeddings)
    is_unknown = scores > calibration.thresholds[calibration.unknown_score]
    return {**outputs, "unknown_score": scores.astype(np.float32), "is_unknown": is_unknown}
