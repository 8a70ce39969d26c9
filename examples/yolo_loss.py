"""The loss of YOLO, term by term, on one image.

A network is trained a little, so that it still makes mistakes. The figure shows the cells of one
unseen image, the boxes of the responsible predictors, and what each cell adds to each term.

    python examples/yolo_loss.py [--epochs 4] [--images 1000] [--output yolo_loss.png]

The figure is drawn with matplotlib: pip install "xpnet[viz]".
"""

import argparse

import numpy as np
from detect_shapes import GRID, NAMES, SIZE, network

import xpnet as xn
from xpnet import vision

CELL = SIZE / GRID
TITLES = {"centre": "centre: r ((x - t_x)² + (y - t_y)²)",
          "size": "size: r ((√w - √t_w)² + (√h - √t_h)²)", "object": "object: r (C - IoU)²",
          "no_object": "no_object: (1 - r) C²", "class": "class: o (p - t_p)²"}


def draw(image, boxes, predicted, terms, loss, path):
    """The image with its cells and boxes, and a panel for each term."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 7.4), layout="constrained")

    def box(axis, corners, **style):
        x1, y1, x2, y2 = corners
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style))

    pixels = np.moveaxis(image.clip(0, 1), 0, -1)
    for axis in axes.flat:
        axis.imshow(pixels, extent=(0, SIZE, SIZE, 0), interpolation="nearest")
        axis.set(xticks=np.arange(GRID) * CELL, yticks=np.arange(GRID) * CELL, xticklabels=[],
                 yticklabels=[], xlim=(0, SIZE), ylim=(SIZE, 0))
        axis.grid(color="white", linewidth=0.4)
        axis.tick_params(length=0)
    first, *others = axes.flat
    for corners in boxes:
        x, y = (corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2
        j, i = int(x / CELL), int(y / CELL)
        first.add_patch(Rectangle((j * CELL, i * CELL), CELL, CELL, color="#ffe119", alpha=0.5))
        box(first, corners, color="#3cb44b", linewidth=2)
        first.plot(x, y, "o", color="#3cb44b", markersize=4)
        candidates = predicted[:, :, i, j].T                        # (B, 4)
        best = vision.box_iou(candidates, corners[None])[:, 0].argmax()
        for number, one in enumerate(candidates):
            box(first, one, color="#e6194b", linewidth=1.5,
                linestyle="-" if number == best else ":")
    first.set_title("green: objects; red: the boxes of their cells,\nsolid if responsible",
                    fontsize=9)
    for axis, (name, title) in zip(others, TITLES.items()):
        factor = {"centre": loss.lambda_coord, "size": loss.lambda_coord,
                  "no_object": loss.lambda_noobj}.get(name, 1)
        axis.imshow(np.ones((GRID, GRID, 3)), extent=(0, SIZE, SIZE, 0), alpha=0.55)
        axis.imshow(terms[name], extent=(0, SIZE, SIZE, 0), cmap="Reds", alpha=0.8,
                    interpolation="nearest")
        for i, j in np.argwhere(terms[name] >= 0.005):
            axis.text((j + 0.5) * CELL, (i + 0.5) * CELL, f"{terms[name][i, j]:.2f}".lstrip("0"),
                      ha="center", va="center", fontsize=7)
        axis.set_title(f"{title}\nsum, with the factor {factor:g}: {terms[name].sum():.3f}",
                       fontsize=9)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4,
                        help="passes over the images (default: 4)")
    parser.add_argument("--images", type=int, default=1000,
                        help="number of training images (default: 1000)")
    parser.add_argument("--output", default="yolo_loss.png",
                        help="file for the figure (default: yolo_loss.png)")
    args = parser.parse_args()
    options = {"size": SIZE, "channels": 3, "radius": (6, 14), "overlap": False}
    train = xn.data.shapes(args.images, seed=0, **options)
    loss = xn.YOLOv1(NAMES, boxes=2)
    net = network(loss)
    net.fit(train.images, vision.detection_targets(train.boxes, train.labels, (SIZE, SIZE)),
            loss=loss, optimizer=xn.AdamW(3e-3), schedule="one_cycle", epochs=args.epochs)

    one = xn.data.shapes(1, most=3, seed=7, **options)
    rows = vision.detection_targets(one.boxes, one.labels, (SIZE, SIZE))
    y = net.predict(one.images)
    cells = vision.loss_parts(loss, y, rows, cells=True)
    predicted = loss.predictions(np, np.moveaxis(y, 0, -1)).boxes[..., 0] * SIZE    # (4, B, S, S)
    for name, term in cells.items():
        print(f"{name:10} {term.sum():.4f}")
    print(f"{'loss':10} {sum(term.sum() for term in cells.values()):.4f}")
    draw(one.images[0], one.boxes[0], predicted, {name: term[0] for name, term in cells.items()},
         loss, args.output)


if __name__ == "__main__":
    main()
