"""LeNet-5 by its own recipe (LeCun et al. 1998, sections II.B, II.C and III.B): 0.95 % of MNIST's
test images are wrong after 20 passes over the 60,000 training images.

    python examples/lenet5_recipe.py [--samples 60000] [--epochs 4] [--seeds 1]
                                     [--output FOLDER] [--redraw] [--quick]

As in the paper: images of 32 x 32 pixels, -0.1 for the background and 1.175 for ink, trainable
subsampling, the connection table, scaled tanh, RBF outputs, the criterion of equation 9, and a
learning rate that falls by the paper's factors, after the same parts of the training. Differently:
fewer passes, unless --epochs 20 is given; the codes of the outputs are drawn anew; batches have 8
images instead of one; and all parameters have the same learning rate, where the paper divides it by
an estimate of each parameter's second derivative. What came out is in docs/experiments.md.
"""

import numpy as np
from comparing import check_ended, draw_curves, figure, fitted, options, results, save

import xpnet as xn

PUBLISHED = 0.0095                      # errors on the 10,000 test images
WHITE, BLACK = -0.1, 1.175              # background and ink
BOUND = 4.0                             # j of equation 9, which the paper does not give
RATE = 0.006                            # of the first two passes; 0.003 and 0.012 learn more slowly
PASSES = (2, 0.0005), (3, 0.0002), (3, 0.0001), (4, 0.00005), (8, 0.00001)


class PaperSchedule(xn.Schedule):
    """The paper's global learning rates as factors of the first one, over the 20 passes."""

    def factor(self, t):
        ends = np.cumsum([passes for passes, _ in PASSES]) / 20
        rate = PASSES[min(int((ends <= t + 1e-9).sum()), len(PASSES) - 1)][1]
        return rate / PASSES[0][1]


def ink(x):
    """Images from 0 to 1 as the paper has them, 32 x 32."""
    return fitted(WHITE + (BLACK - WHITE) * np.asarray(x, np.float32), 32)


def measure(args):
    data = xn.data.digits() if args.data == "digits" else xn.data.mnist(args.data_dir)
    x, y, unseen, truth = data.arrays()
    x, y = ink(x[:args.samples]), y[:args.samples]
    unseen, truth = ink(unseen[:args.tested]), truth[:args.tested]

    def run(seed):
        net = xn.models.lenet5(seed=seed)
        history = net.fit(x, y, loss=xn.BoundedCrossEntropy(BOUND), optimizer=xn.SGD(RATE),
                          schedule=PaperSchedule(), batch_size=8, epochs=args.epochs,
                          validation=(unseen, truth), verbose=False)
        check_ended(net, history)
        return {"training": [1 - a for a in history["accuracy"]],
                "unseen": [1 - a for a in history["val_accuracy"]]}
    return [run(seed) for seed in range(args.seeds)]


def main() -> None:
    args = options(__doc__, data="mnist", samples=60000, tested=10000, epochs=4, seeds=1)
    found = results("lenet5_recipe", args, lambda: measure(args))
    errors = {f"{part} images": [run[part] for run in found] for part in ("training", "unseen")}
    for name, runs in errors.items():
        print(f"error of the {name}, by pass: "
              + ", ".join(f"{error:.2%}" for error in np.mean(runs, axis=0)))
    print(f"published, after 20 passes: {PUBLISHED:.2%}")
    made, (axes,) = figure(1)
    draw_curves(axes, errors)
    axes.axhline(PUBLISHED, color="black", linestyle=":", label="published, after 20 passes")
    axes.set(xlabel="pass", ylabel="errors", yscale="log")
    ticks = 0.005, 0.01, 0.02, 0.05
    axes.set_yticks(ticks, [f"{tick:.1%}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    save(made, args, "lenet5_recipe")


if __name__ == "__main__":
    main()
