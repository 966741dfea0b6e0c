"""The index: search, changes, files and calibration."""

import json
import math
import os

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.index import Index
from supcon_tf.json_files import write_checksums
from supcon_tf.search import calibration as calibration_module
from supcon_tf.search import detection, match_threshold
from supcon_tf.search import index as index_module
from tests.search.test_nearest import brute_force


def clusters(*, count=60, seed=0, noise=0.6, num_classes=4):
    """Embeddings [count, 6], paths and labels of some classes."""
    centers = np.random.default_rng(0).normal(size=(num_classes, 6))
    numbers = np.arange(count) % num_classes
    embeddings = centers[numbers] + noise * np.random.default_rng(seed).normal(size=(count, 6))
    return embeddings, [f"{i}.png" for i in range(count)], [f"class {n}" for n in numbers]


def test_embedding_search_returns_paths_and_labels_like_brute_force():
    embeddings, paths, labels = clusters()
    queries = np.random.default_rng(5).normal(size=(7, 6))
    found = Index(embeddings, paths, labels).search(queries, k=3)
    similarities, positions = brute_force(queries, embeddings, 3)
    np.testing.assert_allclose(found.similarities, similarities, atol=1e-6)
    assert found.paths.tolist() == [[paths[i] for i in row] for row in positions]
    assert found.labels.tolist() == [[labels[i] for i in row] for row in positions]
    unit = [e / np.linalg.norm(e) for e in embeddings]
    expected = [
        np.linalg.norm(q / np.linalg.norm(q) - unit[i[0]])
        for q, i in zip(queries, positions, strict=True)
    ]
    np.testing.assert_allclose(found.distances[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("approximate", [False, True])
def test_adding_and_removing_gives_the_index_of_the_remaining_images(approximate):
    embeddings, paths, labels = clusters()
    index = Index(embeddings[:40], paths[:40], labels[:40], approximate=approximate)
    index.remove([*paths[10:20], paths[39]])
    index.add(embeddings[40:], paths[40:], labels[40:])
    index.remove([paths[45]])
    index.add(embeddings[10:12], paths[10:12], labels[10:12])
    kept = [*range(10), *range(20, 39), *range(40, 45), *range(46, 60), 10, 11]
    expected = Index(embeddings[kept], [paths[i] for i in kept], [labels[i] for i in kept])
    assert (index.paths, index.labels, len(index)) == (expected.paths, expected.labels, len(kept))
    for k in (4, 100):
        found, wanted = index.search(embeddings, k), expected.search(embeddings, k)
        assert found.paths.tolist() == wanted.paths.tolist()
        np.testing.assert_allclose(found.similarities, wanted.similarities, atol=1e-6)


def test_search_is_approximate_above_the_limit_unless_asked_otherwise(monkeypatch):
    monkeypatch.setattr(index_module, "EXACT_LIMIT", 50)
    embeddings, paths, labels = clusters()
    index = Index(embeddings[:50], paths[:50], labels[:50])
    assert index._graph is None
    index.add(embeddings[50:], paths[50:], labels[50:])
    assert index._graph is not None
    assert Index(embeddings, paths, labels, approximate=False)._graph is None
    exact = Index(embeddings, paths, labels, approximate=False).search(embeddings, 3)
    assert index.search(embeddings, 3).paths.tolist() == exact.paths.tolist()


def test_a_missing_usearch_is_one_line_and_changes_nothing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "usearch.index", None)
    monkeypatch.setattr(index_module, "EXACT_LIMIT", 50)
    embeddings, paths, labels = clusters()
    index = Index(embeddings[:50], paths[:50], labels[:50])
    with pytest.raises(UserError, match=r"needs usearch: pip install '.\[search\]'"):
        index.add(embeddings[50:], paths[50:], labels[50:])
    assert len(index) == 50


@pytest.mark.parametrize("approximate", [None, True])
def test_a_loaded_index_is_the_saved_one(tmp_path, approximate):
    embeddings, paths, labels = clusters()
    paths[3] = os.fsdecode(b"caf\xe9.png")
    labels[4] = ""
    index = Index(embeddings, paths, labels, approximate=approximate)
    index.model_checksum = "abc"
    index.calibrate(unknown=-embeddings, unknown_score="mahalanobis")
    index.remove([paths[0]])
    index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    assert (loaded.paths, loaded.labels) == (index.paths, index.labels)
    assert (loaded.approximate, loaded.model_checksum) == (approximate, "abc")
    np.testing.assert_array_equal(loaded.embeddings, index.embeddings)
    for field in ("match", "thresholds", "detection", "num_unknown", "num_neighbors"):
        assert getattr(loaded.calibration, field) == getattr(index.calibration, field)
    np.testing.assert_array_equal(
        loaded.unknown_scores(embeddings), index.unknown_scores(embeddings)
    )
    for each in (loaded, index):
        each.add(embeddings[:1], ["new.png"])
    assert loaded.search(embeddings, 5).paths.tolist() == index.search(embeddings, 5).paths.tolist()
    # A second save replaces the first.
    loaded.save(tmp_path / "index")
    assert Index.load(tmp_path / "index").paths == loaded.paths
    assert os.listdir(tmp_path) == ["index"]


def saved(tmp_path, **options):
    embeddings, paths, labels = clusters()
    index = Index(embeddings, paths, labels, **options)
    index.calibrate()
    index.save(tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize("name", ["index.json", "index.npz", "graph.usearch"])
def test_a_changed_or_missing_file_is_refused(tmp_path, name):
    folder = saved(tmp_path, approximate=True)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}' has changed since it was written"):
        Index.load(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}' is missing|no index in"):
        Index.load(folder)


def accept_changes(folder):
    """Makes the checksums those of the files."""
    (folder / "checksums.json").unlink()
    write_checksums(folder)


def change_settings(folder, **changes):
    settings = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**settings, **changes}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 1}, "version 1 instead of 2: build it again"),
        ({"num_images": 59}, "damaged .ValueError: embeddings"),
        ({"next_key": 3}, "damaged .ValueError: keys"),
        ({"classes": ["a"]}, "damaged .IndexError"),
        ({"calibration": {"match": None}}, "damaged .KeyError"),
        ({"calibration": []}, "damaged .TypeError"),
        ({"classes": [1, 2, 3, 4]}, "damaged .ValueError: classes"),
        ({"next_key": 60.5}, "damaged .ValueError: next_key"),
        ({"approximate": "no"}, "damaged .ValueError: approximate"),
        ({"has_graph": 1}, "damaged .ValueError: has_graph"),
        ({"has_graph": True}, "graph.usearch' is damaged"),
        ({"model_checksum": 3}, "damaged .ValueError: model_checksum"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path, changes, says):
    folder = saved(tmp_path)
    change_settings(folder, **changes)
    accept_changes(folder)
    with pytest.raises(UserError, match=says):
        Index.load(folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"detection": []}, "detection"),
        ({"detection": {"knn": {"auroc": 1.5, "fpr95": 0.5, "aupr": 0.5}}}, "auroc of knn"),
        ({"detection": {"knn": {"auroc": 1, "fpr95": 0, "aupr": -1}}}, "aupr of knn"),
        ({"unknown_score": "foo"}, "unknown_score"),
        ({"thresholds": {"knn": math.nan, "mahalanobis": 1.0}}, "thresholds"),
        ({"thresholds": {"knn": "0.5", "mahalanobis": 1.0}}, "thresholds"),
        ({"thresholds": {"knn": 0.5}}, "thresholds"),
        ({"num_neighbors": 0}, "num_neighbors"),
        ({"num_images": 1.5}, "num_images"),
        ({"known_share": None}, "known_share"),
        ({"match": {"precision": 2}}, "precision"),
        ({"classes": [1]}, "classes of the calibration"),
        ({"match": {"similarity": math.inf}}, "similarity"),
        ({"match": {"num_matches": -1}}, "num_matches of match"),
    ],
)
def test_wrong_entries_of_a_calibration_are_refused(tmp_path, changes, says):
    folder = saved(tmp_path)
    calibration = json.loads((folder / "index.json").read_text())["calibration"]
    if "match" in changes:
        changes = {"match": {**calibration["match"], **changes["match"]}}
    change_settings(folder, calibration={**calibration, **changes})
    accept_changes(folder)
    with pytest.raises(UserError, match=f"damaged .ValueError: {says}.: build it again"):
        Index.load(folder)


