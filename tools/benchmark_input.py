"""Times two-view input pipelines in samples per second; a sample is one image in two views.

python tools/benchmark_input.py --data_dir ~/tensorflow_datasets --images photos --plot input.png

At 32 px, from the same decoded uint8 images (10,000 of CIFAR-10, or made up without --data_dir),
SimCLR's recipe at strength 0.5 with torchvision's jitter formulas, no blur, normalization:

  ours exact, ours fused  supcon_tf.data.pipeline.training_batches, views.simclr with exact or not
  torchvision             transforms of PIL images in a DataLoader with a worker per core
  keras-cv                its layers on whole batches in tf.data. It tosses the coins of jitter and
                          grey once for a batch, not for each image; jitters in a fixed order, adds
                          brightness, and does not average where a crop shrinks

At 224 px, from real JPEGs held encoded in memory (--images, a folder with one folder per class),
ours against torchvision: simclr at strength 1 with blur, autoaugment with the paper's ImageNet
policy, stacked_randaugment. "Decoding only" decodes each whole JPEG once and does nothing else;
the last column but one is that time as a share of the contender's. It can exceed what is spent, as
ours decodes only the part of a JPEG that its views need.

Every contender runs alone, in a new process each time: it discards the first batches, for two
seconds or more, then measures for --seconds. An operation of TensorFlow (ours, and keras-cv) has
one thread, as one of torch has in a DataLoader's worker: calls and workers keep all cores busy. The
rounds go over all contenders in turn, as a machine's speed drifts; rates are medians with their
range, ratios to torchvision the medians of the ratios in a round. Mean and deviation of the views
tell whether contenders do the same work. One that cannot run is left out and named. --peer_python
names another interpreter that has torch and torchvision, --keras_cv_path a folder with keras-cv.
"""

import argparse
import functools
import io
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

SMALL, SIMCLR, AUTO, STACKED, DECODING = (
    "32 px, simclr",
    "224 px, simclr",
    "224 px, autoaugment",
    "224 px, stacked_randaugment",
    "224 px, decoding only",
)
CASES = {
    SMALL: ("ours exact", "ours fused", "torchvision", "keras-cv"),
    SIMCLR: ("ours exact", "ours fused", "torchvision"),
    AUTO: ("ours", "torchvision"),
    STACKED: ("ours", "torchvision"),
    DECODING: ("tf.io.decode_jpeg",),
}
CORES = os.cpu_count() or 1
# Of CIFAR-10, on the scale [-1, 1].
MEAN, DEVIATION = (-0.0172, -0.0356, -0.107), (0.4046, 0.3988, 0.402)
# While buffers fill, and tf.data finds out how many calls of the others to make at once.
WARM_UP_S = 2.0
# More than any pipeline gives, in samples/s for each core: it bounds the order drawn in advance.
TOP_RATE = 60_000


def ours(case: str, name: str, folder: Path, batch: int, seconds: float) -> Iterator[np.ndarray]:
    """Batches [B, 2, H, W, 3] of the package's own pipeline."""
    import tensorflow as tf

    from supcon_tf.data import views
    from supcon_tf.data.pipeline import training_batches
    from supcon_tf.data.splits import IndexedSplit

    if case == SMALL:
        images = tf.constant(np.load(folder / "pixels.npy"))
        crop = functools.partial(views.random_resized_crop, area_range=(0.2, 1.0))
        preprocessing = views.Preprocessing(32, crop=crop, normalization=(MEAN, DEVIATION))
    else:
        images = tf.constant(encoded_images(folder))
        preprocessing = views.Preprocessing(224)
    split = IndexedSplit(
        np.zeros(len(images), np.int64),
        lambda number: tf.gather(images, number),
        reads_batches=case == SMALL,
        in_memory=True,
    )
    simclr = functools.partial(views.simclr, jitter="torchvision", exact=name != "ours fused")
    augmentation = {
        SMALL: functools.partial(simclr, strength=0.5, blur_probability=0.0),
        SIMCLR: simclr,
        AUTO: functools.partial(views.autoaugment, policy="imagenet"),
        STACKED: functools.partial(views.stacked_randaugment, jitter="torchvision"),
    }[case]
    batches = training_batches(
        split,
        preprocessing=preprocessing,
        augmentation=augmentation,
        num_views=2,
        batch_size=batch,
        num_classes=1,
        seed=0,
    )
    dataset = batches(0, 1000 + int((WARM_UP_S + seconds) * TOP_RATE * CORES / batch))
    return (images for images, _ in dataset.as_numpy_iterator())


