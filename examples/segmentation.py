"""A small U-Net learns to mark circles, squares and triangles in noisy images: the class of each
pixel.

In unseen images 97.7% of the pixels get the right class, and the mean intersection over union is
0.854. If all were background, 75.3% would be right.

    python examples/segmentation.py [--epochs 12] [--images 3000] [--output segmentation.png]

The images are drawn by xn.data.shapes, the figure with matplotlib: pip install "xpnet[viz]".
"""

import argparse

import xpnet as xn
from xpnet.metrics import accuracy, mean_iou

NAMES = "background", "circle", "square", "triangle"
COLOURS = "#202020", "#4c9be8", "#f2a541", "#5fbf6a"
SIZE = 32


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
    drawn, others = (xn.data.shapes(args.images, SIZE, seed=0), xn.data.shapes(200, SIZE, seed=1))
    x, y, unseen, truth = drawn.images, drawn.classes, others.images, others.classes
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
