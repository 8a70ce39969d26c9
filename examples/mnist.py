"""Two networks that were written from scratch to learn MNIST: the figures of their authors, and
those measured here.

    python examples/mnist.py [--data-dir FOLDER] [--epochs 3] [--samples 60000] [--backend auto]
"""

import argparse
import time

import xpnet as xn
from xpnet.data import mnist
from xpnet.models import bilici, numpy_cnn

AUTHORS = {     # accuracy on MNIST's test set and training time that each author reports
    "numpy_cnn": ("98.4 %", "about 5 hours"),       # Escontrela, github.com/Alescontrela/Numpy-CNN
    "bilici": ("unknown", "unknown"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir",
                        help="folder of MNIST's files (default: $XPNET_HOME, then the cache "
                             "folder, then a download)")
    parser.add_argument("--epochs", type=int, default=3,
                        help="passes over the training images (default: 3)")
    parser.add_argument("--samples", type=int, default=60000,
                        help="number of training images (default: all 60000)")
    parser.add_argument("--backend", default="auto",
                        help='"auto" (default), "numpy", "numba", "cupy" or "cupy:DEVICE"')
    options = parser.parse_args()

    x_train, y_train, x_test, y_test = mnist(options.data_dir).arrays()
    x, y = x_train[:options.samples], y_train[:options.samples]
    rows = []
    for name, build in (("numpy_cnn", numpy_cnn), ("bilici", bilici)):
        net = build(backend=options.backend)
        started = time.perf_counter()
        net.fit(x, y, loss="cross_entropy", optimizer=xn.AdamW(4e-3, weight_decay=0.1),
                schedule="one_cycle", epochs=options.epochs, batch_size=128)
        seconds = time.perf_counter() - started
        accuracy = net.evaluate(x_test, y_test)["accuracy"]
        rows.append((name, *AUTHORS[name], f"{100 * accuracy:.2f} %", f"{seconds:.0f} s"))

    print(f"\n{'network':12}{'author':>14}{'time':>16}{'here':>12}{'time':>10}")
    for row in rows:
        print(f"{row[0]:12}{row[1]:>14}{row[2]:>16}{row[3]:>12}{row[4]:>10}")


if __name__ == "__main__":
    main()
