"""Times the contrastive losses, forward and backward, and measures their memory and accuracy.

examples:
  python tools/benchmark_loss.py --rows 2048 8192 16384 --plot loss.png
  python tools/benchmark_loss.py --rows 8192 --losses all --contenders streaming "torch formula"
  python tools/benchmark_loss.py --rows 2048 --peer_python /path/with/torch/bin/python

Every contender runs in its own process, with the same features, labels and threads:

  dense, streaming   the function of supcon_tf.losses, supcon_loss by default
  torch formula      the loss's equation in PyTorch
  torch library      pytorch_metric_learning.losses.SupConLoss, of loss supcon only
  floor, torch floor two N x D x N matrix products in TensorFlow and in PyTorch, a lower bound

The extra `bench` installs the peers. The memory is the process's peak minus its peak after a small
step. The gradient error is the largest difference to a float64 gradient, relative to that
gradient's largest entry, for loss supcon without options; for the others it is the difference to
the formula in PyTorch, if that is measured.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contenders
import numpy as np
from benchmarked_losses import LOSSES, TEMPERATURE, tensorflow_loss, torch_formula
from tqdm import tqdm

Step = Callable[[], Any]

TENSORFLOW = ("dense", "streaming", "floor")
TORCH = ("torch formula", "torch library", "torch floor")
# These do not depend on the loss.
WITHOUT_LOSS = ("floor", "torch floor", "torch library")


def tensorflow_step(
    name: str, loss: str, features: np.ndarray, labels: np.ndarray, threads: int, options: Any
) -> Step:
    """A compiled step that returns the gradient of the mean loss as an array."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    rows = tf.constant(features)
    if name == "floor":
        floor = tf.function(lambda x: tf.matmul(tf.matmul(x, x, transpose_b=True), x))
        return lambda: floor(rows).numpy()
    values = tensorflow_loss(loss, labels, features.shape[1], name, options)

    @tf.function(autograph=False)
    def gradient(rows: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(rows)
            mean = tf.reduce_mean(values(rows))
        return tape.gradient(mean, rows)

    return lambda: gradient(rows).numpy()


def torch_step(
    name: str, loss: str, features: np.ndarray, labels: np.ndarray, threads: int
) -> Step:
    """The same step in PyTorch."""
    import torch

    torch.set_num_threads(threads)
    if name == "torch floor":
        rows = torch.from_numpy(features)
        return lambda: ((rows @ rows.T) @ rows).numpy()

    def library(rows: Any) -> Any:
        from pytorch_metric_learning.losses import SupConLoss

        # The library averages over the rows that have positives, the other losses over all rows.
        share = float(np.mean(np.bincount(labels)[labels] > 1))
        return share * SupConLoss(temperature=TEMPERATURE)(rows, torch.from_numpy(labels))

    values = library
    if name == "torch formula":
        values = torch_formula(loss, labels, features.shape[1])

    def step() -> np.ndarray:
        rows = torch.from_numpy(features).requires_grad_()
        values(rows).mean().backward()
        assert rows.grad is not None
        return rows.grad.numpy()

    return step


def float64_gradient(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Gradient of the mean loss with respect to the features (Eq. 4), float64 [N, D]."""
    rows = features.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / lengths
    num_positives = np.bincount(labels)[labels] - 1.0
    gradient = np.zeros_like(units)
    for start in range(0, len(units), 1024):
        tile = slice(start, start + 1024)
        exponentials = np.exp(units[tile] @ units.T / TEMPERATURE)
        diagonal = np.arange(len(exponentials)), np.arange(len(units))[tile]
        exponentials[diagonal] = 0
        positives = (labels[tile, None] == labels[None, :]).astype(np.float64)
        positives[diagonal] = 0
        count = num_positives[tile, None]
        slopes = exponentials / exponentials.sum(1, keepdims=True)
        slopes -= positives / np.maximum(count, 1)
        slopes *= (count > 0) / TEMPERATURE / len(units)
        gradient[tile] += slopes @ units
        gradient += slopes.T @ units[tile]
    along = np.sum(gradient * units, axis=1, keepdims=True)
    return (gradient - along * units) / lengths


def prepare(folder: Path, rows: int, dim: int, classes: int, *, has_gradient: bool) -> None:
    """Writes the features, labels and float64 gradient that all contenders read."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, dim)).astype(np.float32)
    labels = rng.integers(classes, size=rows)
    # As from an encoder: samples of a class share a direction.
    features += rng.normal(size=(classes, dim))[labels].astype(np.float32)
    np.save(folder / "features.npy", features)
    np.save(folder / "labels.npy", labels)
    for file in folder.glob("gradient*.npy"):
        file.unlink()
    if has_gradient:
        np.save(folder / "gradient_supcon.npy", float64_gradient(features, labels))


def measure(
    name: str, loss: str, folder: Path, threads: int, seconds: float, options: dict[str, Any]
) -> dict[str, float]:
    """Warms up on 256 rows, then times steps on all of them."""
    features, labels = np.load(folder / "features.npy"), np.load(folder / "labels.npy")

    def make_step(num_rows: int) -> Step:
        arrays = features[:num_rows], labels[:num_rows]
        if name in TENSORFLOW:
            return tensorflow_step(name, loss, *arrays, threads, options)
        return torch_step(name, loss, *arrays, threads)

    make_step(256)()
    base = contenders.peak_mib()
    step = make_step(len(features))
    gradient = step()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 50):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    result = {"seconds": float(np.median(times)), "mebibytes": contenders.peak_mib() - base}
    file = folder / f"gradient_{loss}.npy"
    if name == "torch formula" and not file.exists():
        np.save(file, gradient)
    elif file.exists() and "floor" not in name and not options:
        expected = np.load(file)
        result["difference"] = float(np.abs(gradient - expected).max() / np.abs(expected).max())
    return result


def run_alone(
    name: str, loss: str, folder: Path, args: argparse.Namespace
) -> dict[str, float] | None:
    """Runs `measure` in a new process; None if that fails."""
    python = args.peer_python if name in TORCH else sys.executable
    command = [python, __file__, "--measure", name, "--losses", loss, "--folder", str(folder)]
    command += ["--threads", str(args.threads), "--seconds", str(args.seconds)]
    command += ["--options", json.dumps(args.options)]
    return contenders.run_alone(name, command, {"OMP_NUM_THREADS": str(args.threads)})


def show(results: list[dict[str, Any]]) -> None:
    """Prints the Markdown table and how time and memory grow."""
    print("| rows | loss | contender | seconds | times the floor | peak MiB | gradient error |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    floors = {r["rows"]: r["seconds"] for r in results if r["name"] == "floor"}
    for r in results:
        floor = floors.get(r["rows"])
        ratio = f"{r['seconds'] / floor:.2f}" if floor else "-"
        error = f"{r['difference']:.1e}" if "difference" in r else "-"
        print(
            f"| {r['rows']:,} | {r['loss']} | {r['name']} | {r['seconds']:.3g} | {ratio} | "
            f"{r['mebibytes']:,.0f} | {error} |"
        )
    for loss, name in dict.fromkeys((r["loss"], r["name"]) for r in results):
        large = [r for r in results if (r["loss"], r["name"]) == (loss, name) and r["rows"] >= 4096]
        if len(large) > 1:
            logs = np.log([[r["rows"], r["seconds"], max(r["mebibytes"], 1)] for r in large])
            time_slope, memory_slope = np.polyfit(logs[:, 0], logs[:, 1:], 1)[0]
            print(
                f"{loss} {name}: time ~ N^{time_slope:.2f}, memory ~ N^{memory_slope:.2f} from "
                "4,096 rows"
            )


def plot(results: list[dict[str, Any]], path: str) -> None:
    """Draws seconds and peak memory against rows, with logarithmic axes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, key, title in (
        (axes[0], "seconds", "forward + backward, seconds"),
        (axes[1], "mebibytes", "peak memory above base, MiB"),
    ):
        for loss, name in dict.fromkeys((r["loss"], r["name"]) for r in results):
            points = [r for r in results if (r["loss"], r["name"]) == (loss, name)]
            style = "--" if "floor" in name else "-"
            axis.plot(
                [r["rows"] for r in points],
                [r[key] for r in points],
                f"o{style}",
                label=f"{loss} {name}",
            )
        axis.set(title=title, xlabel="rows", xscale="log", yscale="log")
        rows = sorted({r["rows"] for r in results})
        axis.set_xticks(rows, [f"{n // 1024}k" if n >= 1024 else str(n) for n in rows])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=120)


def parse_args() -> argparse.Namespace:
    parser = contenders.parser(__doc__)
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1024, 2048, 4096, 8192], help="rows N to measure"
    )
    parser.add_argument("--dim", type=int, default=128, help="numbers per row, default 128")
    parser.add_argument("--classes", type=int, default=1000, help="default 1,000")
    parser.add_argument(
        "--losses",
        nargs="+",
        default=["supcon"],
        choices=("all", *LOSSES),
        metavar="LOSS",
        help=f"all, or some of {', '.join(LOSSES)}; default: supcon",
    )
    parser.add_argument(
        "--contenders", nargs="+", choices=TENSORFLOW + TORCH, help="default: all of them"
    )
    parser.add_argument(
        "--dense_limit",
        type=int,
        default=16384,
        help="above this number of rows only streaming runs, default 16,384",
    )
    parser.add_argument(
        "--options",
        type=json.loads,
        default={},
        help="options of supcon_loss for dense and streaming, such as "
        '\'{"summation": "inside"}\'; gradient errors are then not measured',
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="of repeated steps, at least three; default 5"
    )
    parser.add_argument("--plot", metavar="FILE.png", help="picture to write")
    parser.add_argument("--json", metavar="FILE", help="results to write")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.measure:
        (loss,) = args.losses
        figures = measure(args.measure, loss, args.folder, args.threads, args.seconds, args.options)
        print(json.dumps(figures))
        return
    losses = LOSSES if "all" in args.losses else args.losses
    # The PyTorch formula first: the others of a loss are compared with it.
    names = sorted(args.contenders or (*TENSORFLOW, *TORCH), key=lambda name: name not in TORCH)
    cases = [
        (rows, loss, name)
        for rows in args.rows
        for loss in losses
        for name in names
        if (rows <= args.dense_limit or name == "streaming")
        and (name not in WITHOUT_LOSS or loss == losses[0])
    ]
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared = 0
        for rows, loss, name in tqdm(cases, unit="case", disable=None):
            if rows != prepared:
                has_gradient = rows <= args.dense_limit and not args.options
                prepare(folder, rows, args.dim, args.classes, has_gradient=has_gradient)
                prepared = rows
            measured = run_alone(name, loss, folder, args)
            if measured is not None:
                results.append({"rows": rows, "loss": loss, "name": name, **measured})
    show(results)
    contenders.write_json(args.json, results)
    if args.plot:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
