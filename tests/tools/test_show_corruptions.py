"""The contact sheet of all corruptions."""

import numpy as np
import pytest

from supcon_tf.data.imagenet_c import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from supcon_tf.errors import UserError
from tools import show_corruptions
from tools.show_corruptions import GAP_PX, LABEL_PX, MARGIN_PX

NAMES = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)


def test_sheet_cells_are_the_seeded_corruptions():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    drawn = np.asarray(show_corruptions.sheet(image, seed=5, shown_px=32))
    step = 32 + GAP_PX
    assert drawn.shape == (LABEL_PX + 19 * step, MARGIN_PX + 6 * step, 3)

    def cell(row, column):
        top, left = LABEL_PX + row * step, MARGIN_PX + column * step
        return drawn[top : top + 32, left : left + 32]

    for name, severity in (("gaussian_noise", 1), ("fog", 5), ("saturate", 3)):
        expected = corrupt(image, corruption=name, severity=severity, seed=5, number=0)
        np.testing.assert_array_equal(cell(NAMES.index(name), severity), expected)
        np.testing.assert_array_equal(cell(NAMES.index(name), 0), image)


@pytest.mark.parametrize(("size", "side"), [((300, 500), 224), ((40, 60), 40), ((230, 225), 224)])
def test_centre_square_keeps_the_centre(size, side):
    image = np.zeros((*size, 3), np.uint8)
    image[size[0] // 2, size[1] // 2] = 255
    square = show_corruptions.centre_square(image)
    assert square.shape == (side, side, 3)
    assert square[side // 2, side // 2].max() == 255


def test_missing_and_damaged_images_are_rejected(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    output = f"--output={tmp_path / 'sheet.png'}"
    with pytest.raises(UserError, match="is not an image of a known format"):
        show_corruptions.main([f"--image={tmp_path / 'text.jpg'}", output])
    with pytest.raises(UserError, match="No such file"):
        show_corruptions.main([f"--image={tmp_path / 'none.png'}", output])
