"""Local contrast normalisation as the first layer: what a network that was trained on plain images
predicts when the light changes (Jarrett et al. 2009, section 2, has the layer).

    python examples/contrast.py [--data cifar10] [--samples 3000] [--epochs 8] [--seeds 3]
                                [--output FOLDER] [--redraw] [--quick]

Three networks differ only in their first layer: none, a normalisation of each whole image, and that
of each pixel's surroundings. The unseen images get a shadow from the left to the right, of rising
strength. What came out is in docs/experiments.md.
"""

import numpy as np
from comparing import draw_curves, figure, images, options, results, save, span, trained
from sklearn.datasets import load_sample_image

import xpnet as xn

FIRST = {"none": None, "whole image": lambda: xn.LayerNorm(affine=False),
         "local contrast": lambda: xn.ContrastNorm2d(9)}
SHADOWS = 0.0, 0.2, 0.4, 0.6, 0.8, 0.9      # how much light is missing at the right border


def network(shape, seed, first):
    layers = [first()] if first else []
    for filters in (16, 32, 64):
        layers += [xn.Conv2d(filters, 3, padding="half", activation="relu"), xn.MaxPool2d(2)]
    return xn.Sequential([*layers, xn.Flatten(), xn.Linear(10)], input_shape=shape, seed=seed)


def shaded(x, strength):
    """Images whose pixels are multiplied by 1 at the left border, falling to 1 - strength at the
    right one. The darkest value of all images counts as 0."""
    light = np.linspace(1, 1 - strength, x.shape[-1], dtype=x.dtype)
    dark = x.min(axis=(0, 2, 3), keepdims=True)
    return (x - dark) * light + dark


def pictures():
    """A photograph with three shadows, and below what ContrastNorm2d makes of them: (rows, columns,
    3), from 0 to 1."""
    photograph = load_sample_image("china.jpg")[40:400:4, 100:460:4].transpose(2, 0, 1) / 255
    rows = np.stack([shaded(photograph[None], strength)[0] for strength in SHADOWS[::2]])
    norm = xn.Sequential([xn.ContrastNorm2d(9)], input_shape=rows.shape[1:], backend="numpy")
    contrast = (0.5 + norm.predict(rows) / 6).clip(0, 1)
    return np.concatenate([np.concatenate([*part.transpose(0, 2, 3, 1)], axis=1)
                           for part in (rows, contrast)])


def measure(args):
    data = images(args)
    _, _, unseen, truth = data

    def run(seed, first):
        net = network(data[0].shape[1:], seed, first)
        trained(net, args, data, optimizer=xn.Adam(2e-3), batch_size=50, schedule="cosine")
        return [net.evaluate(shaded(unseen, strength), truth)["accuracy"] for strength in SHADOWS]
    return {name: [run(seed, first) for seed in range(args.seeds)]
            for name, first in FIRST.items()}


def main() -> None:
    args = options(__doc__, data="cifar10", samples=3000, tested=2000, epochs=8, seeds=3)
    found = results("contrast", args, lambda: measure(args))
    for name, runs in found.items():
        for strength, accuracies in [*zip(SHADOWS, zip(*runs))][::2]:
            print(f"{name:14} shadow {strength:.1f}: accuracy {span(accuracies)}")
    made, (left, axes) = figure(2)
    left.imshow(pictures())
    left.set_axis_off()
    left.set_title("shadows 0, 0.4 and 0.8, and their local contrast", fontsize=9)
    draw_curves(axes, found, SHADOWS)
    axes.set(xlabel="light that is missing at the right border", ylabel="accuracy, unseen images")
    save(made, args, "contrast")


if __name__ == "__main__":
    main()
