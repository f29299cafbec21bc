"""Run the TensorFlow samples of the source articles as printed, and record what happens.

TensorFlow is no dependency of the course. In an environment of its own::

    python -m venv tf
    tf/bin/pip install tensorflow-cpu tensorflow-model-optimization tf-keras
    tf/bin/python experiments/article_samples.py

writes ``book/results/article_samples.json``: the code of each step, what it printed or raised,
and the versions. Chapters 02, 04 and 05 show this file.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import itertools
import json
import os
import platform
import subprocess
import sys
import traceback
from pathlib import Path

OUTPUT = Path(__file__).parents[1] / "book" / "results" / "article_samples.json"

RAND_AUGMENT = """
import tensorflow as tf

def rand_augment(image, n, m):
  transforms = [
      tf.image.random_brightness,
      tf.image.random_contrast,
      tf.image.random_saturation,
      tf.image.random_hue,
      tf.image.random_flip_left_right,
      tf.image.random_flip_up_down,
      tf.image.random_crop,
      tf.image.random_jpeg_quality,
  ]
  selected_transforms = random.sample(transforms, n)
  for transform in selected_transforms:
    magnitude = tf.random.uniform(shape=[], minval=0.0, maxval=m)
    image = transform(image, magnitude=magnitude)
  return image
"""

STEPS = [
    (
        "As printed",
        RAND_AUGMENT + "\nrand_augment(tf.zeros([32, 32, 3]), n=2, m=10.0)",
    ),
    (
        "With the missing import, each of the eight functions on its own",
        """
import random

for transform in [tf.image.random_brightness, tf.image.random_contrast,
                  tf.image.random_saturation, tf.image.random_hue,
                  tf.image.random_flip_left_right, tf.image.random_flip_up_down,
                  tf.image.random_crop, tf.image.random_jpeg_quality]:
    try:
        transform(tf.zeros([32, 32, 3]), magnitude=5.0)
    except TypeError as error:
        print(transform.__name__, "-> TypeError:", str(error).splitlines()[0])
""",
    ),
    ("M as the strength of the hue", "tf.image.random_hue(tf.zeros([32, 32, 3]), max_delta=5.0)"),
    (
        "M as the strength of the brightness, on an image from 0 to 1",
        """
tf.random.set_seed(0)
image = tf.random.uniform([32, 32, 3])
bright = tf.image.random_brightness(image, max_delta=10.0)
print(f"before {float(tf.reduce_min(image)):.2f} to {float(tf.reduce_max(image)):.2f}, "
      f"after {float(tf.reduce_min(bright)):.2f} to {float(tf.reduce_max(bright)):.2f}")
""",
    ),
    (
        "2,000 images through tf.data: how many different pairs of operations?",
        """
names = tf.constant(["brightness", "contrast", "saturation", "hue",
                     "left_right", "up_down", "crop", "jpeg"])

def pair_by_python(index):                 # random.sample, as in the article
    first, second = random.sample(range(8), 2)
    return names[first] + " " + names[second]

def pair_by_tensorflow(index):             # the same draw, by TensorFlow's own generator
    order = tf.random.shuffle(tf.range(8))
    return names[order[0]] + " " + names[order[1]]

random.seed(0)
tf.random.set_seed(0)
for pair in [pair_by_python, pair_by_tensorflow]:
    pairs = [p.numpy() for p in tf.data.Dataset.range(2000).map(pair)]
    print(pair.__name__, len(set(pairs)))
""",
    ),
]

CALLBACK_STEPS = [
    (
        "The two lines that cut, as printed, on the weights of a convolution",
        """
import numpy as np
import tensorflow as tf

def prune(weights, pruning_ratio):
    threshold = tf.sort(tf.abs(weights), direction='DESCENDING')[int(pruning_ratio * weights.size)]
    return tf.where(tf.abs(weights) >= threshold, weights, tf.zeros_like(weights))

conv = np.random.default_rng(0).normal(size=(3, 3, 8, 16)).astype("float32")
threshold = tf.sort(tf.abs(conv), direction='DESCENDING')[0]
print("shape of the threshold:", threshold.shape)
print(f"ratio 0.0: {np.mean(prune(conv, 0.0).numpy() == 0):.4f} of the weights are zero")
""",
    ),
    ("With the article's next ratio, 0.5", "prune(conv, 0.5)"),
    (
        "Flattened first, but still sorted from large to small",
        """
