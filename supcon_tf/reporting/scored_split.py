"""The scored test split of a run: embeddings, predictions and thumbnails."""

import base64
import dataclasses
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from supcon_tf.errors import UserError

# The map of this many points takes seconds, and each can have a picture.
MAP_POINTS = 1500
# With this many thumbnails, such a map shows examples with thumbnails only.
MIN_PICTURED = 500
# WebP's limit.
MAX_IMAGE_PX = 16383


@dataclasses.dataclass(frozen=True)
class ScoredSplit:
    """Test examples of a run, as `RunDir.save_scored_split` stores them."""

    embeddings: np.ndarray  # float32 [n, D]
    labels: np.ndarray  # int64 [n], or [n, C] of 0 and 1; -1 without classes
    class_names: list[str]  # [C], empty for images without labels
    probabilities: np.ndarray | None  # float32 [n, C]
    thumbnails: list[str]  # data URIs of the first m examples
    paths: list[str]  # [n] or empty

    @property
    def predictions(self) -> np.ndarray | None:
        """Likeliest class of each example, int64 [n]; None if an example may have several."""
        if self.probabilities is None or self.labels.ndim == 2 or not self.class_names:
            return None
        return self.probabilities.argmax(axis=1)

    @property
    def classes(self) -> np.ndarray:
        """Class of each example, int64 [n]; -1 for examples with several classes or none."""
        if self.labels.ndim == 1:
            return self.labels
        return np.where(self.labels.sum(axis=1) == 1, self.labels.argmax(axis=1), -1)

    def label_text(self, example: int) -> str:
        """The class names of an example."""
        if not self.class_names:
            return ""
        if self.labels.ndim == 1:
            return self.class_names[self.labels[example]]
        return ", ".join(self.class_names[c] for c in np.flatnonzero(self.labels[example]))


@dataclasses.dataclass(frozen=True)
class ConfusedPair:
    """Examples of one class that were classified as another."""

    label: int
    prediction: int
    examples: np.ndarray  # int64, indices into the test split
    share: float  # fraction of the examples of the true class


def read_scored_split(path: Path) -> ScoredSplit:
    """Reads the arrays of `RunDir.save_scored_split` and checks that they belong together.

    Raises:
        UserError: lengths differ, there are no examples, or a label is out of range.
    """
    # NumPy leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
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
    if labels.ndim == 1 and num_classes and (labels.min() < 0 or labels.max() >= num_classes):
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


def read_predictions(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Probabilities [n, C] and labels [n] of a scored split; None if it has no such pair.

    Raises:
        UserError: a damaged file.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if "probabilities" not in arrays or arrays["labels"].ndim != 1:
                return None
            return arrays["probabilities"], arrays["labels"]
    except FileNotFoundError:
        return None
    except (EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{str(path)!r} is damaged ({error}): move it away, or train this run again"
        ) from error


def image_names(path: Path) -> list[str]:
    """The class names of a scored split, and folder and name of each image that is a file."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        names = arrays["class_names"].tolist() if "class_names" in arrays else []
        paths = arrays["paths"].tolist() if "paths" in arrays else []
    return names + ["/".join(Path(each).parts[-2:]) for each in paths]


def image_uri(pixels: np.ndarray) -> str:
    """Image uint8 [h, w, 3] as a data URI in WebP, several times smaller than PNG."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if max(image.size) > MAX_IMAGE_PX:
        image.thumbnail((MAX_IMAGE_PX, MAX_IMAGE_PX))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=90)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def map_sample(split: ScoredSplit, points: int = MAP_POINTS) -> np.ndarray:
    """Indices of at most `points` evenly spaced examples.

    For at most 1,500 points they have thumbnails, if enough examples do.
    """
    usable = np.flatnonzero(np.isfinite(split.embeddings).all(axis=1))
    pictured = usable[usable < len(split.thumbnails)]
    # In a split sorted by class, the first examples would show few classes.
    every_class = np.isin(split.classes[usable], split.classes[pictured]).all()
    if points <= MAP_POINTS and every_class and len(pictured) >= MIN_PICTURED:
        usable = pictured
    count = min(points, len(usable))
    return usable[np.linspace(0, len(usable) - 1, count).round().astype(np.int64)]


def map_coordinates(embeddings: np.ndarray) -> np.ndarray:
    """Deterministic layout of embeddings in the plane by t-SNE on cosine distances.

    van der Maaten and Hinton, 2008; the forces between points are interpolated on a grid where
    there are more than 10,000 (Linderman et al., 2019, arXiv 1712.09005), so that the time grows
    with n.

    Args:
        embeddings: float [n, D], finite.

    Returns:
        float [n, 2] without a unit; by PCA alone for fewer than 8 points.
    """
    from openTSNE import TSNE
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    # In float64, as the squares of large float32 numbers overflow.
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    # Between unit vectors, the squared Euclidean distance is 2 - 2 cos.
    unit = embeddings / np.maximum(norms, 1e-12)
    centred = unit - unit.mean(axis=0)
    n = len(centred)
    if n < 2 or not np.abs(centred).max() > 1e-6:
        return np.zeros((n, 2))
    components = min(50, *centred.shape)
    # One thread gives the same order of summation everywhere, and is faster for few points.
    with threadpool_limits(1):
        reduced = PCA(components, random_state=0).fit_transform(centred)
        start = np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - components))))
        if n < 8:
            return start
        many = n > MAP_POINTS
        with tqdm(
            total=750, desc=f"map of {n:,} images", leave=False, disable=None if many else True
        ) as progress:
            tsne = TSNE(
                perplexity=min(30.0, (n - 1) / 3),
                initialization=1e-4 * start / start[:, 0].std(),
                n_jobs=-1 if many else 1,
                random_state=0,
                callbacks=lambda *_: progress.update(50) and False,
            )
            return np.asarray(tsne.fit(reduced))


def most_confused_classes(labels: np.ndarray, predictions: np.ndarray, *, limit: int) -> np.ndarray:
    """Indices, ascending, of the classes with the most errors in their row and column."""
    wrong = labels != predictions
    num_classes = max(labels.max(), predictions.max()) + 1
    errors = np.bincount(labels[wrong], minlength=num_classes)
    errors += np.bincount(predictions[wrong], minlength=num_classes)
    return np.sort(np.argsort(-errors, kind="stable")[:limit])


def most_confused_pairs(
    labels: np.ndarray, predictions: np.ndarray, *, limit: int
) -> list[ConfusedPair]:
    """Pairs (true class, predicted class) with the most errors, in descending order."""
    wrong = np.flatnonzero(labels != predictions)
    class_sizes = np.bincount(labels)
    pairs, pair_index, counts = np.unique(
        np.stack([labels, predictions], axis=1)[wrong],
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    return [
        ConfusedPair(
            label=int(pairs[i, 0]),
            prediction=int(pairs[i, 1]),
            examples=wrong[pair_index == i],
            share=counts[i] / class_sizes[pairs[i, 0]],
        )
        for i in np.argsort(-counts, kind="stable")[:limit]
    ]
