"""Times two-view input pipelines in samples per second; a sample is one image in two views.

examples:
  python tools/benchmark_input.py --data_dir ~/tensorflow_datasets --images photos --plot input.png
  python tools/benchmark_input.py --seconds 2 --repeats 1

32 px: all contenders read the same decoded uint8 images (10,000 of CIFAR-10; without --data_dir,
synthetic ones). The recipe is SimCLR's at strength 0.5 with torchvision's jitter formulas, no blur,
and normalization:

  ours exact, ours fused  supcon_tf.data.pipeline.training_batches with views.simclr, exact or not
  torchvision             transforms of PIL images in a DataLoader with one worker per core
  keras-cv                its layers on whole batches in tf.data; it decides on jitter and grey once
                          per batch, not per image, jitters in a fixed order, adds brightness, and
                          does not average when a crop shrinks

224 px: JPEGs held encoded in memory (--images, a folder with one folder per class), ours against
torchvision: simclr at strength 1 with blur, autoaugment with the paper's ImageNet policy, and
stacked_randaugment. "decoding only" decodes each whole JPEG once. Its time as a share of the
contender's is the column "decoding". The share can exceed 100 %, because ours decodes only the part
of a JPEG that its views need.

Every contender runs alone, in a new process each time, warms up for two seconds and is then
measured for --seconds. TensorFlow operations use one thread each, as torch's do in a DataLoader
worker; parallel calls and workers keep all cores busy. Each round runs all contenders in turn,
since a machine's speed drifts. Rates are medians with their range; a ratio to torchvision is the
median of the ratios within a round. Mean and deviation of the views show whether contenders do the
same work. A contender that cannot run is reported and left out.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import contenders
import numpy as np
from input_pipelines import CASES, CORES, DECODING, SMALL, pipeline
from tqdm import tqdm

# Time for buffers to fill and for tf.data to tune the number of parallel calls.
WARM_UP_S = 2.0
# Samples/s per core that no pipeline reaches: bounds how many samples are requested.
MAX_RATE = 60_000


def measure(case: str, name: str, folder: Path, batch: int, seconds: float) -> dict[str, float]:
    """Warms up, then counts the samples of a contender for some seconds."""
    max_samples = int((WARM_UP_S + seconds) * MAX_RATE * CORES)
    batches = pipeline(case, name, folder, batch, max_samples)
    # Whole rounds: CORES batches are made at a time, and unfinished ones do not count.
    rounds = max(1, -(-4 // CORES))
    views = np.concatenate([next(batches) for _ in range(rounds * CORES)])
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < WARM_UP_S:
        next(batches)
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for _ in range(CORES):
            count += len(next(batches))
    return {
        "rate": count / elapsed,
        "mean": float(views.mean(dtype=np.float64)),
        "deviation": float(views.std(dtype=np.float64)),
    }


def prepare(folder: Path, args: argparse.Namespace) -> None:
    """Writes what all contenders read: pixels.npy, and jpegs.json with the paths of the JPEGs."""
    if args.images:
        files = sorted(args.images.glob("*/*"))
        paths = [str(file.resolve()) for file in files if file.suffix.lower() in (".jpg", ".jpeg")]
        if not paths:
            sys.exit(f"no JPEG in the folders of {args.images}")
        paths = paths[:: -(-len(paths) // args.jpegs)]
        (folder / "jpegs.json").write_text(json.dumps({"paths": paths, "count": args.jpegs}))
    np.save(folder / "pixels.npy", cifar_images(args.data_dir) if args.data_dir else synthetic())


def cifar_images(data_dir: str) -> np.ndarray:
    """The first 10,000 training images of CIFAR-10, uint8 [10000, 32, 32, 3]."""
    from supcon_tf import cli

    cli.start_tensorflow()
    import tensorflow as tf

    from supcon_tf.data import sources

    source = sources.tfds(
        "cifar10",
        data_dir=str(Path(data_dir).expanduser()),
        train_split="train[:10000]",
        test_split="test[:1]",
    )
    numbers = tf.range(source.train.num_examples)
    return source.train.read(numbers).numpy()  # type: ignore[union-attr]


def synthetic() -> np.ndarray:
    """Smooth random images, uint8 [10000, 32, 32, 3]."""
    coarse = np.random.default_rng(0).uniform(0, 255, (10_000, 5, 5, 3))
    # Linear interpolation from 5 points to 32 pixels along each side.
    position = np.abs(np.linspace(0, 4, 32)[:, None] - np.arange(5))
    weights = np.maximum(1 - position, 0)
    pixels = np.einsum("ih,nhwc,jw->nijc", weights, coarse, weights, optimize=True)
    return pixels.astype(np.uint8)


def run_alone(
    case: str, name: str, folder: Path, args: argparse.Namespace
) -> dict[str, float] | None:
    """Runs `measure` in a new process; None if that fails."""
    python = args.peer_python if name == "torchvision" else sys.executable
    batch = args.batch if case == SMALL else args.large_batch
    command = [python, __file__, "--measure", case, name, "--folder", str(folder)]
    command += ["--batch", str(batch), "--seconds", str(args.seconds)]
    environment = {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    if name == "keras-cv" and args.keras_cv_path:
        paths = [args.keras_cv_path, os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return contenders.run_alone(f"{case}, {name}", command, environment)


def summarize(measured: dict[tuple[str, str], list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Reduces (case, contender) -> figures of each round to one row per contender."""
    rates = {
        key: np.array([figures["rate"] for figures in rounds])
        for key, rounds in measured.items()
        if rounds
    }
    decoding = [float(np.median(own)) for (case, _), own in rates.items() if case == DECODING]
    rows = []
    for (case, name), own in rates.items():
        rounds = measured[case, name]
        row = {
            "case": case,
            "name": name,
            "rates": own.tolist(),
            "median": float(np.median(own)),
            "mean": float(np.mean([figures["mean"] for figures in rounds])),
            "deviation": float(np.mean([figures["deviation"] for figures in rounds])),
        }
        if (peer := rates.get((case, "torchvision"))) is not None and len(peer) == len(own):
            row["ratio"] = float(np.median(own / peer))
        if decoding and case not in (SMALL, DECODING):
            row["decoding"] = row["median"] / decoding[0]
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the Markdown table."""
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
    """Draws a bar per contender, with its range and its ratio to torchvision."""
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
    axes[-1, 0].set_xlabel("samples/s (two views each), and times torchvision")
    figure.savefig(path, dpi=120)


def parse_args() -> argparse.Namespace:
    parser = contenders.parser(__doc__)
    parser.add_argument(
        "--data_dir", help="where TFDS has cifar10; without it, images are synthetic"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="one folder of JPEGs per class; for 224 px"
    )
    parser.add_argument("--jpegs", type=int, default=500, help="JPEGs in memory, default 500")
    parser.add_argument(
        "--cases", nargs="+", choices=list(CASES), metavar="CASE", help="default: all"
    )
    parser.add_argument("--batch", type=int, default=1024, help="at 32 px, default 1,024")
    parser.add_argument("--large_batch", type=int, default=32, help="at 224 px, default 32")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement, default 5")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, default 3")
    parser.add_argument("--keras_cv_path", metavar="DIR", help="folder to import keras_cv from")
    parser.add_argument("--json", metavar="FILE", help="results to write")
    parser.add_argument("--plot", metavar="FILE.png", help="picture to write")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.cases = args.cases or [case for case in CASES if case == SMALL or args.images]
    if not args.images and not args.measure and set(args.cases) != {SMALL}:
        parser.error("the cases at 224 px need --images")
    return args


def main() -> None:
    args = parse_args()
    if args.measure:
        case, name = args.measure
        print(json.dumps(measure(case, name, args.folder, args.batch, args.seconds)))
        return
    measured: dict[tuple[str, str], list[dict[str, float]]] = {
        (case, name): [] for case in args.cases for name in CASES[case]
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, args)
        for case, name in tqdm(list(measured) * args.repeats, unit="run", disable=None):
            if (case, name) not in measured:
                continue
            figures = run_alone(case, name, folder, args)
            if figures is None:
                del measured[case, name]
            else:
                measured[case, name].append(figures)
    rows = summarize(measured)
    show(rows)
    contenders.write_json(args.json, rows)
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
