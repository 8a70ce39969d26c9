"""ESPCN learns from one photograph to enlarge another one three times, and is compared with bicubic
interpolation.

Its PSNR on the other photograph is 31.69 dB; that of bicubic interpolation is 31.12 dB.

    python examples/super_resolution.py [--epochs 200] [--output super_resolution.png]

The network enlarges the brightness, bicubic interpolation the colours, as Shi et al. 2016 do. The
photographs are scikit-learn's, the figure is drawn with matplotlib: pip install "xpnet[data,viz]".
"""

import argparse

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import xpnet as xn
from xpnet.metrics import psnr

FACTOR = 3
PATCH = 24              # rows and columns of the small patches
DETAIL = slice(53, 89), slice(88, 124)      # rows and columns of the small image that are drawn


def resized(image, rows, columns):
    """An image (H, W, 3) of bytes, resized with bicubic interpolation."""
    return np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC))


def brightness(image):
    """The brightness (1, 1, H, W), from 0 to 1, of an image (H, W, 3) of bytes."""
    luma = np.asarray(Image.fromarray(image).convert("YCbCr"))[None, None, ..., 0]
    return luma.astype(np.float32) / 255


def with_brightness(image, luma):
    """An image (H, W, 3) of bytes with another brightness (1, 1, H, W), and its own colours."""
    _, *colours = Image.fromarray(image).convert("YCbCr").split()
    grey = Image.fromarray((255 * luma[0, 0] + 0.5).clip(0, 255).astype(np.uint8))
    return np.asarray(Image.merge("YCbCr", [grey, *colours]).convert("RGB"))


def photograph(name):
    """(large, small): an image (H, W, 3) whose sides FACTOR divides, and the same one resized."""
    image = load_sample_image(name)
    rows, columns = (size // FACTOR for size in image.shape[:2])
    large = np.ascontiguousarray(image[:FACTOR * rows, :FACTOR * columns])
    return large, resized(large, rows, columns)


def patches(a, size):
    """Patches (N, 1, size, size) of an image (1, 1, H, W), and each one mirrored."""
    found = [a[0, :, row:row + size, column:column + size]
             for row in range(0, a.shape[2] - size + 1, size // 2)
             for column in range(0, a.shape[3] - size + 1, size // 2)]
    return np.stack(found + [patch[..., ::-1] for patch in found])


def draw(images, path):
    """Draw a detail of each image, (title, image), of which the first one is small."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(1, len(images), figsize=(2.4 * len(images), 2.65),
                                layout="constrained")
    for axis, (title, image) in zip(axes, images):
        times = len(image) // len(images[0][1])
        rows, columns = (slice(times * part.start, times * part.stop) for part in DETAIL)
        axis.imshow(image[rows, columns], interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=200,
                        help="passes over the patches (default: 200)")
    parser.add_argument("--output", default="super_resolution.png",
                        help="file for the figure (default: super_resolution.png)")
    args = parser.parse_args()
    large, small = photograph("china.jpg")
    x, y = patches(brightness(small), PATCH), patches(brightness(large), FACTOR * PATCH)
    net = xn.models.espcn(x.shape[1:], upscale_factor=FACTOR)
    print(f"{len(x)} patches of {PATCH} x {PATCH}")
    net.fit(x, y, loss="mean_squared_error", optimizer=xn.Adam(3e-3), schedule="one_cycle",
            epochs=args.epochs, batch_size=16)

    large, small = photograph("flower.jpg")
    whole = xn.models.espcn((1, *small.shape[:2]), upscale_factor=FACTOR)
    whole.parameters = net.parameters       # the same filters, for images of another size
    bicubic = resized(small, *large.shape[:2])
    luma = whole.predict(brightness(small)).clip(0, 1)
    truth, named = brightness(large), [("low resolution", small)]
    for name, image, found in (("bicubic", bicubic, brightness(bicubic)),
                               ("network", with_brightness(bicubic, luma), luma)):
        value = psnr(found, truth)
        print(f"{name:8} PSNR {value:.2f} dB")
        named.append((f"{name}, {value:.2f} dB", image))
    draw([*named, ("original", large)], args.output)


if __name__ == "__main__":
    main()
