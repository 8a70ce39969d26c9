"""A small U-Net learns to find pieces of one photograph that were pasted into another one, with
three losses: cross entropy of the pixels, the same with large weights in the gaps between pieces,
and Dice.

In unseen images their mean intersection over union is 0.719, 0.703 and 0.722, and 92.2%, 94.5% and
89.2% of the pixels in gaps are right. The pieces are found by their texture: in clear sky, where
there is none, they can hardly be seen.

    python examples/segmentation_photos.py [--epochs 15] [--images 400]
                                           [--output segmentation_photos.png]

The masks of the pieces are drawn ellipses, and each piece has the mean colour of its surroundings.
The photographs are scikit-learn's: the left parts are trained on, the right parts are unseen. The
figure is drawn with matplotlib: pip install "xpnet[data,viz]".
"""

import argparse

import numpy as np
from sklearn.datasets import load_sample_image

import xpnet as xn
from xpnet.metrics import accuracy, mean_iou
from xpnet.vision import boundary_weights

SIZE = 64                               # rows and columns of an image
PIECES = 5                              # at most, in an image
TRAINED, UNSEEN = slice(0, 440), slice(440, 640)        # columns of the photographs
GAP = 5.0                               # weight from which a pixel is in the gap of two pieces


def ellipses(rng):
    """Random ellipses that do not touch: 0 for the background, a number for each ellipse."""
    objects = np.zeros((SIZE, SIZE), int)
    v, u = np.mgrid[:SIZE, :SIZE]
    for _ in range(40):
        (y, x), (a, b), angle = rng.uniform(0, SIZE, 2), rng.uniform(6, 14, 2), rng.uniform(0, 3)
        along = (u - x) * np.cos(angle) + (v - y) * np.sin(angle)
        across = (v - y) * np.cos(angle) - (u - x) * np.sin(angle)
        near = (along / (a + 2)) ** 2 + (across / (b + 2)) ** 2 < 1
        if objects.max() < PIECES and not objects[near].any():
            objects[(along / a) ** 2 + (across / b) ** 2 < 1] = objects.max() + 1
    return objects


def patch(photograph, rng):
    """A random square of a photograph (H, W, 3), perhaps mirrored, as (3, SIZE, SIZE)."""
    row, column = (rng.integers(n - SIZE + 1) for n in photograph.shape[:2])
    found = photograph[row:row + SIZE, column:column + SIZE].transpose(2, 0, 1)
    return found[..., ::rng.choice((1, -1))].astype(float)


def pasted(count, columns, seed):
    """Images (N, 3, SIZE, SIZE) from 0 to 1, and the numbers of the pieces (N, SIZE, SIZE)."""
    rng = np.random.default_rng(seed)
    below, above = (load_sample_image(name)[:, columns] for name in ("china.jpg", "flower.jpg"))
    objects = np.stack([ellipses(rng) for _ in range(count)])
    images = []
    for mask in objects:
        piece, around = patch(above, rng), patch(below, rng)
        piece = piece + (around - piece).mean(axis=(1, 2), keepdims=True)       # of equal colour
        images.append(np.where(mask > 0, piece, around).clip(0, 255))
    return np.stack(images).astype(np.float32) / 255, objects


def trained(loss, targets, x, epochs):
    """A U-Net whose output is the probabilities of background and piece."""
    unet = xn.models.unet((3, SIZE, SIZE), classes=2, filters=8, depth=3, padding="half")
    net = xn.Sequential([unet, xn.Softmax()], input_shape=(3, SIZE, SIZE))
    net.fit(x, targets, loss=loss, optimizer=xn.Adam(2e-3), schedule="one_cycle", epochs=epochs,
            batch_size=16)
    return net


def draw(rows, titles, path):
    """Draw a row for each list of images or of masks."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    size = 1.3 * len(rows[0]), 1.4 * len(rows)              # inches
    figure, axes = plt.subplots(len(rows), len(rows[0]), figsize=size, layout="constrained")
    for row, images, title in zip(axes, rows, titles):
        for axis, image in zip(row, images):
            if image.ndim == 3:
                axis.imshow(image.transpose(1, 2, 0), interpolation="nearest")
            else:
                axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.axis("off")
        row[0].set_title(title, fontsize=9, loc="left")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15,
                        help="passes over the images (default: 15)")
    parser.add_argument("--images", type=int, default=400,
                        help="number of training images (default: 400)")
    parser.add_argument("--output", default="segmentation_photos.png",
                        help="file for the figure (default: segmentation_photos.png)")
    args = parser.parse_args()
    x, objects = pasted(args.images, TRAINED, seed=0)
    unseen, others = pasted(100, UNSEEN, seed=1)
    y, truth = (objects > 0).astype(int), (others > 0).astype(int)
    weighted = np.stack([y, boundary_weights(objects)], axis=1)
    gaps = (truth == 0) & (boundary_weights(others, balanced=False) > GAP)
    print(f"background {100 * (truth == 0).mean():.2f}% of the pixels, "
          f"gaps {100 * gaps.mean():.2f}%")
    rows, titles = [unseen[:8], truth[:8]], ["image", "truth"]
    for name, loss, targets in (("cross entropy", "cross_entropy", y),
                                ("boundary weights", xn.WeightedCrossEntropy(), weighted),
                                ("Dice", xn.Dice(), y)):
        found = trained(loss, targets, x, args.epochs).predict(unseen)     # (N, 2, SIZE, SIZE)
        print(f"{name}: pixel accuracy {100 * accuracy(found, truth):.2f}%, "
              f"mean intersection over union {mean_iou(found, truth):.4f}, "
              f"right in the gaps {100 * (found[:, 1][gaps] < 0.5).mean():.2f}%")
        rows.append(found[:8, 1])
        titles.append(name)
    draw(rows, titles, args.output)


if __name__ == "__main__":
    main()