@pytest.mark.parametrize("name", ["index.json", "index.npz", "graph.usearch"])
def test_a_missing_checksum_is_refused(tmp_path, name):
    folder = saved(tmp_path, approximate=True)
    checksums = json.loads((folder / "checksums.json").read_text())
    del checksums[name]
    (folder / "checksums.json").write_text(json.dumps(checksums))
    with pytest.raises(UserError, match=f"has no checksum of '{name}': build the index again"):
        Index.load(folder)


def test_arrays_with_python_objects_are_refused(tmp_path):
    folder = saved(tmp_path)
    with np.load(folder / "index.npz") as arrays:
        contents = dict(arrays)
    np.savez(folder / "index.npz", **{**contents, "keys": np.array([print] * 60, object)})
    accept_changes(folder)
    with pytest.raises(UserError, match=r"damaged .ValueError: .*allow_pickle=False"):
        Index.load(folder)


def test_a_graph_of_another_index_is_refused(tmp_path):
    folder = saved(tmp_path, approximate=True)
    (tmp_path / "other").mkdir()
    embeddings, paths, _ = clusters(count=5)
    Index(embeddings, paths, approximate=True).save(tmp_path / "other" / "index")
    graph = (tmp_path / "other" / "index" / "graph.usearch").read_bytes()
    for content, says in ((graph, "has 5 rows instead of 60"), (b"text", "is damaged")):
        (folder / "graph.usearch").write_bytes(content)
        accept_changes(folder)
        with pytest.raises(UserError, match=f"graph.usearch' {says}"):
            Index.load(folder)


