"""CSV files of images and labels as a source."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import sources
from supcon_tf.data.views import decode
from supcon_tf.errors import UserError

LABELS = ["dog;person", "dog", "cat", "person", "cat;dog;person", "cat", "dog", "person;cat"]


@pytest.fixture
def table(tmp_path):
    """Writes a table of the images 0.png ... 7.png; the number is the grey level."""
    for number in range(8):
        image = tf.fill([4, 5, 3], tf.cast(number, tf.uint8))
        (tmp_path / f"{number}.png").write_bytes(tf.io.encode_png(image).numpy())

    def write(*lines, header="path,labels", mark=""):
        file = tmp_path / "images.csv"
        file.write_text("\n".join([mark + header, *lines]) + "\n", encoding="utf-8")
        return str(file)

    return write


def written(labels, split=None):
    splits = [""] * len(labels) if split is None else [f",{name}" for name in split]
    pairs = zip(labels, splits, strict=True)
    return [f"{number}.png,{of_image}{name}" for number, (of_image, name) in enumerate(pairs)]


def rows_of(split):
    """{grey level: its row of labels}."""
    return {
        int(decode(image)[0, 0, 0]): label.numpy().tolist() for image, label in split.in_order()
    }


def test_several_labels_become_rows_of_0_and_1(table):
    splits = ["train"] * 5 + ["test", "test", "validation"]
    source = sources.table(
        # Columns in another order, a byte order mark and spaces, as spreadsheets write them.
        table(
            *(
                f"{name},{number}.png, {of_image.replace(';', ' ; ')}"
                for number, (of_image, name) in enumerate(zip(LABELS, splits, strict=True))
            ),
            header="split,path,labels",
            mark="\ufeff",
        )
    )
    assert source.is_multi_label
    assert (source.name, source.class_names) == ("images", ("cat", "dog", "person"))
    # cat, dog, person
    assert rows_of(source.train) == {
        0: [0, 1, 1], 1: [0, 1, 0], 2: [1, 0, 0], 3: [0, 0, 1], 4: [1, 1, 1],
    }  # fmt: skip
    assert rows_of(source.test) == {5: [1, 0, 0], 6: [0, 1, 0]}
    assert rows_of(source.validation) == {7: [1, 0, 1]}
    assert source.train.labels.dtype == np.int64


def test_one_label_each_is_single_label_unless_set_otherwise(table):
    file = table(*written(["dog", "cat"] * 4))
    source = sources.table(file, test_share=0.25)
    assert not source.is_multi_label
    np.testing.assert_array_equal(np.bincount(source.train.labels), [3, 3])
    np.testing.assert_array_equal(np.bincount(source.test.labels), [1, 1])
    assert all(label == 1 - level % 2 for level, label in rows_of(source.train).items())
    several = sources.table(file, multi_label=True)
    assert several.train.labels.shape[1:] == (2,)
    with pytest.raises(UserError, match=r"line 2 of .* has 2 labels: set .*multi_label = True"):
        sources.table(table(*written(LABELS)), multi_label=False)


def test_without_a_split_column_the_test_split_depends_on_the_seed_only(table):
    file = table(*written(LABELS))
    source = sources.table(file, test_share=0.25)
    assert sources.table(file, test_share=0.25).test.paths == source.test.paths
    assert len({sources.table(file, test_share=0.25, seed=s).test.paths for s in range(5)}) > 1
    assert not set(source.train.paths) & set(source.test.paths)
    assert source.train.num_examples + source.test.num_examples == 8
    assert source.train.labels.any(axis=0).all()
    assert source.test.labels.any(axis=0).all()


def test_unreadable_images_are_left_out(table, tmp_path, capsys):
    (tmp_path / "2.png").write_bytes(b"no picture")
    file = table(*written(LABELS))
    source = sources.table(file, unreadable_limit=0.2)
    assert source.train.num_examples + source.test.num_examples == 7
    said = capsys.readouterr()
    assert "left out 1 of 8 images" in said.out + said.err
    with pytest.raises(UserError, match=r"or raise sources\.table\.unreadable_limit"):
        sources.table(file)


SPLIT = "path,labels,split"


@pytest.mark.parametrize(
    ("header", "lines", "options", "says"),
    [
        ("file,labels", [], {}, "must be path,labels or path,labels,split, got file,labels"),
        ("path,labels,colour", [], {}, "got path,labels,colour"),
        ("", [], {}, "got an empty file"),
        ("path,labels", ["0.png,dog,cat"], {}, r"line 2 of .* has 3 columns, 2 are needed"),
        ("path,labels", ["0.png,dog", "1.png,"], {}, r"line 3 of .* lacks a label, got '1.png,'"),
        ("path,labels", ["0.png,dog;;cat"], {}, "lacks a label"),
        ("path,labels", [",dog"], {}, "lacks a path"),
        ("path,labels", ["0.png,a", "\0.png,b"], {}, r"line 3 of .* has a NUL character"),
        ("path,labels", ["0.png,a", "1.png,b", "./0.png,b"], {}, r"0.png' is in lines 2 and 4"),
        ("path,labels", ["0.png,a", "9.png,b"], {}, r"no image '.*9.png', which is in line 3 of"),
        ("path,labels", ["0.png,a", "1.png,a"], {}, r"at least two labels are needed in .* got \('a',\)"),
        ("path,labels", ["0.png,a;b", "1.png,a"], {}, r"the label 'b' of .* has 1 images, 2 needed"),
        (SPLIT, ["0.png,a,train", "1.png,b,dev"], {}, r"line 3 .* must be one of .*, got 'dev'"),
        (SPLIT, ["0.png,a;b,train"], {}, "no image of .* is in the split 'test'"),
        (SPLIT, ["0.png,a,train", "1.png,b,test"], {}, "'b' of .* has 0 training images, 1 needed"),
        (
            SPLIT,
            ["0.png,a;b,train", "1.png,b,test", "2.png,a,validation"],
            {"validation_share": 0.1},
            r"validation_share must be 0, got 0\.1",
        ),
    ],
)  # fmt: skip
def test_invalid_table_is_a_one_line_error(table, header, lines, options, says):
    with pytest.raises(UserError, match=says) as raised:
        sources.table(table(*lines, header=header), **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content", ["path,labels\nä.png,Käfer\n".encode("cp1252"), b'path,labels\n"' + b"a" * 200_000]
)
def test_file_that_is_not_csv_in_utf_8_is_rejected(content, tmp_path):
    file = tmp_path / "images.csv"
    file.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"images\.csv' is not UTF-8 or not CSV .*: save it as CSV"
    ):
        sources.table(str(file))


def test_a_link_to_another_image_of_the_table_is_the_same_image(table):
    file = table("0.png,dog", "1.png,cat", "link.png,cat")
    folder = Path(file).parent
    (folder / "link.png").symlink_to(folder / "0.png")
    with pytest.raises(UserError, match=r"link.png' is in lines 2 and 4"):
        sources.table(file)


def test_missing_table_is_rejected():
    with pytest.raises(UserError, match=r"no table '/nowhere\.csv'"):
        sources.table("/nowhere.csv")
    with pytest.raises(UserError, match=re.escape("sources.table.file = '/data/images.csv'")):
        sources.table()


def test_subsets_by_class_and_label_noise_need_one_label_per_image(table):
    source = sources.table(table(*written(LABELS)))
    for change in (
        lambda: sources.subset(source, per_class=1),
        lambda: sources.subset(source, fraction=0.5),
        lambda: sources.label_noise(source, probability=0.5),
    ):
        with pytest.raises(UserError, match="needs one label per image, but those of 'images' may"):
            change()
    assert sources.subset(source, first=3).train.labels.shape == (3, 3)


def test_table_without_a_labels_column_has_no_labels(table):
    source = sources.table(table(*(f"{n}.png" for n in range(8)), header="path"), test_share=0.25)
    assert not source.has_labels
    assert source.train.num_examples + source.test.num_examples == 8
    assert source.test.num_examples >= 1
    assert set(rows_of(source.train).values()) == {-1}
    split = ["train"] * 5 + ["test"] * 3
    lines = [f"{number}.png,{name}" for number, name in enumerate(split)]
    source = sources.table(table(*lines, header="path,split"))
    assert set(rows_of(source.test)) == {5, 6, 7}
    with pytest.raises(UserError, match=r"images\.csv' lists no images below its header"):
        sources.table(table(header="path"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"separator": ""}, "sources.table.separator must be text such as ';', got ''"),
        ({"root": ""}, "sources.table.root must be text such as '/data', got ''"),
        ({"unreadable_limit": -1.0}, "sources.table.unreadable_limit must be a number >= 0 and"),
        ({"test_share": 1.0}, "sources.table.test_share must be a number > 0 and < 1, got 1.0"),
        ({"validation_share": -0.1}, "sources.table.validation_share must be a number >= 0 and"),
        ({"seed": -1}, "sources.table.seed must be an integer >= 0, got -1"),
        ({"multi_label": "no"}, "sources.table.multi_label must be True, False or None, got 'no'"),
        ({"check_images": "no"}, "sources.table.check_images must be True or False, got 'no'"),
    ],
)
def test_option_of_a_table_out_of_range_is_rejected(table, options, says):
    with pytest.raises(UserError, match=says):
        sources.table(table(*written(["dog", "cat"] * 4)), **options)
