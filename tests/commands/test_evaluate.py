"""The command that measures and compares runs, and what the pages show of it."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from supcon_tf import config, evaluate, run_checks, train
from supcon_tf.data.imagenet_c import CORRUPTIONS
from supcon_tf.reporting import write_comparison, write_report
from supcon_tf.reporting.robustness import read_measured
from supcon_tf.run_dir import RunDir
from tests.commands.test_user_errors import failure_of
from tests.reporting.test_report import Page
from tests.stages.test_robustness import export

CHOSEN = ("fog", "contrast")
LINEAR = {"seconds": 1.0, "top_1": 0.75, "intervals": {"top_1": [0.5, 0.875]}}


@pytest.fixture
def photos(tmp_path):
    """Three classes of 32 px: red, green and blue noise."""
    for number in range(12):
        label = number % 3
        pixels = np.random.default_rng(number).integers(60, 120, (32, 32, 3))
        pixels[..., label] += 60
        file = tmp_path / "photos" / f"c{label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tf.io.encode_png(pixels.astype(np.uint8)).numpy())
    return tmp_path / "photos"


def finished_run(folder, photos):
    """A run directory with an export that recognises the colours."""
    folder.mkdir()
    export(folder / "export")
    bindings = [f"sources.folder.root = '{photos}'", "sources.folder.test_share = 0.5"]
    (folder / "config.gin").write_text(config.parse(["folder/supcon.gin"], bindings))
    (folder / "metrics.json").write_text(json.dumps({"linear": LINEAR}))
    return folder


def run(*workdirs, bindings=(), files=("robustness/on_the_fly.gin",), output=None):
    parameters = [
        f"robustness.run.corruptions = {CHOSEN}",
        "robustness.run.severities = (5,)",
        "corruptions.on_the_fly.processes = 1",
        *bindings,
    ]
    evaluate.main(
        [
            *(f"--workdir={workdir}" for workdir in workdirs),
            *(f"--gin_file={file}" for file in files),
            *(f"--gin_param={parameter}" for parameter in parameters),
            *([f"--output={output}"] if output else []),
        ]
    )


def continue_training(folder, photos, *bindings, file="robustness/on_the_fly.gin"):
    """Trains a finished run again, with an evaluation added."""
    parameters = [
        f"sources.folder.root = '{photos}'",
        "sources.folder.test_share = 0.5",
        "corruptions.on_the_fly.processes = 1",
        "robustness.run.severities = (5,)",
        *bindings,
    ]
    train.main(
        [
            "--gin_file=folder/supcon.gin",
            f"--gin_file={file}",
            f"--workdir={folder}",
            *(f"--gin_param={parameter}" for parameter in parameters),
        ]
    )


def test_runs_are_measured_once_and_compared(tmp_path, photos, capsys):
    folders = [finished_run(tmp_path / name, photos) for name in ("one", "two")]
    run(*folders)
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    assert [line[0] for line in lines if line[0] == "run"] == ["run"]
    for folder in folders:
        results = RunDir(folder).metrics()["robustness"]
        row = next(line for line in lines if line[0] == str(folder) and len(line) == 5)
        assert row[1] == f"{1 - results['clean_error']:.1%}"
        assert row[2] == f"{1 - results['unnormalized_mean_error']:.1%}"
        assert set(results["errors"]) == set(CHOSEN)
        assert "Corrupted images" in Page(folder / "report.html").headings
        # The training settings do not change.
        assert "evaluations" not in (folder / "config.gin").read_text().split("# Defaults")[0]
    page = Page(folders[0] / "compare.html")
    assert "Robustness of 2 runs" in page.text
    text = page.text.replace(" ", "")
    assert "Testsplit" in text
    assert text.count("75.0%50.0%to87.5%") == 2

    again = tmp_path / "again.html"
    run(*folders, output=again)
    assert capsys.readouterr().out.count("measured before") == 2
    assert Page(again).text == page.text

    before = RunDir(folders[0]).metrics()["robustness"]
    run(folders[0], bindings=["robustness.run.seed = 1"])
    assert "measuring on" in capsys.readouterr().out
    assert RunDir(folders[0]).metrics()["robustness"]["seconds"] != before["seconds"]
    with pytest.raises(ValueError, match="measured with different seed, 1 and 0"):
        write_comparison(folders, tmp_path / "compare.html")


def test_training_continues_with_the_evaluations_of_a_file(tmp_path, photos):
    folder = finished_run(tmp_path / "one", photos)
    (folder / "metrics.json").write_text(
        json.dumps({name: {"seconds": 1.0} for name in ("pretrain", "linear")})
    )
    continue_training(folder, photos, "robustness.run.corruptions = ('contrast',)")
    assert set(RunDir(folder).metrics()) == {"pretrain", "linear", "robustness"}


def test_training_repeats_an_evaluation_with_other_settings(tmp_path, photos, monkeypatch):
    folder = finished_run(tmp_path / "one", photos)
    run(folder, bindings=["robustness.run.max_images = 3"])
    metrics = RunDir(folder).metrics()
    assert metrics["robustness"]["num_images"] == 3
    RunDir(folder).set_metrics("pretrain", {"seconds": 1.0})
    monkeypatch.setattr(run_checks, "write_report", lambda root: root)
    for limit in (5, 3):
        continue_training(
            folder,
            photos,
            f"robustness.run.corruptions = {CHOSEN}",
            f"robustness.run.max_images = {limit}",
        )
        assert RunDir(folder).metrics()["robustness"]["num_images"] == limit

    # The settings in config.gin have not been measured yet.
    settings = (folder / "config.gin").read_text()
    assert "robustness.run.max_images = 3" in settings
    (folder / "config.gin").write_text(settings.replace("max_images = 3", "max_images = 4"))
    run(folder)
    assert RunDir(folder).metrics()["robustness"]["num_images"] == 4


def test_other_test_sets_are_measured_and_compared_without_corrupted_images(
    tmp_path, photos, capsys
):
    folders = [finished_run(tmp_path / name, photos) for name in ("one", "two")]
    for folder in folders:
        (folder / "export" / "labels.txt").write_text("c0\nc1\nc2\n")
    shutil.copytree(photos, tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "c1")
    (tmp_path / "set" / "c0" / "0.png").rename(tmp_path / "set" / "c2" / "0.png")
    bindings = [f"shifted.folder.root = '{tmp_path / 'set'}'", "shifts.run.num_classes = 2"]
    bindings.append("shifts.run.num_images = 8")
    run(*folders, files=["robustness/imagenet_r.gin"], bindings=bindings)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    for folder in folders:
        assert RunDir(folder).shifts()["imagenet_r"]["top_1"] == 7 / 8
        assert ["imagenet_r", str(folder), "8", "2", "87.5%"] in [row[:5] for row in rows]
        assert "Other test sets" in Page(folder / "report.html").headings
    page = Page(folders[0] / "compare.html")
    assert page.headings == ["Other test sets", "Test split"]
    assert page.text.count("87.5%") >= 2

    # Training adds another set to a finished run.
    RunDir(folders[0]).set_metrics("pretrain", {"seconds": 1.0})
    continue_training(folders[0], photos, *bindings, file="robustness/imagenet_a.gin")
    assert set(RunDir(folders[0]).shifts()) == {"imagenet_r", "imagenet_a"}


@pytest.mark.parametrize(
    ("file", "evaluation"),
    [
        *((file, "robustness") for file in ("on_the_fly", "imagenet_c", "cifar10_c")),
        *((f"imagenet_{name}", "shifts") for name in ("v2", "r", "a", "sketch")),
    ],
)
def test_robustness_files_parse_with_any_experiment_and_name_their_command(file, evaluation):
    for experiment in ("digits/cross_entropy.gin", "cifar10/supcon_resnet18.gin"):
        settings = config.parse([experiment, f"robustness/{file}.gin"], [])
        assert f"experiment.run.evaluations = ('{evaluation}',)" in settings
    header = config.find(f"robustness/{file}.gin").read_text().split("\n\n")[0]
    assert f"--gin_file=gin_configs/robustness/{file}.gin" in header


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--workdir is needed"),
        (["--workdir=/nowhere"], "no run in '/nowhere'"),
        (["--workdir=RUN", "--workdir=RUN/"], "each --workdir must be another directory"),
        (["--workdir=RUN", "--gin_param=robustness.run.sed = 1"], "did you mean 'seed'?"),
        (["--workdir=RUN", "--gin_param=robustness.run.corruptions = ('rain',)"], "corruptions must be some of"),
        (["--workdir=RUN", "--gin_file=robustness/imagenet_c.gin"], "Set corruptions.folder.root ="),
        (["--workdir=RUN", "--gin_param=corruptions.folder.root = '/nowhere'", "--gin_param=robustness.run.corrupted = @corruptions.folder"], "no folder '/nowhere': set corruptions.folder.root"),
        (["--workdir=RUN", "--gin_param=classifiers.saved_model.signature = 'x'"], "no signature 'x'"),
        (["--workdir=RUN", "--gin_param=robustness.run.baseline = '/nowhere'"], "no baseline at '/nowhere'"),
        (["--workdir=RUN", "--gin_file=robustness/imagenet_r.gin"], "Set shifted.folder.root ="),
        (["--workdir=RUN", "--gin_file=robustness/imagenet_r.gin", "--gin_param=shifted.folder.root = 'PHOTOS'"], "has 12 images, 30,000 are expected"),
        (["--workdir=RUN", "--gin_file=robustness/imagenet_r.gin", "--gin_param=shifted.folder.root = 'PHOTOS'", "--gin_param=shifts.run.num_images = None"], "images of 3 classes, 200 are expected"),
        (["--workdir=EMPTY"], "has no source of images"),
        (["--workdir=EMPTY", "--gin_param=experiment.run.evaluations = ('shifts',)"], "shifts.run.source = @shifted.folder()"),
    ],
)  # fmt: skip
def test_wrong_arguments_give_one_line(arguments, says, tmp_path, photos, capsys):
    finished_run(tmp_path / "run", photos)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.gin").write_text("experiment.run.stages = ('linear',)")
    names = {
        "RUN": str(tmp_path / "run"),
        "EMPTY": str(tmp_path / "empty"),
        "PHOTOS": str(photos),
    }
    for name, path in names.items():
        arguments = [argument.replace(name, path) for argument in arguments]
    code, error = failure_of(evaluate.main, *arguments, capsys=capsys)
    assert code == 2
    assert says in error
    assert error.strip().count("\n") == 0


def measured_run(folder, *, error=0.5, baseline=None, corruptions=CORRUPTIONS):
    """What the robustness stage leaves, with errors that grow with severity."""
    folder.mkdir()
    severities = (1, 2, 3, 4, 5)
    cells = {}
    errors = {name: [error + 0.05 * s for s in severities] for name in corruptions}
    for name, severity in [("clean", 0), *((n, s) for n in corruptions for s in severities)]:
        hits = round(100 * (1 - error - 0.05 * severity))
        counts, confidences, of_bin = ([0] * 15 for _ in range(3))
        counts[14], confidences[14], of_bin[14] = 100, 95.0, hits
        cells[f"{name}/{severity}"] = {
            "error": 1 - hits / 100,
            "calibration_error": 0.95 - hits / 100,
            "adaptive_calibration_error": 0.9 - hits / 100,
            "reliability": {"counts": counts, "confidences": confidences, "hits": of_bin},
            "example": {"label": 1, "guess": int(severity > 2), "probability": 0.75},
        }
        picture = RunDir(folder).robustness_example(name, severity)
        picture.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (severity * 50, 0, 0)).save(picture)
    settings = {"source": "s", "corrupted": "on the fly", "num_images": 100, "seed": 0}
    record = {"settings": settings, "class_names": ["<cat>", "dog"], "cells": cells}
    (folder / "robustness.json").write_text(json.dumps(record))
    results = {
        "clean_error": error,
        "unnormalized_mean_error": error + 0.15,
        "errors": errors,
        "severities": severities,
        "clean_calibration_error": 0.1,
        "calibration_errors": [0.1, 0.2, 0.3, 0.4, 0.5],
        "adaptive_calibration_errors": [0.1] * 5,
        "seconds": 1.0,
    }
    if baseline:
        results |= {
            "baseline": baseline,
            "mce": 80.0,
            "corruption_errors": dict.fromkeys(errors, 80.0),
        }
    (folder / "metrics.json").write_text(json.dumps({"robustness": results}))
    (folder / "config.gin").write_text("")
    return folder


def test_the_section_shows_what_was_measured(tmp_path):
    page = Page(write_report(measured_run(tmp_path / "run")))
    assert [plot["target_id"] for plot in page.plots] == [
        *("accuracy-by-severity", "calibration-by-severity", "corruptions", "reliability-0"),
    ]
    assert "Means are over 15 corruptions" in page.text
    assert "The corrupted accuracy is an unnormalized mean" in page.text
    # Clean images and severities 1 and 2 are classified as 0, the others correctly as 1.
    assert page.text.count("✗ <cat> (is dog) 75%") == 15 * 3
    assert page.text.count("✓ dog 75%") == 15 * 3
    pictures = [attrs for tag, attrs in page.elements if tag == "img"]
    assert len(pictures) == 15 * 6
    assert pictures[1]["alt"] == "dog, gaussian noise, severity 1"


def test_an_example_without_its_picture_is_shown_as_text(tmp_path):
    folder = measured_run(tmp_path / "run")
    RunDir(folder).robustness_example("fog", 3).unlink()
    page = Page(write_report(folder))
    assert len([tag for tag, _ in page.elements if tag == "img"]) == 15 * 6 - 1
    assert page.text.count("✓ dog 75%") == 15 * 3


def test_means_and_diagrams_cover_the_fifteen_corruptions_only(tmp_path):
    run = read_measured(measured_run(tmp_path / "run", corruptions=(*CORRUPTIONS, "spatter")))
    assert len(run.averaged) == 15
    assert run.by_severity("error")[5] == pytest.approx([0.75] * 15)
    pooled = run.reliability(5)
    assert pooled.counts.sum() == 1500
    assert pooled.error == pytest.approx(0.95 - 0.25)


def test_a_comparison_has_every_run_and_the_mce_of_one_baseline(tmp_path):
    runs = [
        measured_run(tmp_path / name, error=error, baseline="alexnet")
        for name, error in (("a", 0.5), ("b", 0.3))
    ]
    page = Page(write_comparison(runs, tmp_path / "compare.html"))
    assert "percent of the error of AlexNet" in page.text
    assert [plot["target_id"] for plot in page.plots][-2:] == ["reliability-0", "reliability-1"]
    addresses = [attrs["src"] for _, attrs in page.elements if "src" in attrs]
    assert all(address.startswith("data:") for address in addresses)
    policy = next(attrs["content"] for _, attrs in page.elements if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'")

    # Errors in percent of different baselines cannot be compared.
    other = measured_run(tmp_path / "c", baseline="runs/other")
    page = Page(write_comparison([*runs, other], tmp_path / "compare.html"))
    assert "The corrupted accuracy is an unnormalized mean" in page.text


def test_a_comparison_has_paired_differences_on_the_same_images(tmp_path):
    runs = [measured_run(tmp_path / name) for name in ("a", "b", "c", "d")]
    labels = np.arange(200) % 2
    sure = np.where(labels[:, None] == [0, 1], 0.8, 0.2)
    wrong = np.where(np.arange(200)[:, None] < 50, 1 - sure, sure)  # 25 points below.
    np.savez(runs[0] / "test_split.npz", probabilities=sure, labels=labels)
    np.savez(runs[1] / "test_split.npz", probabilities=wrong, labels=labels)
    np.savez(runs[2] / "test_split.npz", probabilities=sure, labels=1 - labels)  # Other images.
    np.savez(runs[3] / "test_split.npz", probabilities=sure, labels=labels, class_names=["x", "y"])
    page = Page(write_comparison(runs, tmp_path / "compare.html"))
    assert "Differences to a" in page.headings
    assert "With other test images or without class scores: c, d." in page.text
    number = r"([-+]\d+\.\d)"
    row = rf"likelihoodb{number},{number}to{number}([-+]\d\.\d{{3}}),"
    found = re.search(row, page.text.replace(" ", ""))
    assert found[1] == "-25.0"
    assert -31.5 < float(found[2]) < -29
    assert -21 < float(found[3]) < -18.5
    assert found[4] == f"{0.25 * np.log(0.8 / 0.2):+.3f}"

    page = Page(write_comparison([runs[0], runs[2]], tmp_path / "compare.html"))
    assert "With other test images or without class scores: c." in page.text

    (runs[1] / "test_split.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"test_split.npz' is damaged"):
        write_comparison(runs, tmp_path / "compare.html")


def test_an_unfinished_measurement_is_not_in_the_report(tmp_path):
    folder = measured_run(tmp_path / "run")
    record = json.loads((folder / "robustness.json").read_text())
    del record["cells"]["fog/3"]
    (folder / "robustness.json").write_text(json.dumps(record))
    assert "Corrupted images" not in Page(write_report(folder)).headings
    with pytest.raises(ValueError, match="has no results on corrupted images"):
        write_comparison([folder], tmp_path / "compare.html")
