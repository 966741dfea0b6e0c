"""Splits: images and labels, in an order that depends only on a seed and a position."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from supcon_tf.errors import UserError, check_number


@dataclasses.dataclass(frozen=True)
class IndexedSplit:
    """Images that are read by number, so that any batch can be made without the ones before.

    Args:
      labels: int64, [n] class numbers, -1 for no label; or [n, C] of 0 and 1 where an image may
        have several.
      read: number (int64 scalar tensor) -> image, either pixels [H, W, C] (uint8, or float32 in
        [0, 1]) or encoded (string). It is traced without AutoGraph.
      paths: the files in the same order; () without files.
      reads_batches: whether `read` also takes numbers [B] and returns pixels [B, H, W, C].
      in_memory: whether `read` never waits for a disk.
      names: returns the data set's own names of the images, such as the ids of a TFDS set; None
        where it has none.
    """

    labels: np.ndarray
    read: Callable[[tf.Tensor], tf.Tensor]
    paths: tuple[str, ...] = ()
    reads_batches: bool = False
    in_memory: bool = False
    names: Callable[[], tuple[str, ...]] | None = None

    @property
    def num_examples(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def is_multi_label(self) -> bool:
        """Whether labels are rows of 0 and 1 [C] instead of class numbers."""
        return self.labels.ndim == 2

    def shuffled(self, *, seed: int, start: int, stop: int) -> tf.data.Dataset:
        """(image, label) at positions start ... stop - 1 of the endless shuffled order."""
        numbers = self.shuffled_numbers(seed=seed, start=start, stop=stop)
        return tf.data.Dataset.from_tensor_slices(numbers).map(
            self.example, num_parallel_calls=tf.data.AUTOTUNE
        )

    def shuffled_numbers(self, *, seed: int, start: int, stop: int) -> np.ndarray:
        """The image numbers at positions start ... stop - 1 of the endless shuffled order.

        Each epoch of n positions is a new permutation drawn from (seed, epoch), so any position
        can be computed directly. int64 [stop - start].
        """
        size = self.num_examples
        first = start // size
        epochs = range(first, -(-stop // size))
        orders = [np.random.default_rng([seed, epoch]).permutation(size) for epoch in epochs]
        return np.concatenate(orders)[start - first * size : stop - first * size]

    def balanced_numbers(
        self,
        *,
        seed: int,
        start: int,
        stop: int,
        num_classes: int,
        samples_per_class: int,
        samples_in_a_row: int | None = None,
        repeat_images: bool = False,
    ) -> np.ndarray:
        """The image numbers of class-balanced batches start ... stop - 1.

        Each round shuffles the classes and cuts them into batches of `num_classes`; a remainder is
        dropped. Each class has an endless shuffled order of its images, and each round takes the
        next `samples_per_class` of them; the remainder of an epoch is skipped, so that no image is
        twice in a batch. With `repeat_images`, a class with fewer images than that goes on with its
        next epochs.

        Returns:
          int64 [stop - start, num_classes * samples_per_class], class by class, or the classes in
          turn with `samples_in_a_row` images each.

        Raises:
          UserError: fewer classes, or fewer images of a class, than asked for.
        """
        classes, counts = np.unique(self.labels, return_counts=True)
        if num_classes > len(classes):
            raise UserError(
                f"a batch of {samples_per_class} images of each of {num_classes} classes needs "
                f"{num_classes} classes, got {len(classes)}: raise samples_per_class or lower "
                "batch_size"
            )
        if counts.min() < samples_per_class and not repeat_images:
            raise UserError(
                f"samples_per_class must be at most {counts.min()}, the number of images of class "
                f"{classes[counts.argmin()]}, got {samples_per_class}: lower it, or set "
                "repeat_images = True"
            )
        members = [np.flatnonzero(self.labels == label) for label in classes]
        batches_per_round = len(classes) // num_classes

        @functools.lru_cache(maxsize=2 * len(classes))
        def class_order(number: int, epoch: int) -> np.ndarray:
            return np.random.default_rng([seed, 1, number, epoch]).permutation(members[number])

        def images(number: int, round_number: int) -> np.ndarray:
            size, wanted = int(counts[number]), samples_per_class
            if size >= wanted:
                epoch, part = divmod(round_number, size // wanted)
                return class_order(number, epoch)[part * wanted :][:wanted]
            first = round_number * wanted
            epochs = range(first // size, -(-(first + wanted) // size))
            orders = np.concatenate([class_order(number, epoch) for epoch in epochs])
            return orders[first % size :][:wanted]

        batches = []
        for step in range(start, stop):
            round_number, batch = divmod(step, batches_per_round)
            order = np.random.default_rng([seed, 0, round_number]).permutation(len(classes))
            chosen = order[batch * num_classes : (batch + 1) * num_classes]
            batches.append([images(number, round_number) for number in chosen])
        in_a_row = samples_in_a_row or samples_per_class
        shape = stop - start, num_classes, samples_per_class // in_a_row, in_a_row
        in_turn = np.array(batches, np.int64).reshape(shape).swapaxes(1, 2)
        return in_turn.reshape(stop - start, num_classes * samples_per_class)

    def in_order(self) -> tf.data.Dataset:
        """Every (image, label) once, in the stored order."""
        numbers = tf.data.Dataset.range(self.num_examples)
        return numbers.map(self.example, num_parallel_calls=tf.data.AUTOTUNE)

    def take(self, numbers: np.ndarray) -> "IndexedSplit":
        """A split of the images with these numbers, in this order."""
        chosen = tf.constant(numbers, tf.int64)
        paths = tuple(self.paths[number] for number in numbers) if self.paths else ()
        names = self.names
        return dataclasses.replace(
            self,
            labels=self.labels[numbers],
            read=lambda number: self.read(tf.gather(chosen, number)),
            paths=paths,
            names=None if names is None else lambda: tuple(np.array(names())[numbers].tolist()),
        )

    def example(self, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The image and label with this number, or a batch of them where `reads_batches`."""
        return self.read(number), tf.gather(tf.constant(self.labels, tf.int64), number)


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """Images that are read one after the other, as from a TFDS set too large for memory.

    Args:
      num_examples: number of images in one pass.
      one_pass: seed, or None for the stored order -> one pass over (image, label).
    """

    num_examples: int
    one_pass: Callable[[int | None], tf.data.Dataset]

    @property
    def is_multi_label(self) -> bool:
        """Whether labels are rows of 0 and 1 [C] instead of class numbers."""
        _, label = self.in_order().element_spec
        return label.shape.rank == 1

    def shuffled(self, *, seed: int, start: int, stop: int) -> tf.data.Dataset:
        """As `IndexedSplit.shuffled`, but skips the images before `start` by reading them."""
        return self.batched(seed=seed, start=start, stop=stop, batch_size=1)

    def batched(self, *, seed: int, start: int, stop: int, batch_size: int) -> tf.data.Dataset:
        """The (image, label) of batches start ... stop - 1, one by one.

        Epoch e starts a new pass at batch e * n // batch_size. The fewer than batch_size images
        left of the previous pass are dropped, as reaching them would mean reading that whole pass.
        """
        parts = []
        while start < stop:
            epoch = ((start + 1) * batch_size - 1) // self.num_examples
            begin, end = (e * self.num_examples // batch_size for e in (epoch, epoch + 1))
            end = min(end, stop)
            # The last batch of an epoch may need images of the next pass.
            images = self._pass(seed, epoch).concatenate(self._pass(seed, epoch + 1))
            images = images.skip((start - begin) * batch_size)
            parts.append(images.take((end - start) * batch_size))
            start = end
        return functools.reduce(tf.data.Dataset.concatenate, parts)

    def _pass(self, seed: int, epoch: int) -> tf.data.Dataset:
        pass_seed = np.random.SeedSequence([seed, epoch]).generate_state(1)[0] // 2
        return self.one_pass(int(pass_seed))

    def in_order(self) -> tf.data.Dataset:
        """Every (image, label) once, in the stored order."""
        return self.one_pass(None)


Split = IndexedSplit | StreamedSplit


def hold_out(labels: np.ndarray, share: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits image numbers in two, with the same share of each class and at least one image.

    With several labels per image the rarest class is split first (Sechidis et al. 2011, "On the
    Stratification of Multi-Label Data"). At least one image of each class is kept, so the share of
    a class is approximate.

    Args:
      labels: int64, [n] class numbers or [n, C] of 0 and 1.
      share: share of each class to hold out, in (0, 1).
      seed: seed of the choice.

    Returns:
      Kept and held-out numbers: two sorted int64 arrays that together are 0 ... n - 1.

    Raises:
      UserError: a share outside (0, 1), or a class with fewer than two images.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.data.splits import hold_out
      >>> kept, held_out = hold_out(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25, seed=0)
      >>> len(kept), len(held_out)
      (6, 2)
    """
    check_share(labels, share)
    if labels.ndim == 2:
        return _hold_out_multi_label(labels, share, seed)
    held_out = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        # Images without labels have the label -1, which is not a seed.
        order = np.random.default_rng([seed, max(int(label), 0)]).permutation(len(members))
        held_out.append(members[order[:count]])
    chosen = np.sort(np.concatenate(held_out)).astype(np.int64)
    return np.setdiff1d(np.arange(len(labels), dtype=np.int64), chosen), chosen


def check_share(labels: np.ndarray, share: float) -> None:
    """Raises a UserError unless a share of each class of these labels can be held out."""
    check_number("test_share or validation_share", share, above=0, below=1)
    if len(labels) < 2:
        raise UserError(f"at least two images are needed to hold one out, got {len(labels)}")
    if labels.ndim == 2:
        classes, counts = np.arange(labels.shape[1]), labels.sum(axis=0)
    else:
        classes, counts = np.unique(labels, return_counts=True)
    if (counts == 1).any():
        raise UserError(
            f"class number {classes[counts == 1][0]} has 1 image: two are needed, one to train on "
            "and one to hold out"
        )


def _hold_out_multi_label(
    labels: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    # Images without labels are one more class.
    rows = np.column_stack([labels, ~labels.any(axis=1)]).astype(bool)
    counts = rows.sum(axis=0)
    kept, is_held_out = counts.copy(), np.zeros(len(rows), bool)
    order = np.random.default_rng(seed).permutation(len(rows))
    is_done = np.zeros(len(counts), bool)
    for label in np.argsort(counts, kind="stable"):
        wanted = min(max(1, round(share * counts[label])), counts[label] - 1)
        members = order[rows[order, label] & ~is_held_out[order]]
        # Images of rarer classes come last: those classes have their share already.
        last = rows[members][:, is_done].any(axis=1)
        for number in (*members[~last], *members[last]):
            if counts[label] - kept[label] >= wanted:
                break
            if (kept[rows[number]] > 1).all():
                kept -= rows[number]
                is_held_out[number] = True
        is_done[label] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