def test_a_directory_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    embeddings, paths, labels = clusters()
    with pytest.raises(UserError, match=r"has 'photo.jpg', which is not a file of an index: give"):
        Index(embeddings, paths, labels).save(tmp_path)
    with pytest.raises(UserError, match=r"no index in .*supcon_tf.index makes one"):
        Index.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("photo.jpg", "text"),
        ("index.json", "{}"),
        ("index.json", "text"),
        ("index.json", None),
        ("graph.usearch/photo.jpg", "text"),
    ],
)
def test_only_a_directory_of_an_index_alone_is_replaced(tmp_path, file, content):
    folder = saved(tmp_path)
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    before = sorted(folder.rglob("*"))
    named = "checksums.json" if content is None else file.split("/")[0]
    with pytest.raises(UserError, match=f"has '{named}', which is not a file of an index"):
        Index([[1.0]], ["a"]).save(folder)
    assert sorted(folder.rglob("*")) == before


def test_a_file_is_not_replaced(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "index"):
        with pytest.raises(UserError, match="file' is not a directory: give a new directory"):
            Index([[1.0]], ["a"]).save(path)


def test_an_index_is_saved_to_the_current_directory_and_through_a_link(tmp_path, monkeypatch):
    folder = saved(tmp_path)
    (tmp_path / "link").symlink_to("index")
    Index([[1.0]], ["a"]).save(tmp_path / "link")
    assert Index.load(folder).paths == ("a",)
    assert (tmp_path / "link").is_symlink()
    monkeypatch.chdir(folder)
    Index([[1.0]], ["b"]).save(".")
    assert Index.load(folder).paths == ("b",)
    assert sorted(os.listdir(tmp_path)) == ["index", "link"]


def test_the_old_index_stays_if_the_new_one_fails_to_replace_it(tmp_path, monkeypatch):
    folder = saved(tmp_path)
    replace = os.replace

    def fail(source, target):
        if str(source).endswith("index.partial"):
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        Index([[1.0]], ["a"]).save(folder)
    assert len(Index.load(folder)) == 60


def test_thresholds_of_calibration_images_equal_those_of_hand_made_scores():
    embeddings, paths, labels = clusters()
    others, _, other_labels = clusters(count=30, seed=1)
    other_labels[0] = "class 3"  # A wrong label.
    unknown = np.random.default_rng(2).normal(size=(20, 6))
    index = Index(embeddings, paths, labels)
    found = index.calibrate(
        images=(others, other_labels), unknown=unknown, num_neighbors=3, precision=0.95
    )

    similarities, positions = brute_force(others, embeddings, 3)
    is_right = np.array(
        [labels[p[0]] == label for p, label in zip(positions, other_labels, strict=True)]
    )
    expected = match_threshold(similarities[:, 0].astype(np.float32), is_right, precision=0.95)
    assert found.match.similarity == pytest.approx(expected.similarity, abs=1e-6)
    assert (found.match.precision, found.match.recall) == (expected.precision, expected.recall)
    assert 0 < found.match.recall < 1
    known = np.sqrt(2 - 2 * similarities[:, -1])
    # 29 of 30 are the first share of at least 95 %.
    assert found.thresholds["knn"] == pytest.approx(sorted(known)[28], abs=1e-5)
    others_known = np.sqrt(2 - 2 * brute_force(unknown, embeddings, 3)[0][:, -1])
    assert found.detection["knn"].auroc == pytest.approx(
        detection(known, others_known).auroc, abs=1e-6
    )
    assert (found.num_images, found.num_unknown) == (30, 20)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([40, 30], 10), ([40, 6], 3), ([40, 1], 10), ([2, 2, 3], 1), ([1, 1], 1), ([], 10)],
)
def test_the_default_number_of_neighbors_stays_within_small_classes(counts, expected):
    # A class of one image is less than 5 % of 41 images.
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = np.concatenate([labels, [-1]]).astype(int)
    assert calibration_module.default_neighbors(labels) == expected


