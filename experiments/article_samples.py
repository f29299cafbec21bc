"""Run the TensorFlow samples of the source articles as printed, and record what happens.

TensorFlow is no dependency of the course. In an environment of its own::

    python -m venv tf && tf/bin/pip install tensorflow-cpu
    tf/bin/python experiments/article_samples.py

writes ``book/results/article_samples.json``: the code of each step, what it printed or raised,
and the versions. Chapter 02 shows this file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
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
                print(lines[0])
        results.append({"title": title, "code": code.strip(), "output": printed.getvalue().strip()})
    return results


def main() -> None:
    """Run everything and write the record."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    record = {
        "name": "article_samples",
        "command": "python experiments/article_samples.py",
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "samples": {"rand_augment": run_steps(STEPS)},
    }
    OUTPUT.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for step in record["samples"]["rand_augment"]:
        print(f"# {step['title']}\n{step['output']}\n")


if __name__ == "__main__":
    main()