def keras_cv(folder: Path, batch: int) -> Iterator[np.ndarray]:
    """Batches [B, 2, 32, 32, 3] by the layers of keras-cv."""
    import keras_cv as library
    import tensorflow as tf

    pixels = np.load(folder / "pixels.npy")
    jitter = library.layers.RandomColorJitter(
        value_range=(0, 255),
        brightness_factor=(-0.4, 0.4),
        contrast_factor=0.4,
        # It scales by f / (1 - f): by 0.6 to 1.4; and turns the hue by half of its factor.
        saturation_factor=(0.375, 0.5833),
        hue_factor=0.2,
    )
    grey = library.layers.Grayscale(output_channels=3)
    flip = library.layers.RandomFlip("horizontal")
    crop = library.layers.RandomCropAndResize(
        (32, 32), crop_area_factor=(0.2, 1.0), aspect_ratio_factor=(3 / 4, 4 / 3)
    )

    def sometimes(layer: Any, images: tf.Tensor, probability: float) -> tf.Tensor:
        # Its RandomApply cannot be traced for a whole batch.
        coin = tf.random.uniform([]) < probability
        return tf.cond(coin, lambda: layer(images), lambda: images)

    def views_of(images: tf.Tensor) -> tf.Tensor:
        images = crop(flip(tf.cast(tf.repeat(images, 2, axis=0), tf.float32)))
        images = sometimes(grey, sometimes(jitter, images, 0.8), 0.2)
        images = (images * (2.0 / 255.0) - 1.0 - tf.constant(MEAN)) / tf.constant(DEVIATION)
        return tf.reshape(images, [batch, 2, 32, 32, 3])

    dataset = tf.data.Dataset.from_tensor_slices(pixels).shuffle(len(pixels)).repeat()
    dataset = dataset.batch(batch, drop_remainder=True)
    dataset = dataset.map(views_of, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def decoding(folder: Path, batch: int) -> Iterator[np.ndarray]:
    """Batches [B] of one number from each decoded JPEG."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(encoded_images(folder)).repeat()
    dataset = dataset.map(
        # A pixel, so that images of different sizes need no copy into a batch.
        lambda encoded: tf.io.decode_jpeg(encoded, channels=3)[0, 0, 0],
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return dataset.batch(batch).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


class TorchvisionViews:
    """A map-style data set for DataLoader: two views of each image."""

    def __init__(self, case: str, folder: Path):
        from torchvision import transforms as T

        simclr = [T.RandomGrayscale(0.2), T.RandomApply([T.GaussianBlur(23, (0.1, 2.0))], p=0.5)]
        jitter = [T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8)]
        weak_jitter = [T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)]
        distortions = {
            SMALL: [*weak_jitter, T.RandomGrayscale(0.2)],
            SIMCLR: [*jitter, *simclr],
            AUTO: [T.AutoAugment()],
            STACKED: [*jitter, T.RandAugment(2, 10), *simclr],
        }[case]
        if case == SMALL:
            self.images: Any = np.load(folder / "pixels.npy")
            crop = T.RandomResizedCrop(32, scale=(0.2, 1.0))
            # From [-1, 1] to the scale [0, 1] that it normalises on.
            mean = [(value + 1) / 2 for value in MEAN]
            scale = T.Normalize(mean, [value / 2 for value in DEVIATION])
        else:
            self.images = encoded_images(folder)
            crop, scale = T.RandomResizedCrop(224), T.Normalize([0.5] * 3, [0.5] * 3)
        self.transform = T.Compose(
            [crop, T.RandomHorizontalFlip(), *distortions, T.ToTensor(), scale]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Any:
        import torch
        from PIL import Image

        image = self.images[number]
        if isinstance(image, bytes):
            pixels = Image.open(io.BytesIO(image)).convert("RGB")
        else:
            pixels = Image.fromarray(image)
        return torch.stack([self.transform(pixels), self.transform(pixels)])


class EndlessOrder:
    """One random permutation of n numbers after the other, as starting an epoch costs workers."""

    def __init__(self, size: int):
        self.size = size

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(0)
        for _ in itertools.count():
            yield from rng.permutation(self.size).tolist()


def torchvision(case: str, folder: Path, batch: int) -> Iterator[np.ndarray]:
    """Batches [B, 2, 3, H, W] by torchvision."""
    import torch

    views = TorchvisionViews(case, folder)
    loader: Iterable[Any] = torch.utils.data.DataLoader(
        views,  # type: ignore[arg-type,unused-ignore]
        batch_size=batch,
        sampler=EndlessOrder(len(views)),
        num_workers=CORES,
    )
    return (images.numpy() for images in loader)


def encoded_images(folder: Path) -> list[bytes]:
    """The JPEGs as they are on disk, repeated to the number asked for."""
    wanted = json.loads((folder / "jpegs.json").read_text())
    files = [Path(path).read_bytes() for path in wanted["paths"]]
    return list(itertools.islice(itertools.cycle(files), wanted["count"]))


def measure(case: str, name: str, folder: Path, batch: int, seconds: float) -> dict[str, float]:
    """Runs in a process of its own: warms up, then counts samples for so long."""
    if name == "torchvision":
        batches = torchvision(case, folder, batch)
    elif name == "keras-cv":
        batches = keras_cv(folder, batch)
    elif case == DECODING:
        batches = decoding(folder, batch)
    else:
        batches = ours(case, name, folder, batch, seconds)
    # As many batches at a time as are made at a time, or some in the making would not count.
    rounds = max(1, -(-4 // CORES))
    views = np.concatenate([next(batches) for _ in range(rounds * CORES)])
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < WARM_UP_S:
        next(batches)
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        for _ in range(CORES):
            count += len(next(batches))
    return {
        "rate": count / elapsed,
        "mean": float(views.mean(dtype=np.float64)),
        "deviation": float(views.std(dtype=np.float64)),
    }


def prepare(folder: Path, args: argparse.Namespace) -> None:
    """Writes what all contenders get: pixels.npy, and the paths of the JPEGs."""
    if args.images:
        kinds = (".jpg", ".jpeg")
        found = sorted(args.images.glob("*/*"))
        paths = [str(path.resolve()) for path in found if path.suffix.lower() in kinds]
        if not paths:
            sys.exit(f"no JPEG in the folders of {args.images}")
        paths = paths[:: -(-len(paths) // args.jpegs)]
        (folder / "jpegs.json").write_text(json.dumps({"paths": paths, "count": args.jpegs}))
    if args.data_dir:
        from supcon_tf import cli

        cli.start_tensorflow()

        # isort: split
        import tensorflow as tf

        from supcon_tf.data import sources

        source = sources.tfds(
            "cifar10",
            data_dir=str(Path(args.data_dir).expanduser()),
            train_split="train[:10000]",
            test_split="test[:1]",
        )
        numbers = tf.range(source.train.num_examples)
        pixels = source.train.read(numbers).numpy()  # type: ignore[union-attr]
    else:
        rng = np.random.default_rng(0)
        coarse = rng.uniform(0, 255, (10_000, 5, 5, 3))
        # From 5 points to 32 pixels along each side, linearly in between.
        place = np.abs(np.linspace(0, 4, 32)[:, None] - np.arange(5))
        weights = np.maximum(1 - place, 0)
        pixels = np.einsum("ih,nhwc,jw->nijc", weights, coarse, weights, optimize=True)
        pixels = pixels.astype(np.uint8)
    np.save(folder / "pixels.npy", pixels)


def run_alone(
    case: str, name: str, folder: Path, args: argparse.Namespace
) -> dict[str, float] | None:
    """`measure` in a new process; None, and a line why, where that fails."""
    python = args.peer_python if name == "torchvision" else sys.executable
    command = [python, __file__, "--measure", case, name, "--folder", str(folder)]
    batch = args.batch if case == SMALL else args.large_batch
    command += ["--batch", str(batch), "--seconds", str(args.seconds)]
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
    }
    if name == "keras-cv" and args.keras_cv_path:
        before = environment.get("PYTHONPATH")
        paths = [args.keras_cv_path, before] if before else [args.keras_cv_path]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        finished = subprocess.run(command, capture_output=True, text=True, env=environment)
    except OSError as error:
        tqdm.write(f"{case}, {name}: left out: {error}", file=sys.stderr)
        return None
    if finished.returncode:
        # Killed, as for want of memory, it leaves no message.
        lines = finished.stderr.strip().splitlines() or [f"exit {finished.returncode}"]
        # Some errors go on for several lines.
        why = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)] or lines
        tqdm.write(f"{case}, {name}: left out: {why[-1]}", file=sys.stderr)
        return None
    return json.loads(finished.stdout.splitlines()[-1])


def summarize(measured: dict[tuple[str, str], list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Rates of all rounds -> one row for each contender."""
    rates = {
        key: np.array([figures["rate"] for figures in own]) for key, own in measured.items() if own
    }
    floor = [float(np.median(own)) for (case, _), own in rates.items() if case == DECODING]
    rows = []
    for (case, name), own in rates.items():
        row = {
            "case": case,
            "name": name,
            "rates": own.tolist(),
            "median": float(np.median(own)),
            "mean": float(np.mean([figures["mean"] for figures in measured[case, name]])),
            "deviation": float(np.mean([figures["deviation"] for figures in measured[case, name]])),
        }
        if (peer := rates.get((case, "torchvision"))) is not None and len(peer) == len(own):
            row["ratio"] = float(np.median(own / peer))
        if floor and case not in (SMALL, DECODING):
            row["decoding"] = row["median"] / floor[0]
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The table, in Markdown."""
    titles = (
        "case | contender | samples/s | range | times torchvision | decoding | views: mean, std"
    )
    print(f"| {titles} |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else "-"
        share = f"{row['decoding']:.0%}" if "decoding" in row else "-"
        views = f"{row['mean']:.2f}, {row['deviation']:.2f}" if row["case"] != DECODING else "-"
        print(
            f"| {row['case']} | {row['name']} | {row['median']:,.0f} | "
            f"{min(row['rates']):,.0f} to {max(row['rates']):,.0f} | {ratio} | {share} | {views} |"
        )


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """A bar for each contender, with its range and its ratio to torchvision."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    cases = list(dict.fromkeys(row["case"] for row in rows))
    parts = [[row for row in rows if row["case"] == case] for case in cases]
    figure, axes = pyplot.subplots(
        len(parts),
        1,
        figsize=(8, 0.6 * len(parts) + 0.4 * len(rows)),
        height_ratios=[len(part) + 1 for part in parts],
        squeeze=False,
        layout="constrained",
    )
    for axis, case, part in zip(axes[:, 0], cases, parts, strict=True):
        medians = np.array([row["median"] for row in part])
        lows = np.array([min(row["rates"]) for row in part])
        highs = np.array([max(row["rates"]) for row in part])
        colors = ["C0" if row["name"].startswith("ours") else "0.65" for row in part]
        places = np.arange(len(part))
        axis.barh(places, medians, color=colors, xerr=[medians - lows, highs - medians])
        for place, row in enumerate(part):
            ratio = f", {row['ratio']:.2f} x" if "ratio" in row else ""
            axis.text(max(row["rates"]), place, f"  {row['median']:,.0f}{ratio}", va="center")
        axis.set_yticks(places, [row["name"] for row in part])
        axis.set_xlim(0, 1.3 * highs.max())
        axis.set_title(case, loc="left", fontsize="medium")
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("samples/s (an image in two views), and times torchvision")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", help="where TFDS has cifar10; else images are made up")
    parser.add_argument("--images", type=Path, help="folders of JPEGs; else no case at 224 px")
    parser.add_argument("--jpegs", type=int, default=500, help="held in memory, default 500")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), metavar="CASE", help="some only")
    parser.add_argument("--batch", type=int, default=1024, help="at 32 px, default 1,024")
    parser.add_argument("--large_batch", type=int, default=32, help="at 224 px, default 32")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured each time, at least")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, default 3")
    parser.add_argument("--peer_python", default=sys.executable, help="interpreter with the peers")
    parser.add_argument("--keras_cv_path", help="folder to import keras_cv from")
    parser.add_argument("--json", help="write the figures there")
    parser.add_argument("--plot", help="write a picture there")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        case, name = args.measure
        print(json.dumps(measure(case, name, args.folder, args.batch, args.seconds)))
        return
    cases = args.cases or [case for case in CASES if case == SMALL or args.images]
    if not args.images and set(cases) != {SMALL}:
        parser.error("the cases at 224 px need --images")
    measured: dict[tuple[str, str], list[dict[str, float]]] = {
        (case, name): [] for case in cases for name in CASES[case]
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, args)
        turns = [key for _ in range(args.repeats) for key in measured]
        left_out = set()
        for key in tqdm(turns, unit="run", disable=None):
            if key in left_out:
                continue
            case, name = key
            figures = run_alone(case, name, folder, args)
            if figures is None:
                left_out.add(key)
            else:
                measured[key].append(figures)
    rows = summarize({key: own for key, own in measured.items() if key not in left_out})
    show(rows)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