def test_without_calibration_images_each_fifth_is_compared_with_the_others():
    embeddings, paths, labels = clusters(count=43)
    labels[42] = "a class of one image"
    index = Index(embeddings, paths, labels)
    found = index.calibrate(num_neighbors=2, known_share=1.0)
    assert (found.num_images, found.match.num_images) == (42, 42)
    numbers = np.unique(labels, return_inverse=True)[1]
    positions, scores = calibration_module.cross_validated(
        index.embeddings, numbers, num_neighbors=2, seed=0
    )
    assert sorted(positions) == list(range(42))
    highest = []
    shares = list(calibration_module._shares(numbers, 0))
    assert (sum(shares) == [1] * 42 + [0]).all()
    for share in shares:
        similarities, nearest = brute_force(embeddings[share], embeddings[~share], 2)
        rows = np.flatnonzero(share)
        place = [list(positions).index(row) for row in rows]
        np.testing.assert_allclose(scores.similarities[place], similarities[:, 0], atol=1e-6)
        np.testing.assert_array_equal(scores.nearest_labels[place], numbers[~share][nearest[:, 0]])
        highest.append(np.sqrt(2 - 2 * similarities[:, 1].min()))
    assert found.thresholds["knn"] == pytest.approx(max(highest), abs=1e-5)


def test_many_images_are_calibrated_on_a_part_of_one_fifth(monkeypatch):
    monkeypatch.setattr(calibration_module, "_FEW_IMAGES", 50)
    monkeypatch.setattr(calibration_module, "_MAX_QUERIES", 7)
    embeddings, paths, labels = clusters()
    assert Index(embeddings, paths, labels).calibrate().num_images == 7


def test_images_without_labels_have_unknown_scores_but_no_matches():
    embeddings, paths, _ = clusters()
    index = Index(embeddings, paths)
    assert index.calibrate().match is None
    assert (index.unknown_scores(-10 * embeddings[:3]) > 0).all()


def test_both_unknown_scores_tell_a_far_class():
    embeddings, paths, labels = clusters(noise=0.1, count=200)
    index = Index(embeddings, paths, labels)
    for score in ("knn", "mahalanobis"):
        found = index.calibrate(unknown_score=score, unknown=-embeddings[:20])
        assert found.detection[score].auroc > 0.99
        scores = index.unknown_scores(np.concatenate([embeddings, -embeddings]))
        assert (scores[:200] > found.thresholds[score]).mean() <= 0.06
        assert (scores[200:] > found.thresholds[score]).mean() > 0.9


ONE = np.ones((1, 2))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: Index(ONE, ["a", "b"]),
            "paths must have one entry for each of 1 embeddings, got 2",
        ),
        (lambda: Index(ONE, "a"), r"paths must be a list, got 'a': put it into \[ \]"),
        (lambda: Index(ONE, ["a"], [3]), "labels must be text without NUL characters, got 3"),
        (lambda: Index(ONE, ["a\0"], ["b"]), "paths must be text without NUL"),
        (lambda: Index(np.ones((2, 2)), ["a", "a"]), "paths must differ, got 'a' twice"),
        (
            lambda: Index(ONE, ["a"]).add(ONE, ["a"]),
            "paths must differ, got 'a' twice: remove it first",
        ),
        (lambda: Index(ONE, ["a"]).add(np.ones((1, 3)), ["b"]), "embeddings of 2 numbers, got 3"),
        (lambda: Index(ONE, ["a"]).remove(["b"]), "the index has no image 'b'"),
        (lambda: Index(ONE, ["a"]).search(ONE, k=0), "k must be an integer >= 1, got 0"),
        (lambda: Index(ONE, ["a"], approximate="yes"), "approximate must be True, False or None"),
        (lambda: Index(ONE, ["a"]).unknown_scores(ONE), "has no calibration: call calibrate first"),
        (
            lambda: Index(ONE, ["a"], ["b"]).calibrate(),
            "if no class has two: give calibration images",
        ),
        (lambda: Index(ONE[:0], []).calibrate(), "an index without images cannot be calibrated"),
        (lambda: Index(ONE, ["a"]).calibrate(unknown_score="max"), "unknown_score must be one of"),
        (
            lambda: Index(ONE, ["a"], ["b"]).calibrate(images=(ONE, ["c"])),
            "images have the class 'c', which the index does not have: leave it out, or give",
        ),
        (
            lambda: Index(ONE, ["a"]).calibrate(images=(ONE, [""]), unknown=ONE[:0]),
            "unknown must have at least one embedding",
        ),
    ],
)
def test_wrong_arguments_are_rejected(call, says):
    with pytest.raises(UserError, match=says):
        call()
