"""What the tool plants, and how it counts what the audit found."""

import io

import numpy as np
import pytest
from PIL import Image

from supcon_tf.errors import UserError
from tools import measure_audit


def files():
    """Twenty images of 20 x 10 px in two classes."""
    found = []
    for number in range(20):
        buffer = io.BytesIO()
        Image.new("RGB", (20, 10), (number, 0, 0)).save(buffer, "PNG")
        found.append(("ab"[number % 2], f"{number}.png", buffer.getvalue()))
    return found


def test_wrong_labels_and_copies_are_named(tmp_path):
    measure_audit.plant(tmp_path, files(), share=0.1, copies=8, seed=0)
    written = {path.name: path for path in tmp_path.rglob("*.png")}
    assert len(written) == 28
    wrong = [name.split("~") for name in written if name.startswith("wrong~")]
    assert len(wrong) == 2
    for _, label, name in wrong:
        assert label == "ab"[int(name.removesuffix(".png")) % 2]
        assert written[f"wrong~{label}~{name}"].parent.name != label
    copies = [name.split("~") for name in written if name.startswith("copy~")]
    assert sorted(kind for _, kind, _ in copies) == sorted(2 * list(measure_audit.COPIES))
    for _, kind, name in copies:
        assert name in written
        with Image.open(written[f"copy~{kind}~{name}"]) as image:
            assert image.size == {"resized": (10, 5), "cropped": (16, 8)}.get(kind, (20, 10))


def test_more_copies_than_images_are_rejected(tmp_path):
    with pytest.raises(UserError, match=r"--copies must be at most 18, .* got 19"):
        measure_audit.plant(tmp_path, files(), share=0.1, copies=19, seed=0)


def test_precision_recall_and_copies_are_counted(capsys):
    planted = ["wrong~a~1.png", "wrong~b~2.png", "copy~mirrored~3.png", "copy~cropped~4.png"]
    found = [
        {"path": "/x/b/wrong~a~1.png", "suggestion": "a"},
        {"path": "/x/b/5.png", "suggestion": "a"},
    ]
    measure_audit.report_label_errors(found, planted)
    pairs = [("3.png", "copy~mirrored~3.png"), ("3.png", "copy~cropped~4.png"), ("6.png", "7.png")]
    measure_audit.report_copies(
        [{f"path_{n + 1}": f"/x/{name}" for n, name in enumerate(pair)} for pair in pairs], planted
    )
    assert capsys.readouterr().out.splitlines() == [
        "label errors: 2 planted, 2 found, precision 0.500, recall 0.500; the suggestion is the "
        "true label of 1",
        "copies, recompressed: 0 of 0 found",
        "copies, resized: 0 of 0 found",
        "copies, mirrored: 1 of 1 found",
        "copies, cropped: 0 of 1 found",
        "other pairs: 2",
    ]


def test_the_digits_are_written_without_loss():
    label, name, content = measure_audit.digits()[0]
    assert (label, name) == ("0", "0000.png")
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (8, 8, 3)
    assert pixels[..., 0].tolist()[0] == [0, 0, 75, 195, 135, 15, 0, 0]
