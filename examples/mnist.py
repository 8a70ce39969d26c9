"""Two networks that people wrote from scratch to learn MNIST, side by side, with their authors'
figures next to ours.

    python examples/mnist.py [--data-dir FOLDER] [--epochs 3] [--samples 60000] [--backend auto]
"""

import argparse
import time

import xpnet as xn
from xpnet.data import mnist
from xpnet.models import bilici, numpy_cnn

AUTHORS = {     # what each author reports for MNIST's test set: accuracy, time
    "numpy_cnn": ("98.4 %", "about 5 hours"),       # Escontrela, github.com/Alescontrela/Numpy-CNN
    "bilici": ("unknown", "unknown"),
}


def main() -> None:
    parser = (argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter))
    parser.add_argument("--data-dir", help="where MNIST's files lie")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=60000, help="how many of the training "
                                                                   "pictures to use")
    parser.add_argument("--backend", default="auto")
    options = parser.parse_args()

    data = mnist(options.data_dir)
    x, y = data.x_train[:options.samples], data.y_train[:options.samples]
    rows = []
    for name, build in (("numpy_cnn", numpy_cnn), ("bilici", bilici)):
        net = build(backend=options.backend)
        started = time.perf_counter()
        net.fit(x, y, loss="cross_entropy", optimizer=xn.AdamW(4e-3, weight_decay=0.1),
                schedule="one_cycle", epochs=options.epochs, batch_size=128)
        seconds = time.perf_counter() - started
        accuracy = net.evaluate(data.x_test, data.y_test)["accuracy"]
        rows.append((name, *AUTHORS[name], f"{100 * accuracy:.2f} %", f"{seconds:.0f} s"))

    print(f"\n{'network':12}{'author':>14}{'time':>16}{'here':>12}{'time':>10}")
    for row in rows:
        print(f"{row[0]:12}{row[1]:>14}{row[2]:>16}{row[3]:>12}{row[4]:>10}")


if __name__ == "__main__":
    main()