def prune(weights, pruning_ratio):
    flat = tf.reshape(tf.abs(weights), [-1])
    threshold = tf.sort(flat, direction='DESCENDING')[int(pruning_ratio * weights.size)]
    return tf.where(tf.abs(weights) >= threshold, weights, tf.zeros_like(weights))

for ratio in [0.0, 0.5, 0.8]:
    print(f"ratio {ratio}: {np.mean(prune(conv, ratio).numpy() == 0):.4f} of the weights are zero")
""",
    ),
    (
        "The right weights cut at the start of an epoch, then one epoch of Adam",
        """
tf.keras.utils.set_random_seed(0)
model = tf.keras.Sequential([tf.keras.Input([100]), tf.keras.layers.Dense(10)])
model.compile(optimizer='adam', loss='mse')
weights, bias = model.layers[0].get_weights()
weights[np.abs(weights) < np.quantile(np.abs(weights), 0.8)] = 0
model.layers[0].set_weights([weights, bias])
print(f"before the epoch: {np.mean(model.layers[0].get_weights()[0] == 0):.3f} zeros")
x, y = np.random.default_rng(1).normal(size=[2, 640, 100]).astype("float32")
model.fit(x, y[:, :10], epochs=1, verbose=0)
print(f"after it: {np.mean(model.layers[0].get_weights()[0] == 0):.3f} zeros")
""",
    ),
    (
        "What MobileNetV2() takes and returns (its weights are not loaded here)",
        """
model = tf.keras.applications.MobileNetV2(weights=None)
print(model.input_shape, "->", model.output_shape)
""",
    ),
]

COMPRESS_STEPS = [
    (
        "The base model, as printed",
        """
import numpy as np
import tensorflow as tf
from tensorflow.keras.layers import Input, Conv2D, GlobalAveragePooling2D, Dense, Activation
from tensorflow.keras.models import Model

base_model = tf.keras.applications.ImageNet(include_top=False)
""",
    ),
    (
        "With a small model as the base, the rest of section 4.2",
        """
tf.keras.utils.set_random_seed(0)
inputs = Input(shape=(32, 32, 3))
base_model = Model(inputs, Conv2D(8, (3, 3), padding='same', activation='relu')(inputs))

x = base_model.output
x = Conv2D(32, (3, 3), padding='same', activation='relu')(x)
x = Conv2D(64, (3, 3), padding='same', activation='relu')(x)
x = GlobalAveragePooling2D()(x)
x = Dense(64, activation='relu')(x)
output = tf.keras.layers.add([x, x])
model = Model(inputs=base_model.input, outputs=output)

kinds = [type(layer).__name__ for layer in model.layers]
print("dense layers:", kinds.count("Dense"), " output:", model.output_shape)
twice = model.predict(np.ones([1, 32, 32, 3], "float32"), verbose=0)
once = Model(model.input, x).predict(np.ones([1, 32, 32, 3], "float32"), verbose=0)
print("add([x, x]) is 2x:", np.allclose(twice, 2 * once))
""",
    ),
    (
        "quantize_parameters, as printed",
        """
def quantize_parameters(model):
    quantized_params = {}
    for name, value in model.trainable_weights.items():
        if not name.startswith('@'):
             quantized_params[name] = np.array(value).astype(np.float32) / 255.0
    return quantized_params

quantized_params = quantize_parameters(base_model)
""",
    ),
    (
        "With names and values taken from the list",
        """
quantized_params = {w.path: np.array(w).astype(np.float32) / 255.0
                    for w in base_model.trainable_weights}
for w in base_model.trainable_weights:
    after = quantized_params[w.path]
    print(w.path, after.dtype, np.array(w).nbytes, "->", after.nbytes, "bytes")
""",
    ),
    (
        "The layer that is to quantize an output",
        "tf.keras.layers.Quantization(base_model.output, quantized_params)",
    ),
    (
        "create_compressed_model, as printed",
        """
def create_compressed_model(base_model, quantized_params):
    compressed_model = Model(inputs=base_model.input, outputs=base_model.output)
    for name, value in quantized_params.items():
        compressed_model.trainable_weights[name] = value
    return compressed_model

create_compressed_model(base_model, quantized_params)
""",
    ),
    (
        "Its first line alone: is the compressed model another one?",
        """
compressed_model = Model(inputs=base_model.input, outputs=base_model.output)
same = [a is b for a, b in zip(compressed_model.trainable_weights,
                               base_model.trainable_weights)]
print("the very same weights:", same)
""",
    ),
]

TFMOT = """
import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot

