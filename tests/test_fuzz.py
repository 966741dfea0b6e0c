"""Damaged and random files: a reader returns something or raises a UserError, and nothing else.

`FUZZ_EXAMPLES=5000 python -m pytest tests/test_fuzz.py` tries more.
"""

import contextlib
import io
import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from supcon_tf import config
from supcon_tf.data import sources
from supcon_tf.data.image_files import read_image
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF")


@contextlib.contextmanager
def one_line_errors():
    """Allows a UserError of one line."""
    try:
        yield
    except UserError as error:
        if "\n" in str(error):
            raise


def encoded(name):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (9, 7, 3), dtype=np.uint8))
    file = io.BytesIO()
    image.save(file, name)
    return file.getvalue()


IMAGES = {name: encoded(name) for name in FORMATS}


@st.composite
def damaged(draw, contents):
    """Some bytes replaced, a part removed, or bytes added."""
    data = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(0, 4))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    start, length = draw(st.integers(0, len(data))), draw(st.sampled_from([0, 0, 1, 8, len(data)]))
    return bytes(data[:start] + draw(st.binary(max_size=4)) + data[start + length :])


@fuzz
@given(content=damaged(list(IMAGES.values())), suffix=st.sampled_from([".png", ".tga", ""]))
def test_image_files(content, suffix, tmp_path):
    file = tmp_path / f"image{suffix}"
    file.write_bytes(content)
    with one_line_errors():
        pixels = read_image(file)
        assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)


TABLE = b'path,labels,split\n1.png,cat,train\n2.png,"dog;cat",train\n1.png,dog,test\n'


@fuzz
@given(content=damaged([TABLE, TABLE.replace(b",split", b""), "é,ü\n".encode("latin-1")]))
def test_tables(content, tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(IMAGES["PNG"])
    file = tmp_path / "images.csv"
    file.write_bytes(content)
    with one_line_errors():
        assert sources.table(str(file)).train.num_examples > 0


GIN = (
    b"include 'digits/supcon.gin'\npretrain.run.epochs = 3\n"
    b"A = 0.5  # a macro\nlosses.SupConLoss.temperature = %A\n"
    b"pretrain.run.augmentation = @views.simclr\nlinear/optimizers.LARS.momentum = 0.8\n"
)


@fuzz
@given(content=damaged([GIN, GIN.replace(b"\n", b"\r\n"), GIN.replace(b" = ", b" =\\\n")]))
def test_gin_files(content, tmp_path):
    # A random import would run its code.
    if b"import" in content or b"from" in content:
        return
    file = tmp_path / "mine.gin"
    file.write_bytes(content)
    with one_line_errors():
        assert config.is_complete(config.parse([str(file)], []))


RUN = json.dumps({"pretrain": [{"epoch": 1, "loss": 0.5}], "means": [0.5], "deviations": [1]})


@fuzz
@given(content=damaged([RUN.encode(), b"{}", b"[1, 2]", b"null"]))
@pytest.mark.parametrize("reader", ["metrics", "curve", "normalization", "started_stages"])
def test_files_of_a_run(content, reader, tmp_path):
    run_dir = RunDir(tmp_path)
    for file in (run_dir.metrics_file, run_dir.curves_file, run_dir.normalization_file):
        file.write_bytes(content)
    with one_line_errors():
        getattr(run_dir, reader)(*(["pretrain"] if reader == "curve" else []))
