"""Compares the export formats of a run: speed, size, difference from Keras, test accuracy.

Writes the run's model in each format to OUTPUT, unless it is there, and prints a table: median
milliseconds per image for each batch size, megabytes, the largest difference of embedding and
probabilities from Keras, and top-1 on the test split, which shows what quantization costs. The
formats take turns, so that another load on the machine slows all of them. The extra `export`
installs the runtimes.

examples:
  python tools/export_latency.py --workdir=runs/digits --output=runs/digits_exports
  python tools/export_latency.py --workdir=runs/digits --output=runs/digits_exports \\
      --signature=serving_pixels --batch=1 --batch=64
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from supcon_tf import cli, export
from supcon_tf.errors import UserError
from supcon_tf.exporting.formats import FORMATS, SAVED_MODEL, SIGNATURES
from supcon_tf.run_dir import RunDir

Model = Callable[[np.ndarray], Mapping[str, np.ndarray]]

VARIANTS = [(name, quantize) for name, form in FORMATS.items() for quantize in form.quantizations]
# A measurement repeats the batch until it takes this long.
MIN_SECONDS = 0.05


def exported(workdir: Path, output: Path, format: str, quantize: str, signature: str) -> Path:
    """The directory of an export, which is written if it is missing."""
    one_signature = not FORMATS[format].holds_all_signatures
    folder = output / "_".join([format, quantize, *[signature] * one_signature])
    if not folder.exists():
        options = [f"--format={format}", f"--quantize={quantize}"]
        options += [f"--signature={signature}"] * one_signature
        export.main([f"--workdir={workdir}", f"--output={folder}", *options])
    return folder


def loaded(folder: Path, format: str, signature: str, threads: int) -> Model:
    """The model of an export as a function from a batch to its outputs."""
    from supcon_tf.evaluation.saved_model import load_saved_model
    from supcon_tf.exporting.runtimes import load_model

    if format != SAVED_MODEL:
        return load_model(folder / FORMATS[format].file, signature=signature, threads=threads)
    model = load_saved_model(folder)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        outputs = model.signatures[signature](**{SIGNATURES[signature]: batch})
        return {name: values.numpy() for name, values in outputs.items()}

    return run


def keras_reference(run_dir: RunDir) -> Model:
    """The trained model in Keras, from uint8 images of one size to its outputs."""
    import tensorflow as tf

    from supcon_tf.evaluation.saved_model import load_saved_model, serving_model
    from supcon_tf.models.encoders.keras_file import load_keras_model

    stage = next(each for each in ("finetune", "linear", "pretrain") if each in run_dir.metrics())
    model = serving_model(load_keras_model(run_dir.model(stage)))
    view = load_saved_model(run_dir.export).evaluation_view

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        pixels = view(tf.constant(images, tf.float32) / 255.0)
        outputs = {name: values.numpy() for name, values in model(pixels, training=False).items()}
        return {**outputs, "pixels": pixels.numpy()}

    return run


def test_images(run_dir: RunDir, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(uint8 image [H, W, 3], label) of the run's test split."""
    from supcon_tf.run_source import run_source

    test = run_source(run_dir, trust=False).test
    chosen = test.shuffled(seed=0, start=0, stop=min(count, test.num_examples))
    return list(chosen.as_numpy_iterator())


def accuracy(model: Model, inputs: list[np.ndarray], labels: list[np.ndarray]) -> float | None:
    """Top-1; None if the model gives no label."""
    if "label" not in model(inputs[0]):
        return None
    found = [int(model(one)["label"][0]) for one in inputs]
    return float(np.mean(np.array(found) == np.array(labels)))


def milliseconds(models: Mapping[str, Model], batch: np.ndarray, rounds: int) -> dict[str, float]:
    """Median milliseconds per image; the models take turns."""
    repeats = {}
    for name, model in models.items():
        model(batch)  # The first call compiles.
        start = time.perf_counter()
        model(batch)
        repeats[name] = max(1, round(MIN_SECONDS / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                model(batch)
            times[name].append((time.perf_counter() - start) / repeats[name] / len(batch) * 1e3)
    return {name: statistics.median(each) for name, each in times.items()}


def difference(model: Model, batch: np.ndarray, expected: Mapping[str, np.ndarray]) -> str:
    """Largest difference of the embedding and of the probabilities."""
    outputs = model(batch)
    names = [name for name in ("embedding", "probabilities") if name in outputs]
    return ", ".join(f"{np.abs(outputs[name] - expected[name]).max():.0e}" for name in names)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the tool."""
    args = cli.new_flags()
    flags.DEFINE_string("workdir", None, "DIR: a finished run", flag_values=args)
    flags.DEFINE_string("output", None, "DIR: where the exports go", flag_values=args)
    flags.DEFINE_enum(
        "signature", "serving_default", list(SIGNATURES), "serving_default", flag_values=args
    )
    flags.DEFINE_multi_integer("batch", [1, 32], "batch sizes, 1 and 32", flag_values=args)
    flags.DEFINE_integer("rounds", 15, "times that each format is timed, 15", flag_values=args)
    flags.DEFINE_integer("threads", 1, "of each runtime, 1", flag_values=args)
    flags.DEFINE_integer("images", 1000, "test images for top-1, 1000 at most", flag_values=args)
    cli.parse(args, argv, __doc__)
    if not args.workdir or not args.output:
        raise UserError("--workdir and --output are needed")
    cli.start_tensorflow()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    run_dir, output = RunDir(Path(args.workdir)), Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    folders = {
        (format, quantize): exported(run_dir.root, output, format, quantize, args.signature)
        for format, quantize in tqdm(VARIANTS, "exporting")
    }
    models = {
        " ".join(variant).replace(" none", ""): loaded(
            folder, variant[0], args.signature, args.threads
        )
        for variant, folder in folders.items()
    }
    examples = test_images(run_dir, args.images)
    reference = keras_reference(run_dir)
    takes_pixels = args.signature == "serving_pixels"

    def given(images: np.ndarray) -> np.ndarray:
        return reference(images)["pixels"] if takes_pixels else images

    inputs = [given(image[None]) for image, _ in examples]
    labels = [label for _, label in examples]
    first = np.repeat(examples[0][0][None], max(args.batch), axis=0)
    same_size = [image for image, _ in examples[:64] if image.shape == first.shape[1:]]
    compared = np.stack(same_size)
    expected = reference(compared)
    speeds = {size: milliseconds(models, given(first[:size]), args.rounds) for size in args.batch}
    heads = ["format", *(f"ms at batch {size}" for size in args.batch)]
    heads += ["MB", "difference", "top-1"]
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
    for (name, model), folder in zip(models.items(), folders.values(), strict=True):
        files = [file for file in folder.rglob("*") if file.is_file()]
        top_1 = accuracy(model, inputs, labels)
        row = [name, *(f"{speeds[size][name]:.2f}" for size in args.batch)]
        row += [f"{sum(file.stat().st_size for file in files) / 1e6:.2f}"]
        row += [difference(model, given(compared), expected)]
        row += ["-" if top_1 is None else f"{top_1:.4f}"]
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    cli.run(main)
