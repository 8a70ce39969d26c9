"""An autoencoder learns to describe the image of a digit by 16 numbers, and to draw it again from
these. It is compared with as many principal components.

On unseen images, from 0 to 1, its mean squared error is 0.0081; that of 16 principal components is
0.0116.

    python examples/autoencoder.py [--epochs 200] [--code 4] [--output autoencoder.png]

The digits are scikit-learn's, the figure is drawn with matplotlib: pip install "xpnet[data,viz]".
"""

import argparse

import numpy as np

import xpnet as xn


def principal_components(x, unseen, count):
    """Unseen images, each as the mean of x and a sum of the first `count` principal components."""
    rows, mean = x.reshape(len(x), -1), x.reshape(len(x), -1).mean(axis=0)
    components = np.linalg.svd(rows - mean, full_matrices=False)[2][:count]     # (count, pixels)
    codes = (unseen.reshape(len(unseen), -1) - mean) @ components.T
    return (codes @ components + mean).reshape(unseen.shape)


def draw(rows, path):
    """Draw a row of images for each title."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    columns = len(next(iter(rows.values())))
    figure, axes = plt.subplots(len(rows), columns, figsize=(0.75 * columns, 1.05 * len(rows)))
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.92, hspace=0.3)
    for line, (title, images) in zip(axes, rows.items()):
        line[0].set_title(title, fontsize=9, loc="left")
        for axis, image in zip(line, images):
            axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
            axis.axis("off")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=200,
                        help="passes over the training images (default: 200)")
    parser.add_argument("--code", type=int, default=4,
                        help="maps of 2 x 2 numbers that describe an image (default: 4)")
    parser.add_argument("--output", default="autoencoder.png",
                        help="file for the figure (default: autoencoder.png)")
    args = parser.parse_args()
    x, _, unseen, labels = xn.data.digits().arrays()            # (N, 1, 8, 8), from 0 to 1
    net = xn.models.conv_autoencoder(x.shape[1:], filters=64, code=args.code)
    numbers = 4 * args.code
    print(f"{numbers} numbers for {x[0].size} pixels")
    net.fit(x, x, loss="mean_squared_error", optimizer=xn.Adam(5e-3), schedule="one_cycle",
            epochs=args.epochs, batch_size=32, verbose=False)
    found = {"autoencoder": net.predict(unseen),
             f"{numbers} principal components": principal_components(x, unseen, numbers)}
    print("mean squared error on unseen images:")
    for name, images in found.items():
        print(f"{name:24} {((images - unseen)**2).mean():.5f}")
    shown = [int(np.flatnonzero(labels == digit)[0]) for digit in range(10)]
    draw({"original": unseen[shown]} | {name: images[shown] for name, images in found.items()},
         args.output)


if __name__ == "__main__":
    main()
