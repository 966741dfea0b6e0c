"""Whole runs on images with several labels: training, results, report, export, prediction."""

import csv
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import predict
from supcon_tf.data import sources, views
from supcon_tf.data.mixing import mixup
from supcon_tf.data.pipeline import training_batches
from supcon_tf.errors import UserError
from supcon_tf.evaluation import mean_average_precision
from supcon_tf.losses import BinaryCrossEntropyLoss, CrossEntropyLoss
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import robustness
from supcon_tf.training.objective import classification_loss
from tests import small_runs

COLOURS = ("blue", "green", "red")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """48 small images; in each, some of three colour channels are bright."""
    root = tmp_path_factory.mktemp("data")
    lines = ["path,labels"]
    mixtures = [bits for bits in itertools.product((0, 1), repeat=3) if any(bits)]
    for number in range(48):
        bits = mixtures[number % 7]
        level = tf.constant([200 * bit + 30 for bit in reversed(bits)], tf.uint8)
        image = tf.broadcast_to(level, [20, 20, 3])
        (root / f"{number}.png").write_bytes(tf.io.encode_png(image).numpy())
        names = [name for name, bit in zip(COLOURS, bits, strict=True) if bit]
        lines.append(f"{number}.png,{';'.join(names)}")
    file = root / "colours.csv"
    file.write_text("\n".join(lines))
    return file


def run(workdir, table, *bindings):
    small_runs.run(
        workdir,
        "SOURCE = @sources.table()",
        f"sources.table.file = '{table}'",
        "sources.table.validation_share = 0.2",
        "pretrain.run.epochs = 1",
        "linear.run.epochs = 8",
        "linear/optimizers.warmup_schedule.base_learning_rate = 30.0",
        *bindings,
    )
    return RunDir(workdir)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, table):
    """SupCon on shared labels, and a linear classifier on cached features."""
    return run(tmp_path_factory.mktemp("run"), table, "linear.run.cache_features = True")


def test_a_run_measures_mean_average_precision_instead_of_accuracy(finished):
    pretrain, linear = (finished.metrics()[stage] for stage in ("pretrain", "linear"))
    assert {"probe_mean_average_precision", "knn_mean_average_precision"} <= set(pretrain)
    assert {"mean_average_precision", "mean_average_precision_area"} <= set(linear)
    for measured in (pretrain, linear):
        assert not [name for name in measured if "top_" in name or "per_class" in name]
    with np.load(finished.root / "test_split.npz") as kept:
        probabilities, labels = kept["probabilities"], kept["labels"]
    assert labels.shape == probabilities.shape
    assert linear["mean_average_precision"] == mean_average_precision(probabilities, labels)
    assert linear["mean_average_precision_area"] == mean_average_precision(
        probabilities, labels, interpolation="none"
    )
    assert list(linear["average_precisions"]) == list(COLOURS)
    assert np.mean([*linear["average_precisions"].values()]) == pytest.approx(
        linear["mean_average_precision"]
    )
    # Images of all three colours have three probabilities above a half.
    assert linear["mean_average_precision"] > 0.95
    assert ((probabilities > 0.5) == labels).mean() > 0.8


def test_the_curves_have_validation_mean_average_precision_and_no_accuracy(finished):
    for stage in ("pretrain", "linear"):
        for record in finished.curve(stage):
            assert {"accuracy", "validation_accuracy"}.isdisjoint(record)
            assert 0 <= record["validation_mean_average_precision"] <= 1
    losses = [record["loss"] for record in finished.curve("linear")]
    assert losses[-1] < losses[0] < 1.5


def test_the_report_has_average_precisions_and_no_confusion_matrix(finished):
    page = (finished.root / "report.html").read_text()
    assert "Average precision of each class" in page
    assert "several classes, or none" in page
    assert "blue, green, red" in page
    assert "Confusion matrix" not in page
    assert "predicted" not in page.split("Map of the test")[1].split("</p>")[0]


