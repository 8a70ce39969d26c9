"""Two networks read images of digits row by row, as a signal of 8 channels and 8 steps: a
convolution over time, and an LSTM, which has seen half of the image after 4 steps.

    python examples/signal_lstm.py [--epochs 30] [--backend auto]

The images come with scikit-learn (the extra `data`).
"""

import argparse

import numpy as np

import xpnet as xn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30,
                        help="passes over the images (default: 30)")
    parser.add_argument("--backend", default="auto",
                        help='"auto" (default), "numpy", "numba", "cupy" or "cupy:DEVICE"')
    options = parser.parse_args()

    x_train, y_train, x_test, y_test = xn.data.digits().arrays()
    # (N, 1, rows, columns) -> (N, columns, rows): the columns are channels, the rows are steps
    x_train, x_test = (x[:, 0].transpose(0, 2, 1) for x in (x_train, x_test))
    networks = {
        "Conv1d": [xn.Conv1d(64, 3, padding="half", activation="relu"),
                   xn.Conv1d(64, 3, padding="half", activation="relu"), xn.GlobalMaxPool1d(),
                   xn.Linear(10)],
        "LSTM": [xn.LSTM(64, return_sequences=True), xn.Linear(10)],
    }
    for name, layers in networks.items():
        net = xn.Sequential(layers, input_shape=x_train.shape[1:], backend=options.backend, seed=0)
        steps = net.output.shape[1:]        # the LSTM says a digit after each step
        targets = np.broadcast_to(y_train[:, None], (len(y_train), *steps)) if steps else y_train
        net.fit(x_train, targets, loss="cross_entropy", optimizer=xn.AdamW(5e-3, weight_decay=0.1),
                schedule="one_cycle", epochs=options.epochs, verbose=False)
        right = net.predict(x_test).argmax(axis=1).T == y_test      # (steps, N), or (N,)
        if steps:
            after = " ".join(f"{share:.1%}" for share in right.mean(axis=1))
            print(f"{name}, accuracy after each step: {after}")
            right = right[-1]
        print(f"{name}, accuracy on {len(y_test)} unseen images: {right.mean():.2%}")


if __name__ == "__main__":
    main()
