"""A small U-Net learns to mark circles, squares and triangles in noisy images: the class of each
pixel.

In unseen images 97.8% of the pixels get the right class, and the mean intersection over union is
0.860. If all were background, 77.9% would be right.

    python examples/segmentation.py [--epochs 12] [--images 3000] [--output segmentation.png]

The images are made with NumPy, the figure is drawn with matplotlib: pip install "xpnet[viz]".
"""

import argparse

import numpy as np

import xpnet as xn
from xpnet.metrics import accuracy, mean_iou

NAMES = "background", "circle", "square", "triangle"
COLOURS = "#202020", "#4c9be8", "#f2a541", "#5fbf6a"
SIZE = 32


def inside(shape, row, column, radius, angle):
    """Which pixels (SIZE, SIZE) a shape covers. Squares and triangles are turned by the angle."""
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(float)
    down, right = rows - row, columns - column
    if shape == 1:
        return down**2 + right**2 < radius**2
    sides = 4 if shape == 2 else 3      # a pixel is inside if it is on the inner side of each edge
    edges = angle + 2 * np.pi / sides * np.arange(sides)[:, None, None]
    return (np.cos(edges) * down + np.sin(edges) * right).max(axis=0) < (
        radius * np.cos(np.pi / sides))


def shapes(count, rng):
    """Images (N, 1, SIZE, SIZE) with one to three light shapes on a dark background and noise, and
    the class of each pixel (N, SIZE, SIZE). Later shapes cover earlier ones."""
    x = np.empty((count, 1, SIZE, SIZE), np.float32)
    y = np.zeros((count, SIZE, SIZE), np.int64)
    for image, classes in zip(x[:, 0], y):
        image[...] = rng.uniform(0, 0.3)
        for _ in range(rng.integers(1, 4)):
            shape, (row, column) = rng.integers(1, 4), rng.uniform(6, SIZE - 6, 2)
            covered = inside(shape, row, column, rng.uniform(6, 10), rng.uniform(0, 2 * np.pi))
            image[covered] = rng.uniform(0.5, 1)
            classes[covered] = shape
    return x + rng.normal(0, 0.1, x.shape).astype(np.float32), y


def draw(x, y, found, path):
    """Draw image, truth and prediction, a column for each image."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch
    figure, axes = plt.subplots(3, len(x), figsize=(1.3 * len(x), 4.4), layout="constrained")
    colours = {"cmap": ListedColormap(COLOURS), "vmin": 0, "vmax": len(NAMES) - 1,
               "interpolation": "nearest"}
    for (above, middle, below), image, truth, prediction in zip(axes.T, x[:, 0], y, found):
        above.imshow(image, cmap="gray")
        middle.imshow(truth, **colours)
        below.imshow(prediction, **colours)
    for axis in axes.flat:
        axis.axis("off")
    for axis, title in zip(axes[:, 0], ("image", "truth", "prediction")):
        axis.set_title(title, fontsize=9, loc="left")
    figure.legend(handles=[Patch(color=colour, label=name) for colour, name in zip(COLOURS, NAMES)],
                  loc="outside lower center", ncols=len(NAMES), fontsize=9)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12,
                        help="passes over the images (default: 12)")
    parser.add_argument("--images", type=int, default=3000,
                        help="number of training images (default: 3000)")
    parser.add_argument("--output", default="segmentation.png",
                        help="file for the figure (default: segmentation.png)")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    x, y = shapes(args.images, rng)
    unseen, truth = shapes(200, rng)
    net = xn.models.unet((1, SIZE, SIZE), classes=len(NAMES), filters=8, depth=3, padding="half")
    net.fit(x, y, loss="cross_entropy", optimizer=xn.Adam(2e-3), schedule="one_cycle",
            epochs=args.epochs, batch_size=16)
    scores = net.predict(unseen)                                # (N, 4, SIZE, SIZE)
    print(f"unseen images: pixel accuracy {100 * accuracy(scores, truth):.2f}% (of background "
          f"alone {100 * (truth == 0).mean():.2f}%), "
          f"mean intersection over union {mean_iou(scores, truth):.4f}")
    for name, value in zip(NAMES, mean_iou(scores, truth, average=None)):
        print(f"  {name:12} {value:.4f}")
    draw(unseen[:8], truth[:8], scores[:8].argmax(axis=1), args.output)


if __name__ == "__main__":
    main()
