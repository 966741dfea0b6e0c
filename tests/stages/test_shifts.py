"""The classifier of a run on other test sets: classes matched by name, scores restricted to them."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import shifted
from supcon_tf.data.sources import Source
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError
from supcon_tf.evaluation import expected_calibration_error
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import shifts

GAINS = np.random.default_rng(0).normal(0, 12, (3, 1000)).astype(np.float32)


class MeanColour(tf.Module):
    """Scores of 1,000 classes, linear in the mean colour."""

    def __init__(self):
        self.gains = tf.Variable(GAINS)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def serve(self, images):
        means = tf.reduce_mean(tf.cast(images, tf.float32) / 255, axis=[1, 2])
        return {"probabilities": tf.nn.softmax(means @ self.gains)}


@pytest.fixture(scope="module")
def wordnet_ids():
    """The class names of TFDS' ImageNet, in its order."""
    import tensorflow_datasets as tfds

    return (
        tfds.builder_cls("imagenet2012").code_path.parent.joinpath("labels.txt").read_text().split()
    )


@pytest.fixture(scope="module")
def export(tmp_path_factory, wordnet_ids):
    """A model whose classes are in another order than the sorted one, and their names."""
    path = tmp_path_factory.mktemp("export")
    module = MeanColour()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    names = np.random.default_rng(1).permutation(wordnet_ids).tolist()
    (path / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    return path, names


@pytest.fixture(scope="module")
def images(wordnet_ids):
    """Images of different sizes of seven classes, (wordnet id, pixels)."""
    rng = np.random.default_rng(2)
    chosen = [wordnet_ids[n] for n in (999, 2, 17, 100, 101, 500, 3)]
    made = []
    for number in range(42):
        pixels = rng.integers(0, 256, 3) * rng.random((8 + number % 3, 9, 1))
        made.append((chosen[number % 7], pixels.astype(np.uint8)))
    return made


def written(root, images, folder_of=lambda name: name):
    for number, (name, pixels) in enumerate(images):
        file = root / folder_of(name) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tf.io.encode_png(pixels).numpy())
    return shifted.folder(str(root))


def scores_and_labels(images, names):
    """Restricted probabilities [n, 7], the plain ones [n, 1000] and their labels."""
    classes = sorted({name for name, _ in images}, key=names.index)
    means = np.stack([pixels.mean(axis=(0, 1)) for _, pixels in images]) / 255
    logits = means @ GAINS.astype(np.float64)
    kept = np.exp(logits[:, [names.index(name) for name in classes]])
    restricted = kept / kept.sum(axis=1, keepdims=True)
    return restricted, np.array([classes.index(name) for name, _ in images]), logits


def measured(folder, source, export, **options):
    run_dir = RunDir(folder)
    shifts.run(run_dir, source=source, export=str(export[0]), **options)
    return run_dir.shifts()


def test_scores_are_restricted_to_the_classes_of_the_set(tmp_path, export, images):
    names = export[1]
    source = written(tmp_path / "set", images)
    options = {"name": "mine", "num_classes": 7, "num_images": 42, "batch_size": 16}
    found = measured(tmp_path, source, export, **options)["mine"]
    scores, labels, logits = scores_and_labels(images, names)
    top_1 = np.mean(scores.argmax(axis=1) == labels)
    order = np.argsort(-scores, axis=1)
    assert (found["num_images"], found["num_classes"]) == (42, 7)
    assert found["top_1"] == pytest.approx(top_1)
    assert found["top_5"] == pytest.approx(np.mean((order[:, :5] == labels[:, None]).any(axis=1)))
    assert found["mean_per_class"] == pytest.approx(top_1)  # Six images of each class.
    loss = -np.log(scores[np.arange(42), labels]).mean()
    assert found["negative_log_likelihood"] == pytest.approx(loss, rel=1e-5)
    error = expected_calibration_error(scores, labels)
    assert found["expected_calibration_error"] == pytest.approx(error, abs=1e-5)
    # Without the restriction other classes have the highest scores.
    all_classes = [names.index(name) for name, _ in images]
    assert np.mean(logits.argmax(axis=1) == all_classes) < top_1 / 2


def test_sets_are_kept_together_and_measured_once(tmp_path, export, images, capsys):
    source = written(tmp_path / "set", images)
    assert list(measured(tmp_path, source, export, name="a")) == ["a"]
    before = measured(tmp_path, source, export, name="b")
    capsys.readouterr()
    assert measured(tmp_path, source, export, name="a") == before
    assert "a was measured before" in capsys.readouterr().out
    stage = json.loads((tmp_path / "metrics.json").read_text())["shifts"]
    assert stage["seconds"] == pytest.approx(sum(each["seconds"] for each in before.values()))

    # Results on another classifier do not stay beside those of this one.
    renamed = tmp_path / "names.txt"
    renamed.write_bytes((export[0] / "labels.txt").read_bytes())
    assert set(measured(tmp_path, source, export, name="a", class_names=str(renamed))) == {"a", "b"}
    results = {"sets": {"b": {**before["b"], "settings": {"classifier": "another"}}}}
    RunDir(tmp_path).set_metrics("shifts", results)
    assert list(measured(tmp_path, source, export, name="a")) == ["a"]
    assert "another classifier was measured on b" in capsys.readouterr().out


