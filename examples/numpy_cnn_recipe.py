"""Numpy-CNN by its author's recipe: 98.4 % of MNIST's test images after about five hours
(Escontrela 2018, github.com/Alescontrela/Numpy-CNN, README), beside the same training here.

    python examples/numpy_cnn_recipe.py [--samples 50000] [--epochs 2] [--seeds 3]
                                        [--output FOLDER] [--redraw] [--quick]

The recipe: 50,000 images, batches of 32, two passes, learning rate 0.01, betas 0.95 and 0.99,
filters and weights drawn as there. Its Adam sets both running means to zero before each batch. One
training here does the same, the other one has an Adam that keeps them. What came out is in
docs/experiments.md.
"""

import math
import time

import numpy as np
from comparing import draw_dots, figure, images, options, results, save, span, trained

import xpnet as xn

BETAS = 0.95, 0.99
PUBLISHED = 0.984                       # of the 10,000 test images
HOURS = 5                               # on a laptop of that time


class AdamWithoutMemory(xn.Optimizer):
    """The first step of Adam, without its corrections, again and again: w -= lr (1 - beta1) g /
    sqrt((1 - beta2) g^2 + eps). For a large g it is lr (1 - beta1) / sqrt(1 - beta2) sign(g)."""

    def __init__(self, lr):
        self.lr = lr

    def hyper(self, step, lr):
        return (lr,)

    def apply(self, backend, w, g, slots, hyper, decayed):
        beta1, beta2 = BETAS
        w -= hyper[0] * (1 - beta1) * g / backend.xp.sqrt((1 - beta2) * g * g + 1e-7)


OPTIMIZERS = {"Adam as written": lambda: AdamWithoutMemory(0.01),
              "Adam": lambda: xn.Adam(0.01, betas=BETAS)}


def network(seed):
    """xn.models.numpy_cnn, whose first parameters are drawn as its author does."""
    net = xn.models.numpy_cnn(seed=seed)
    rng = np.random.default_rng(seed)
    for layer in net.layers:
        if isinstance(layer, xn.Conv2d | xn.Linear):
            std = 1 / math.sqrt(layer.W.size) if isinstance(layer, xn.Conv2d) else 0.01
            layer.W.data[...] = net.xp.asarray(rng.normal(0, std, layer.W.shape))
    return net


def measure(args):
    data = images(args, side=28)

    def run(seed, make):
        net, started = network(seed), time.process_time()
        found = trained(net, args, data, may_diverge=True, optimizer=make(), batch_size=32)
        return {"seconds": time.process_time() - started, "history": found}
    return {name: [run(seed, make) for seed in range(args.seeds)]
            for name, make in OPTIMIZERS.items()}


def main() -> None:
    args = options(__doc__, data="mnist", samples=50000, tested=10000, epochs=2, seeds=3)
    found = results("numpy_cnn_recipe", args, lambda: measure(args))
    final = {}
    for name, runs in found.items():
        final[name] = [run["history"]["val_accuracy"][-1] for run in runs if run["history"]]
        diverged = len(runs) - len(final[name])
        print(f"{name:15} accuracy {span(final[name], '.2%') if final[name] else 'none'}, "
              f"{diverged} of {len(runs)} diverged; processor time "
              f"{span([run['seconds'] for run in runs], '.0f')} s")
    print(f"{'published':15} accuracy {PUBLISHED:.1%}; about {HOURS} hours")
    made, (axes,) = figure(1, 2.2)
    draw_dots(axes, {name: [1 - accuracy for accuracy in accuracies]
                     for name, accuracies in ({"published": [PUBLISHED]} | final).items()})
    axes.set(xlabel="errors, MNIST's test images", xscale="log")
    ticks = 0.01, 0.02, 0.05, 0.2, 0.9
    axes.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
    axes.minorticks_off()
    save(made, args, "numpy_cnn_recipe")


if __name__ == "__main__":
    main()
