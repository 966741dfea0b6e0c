"""Finding image files in folders, and splits that read them."""

import os

import numpy as np
import pytest
from PIL import Image

from supcon_tf.data.decode import decode
from supcon_tf.data.image_files import check_readable, find_images, read_image, split_of_files
from supcon_tf.errors import UserError


def save(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 5, 3), level, np.uint8)).save(path)
    return str(path)


def test_images_are_found_in_linked_and_nested_folders_but_not_in_a_circle(tmp_path):
    below = [
        save(tmp_path / "a" / name, 9) for name in ("1.png", "deep/2.TIF", "deep/er/3.jfif.png")
    ]
    save(tmp_path / "a" / ".hidden.png", 9)
    save(tmp_path / "other" / "4.bmp", 9)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    assert find_images([tmp_path / "a"]) == [*below, str(tmp_path / "a" / "link" / "4.bmp")]
    assert find_images([below[1], str(tmp_path / "other")]) == [
        below[1],
        str(tmp_path / "other" / "4.bmp"),
    ]


def test_files_without_suffix_are_images_by_their_content(tmp_path, capsys):
    os.rename(save(tmp_path / "1.png", 9), tmp_path / "picture")
    os.rename(save(tmp_path / "2.png", 9), tmp_path / "picture.old")
    (tmp_path / "notes").write_text("no image")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "more.txt").write_text("BMW and PPM")
    (tmp_path / "page.a\nb").write_text("no image")
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere")
    found = find_images([tmp_path])
    assert found == [str(tmp_path / "picture"), str(tmp_path / "picture.old")]
    said = capsys.readouterr().out
    for part in (
        r"2 .txt files",
        "1 .heic files",
        "1 files without a suffix",
        "2 FIFOs",
        r"1 '.a\nb' files",
    ):
        assert part in said
    assert said.count("\n") == 1


def test_paths_without_images_are_rejected(tmp_path):
    with pytest.raises(UserError, match="no image or folder '/nowhere'"):
        find_images(["/nowhere"])
    with pytest.raises(UserError, match="no image in "):
        find_images([tmp_path])
    for path in ("a\0b.png", b"a\0b.png"):
        for read in (read_image, lambda path: find_images([path])):
            with pytest.raises(
                UserError, match=r"must not have NUL characters, got 'a\\x00b\.png'"
            ):
                read(path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UserError, match=r"pipe\.jpg' is neither a regular file nor a folder"):
        find_images([tmp_path / "pipe.jpg"])


@pytest.mark.parametrize("checked", [False, True])
def test_split_reads_every_format_and_name(checked, tmp_path):
    names = ["1.png", "2.tif", "3.bmp", "k\udce4fer.png", "5.webp"]
    paths = []
    for level, name in enumerate(names):
        os.rename(save(tmp_path / f"made{os.path.splitext(name)[1]}", 40 * level), tmp_path / name)
        paths.append(str(tmp_path / name))
    check = check_readable(paths, 0.0, setting="limit") if checked else None
    if checked:
        assert check.unreadable == frozenset()
        assert check.converted == {paths[1]}
    split = split_of_files(paths, np.arange(5), check)
    for image, label in split.in_order():
        np.testing.assert_array_equal(decode(image), read_image(paths[int(label)]))
        assert int(decode(image)[0, 0, 0]) == 40 * int(label)
    assert split.in_order().element_spec[0].shape == ()


def test_split_of_jpeg_and_png_reads_with_one_operation(tmp_path):
    plain = split_of_files([save(tmp_path / "1.png", 1)], np.zeros(1, np.int64))
    nodes = plain.in_order()._map_func.function.graph.as_graph_def().node
    assert not {node.op for node in nodes} & {"If", "StatelessIf", "PyFunc", "PyFuncStateless"}


@pytest.mark.parametrize("path", ["/nowhere", b"/nowhere"])
def test_a_single_path_is_not_read_as_its_characters(path):
    with pytest.raises(UserError, match="must be a list of paths, got "):
        find_images(path)


def test_a_link_to_itself_is_left_out(tmp_path, capsys):
    image = save(tmp_path / "1.png", 9)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert find_images([tmp_path]) == [image]
    assert "broken links" in capsys.readouterr().out
