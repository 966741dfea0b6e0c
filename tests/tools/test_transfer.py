"""The table of the transfer sets: each run and its measure, failed runs, and one real run."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from supcon_tf import config
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.studies.study import TrialFailed
from tools import transfer

RESULTS = {"top_1": 0.5, "mean_per_class": 0.4, "mean_average_precision": 0.3}


@pytest.fixture
def asked(monkeypatch):
    """The files and settings of the runs, which have results without training."""
    asked = []

    def train(files, bindings, folder, lock, threads):
        asked.append((files, list(bindings)))
        config.parse(files, bindings)
        if folder.name == "dtd":
            raise TrialFailed("error: no such set")
        folder.mkdir()
        RunDir(folder).set_metrics("linear", RESULTS)

    monkeypatch.setattr(transfer, "train_in_subprocess", train)
    return asked


@pytest.fixture
def encoder(tmp_path):
    file = tmp_path / "encoder.keras"
    file.touch()
    return file


def test_each_set_has_its_file_and_measure(asked, encoder, tmp_path, capsys):
    options = [f"--encoder={encoder}", f"--workdir={tmp_path / 'out'}"]
    pets = tmp_path / "pets"
    for split in ("train", "test"):
        (pets / split).mkdir(parents=True)
    with pytest.raises(UserError, match="1 of 12 sets have no result"):
        transfer.main([*options, f"--root=pets={pets}", "--gin_param=linear.run.seed = 3"])
    assert [files for files, _ in asked] == [[f"transfer/{name}.gin"] for name in transfer.MEASURES]
    common = [f"linear.run.encoder = '{encoder}'", "linear.run.seed = 3"]
    bindings = {files[0]: given for files, given in asked}
    assert bindings["transfer/dtd.gin"] == common
    root = ["SOURCE = @sources.folder()", f"sources.folder.root = '{pets}'"]
    assert bindings["transfer/pets.gin"] == [*common, *root]
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 + 12
    top_1, per_class = "top 1 | 0.5000", "mean per class | 0.4000"
    expected = dict.fromkeys(("food101", "cifar10", "cifar100", "birdsnap", "sun397"), top_1)
    expected |= {"cars196": top_1, "dtd": "top 1 | error: no such set"}
    expected |= dict.fromkeys(("aircraft", "pets", "caltech101", "flowers102"), per_class)
    expected["voc2007"] = "mean average precision | 0.3000"
    assert sorted(rows[2:]) == sorted(f"| {name} | {rest} |" for name, rest in expected.items())


def test_images_are_scaled_as_the_encoders_run_did(asked, tmp_path):
    bindings = ["views.Preprocessing.image_px = 64"]
    resolved = config.parse(["semi/simclr_imagenet_resnet50.gin"], bindings)
    (tmp_path / "config.gin").write_text(resolved)
    transfer.main([f"--encoder={tmp_path}", f"--workdir={tmp_path / 'out'}", "--set=pets"])
    ((_, given),) = asked
    assert given == [
        "views.Preprocessing.image_px = 64",
        "views.Preprocessing.normalization = ((-0.03, -0.088, -0.188), (0.458, 0.448, 0.45))",
        f"linear.run.encoder = '{tmp_path}'",
    ]


def test_the_mean_is_over_all_sets(asked, encoder, tmp_path, capsys):
    options = [f"--encoder={encoder}", f"--workdir={tmp_path / 'out'}"]
    transfer.main([*options, "--set=pets", "--set=cars196"])
    assert capsys.readouterr().out.splitlines()[-1] == "| mean | | 0.4500 |"


def write_images(folder, counts, seed):
    """Two classes of overlapping brightness, 8 px; returns the pixels and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], counts)
    levels = 120 + 25 * labels[:, None] + rng.normal(scale=25, size=(len(labels), 3))
    noise = rng.normal(scale=20, size=(len(labels), 8, 8, 3))
    images = np.clip(levels[:, None, None] + noise, 0, 255).astype(np.uint8)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = folder / "ab"[label] / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tf.io.encode_png(image).numpy())
    return images, labels


def test_the_printed_result_is_scikit_learns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    images, labels = write_images(tmp_path / "photos" / "train", (18, 14), seed=0)
    test_images, test_labels = write_images(tmp_path / "photos" / "test", (23, 11), seed=1)
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(6, 3, activation="relu"),
            keras.layers.GlobalMaxPooling2D(),
        ]
    )
    encoder.save(tmp_path / "encoder.keras")
    options = ["--encoder=~/encoder.keras", "--root=pets=~/photos", "--workdir=~/out"]
    settings = ["views.Preprocessing.image_px = 8", "views.eval_crop.method = 'none'"]
    transfer.main(["--set=pets", *options, *(f"--gin_param={each}" for each in settings)])

    run = RunDir(tmp_path / "out" / "pets")
    (record,) = run.curve("linear")
    rows, test_rows = (
        encoder.predict(pixels / 127.5 - 1, verbose=0) for pixels in (images, test_images)
    )
    rows, test_rows = (each / np.linalg.norm(each, axis=1)[:, None] for each in (rows, test_rows))
    mean = rows.mean(axis=0)
    scale = np.sqrt(np.mean((rows - mean) ** 2))
    model = LogisticRegression(C=record["inverse_strength"], max_iter=1000)
    predicted = model.fit((rows - mean) / scale, labels).predict((test_rows - mean) / scale)
    # The mean of the two classes' accuracies.
    expected = balanced_accuracy_score(test_labels, predicted)
    assert 0.5 < expected < 1
    assert expected != pytest.approx(np.mean(predicted == test_labels), abs=1e-4)
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed == f"| pets | mean per class | {expected:.4f} |"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--encoder and --workdir are needed"),
        (["--encoder=a", "--workdir=b", "--root=mine=/data"], "--root must be SET=DIR .* 'mine'"),
        (["--encoder=a", "--workdir=b", "--root=pets"], "--root must be SET=DIR .* 'pets'"),
        (["--encoder=a", "--workdir=b", "--root=pets=/"], "--root=pets must be a folder of train/"),
        (["--encoder=a", "--workdir=b", "--root=voc2007=/d"], "a folder has one label per image"),
        (["--encoder=a", "--workdir=b", "--set=pet"], "pet"),
        (["--encoder=a", "--workdir=b"], "no encoder '.*/a': give a run directory"),
    ],
)
def test_wrong_options_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        transfer.main(options)
