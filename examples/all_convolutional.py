"""Max-pooling against convolutions with stride 2 (Springenberg et al. 2015, section 3.2).

    python examples/all_convolutional.py [--data cifar10] [--samples 2000] [--epochs 6] [--seeds 3]
                                         [--output FOLDER] [--redraw] [--quick]

The four networks are those of the paper's model C, with fewer filters. What came out is in
docs/experiments.md.
"""

from comparing import draw_curves, draw_dots, figure, images, options, results, save, span, trained

import xpnet as xn

# How both stages of two convolutions end: the stride of the second convolution, the stride of a
# third one (0: there is none), and whether max-pooling follows.
KINDS = {"max-pooling": (1, 0, True), "strided": (2, 0, False),
         "max-pooling, deeper": (1, 1, True), "all-convolutional": (1, 2, False)}
PUBLISHED = {"max-pooling": 0.0974, "strided": 0.1019, "max-pooling, deeper": 0.0931,
             "all-convolutional": 0.0908}       # errors on CIFAR-10, table 3


def convolution(filters, kernel_size=3, stride=1):
    return xn.Conv2d(filters, kernel_size, stride=stride, padding=kernel_size // 2,
                     activation="relu", init="he_normal")


def network(shape, seed, last_stride, more_stride, pooled):
    layers = []
    for filters in (8, 16):
        layers += [convolution(filters), convolution(filters, stride=last_stride)]
        if more_stride:
            layers.append(convolution(filters, stride=more_stride))
        if pooled:
            layers.append(xn.MaxPool2d(3, stride=2, padding=1))
    layers += [convolution(16), convolution(16, 1), xn.Conv2d(10, 1), xn.GlobalAvgPool2d()]
    return xn.Sequential(layers, input_shape=shape, seed=seed)


def measure(args):
    data = images(args)

    def run(seed, kind):
        net = network(data[0].shape[1:], seed, *kind)
        return {"parameters": net.parameters.size} | trained(
            net, args, data, optimizer=xn.Adam(3e-3), batch_size=50, schedule="cosine")
    return {name: [run(seed, kind) for seed in range(args.seeds)] for name, kind in KINDS.items()}


def main() -> None:
    args = options(__doc__, data="cifar10", samples=2000, tested=1000, epochs=6, seeds=3)
    found = results("all_convolutional", args, lambda: measure(args))
    final = {name: [run["val_accuracy"][-1] for run in runs] for name, runs in found.items()}
    for name, accuracies in final.items():
        print(f"{name:19} {found[name][0]['parameters']:6,} parameters, accuracy "
              f"{span(accuracies)}; published {1 - PUBLISHED[name]:.2%}")
    made, (left, right) = figure(2, 2.8)
    draw_curves(left, {name: [run["val_accuracy"] for run in runs] for name, runs in found.items()})
    left.set(xlabel="epoch", ylabel="accuracy, unseen images")
    draw_dots(right, final)
    right.set(xlabel="accuracy after training")
    save(made, args, "all_convolutional")


if __name__ == "__main__":
    main()
