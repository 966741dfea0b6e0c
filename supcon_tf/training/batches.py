"""The images of a training stage, and the batches made of them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.data.normalization import measure
from supcon_tf.data.pipeline import Batches
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.sources import Source
from supcon_tf.data.splits import Split, StreamedSplit
from supcon_tf.errors import UserError
from supcon_tf.evaluation.cached_features import FeaturePassthrough, Features
from supcon_tf.evaluation.scorer import Scorer
from supcon_tf.files import expanded
from supcon_tf.models import InputScaling
from supcon_tf.run_dir import RunDir
from supcon_tf.training.config import TrainingConfig
from supcon_tf.training.encoder_io import pretraining_normalization


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The images of a stage and how batches are made of them.

    Args:
      source: labelled images.
      preprocessing: crop and scale, with known normalization constants.
      augmentation: random augmentation of the crops.
      batches: how batches are made, as `pipeline.training_batches`.
      features: cached features to train on in place of `source.train`; None for the images.
      seconds_of_features: time that computing them took.
    """

    source: Source
    preprocessing: Preprocessing
    augmentation: Augmentation
    batches: Callable[..., Batches]
    features: Features | None = None
    seconds_of_features: float = 0.0

    def train_split(self) -> Split:
        """The split to train on; with cached features, a copy of all of them."""
        return self.source.train if self.features is None else self.features.as_split()


class StepBatches:
    """The batches of training steps, in the form that the model takes.

    Args:
      data: the images.
      model: [B, V, H, W, C], several of these by name, or [B, H, W, C] -> {output: tensor}.
      config: batch size, seed and strategy.
      needs_positives: as in `pipeline.training_batches`.

    Raises:
      UserError: as in the function that makes the batches; cached features and augmentation on the
        device; or labelled rows, next to the unlabelled ones, that the replicas cannot share.

    The attribute `num_examples` is the number of training images; `inputs` and `labels` are the
    element specs of a batch.
    """

    def __init__(
        self,
        data: TrainingData,
        model: keras.Model,
        config: TrainingConfig,
        *,
        needs_positives: bool = False,
    ):
        # {name: shape} of a model that takes crops of several sizes.
        inputs = model.input if isinstance(model.input, dict) else {"views": model.input}
        self._split = data.train_split()
        self._data, self._config, self._needs_positives = data, config, needs_positives
        self._outputs = tuple(model.output)
        self._has_views = data.features is None and all(
            len(images.shape) == 5 for images in inputs.values()
        )
        self._num_views = (
            sum(images.shape[1] for images in inputs.values()) if self._has_views else 1
        )
        self._pipelines: dict[tuple[int, int], Batches] = {}
        self.num_examples = self._split.num_examples
        self.inputs, self.labels = self._pipeline(0, 1)(0, 1).element_spec
        labelled = (self.rows or config.batch_size) - config.batch_size
        if labelled % config.replicas:
            raise UserError(
                f"the {labelled} labelled rows of a batch must be a multiple of the "
                f"{config.replicas} replicas: change semi_supervised.batches.samples_per_class"
            )
        if self.is_deferred and data.features is not None:
            name = f"{config.stage}/pipeline.training_batches.defer_to_device"
            raise UserError(
                f"{config.stage}.run.cache_features leaves nothing to augment on the device: set "
                f"{name} = False"
            )

    @property
    def rows(self) -> int | None:
        """Samples of a batch, additional labelled ones included; None if their number varies."""
        return tf.nest.flatten(self.inputs)[0].shape[0]

    @property
    def is_deferred(self) -> bool:
        """Whether the batches are crops and seeds, to be augmented on the device."""
        return isinstance(self.inputs, dict) and "seeds" in self.inputs

    @property
    def one_pipeline(self) -> bool:
        """Whether one input pipeline may run through several epochs.

        False if the number of rows changes during training, or if the split is streamed: its
        pipeline grows with each epoch.
        """
        is_stream = isinstance(self._split, StreamedSplit)
        return self.rows == self._config.batch_size and not is_stream

    def __call__(self, start: int, stop: int) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        """The batches of steps start ... stop - 1, split over the replicas."""
        strategy = self._config.strategy
        return distribution.distribute_batches(strategy, self._host_batches, start, stop)

    def _host_batches(self, host: int, num_hosts: int, start: int, stop: int) -> tf.data.Dataset:
        return self._pipeline(host, num_hosts)(start, stop).map(
            lambda images, labels: (
                # [B, 1, ...] -> [B, ...] for a model without a view axis.
                images if self._has_views else tf.nest.map_structure(lambda x: x[:, 0], images),
                # Keras' metrics need labels for every output, also without a loss.
                dict.fromkeys(self._outputs, labels),
            )
        )

    def _pipeline(self, host: int, num_hosts: int) -> Batches:
        shard = (host, num_hosts)
        if shard not in self._pipelines:
            is_cached = self._data.features is not None
            self._pipelines[shard] = self._data.batches(
                self._split,
                preprocessing=FeaturePassthrough() if is_cached else self._data.preprocessing,
                augmentation=self._data.augmentation,
                num_views=self._num_views,
                batch_size=self._config.batch_size,
                num_classes=self._data.source.num_classes,
                seed=self._config.seed,
                shard=shard,
                needs_positives=self._needs_positives,
            )
        return self._pipelines[shard]