def test_the_export_has_sigmoids_and_predict_writes_all_labels(finished, table, tmp_path):
    model = keras.saving.load_model(finished.model("linear"), compile=False)
    files = [table.parent / f"{number}.png" for number in range(7)]
    outputs = {}
    for suffix in ("csv", "npz"):
        output = tmp_path / f"out.{suffix}"
        predict.main(
            [f"--export={finished.export}", f"--output={output}", "--images", *map(str, files)]
        )
        outputs[suffix] = output
    with np.load(outputs["npz"], allow_pickle=False) as written:
        probabilities, labels = written["probabilities"], written["labels"]
        embeddings = written["embeddings"]
    logits = model.get_layer("classifier")(embeddings)
    np.testing.assert_allclose(probabilities, tf.sigmoid(logits), atol=1e-5)
    names = [
        ";".join(name for name, p in zip(COLOURS, row, strict=True) if p >= 0.5)
        for row in probabilities
    ]
    assert labels.tolist() == names
    with outputs["csv"].open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["labels"] for row in rows] == names
    assert list(rows[0])[:3] == ["path", "labels", "embedding_0"]


def test_fine_tuning_takes_several_labels(finished, table, tmp_path, results_only):
    there = run(
        tmp_path / "tuned",
        table,
        "experiment.run.stages = ('finetune',)",
        f"finetune.run.encoder = '{finished.root}'",
        "finetune.run.augmentation = @views.identity",
        "finetune.run.epochs = 2",
        "finetune.run.batch_size = 8",
        "finetune/optimizers.warmup_schedule.base_learning_rate = 3.0",
        "sources.table.validation_share = 0.0",
    )
    assert 0 <= there.metrics()["finetune"]["mean_average_precision"] <= 1
    first, last = there.curve("finetune")
    assert last["loss"] < first["loss"]
    # Before the first step, the zero-initialised classifier gives each class the probability 0.5.
    assert first["loss"] < np.log(2) + 0.05


@pytest.fixture(scope="module")
def kinds(table):
    several = sources.table(str(table), check_images=False)
    one = sources.subset(sources.digits(), per_class=2)
    return several, one


def test_a_loss_for_the_other_kind_of_labels_is_rejected(kinds):
    several, one = kinds
    assert isinstance(classification_loss(None, several), BinaryCrossEntropyLoss)
    assert isinstance(classification_loss(None, one, ignore_class=-1), CrossEntropyLoss)
    ignoring = classification_loss(CrossEntropyLoss(label_smoothing=0.2), one, ignore_class=-1)
    assert (ignoring.label_smoothing, ignoring.ignore_class) == (0.2, -1)
    for loss in (CrossEntropyLoss(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)):
        with pytest.raises(ValueError, match=r"is for one label per image, those of 'colours' may"):
            classification_loss(loss, several)
        assert classification_loss(loss, one) is loss
    for loss in (BinaryCrossEntropyLoss(), keras.losses.BinaryCrossentropy(from_logits=True)):
        with pytest.raises(
            ValueError, match=r"is for images with several labels, those of 'digits"
        ):
            classification_loss(loss, one)
        assert classification_loss(loss, several) is loss


def test_a_keras_loss_of_probabilities_is_rejected(kinds):
    loss = keras.losses.SparseCategoricalCrossentropy()
    with pytest.raises(UserError, match=r"must have from_logits = True, as the model gives logits"):
        classification_loss(loss, kinds[1])


def batches_of(source, **options):
    return training_batches(
        source.train,
        preprocessing=views.Preprocessing(image_px=8),
        augmentation=views.identity,
        num_views=1,
        batch_size=6,
        num_classes=source.num_classes,
        seed=0,
        **options,
    )


def test_multi_hot_rows_are_mixed(kinds):
    several, _ = kinds
    ((_, rows),) = batches_of(several)(0, 1)
    ((_, mixed),) = batches_of(several, mixing=mixup)(0, 1)
    assert mixed.shape == rows.shape == (6, 3)
    # A blend of the batch with a permutation of itself.
    np.testing.assert_allclose(
        tf.reduce_sum(mixed, axis=0), tf.reduce_sum(tf.cast(rows, tf.float32), axis=0), rtol=1e-5
    )


def test_options_that_need_one_label_per_image_are_rejected(kinds, tmp_path):
    several, _ = kinds
    with pytest.raises(
        ValueError, match="samples_per_class must be None without one label per image"
    ):
        batches_of(several, samples_per_class=2)
    with pytest.raises(ValueError, match="the robustness stage needs one label per image"):
        robustness.run(RunDir(tmp_path), source=several)
