"""The cost of batches of augmented images: `python -m benchmarks.loader`.

For each batch size: the time that a batch needs until it is ready for the network, read ahead by a
thread, scaled and augmented, and the time of a training step on a batch that is ready. The images
are noise in the shape of CIFAR-10, in memory.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

import xpnet as xn
from benchmarks.checkpoint import Times, medians, timed
from benchmarks.contenders import INPUT_SHAPES, LEARNING_RATE
from benchmarks.facts import cpu_model, load_average
from benchmarks.xpnet_side import NETS
from xpnet.training.batches import Batches
from xpnet.training.datasets import Samples

IMAGES = 20_000
AUGMENT = {"none": [], "crop and flip": [xn.RandomCrop(4), xn.RandomFlip()],
           "crop, flip, mix-up": [xn.RandomCrop(4), xn.RandomFlip(), xn.MixUp(0.2)]}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__)
    parser.add_argument("--net", default="vgg_small", choices=NETS)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(arguments)
    shape = INPUT_SHAPES[options.net]
    net = NETS[options.net](shape, backend=options.backend)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, *shape)).astype(np.uint8)
    print(f"{cpu_model()}, load average {load_average()}, {net.backend.name}, {options.net}, the "
          f"median of {options.repeats}; CPU seconds are those of all threads\n")
    print(f"{'batch':>5}  {'augmentation':20}{'batch':>10}{'CPU':>10}{'step':>10}{'CPU':>10}"
          f"{'share':>9}{'of CPU':>9}")
    for size in options.batches:
        step = stepping(net, images[:size], options.repeats)
        for name, augment in AUGMENT.items():
            data = Samples(net, xn.data.Dataset(images).subset(slice(None)), augment)
            loading = reading(net, data, size, options.repeats, medians(step)[0])
            (wall, cpu), (step_wall, step_cpu) = medians(loading), medians(step)
            print(f"{size:5}  {name:20}" + "".join(f"{1e3 * value:7.1f} ms" for value in
                                                   (wall, cpu, step_wall, step_cpu))
                  + f"{wall / step_wall:9.1%}{cpu / step_cpu:9.1%}")
    return 0


def reading(net: xn.Network, data: Samples, size: int, repeats: int, pause: float) -> Times:
    """The times of batches in a random order, with the pause of a step between them, in which the
    next batch is read."""
    batches = Batches(net, [data], size)
    batches.arrange(np.random.default_rng(1).permutation(len(data)))
    batches.get(0)
    times = []
    for number in range(1, repeats + 1):
        time.sleep(pause)
        times.append(timed(batches.get, number))
    return times


def stepping(net: xn.Network, images: np.ndarray, repeats: int) -> Times:
    """The times of training steps on one batch, after two that load code."""
    step = xn.TrainStep(net, xn.CrossEntropy(), xn.Adam(LEARNING_RATE))
    x = net.batch_last(images.astype(np.float32) / 255)
    labels = net.backend.asarray(np.arange(len(images)) % 10)

    def one() -> None:
        step(x, labels)
        net.backend.synchronize()

    return [timed(one) for _ in range(repeats + 2)][2:]


if __name__ == "__main__":
    sys.exit(main())