def with_cached_features(
    data: TrainingData,
    run_dir: RunDir,
    scorer: Scorer,
    encoder_file: Path,
    strategy: tf.distribute.Strategy,
) -> TrainingData:
    """Trains on features in place of images; the chief computes them once.

    Args:
      data: images.
      run_dir: where the features are kept.
      scorer: scores the model with the frozen encoder; from here on it scores features.
      encoder_file: the file that the encoder was loaded from.
      strategy: its workers wait for the chief.
    """
    if not run_dir.is_chief:
        distribution.wait_for_workers(strategy)
    features = scorer.cache_features(run_dir, data.source, encoder_file)
    if run_dir.is_chief:
        distribution.wait_for_workers(strategy)
    seconds = sum(split.seconds for split in features.values())
    return dataclasses.replace(data, features=features["training"], seconds_of_features=seconds)


def resolve_normalization(
    run_dir: RunDir,
    preprocessing: Preprocessing,
    source: Source,
    *,
    network: keras.Model,
    encoder: str | Path | None,
    keep: bool = False,
) -> Preprocessing:
    """Replaces normalization = "measure" by constants; refuses what does not fit the encoder.

    The constants come from an encoder that was trained elsewhere. Without one, they are measured
    once on the training images of this run.

    Args:
      run_dir: the run directory.
      preprocessing: crop and scale of the stage.
      source: its training images are measured.
      network: the model with the encoder.
      encoder: where the encoder was trained; None for this run.
      keep: whether later stages of this run use the constants of `encoder` too.

    Raises:
      UserError: no constants were measured for the encoder, the given ones are not those that were
        measured for it, or the encoder scales its images itself.
    """
    given = preprocessing.normalization
    if given is not None and any(isinstance(e, InputScaling) for e in network._flatten_layers()):
        raise UserError(
            "views.Preprocessing.normalization must be None for a pretrained encoder, which scales "
            f"its images itself, got {given!r}"
        )
    if given != "measure":
        measured = None if encoder is None else RunDir(expanded(encoder)).normalization()
        # Constants may be rounded.
        if measured is not None and (given is None or not np.allclose(given, measured, atol=1e-3)):
            raise UserError(
                f"the encoder {str(encoder)!r} was trained with views.Preprocessing.normalization "
                f"= {measured}, got {given!r}: set it to these, or to 'measure'"
            )
        return preprocessing
    if encoder is not None:
        constants = pretraining_normalization(encoder)
    else:
        constants = run_dir.normalization() or measure(preprocessing, source.train)
    if encoder is None or keep:
        run_dir.set_normalization(*constants)
    return dataclasses.replace(preprocessing, normalization=constants)