prune_low_magnitude = tfmot.sparsity.keras.prune_low_magnitude
pruning_params = {
    'pruning_schedule': tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=0.5,
        begin_step=1000,
        end_step=10000
    )
}
"""

TFMOT_SETUP = """
tf.keras.utils.set_random_seed(0)
model = tf.keras.Sequential([tf.keras.Input([100]), tf.keras.layers.Dense(200),
                             tf.keras.layers.Dense(10)])
train_images, train_labels = np.random.rand(32, 100), np.random.randint(10, size=32)
"""

TFMOT_REST = """
model_for_pruning = prune_low_magnitude(model, **pruning_params)
model_for_pruning.compile(
    loss='sparse_categorical_crossentropy',
    optimizer='adam',
    metrics=['accuracy']
)
model_for_pruning.fit(train_images, train_labels, epochs=10, verbose=0)
"""

KERAS_3_STEPS = [
    (
        "As printed, with a small model and data of ours, in today's Keras 3",
        TFMOT + TFMOT_SETUP + TFMOT_REST,
    ),
]

KERAS_2_STEPS = [
    (
        "The same code with Keras 2 (TF_USE_LEGACY_KERAS=1)",
        TFMOT + TFMOT_SETUP + TFMOT_REST,
    ),
    (
        "With the callback, on a schedule that 10 epochs of one batch can reach",
        """
def zeros(model):
    kernels = [w.numpy() for w in model.weights if "kernel" in w.name]
    return sum((k == 0).sum() for k in kernels) / sum(k.size for k in kernels)

short = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.5, begin_step=1, end_step=8, frequency=1)
model_for_pruning = prune_low_magnitude(model, pruning_schedule=short)
model_for_pruning.compile(loss='sparse_categorical_crossentropy', optimizer='adam')
model_for_pruning.fit(train_images, train_labels, epochs=10, verbose=0,
                      callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
model_for_export = tfmot.sparsity.keras.strip_pruning(model_for_pruning)
print(f"zeros: {zeros(model_for_export):.3f}")
""",
    ),
    (
        "The file of weights, before and after, and zipped",
        """
import gzip, os, tempfile

with tempfile.TemporaryDirectory() as folder:
    for name, network in [("wrapped", model_for_pruning), ("stripped", model_for_export)]:
        file = os.path.join(folder, name + ".weights.h5")
        network.save_weights(file)
        content = open(file, "rb").read()
        print(f"{name}: {len(content):,} bytes, zipped {len(gzip.compress(content)):,}")
""",
    ),
    (
        "The article's schedule at some steps",
        """
schedule = pruning_params['pruning_schedule']
for step in [1000, 3000, 3910, 5500, 10000, 15630]:
    print(step, f"{float(schedule(tf.constant(step))[1]):.4f}")
""",
    ),
]


def run_steps(steps: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Execute the steps one after the other in one namespace; an error ends only its step."""
    namespace: dict[str, object] = {}
    results = []
    for title, code in steps:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                exec(code, namespace)  # the whole point is to run what was printed
            except Exception as error:
                lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
                causes = [line for line in lines if "assertion failed" in line]  # of a graph
                print(*lines[:1], *causes[:1], sep="\n")
        results.append({"title": title, "code": code.strip(), "output": printed.getvalue().strip()})
    return results


def run_in_keras_2() -> list[dict[str, str]]:
    """Run the steps that need Keras 2 in a process of their own; it is chosen at the import."""
    command = [sys.executable, __file__, "--keras-2"]
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run everything and write the record."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "--keras-2" in sys.argv:
        print(json.dumps(run_steps(KERAS_2_STEPS)))
        return

    names = ("tensorflow-cpu", "keras", "tf-keras", "tensorflow-model-optimization")
    versions = {name.removesuffix("-cpu"): importlib.metadata.version(name) for name in names}
    record = {
        "name": "article_samples",
        "command": "python experiments/article_samples.py",
        "versions": {"python": platform.python_version(), **versions},
        "samples": {
            "rand_augment": run_steps(STEPS),
            "pruning_callback": run_steps(CALLBACK_STEPS),
            "compressed_model": run_steps(COMPRESS_STEPS),
            "prune_low_magnitude": run_steps(KERAS_3_STEPS) + run_in_keras_2(),
        },
    }
    OUTPUT.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for step in itertools.chain.from_iterable(record["samples"].values()):
        print(f"# {step['title']}\n{step['output']}\n")


if __name__ == "__main__":
    main()