def test_other_class_names_and_no_other_path_are_another_classifier(
    tmp_path, export, images, capsys
):
    source, names = written(tmp_path / "set", images), tmp_path / "names.txt"
    shown = [name for name, _ in images[:2]]
    swapped = {shown[0]: shown[1], shown[1]: shown[0]}
    names.write_text("\n".join(swapped.get(name, name) for name in export[1]))
    wrong = measured(tmp_path, source, export, name="a", class_names=str(names))["a"]
    names.write_text("\n".join(export[1]))
    right = measured(tmp_path, source, export, name="a", class_names=str(names))["a"]
    assert right["negative_log_likelihood"] != wrong["negative_log_likelihood"]

    moved = shutil.copytree(export[0], tmp_path / "moved")
    capsys.readouterr()
    assert measured(tmp_path, source, (moved,), name="a")["a"] == right
    assert "a was measured before" in capsys.readouterr().out
    other = written(tmp_path / "other", images[:-1])
    measured(tmp_path, other, export, name="a")
    assert "a was measured on 'set " in capsys.readouterr().out


def test_the_test_split_has_the_same_restriction(tmp_path, export, images):
    names = export[1]
    source = written(tmp_path / "set", images)
    run_dir = RunDir(tmp_path)
    run_dir.export.symlink_to(export[0])
    rng = np.random.default_rng(3)
    labels = rng.permutation([*(names.index(name) for name, _ in images), *range(58)])
    probabilities = rng.dirichlet(np.ones(1000), 100).astype(np.float32)
    probabilities[np.arange(50), labels[:50]] += 0.002
    np.savez(run_dir.scored_split, probabilities=probabilities, labels=labels)
    shifts.run(run_dir, source=source)

    classes = sorted({names.index(name) for name, _ in images})
    chosen = np.isin(labels, classes)
    guesses = np.array(classes)[probabilities[chosen][:, classes].argmax(axis=1)]
    accuracy = np.mean(guesses == labels[chosen])
    assert 0.1 < accuracy < 0.9
    assert run_dir.shifts()["set"]["test_split_top_1"] == pytest.approx(accuracy)


def test_imagenet_r_of_tfds_is_read_by_its_class_names(tmp_path, export, images, monkeypatch):
    import tensorflow_datasets as tfds

    # JPEG keeps the colour of a flat image.
    flat = [
        (name, np.full((16, 16, 3), pixels.mean(axis=(0, 1)), np.uint8)) for name, pixels in images
    ]
    examples = [
        (n, {"image": pixels, "label": name, "file_name": str(n)})
        for n, (name, pixels) in enumerate(flat)
    ]
    monkeypatch.setattr(
        tfds.builder_cls("imagenet_r"), "_split_generators", lambda *_: {"test": iter(examples)}
    )
    tfds.builder("imagenet_r", data_dir=str(tmp_path / "tfds")).download_and_prepare()
    source = shifted.tfds("imagenet_r", data_dir=str(tmp_path / "tfds"))
    assert source.num_classes == 1000
    found = measured(tmp_path, source, export, num_classes=7)["imagenet_r"]
    scores, labels, _ = scores_and_labels(flat, export[1])
    assert found["num_classes"] == 7
    assert found["top_1"] == pytest.approx(np.mean(scores.argmax(axis=1) == labels), abs=1.5 / 42)
    with pytest.raises(UserError, match=r"imagenet_a' is not in .* set shifted.tfds.data_dir"):
        shifted.tfds("imagenet_a", data_dir=str(tmp_path / "tfds"))


def test_numbered_folders_are_positions_among_the_sorted_wordnet_ids(wordnet_ids, export):
    names = export[1]
    split = IndexedSplit(np.arange(1000), lambda number: number)
    folders = tuple(sorted(map(str, range(1000))))  # "0", "1", "10", "100", ...
    numbers = shifts.class_numbers(Source("v2", folders, split, split), names)
    for folder, number in zip(folders, numbers, strict=True):
        assert names[number] == wordnet_ids[int(folder)]


def test_a_set_that_does_not_fit_the_model_is_refused(tmp_path, export, images):
    source = written(tmp_path / "set", images)
    with pytest.raises(UserError, match=r"images of 7 classes, 200 are expected: complete it"):
        measured(tmp_path, source, export, num_classes=200)
    with pytest.raises(UserError, match=r"has 42 images, 30,000 are expected: complete it, or set"):
        measured(tmp_path, source, export, num_images=30_000)
    names = tmp_path / "names.txt"
    names.write_text("".join(f"thing {n}\n" for n in range(1000)))
    message = r"7 of 7 classes of 'set' are not among the 1000 classes of the model, such as 'n\d+'"
    with pytest.raises(UserError, match=message):
        measured(tmp_path, source, export, class_names=str(names))
    with pytest.raises(UserError, match="with the names of the model's classes: set"):
        measured(tmp_path, source, export, class_names="/nowhere")
    names.write_text("same\n" * 1000)
    with pytest.raises(UserError, match="two classes 'same'"):
        measured(tmp_path, source, export, class_names=str(names))
    (tmp_path / "set" / "n01440764").mkdir()
    (tmp_path / "set" / "n01440764" / "cut.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(UserError, match=r"1 of 43 images cannot be read, .*unreadable_limit"):
        shifted.folder(str(tmp_path / "set"))
    assert not RunDir(tmp_path).shifts()
