"""A deconvolutional network learns filters from two photographs without labels; prints the cost of
every step and draws the filters.

The photographs are scikit-learn's, the figure is drawn with matplotlib:
pip install "xpnet[data,viz]".
"""

import argparse

import numpy as np

import xpnet as xn

BETAS = [8, 16, 32, 64, 64, 64]


def photographs():
    """Patches (S, 1, 40, 40) of two photographs: grey, half their size, with normalised local
    contrast."""
    from sklearn.datasets import load_sample_images
    images = load_sample_images().images
    grey = np.stack([image[:426].mean(axis=2) for image in images]) / 255       # (2, 426, 640)
    half = grey.reshape(2, 1, 213, 2, 320, 2).mean(axis=(3, 5))
    net = xn.Sequential([xn.ContrastNorm2d(9)], input_shape=(1, 213, 320))
    contrast = net.predict(half)
    corners = [(n, row, column) for n in range(2) for row in range(6, 170, 40)
               for column in range(0, 320, 40)]
    return np.stack([contrast[n, :, row:row + 40, column:column + 40]
                     for n, row, column in corners])


def table(steps, epochs):
    """Every step of the first two epochs, and the cost after some later ones."""
    rows = ["epoch  step     beta   augmented        cost", "-" * 45]
    for step in steps:
        if step.epoch <= 2:
            beta, augmented = "", ""
            if step.beta is not None:
                beta, augmented = f"{step.beta:g}", f"{step.augmented:.3f}"
            rows.append(f"{step.epoch:5d}  {step.what:7s}{beta:>6}{augmented:>12}{step.cost:12.3f}")
    last = {step.epoch: step.cost for step in steps}
    rows += [f"{epoch:5d}  all{last[epoch]:34.3f}" for epoch in (3, 5, 10, 20, 30, 40, 60)
             if 2 < epoch <= epochs]
    return "\n".join(rows)


def draw(filters, histories, path):
    """Draw the filters, those with the largest sum of |map| first, and the cost of each epoch."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    figure = plt.figure(figsize=(8, 3))
    parts = figure.subfigures(1, 3, width_ratios=[1, 1, 1.2])
    for part, (title, found) in zip(parts, filters.items()):
        part.suptitle(title, fontsize=10)
        side = int(np.ceil(np.sqrt(len(found))))
        for axes, f in zip(part.subplots(side, side).flat, found):
            axes.imshow(f, cmap="gray", vmin=-np.abs(f).max(), vmax=np.abs(f).max())
            axes.axis("off")
    axes = parts[-1].subplots()
    for title, steps in histories.items():
        epochs = {step.epoch: step.cost for step in steps}
        axes.plot(list(epochs), [cost / steps[0].cost for cost in epochs.values()], label=title)
    axes.set(xlabel="epoch", title="cost, 1 with maps of zeros")
    axes.title.set_fontsize(10)
    axes.legend()
    parts[-1].subplots_adjust(left=0.2, bottom=0.2, top=0.85)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20,
                        help="passes over the patches (default: 20)")
    parser.add_argument("--patches", type=int, default=64,
                        help="number of patches to learn from, of 80 (default: 64)")
    parser.add_argument("--maps", type=int, default=9,
                        help="number of filters and feature maps (default: 9)")
    parser.add_argument("--output", default="sparse_coding.png",
                        help="file for the figure (default: sparse_coding.png)")
    args = parser.parse_args()
    y = photographs()
    y = y[np.random.default_rng(0).permutation(len(y))[:args.patches]]
    print(f"{len(y)} patches of {y.shape[2]} x {y.shape[3]}, {args.maps} filters of 7 x 7")
    filters, histories = {}, {}
    for p in (1.0, 0.8):
        title = f"p = {p:g}"
        layer = xn.DeconvolutionalNetwork2d(args.maps, 7, p=p, betas=BETAS, iterations=3)
        net = xn.Sequential([layer], input_shape=y.shape[1:])
        histories[title] = layer.learn(y, args.epochs)
        maps = net.predict(y)
        print(f"\n{title}\n{table(histories[title], args.epochs)}")
        print(f"elements of the maps that are not 0: {100 * (maps != 0).mean():.2f}%")
        most = np.argsort(-np.abs(maps).sum(axis=(0, 2, 3)))
        filters[title] = net.backend.to_numpy(layer.filters.data)[most, 0]
    draw(filters, histories, args.output)
    print(f"\n{args.output}: the filters, those with the largest sum of |map| first")


if __name__ == "__main__":
    main()
