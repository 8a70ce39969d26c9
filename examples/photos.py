"""A network learns from photographs in folders, one folder for each class; the training can be
stopped or killed at any moment and goes on when the program is started again.

    python examples/photos.py photos [--size 32] [--epochs 10] [--run runs/photos] [--backend auto]

The folder has a folder for each class; or train/ and test/, with such folders in each.
"""

import argparse

import xpnet as xn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a folder with a folder of images for each class")
    parser.add_argument("--size", type=int, default=32, help="side of the images (default: 32)")
    parser.add_argument("--epochs", type=int, default=10,
                        help="passes over the images (default: 10)")
    parser.add_argument("--run", default="runs/photos",
                        help="folder of the checkpoints (default: runs/photos)")
    parser.add_argument("--width", type=int, default=32,
                        help="filters of the first convolutions (default: 32)")
    parser.add_argument("--backend", default="auto",
                        help='"auto" (default), "numpy", "numba", "cupy" or "cupy:DEVICE"')
    options = parser.parse_args()

    data = xn.data.image_folder(options.folder, size=options.size, validation=0.2)
    print(data)
    layers: list[xn.Layer] = []
    for filters in (options.width, 2 * options.width, 4 * options.width):
        layers += [xn.Conv2d(filters, 3, padding="half", bias=False),
                   xn.BatchNorm2d(activation="relu"), xn.MaxPool2d(2)]
    layers += [xn.GlobalAvgPool2d(), xn.Dropout(0.2), xn.Linear(len(data.classes))]
    net = xn.Sequential(layers, input_shape=data.shape, backend=options.backend)
    net.fit(data, optimizer=xn.AdamW(3e-3, weight_decay=0.05), epochs=options.epochs,
            batch_size=64, schedule="one_cycle", augment=[xn.RandomCrop(4), xn.RandomFlip()],
            callbacks=[xn.EarlyStopping("val_loss", patience=5)], class_weight="balanced",
            resume=options.run)
    unseen = data.validation if data.test is None else data.test
    print(xn.metrics.report(net.predict_proba(unseen), unseen.labels, names=data.classes))
    net.save("photos.safetensors")
    print("saved photos.safetensors; next, try:\n"
          "  xpnet predict photos.safetensors IMAGE...")


if __name__ == "__main__":
    main()
