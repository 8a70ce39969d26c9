"""The options of all commands, and their help."""

from __future__ import annotations

import argparse
import re

from xpnet import __version__
from xpnet.cli import detect, evaluate, explore, tools, train
from xpnet.cli import predict as predictions
from xpnet.cli.sources import HELD_OUT, SIZE, WELL_KNOWN

STATUS = """exit status:
  0    done
  1    xpnet train did not reach --until-accuracy, or its parameters became NaN or
       infinite; xpnet verify found an error
  2    the command could not be run: the reason is in the last line of stderr
  130  Ctrl-C; xpnet train saves the network before
  141  the program that reads the output has ended
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="xpnet", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train convolutional networks on images, use them, and check the library.",
        epilog=f"xpnet COMMAND --help shows the options of a command, with examples.\n\n{STATUS}")
    top.add_argument("--version", action="version", version=f"xpnet {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str, *examples: str) -> argparse.ArgumentParser:
        lines = "\n".join(f"  xpnet {name} {example}".rstrip() for example in examples)
        found = commands.add_parser(
            name, help=text[0].lower() + text[1:].partition(". ")[0].rstrip("."), description=text,
            epilog=f"examples:\n{lines}", formatter_class=argparse.RawDescriptionHelpFormatter)
        found.set_defaults(run=run)
        return found

    _train(command("train", train.run, "Train a network and save it.",
                   "", "--data mnist --model numpy_cnn",
                   "--data photos --size 64 --model resnet18 --augment crop:4 flip",
                   "--data train.csv --model net.py --log training.csv --resume run"))

    evaluated = command(
        "evaluate", evaluate.run,
        "Print loss, accuracy and the figures of each class of a saved network.",
        "digits-bilici.safetensors", "photos-resnet18.safetensors --data photos --validation 0.2")
    evaluated.add_argument("file", help="a network that xpnet train or net.save saved")
    _data_options(evaluated)
    evaluated.set_defaults(size=None, channels=None)        # those of the network
    _validation_options(evaluated, "as in the training, of which they give the same images",
                        "seed of this choice, as in the training (default: 0)")
    _backend_option(evaluated)
    _layers_option(evaluated)

    predict = command(
        "predict", predictions.run,
        "Print the most likely classes of image files, a line for each file.",
        "photos-resnet18.safetensors photo.jpg other.png",
        "photos-resnet18.safetensors folder --top 3 --json")
    predict.add_argument("file", help="a network that xpnet train or net.save saved")
    predict.add_argument("images", nargs="+", metavar="IMAGE",
                         help="an image file, or a folder, of which all image files are taken")
    predict.add_argument("--top", type=int, default=1, metavar="N",
                         help="how many classes, the most likely one first (default: 1)")
    predict.add_argument("--json", action="store_true",
                         help="print a JSON object for each file")
    _backend_option(predict)
    _layers_option(predict)

    found = command(
        "detect", detect.run,
        "Draw boxes around the objects in image files.",
        "photo.jpg --model detect_shapes2.safetensors",
        "a.jpg b.png --model net.safetensors --score 0.5 --output boxes",
        "a.jpg --model net.cfg --weights net.weights --names coco.names")
    found.add_argument("images", nargs="+", metavar="IMAGE", help="an image file")
    found.add_argument("--model", required=True, metavar="FILE",
                       help="a network that was trained with a YOLO loss and saved, or a cfg file "
                            "of Darknet")
    found.add_argument("--weights", metavar="FILE", help="the weights file of a cfg file")
    found.add_argument("--names", metavar="FILE",
                       help="a text file with the name of a class in each line (default: the names "
                            "that the network knows, or numbers)")
    found.add_argument("--output", metavar="FOLDER",
                       help="where the images with boxes are written, as NAME-detected.png "
                            "(default: the current folder)")
    found.add_argument("--score", type=float, default=0.25, metavar="S",
                       help="the least score of an object that is drawn (default: 0.25)")
    found.add_argument("--iou", type=float, default=0.45, metavar="X",
                       help="of boxes of the same class that overlap more than this, the one with "
                            "the largest score is kept (default: 0.45)")
    found.add_argument("--json", action="store_true",
                       help="print a JSON object for each file")
    _backend_option(found)
    found.add_argument("--layers", metavar="FILE.py",
                       help="a Python file with the layer classes of the network that are not "
                            "part of xpnet")

    _explore(command(
        "explore", explore.run,
        "Show in the browser how a network works, and train it there.",
        "bilici --data digits", "mnist-bilici.safetensors --data mnist --compare numpy",
        "net.onnx --no-browser --port 8000"))

    summary = command("summary", tools.summary, "Print the table of a network's layers.",
                      "resnet18", "digits-bilici.safetensors", "unet --draw unet.svg")
    summary.add_argument("network", help="a network of xpnet.models, or a file")
    summary.add_argument("--draw", metavar="FILE.svg",
                         help="write a drawing of the network's graph")
    _layers_option(summary)

    verify = command(
        "verify", tools.verify,
        "Check the gradient of every layer and loss, and the results of every backend.",
        "", "--backend numpy")
    verify.add_argument("--backend", action="append",
                        help="a backend to check; can be repeated (default: all)")

    doctor = command(
        "doctor", tools.doctor,
        "Show what this machine offers, what is missing, and what to do about it.", "", "--json")
    doctor.add_argument("--json", action="store_true", help="print a list of JSON objects")
    return top


def _explore(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL",
                        help="a network of xpnet.models, or a file: a saved network, an ONNX file, "
                             "or a Python file as in xpnet train")
    _data_options(parser, None, "none, but digits for a Python file and for "
                          "images of 8x8 pixels")
    _size_options(parser)
    _validation_options(parser, f"default: {HELD_OUT} if the data have neither a part for "
                                "validation nor one for testing, else 0",
                        "seed of this choice, of initial values and of samples (default: 0)")
    _backend_option(parser)
    parser.add_argument("--compare", metavar="BACKEND|FILE",
                        help="look at the same network on another backend beside it, or at a saved "
                             "network of the same structure")
    parser.add_argument("--layers", metavar="FILE.py",
                        help="a Python file with the layer classes of the network that are not "
                             "part of xpnet")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--no-browser", action="store_true",
                        help="print the address of the page, and open no browser")


def _train(parser: argparse.ArgumentParser) -> None:
    from xpnet.cli.augmentations import FORMS
    _data_options(parser)
    _size_options(parser)
    _validation_options(parser, f"default: {HELD_OUT} if the data have neither a part for "
                                "validation nor one for testing, else 0",
                        "seed of this choice, of initial values, order of the images, "
                        "augmentations and dropout (default: 0)")
    parser.add_argument("--model", default="bilici", metavar="NAME|FILE.py",
                        help="a network of xpnet.models (default: bilici), or a Python file with a "
                             "function build that returns a network; it gets those of input_shape, "
                             "classes (their number), backend and seed that it has parameters for")
    parser.add_argument("--epochs", type=int,
                        help=f"passes over the training images {_defaults('epochs')}")
    parser.add_argument("--batch-size", type=int,
                        help=f"images per training step {_defaults('batch_size')}")
    parser.add_argument("--lr", type=float, default=4e-3,
                        help="largest learning rate of AdamW (default: 0.004)")
    parser.add_argument("--weight-decay", type=float,
                        help=f"weight decay of AdamW {_defaults('weight_decay')}")
    parser.add_argument("--schedule", default="one_cycle",
                        help='schedule of the learning rate: "one_cycle" (default), "constant", '
                             '"cosine", "step", ...')
    parser.add_argument("--augment", nargs="+", default=(), metavar="NAME:NUMBER",
                        help="random changes of the images, in this order. Their names and the "
                             f"default values of their numbers: {FORMS}")
    parser.add_argument("--class-weight", choices=["balanced"],
                        help="balanced: all classes count the same, however many images they have")
    parser.add_argument("--until-accuracy", type=float, metavar="PERCENT",
                        help="stop after the first epoch with this accuracy on the images for "
                             "validation, or without such a part on the test images; exit status 1 "
                             "if no epoch reaches it")
    _backend_option(parser)
    parser.add_argument("--autotune", action="store_true",
                        help="on a GPU, time the alternative kernels for each shape and use the "
                             "fastest; this can change the last bits of the results, and the "
                             "choice is saved with the network")
    parser.add_argument("--checkpoint", metavar="FOLDER",
                        help="save the training there after each epoch")
    parser.add_argument("--resume", metavar="FOLDER",
                        help="continue the training that was saved there, to the same bits; "
                             "without one, begin, and save there")
    parser.add_argument("--log", metavar="FILE",
                        help="append the figures of each epoch to a file .csv or .jsonl")
    parser.add_argument("--tensorboard", metavar="FOLDER",
                        help="write the figures of each epoch for TensorBoard")
    parser.add_argument("--shards", type=int, default=4, metavar="N",
                        help="for processes that mpiexec started, mpiexec -n 4 xpnet train ...: "
                             "into how many parts each batch is cut, a power of two and a multiple "
                             "of the number of processes. The results depend on it, but not on the "
                             "number of processes (default: 4)")
    parser.add_argument("--sync", action="store_true",
                        help="for several processes: batch norm uses mean and variance of the "
                             "whole batch, as one process does, not of each part")
    parser.add_argument("--save", metavar="FILE",
                        help="where to save the network (default: DATA-MODEL.safetensors)")


def _defaults(name: str) -> str:
    values = [f"{data} {getattr(recipe, name)}" for data, recipe in train.RECIPES.items()]
    return (f"(default: {', '.join(values)}, other data {getattr(train.OTHERS, name)}, but fewer "
            f"than {train.FEW:,} images as digits)")


def _data_options(parser: argparse.ArgumentParser, default: str | None = "digits",
                  note: str = "digits") -> None:
    parser.add_argument("--data", default=default, metavar="NAME|FOLDER|FILE",
                        help=f"one of {', '.join(WELL_KNOWN)} (default: {note}); emnist:SPLIT, "
                             "e.g. emnist:letters, or cifar100:coarse; a folder that has a folder "
                             "of image files for each class; or a CSV file with a row of label and "
                             "pixels for each image")
    parser.add_argument("--data-dir", metavar="FOLDER",
                        help="where the files of a well-known data set are (default: $XPNET_HOME, "
                             "then the cache folder, then a download)")


def _size_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=_size, metavar="N|HxW",
                        help="rows and columns that image files are resized to (default: "
                             f"{SIZE}); for a CSV file those that it has (default: as many rows as "
                             "columns)")
    parser.add_argument("--channels", type=int, choices=[1, 3],
                        help="1 for grey images, 3 for colours (default: 3 for image files, 1 for "
                             "a CSV file)")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected N or HxW, e.g. 64 or 48x64. Received: {text!r}")
    return int(match[1]), int(match[2] or match[1])


def _validation_options(parser: argparse.ArgumentParser, note: str, seed: str) -> None:
    parser.add_argument("--validation", type=float, metavar="SHARE",
                        help="the share of the images that is not trained on but used to "
                             f"validate ({note})")
    parser.add_argument("--seed", type=int, help=seed)


def _backend_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", default="auto",
                        help='array backend: "auto" (default), "numpy", "numba", "cupy" or '
                             '"cupy:DEVICE"')


def _layers_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="FILE.py",
                        help="a Python file with the layer classes of the network that are not "
                             "part of xpnet")
