"""What a run kept of its held-out split: embeddings, predictions and thumbnails, ready to show."""

import base64
import dataclasses
import io
import pathlib

import numpy as np

from supcon_tf.errors import UserError

MAP_POINTS = 1500
# As many thumbnails make a map by themselves.
ENOUGH_PICTURES = 500


@dataclasses.dataclass(frozen=True)
class ScoredSplit:
    """Held-out examples of a run, as `test_split.npz` has them."""

    embeddings: np.ndarray  # float32 [n, D]
    labels: np.ndarray  # int64 [n], or [n, C] of 0 and 1 where an example may have several
    class_names: list[str]  # [C]
    probabilities: np.ndarray | None  # float32 [n, C]
    thumbnails: list[str]  # data URIs of the first m examples
    paths: list[str]  # [n] or empty

    @property
    def predictions(self) -> np.ndarray | None:
        """Most probable class of each example, int64 [n]; None where it may have several."""
        if self.probabilities is None or self.labels.ndim == 2:
            return None
        return self.probabilities.argmax(axis=1)

    @property
    def classes(self) -> np.ndarray:
        """The only class of each example, int64 [n]; -1 where it has several or none."""
        if self.labels.ndim == 1:
            return self.labels
        return np.where(self.labels.sum(axis=1) == 1, self.labels.argmax(axis=1), -1)

    def label_of(self, example: int) -> str:
        """The name of its class, or of all of them."""
        if self.labels.ndim == 1:
            return self.class_names[self.labels[example]]
        return ", ".join(self.class_names[c] for c in np.flatnonzero(self.labels[example]))


@dataclasses.dataclass(frozen=True)
class ConfusedPair:
    """Examples of one class that were taken for another."""

    label: int
    prediction: int
    examples: np.ndarray  # int64, indices into the held-out split
    share: float  # of all examples of the true class


def read_held_out(path: pathlib.Path) -> ScoredSplit:
    """Read `test_split.npz` and check that its arrays belong together.

    Raises:
        UserError: lengths differ, there is no example, or a label has no class.
    """
    with np.load(path, allow_pickle=False) as arrays:
        embeddings = arrays["embeddings"]
        labels = arrays["labels"]
        class_names = arrays["class_names"].tolist()
        probabilities = arrays.get("probabilities")
        thumbnails = arrays.get("thumbnails", ())
        paths = arrays["paths"].tolist() if "paths" in arrays else []
    n, num_classes = len(labels), len(class_names)
    if len(embeddings) != n or n == 0:
        raise UserError(f"{path}: {len(embeddings)} embeddings need as many labels, got {n}")
    if labels.ndim == 2 and (labels.shape[1] != num_classes or not np.isin(labels, (0, 1)).all()):
        raise UserError(f"{path}: labels [n, C] must be 0 or 1 for each of {num_classes} classes")
    if labels.ndim == 1 and (labels.min() < 0 or labels.max() >= num_classes):
        raise UserError(
            f"{path}: labels must be in [0, {num_classes}), got {labels.min()} to {labels.max()}"
        )
    if probabilities is not None and probabilities.shape != (n, num_classes):
        raise UserError(
            f"{path}: probabilities must be {(n, num_classes)}, got {probabilities.shape}"
        )
    return ScoredSplit(
        embeddings=embeddings,
        labels=labels,
        class_names=class_names,
        probabilities=probabilities,
        thumbnails=[image_uri(pixels) for pixels in thumbnails],
        paths=paths,
    )


def image_uri(pixels: np.ndarray) -> str:
    """Image uint8 [h, w, 3] as a data URI, a fraction of the PNG's size."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=90)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def map_sample(held_out: ScoredSplit) -> np.ndarray:
    """Indices of at most 1,500 evenly spread examples, of those with thumbnails if they will do."""
    usable = np.flatnonzero(np.isfinite(held_out.embeddings).all(axis=1))
    pictured = usable[usable < len(held_out.thumbnails)]
    # The first examples of a split sorted by class would show a few classes only.
    every_class = np.isin(held_out.classes[usable], held_out.classes[pictured]).all()
    if every_class and len(pictured) >= ENOUGH_PICTURES:
        usable = pictured
    count = min(MAP_POINTS, len(usable))
    return usable[np.linspace(0, len(usable) - 1, count).round().astype(np.int64)]


def map_coordinates(embeddings: np.ndarray) -> np.ndarray:
    """Lay embeddings out in the plane with t-SNE on cosine distances, the same on every call.

    Args:
        embeddings: float [n, D], finite.

    Returns:
        float [n, 2], without a unit; fewer than 8 points are only projected, by PCA.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    # On the sphere squared Euclidean distance is 2 - 2 cos, and PCA keeps it.
    unit = embeddings / np.maximum(norms, 1e-12)
    centred = unit - unit.mean(axis=0)
    n = len(centred)
    if n < 2 or not np.abs(centred).max() > 1e-6:
        return np.zeros((n, 2))
    components = min(50, *centred.shape)
    # One thread sums in one order on any machine, and many would take several times the work.
    with threadpool_limits(1):
        reduced = PCA(components, random_state=0).fit_transform(centred)
        start = np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - components))))
        if n < 8:
            return start
        tsne = TSNE(
            perplexity=min(30.0, (n - 1) / 3),
            init=(1e-4 * start / start[:, 0].std()).astype(np.float32),
            max_iter=500,
            random_state=0,
        )
        return tsne.fit_transform(reduced)


def most_confused_classes(labels: np.ndarray, predictions: np.ndarray, *, limit: int) -> np.ndarray:
    """Indices, ascending, of the classes with most examples lost to or taken from others."""
    wrong = labels != predictions
    num_classes = max(labels.max(), predictions.max()) + 1
    errors = np.bincount(labels[wrong], minlength=num_classes)
    errors += np.bincount(predictions[wrong], minlength=num_classes)
    return np.sort(np.argsort(-errors, kind="stable")[:limit])


def most_confused_pairs(
    labels: np.ndarray, predictions: np.ndarray, *, limit: int
) -> list[ConfusedPair]:
    """Pairs (true class, predicted class) with the most wrong examples, the largest first."""
    wrong = np.flatnonzero(labels != predictions)
    class_sizes = np.bincount(labels)
    pairs, which, counts = np.unique(
        np.stack([labels, predictions], axis=1)[wrong],
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    return [
        ConfusedPair(
            label=int(pairs[i, 0]),
            prediction=int(pairs[i, 1]),
            examples=wrong[which == i],
            share=counts[i] / class_sizes[pairs[i, 0]],
        )
        for i in np.argsort(-counts, kind="stable")[:limit]
    ]
