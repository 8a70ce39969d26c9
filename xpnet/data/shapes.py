"""Images that are drawn: circles, squares and triangles, and figures made of sticks.

They need no download, and what is in them is known exactly: boxes, regions and landmarks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xpnet.checks import (
    expect_choice,
    expect_flag,
    expect_integer,
    expect_number,
    expect_seed,
    is_number,
    items,
    wrong,
)

JOINTS = "head", "neck", "left hand", "right hand", "hip", "left foot", "right foot"
LIMBS = (0, 1), (1, 2), (1, 3), (1, 4), (4, 5), (4, 6)      # which joints are connected
MOST_IMAGES, LARGEST = 2**24, 2**12
TRIES = 30                      # places that are tried for a shape that must not meet others


def _checked(who: str, count: Any, size: Any, least: int, noise: Any, seed: Any
             ) -> tuple[int, int, float, np.random.Generator]:
    """Arguments that both functions have, checked, and the generator of all random numbers."""
    return (expect_integer(who, "count", count, 1, MOST_IMAGES),
            expect_integer(who, "size", size, least, LARGEST),
            expect_number(who, "noise", noise, 0), np.random.default_rng(expect_seed(who, seed)))


def _noisy(images: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    return images + rng.normal(0, noise, images.shape).astype(np.float32)


# --- circles, squares and triangles ---------------------------------------------------------------

class Shapes(NamedTuple):
    """What `shapes` draws."""

    images: np.ndarray          # (N, channels, size, size) float32, about 0 to 1
    boxes: list[np.ndarray]     # of each image (M, 4): x1, y1, x2, y2 in pixels
    labels: list[np.ndarray]    # of each image (M,): 0 circle, 1 square, 2 triangle
    classes: np.ndarray         # (N, size, size) of each pixel: 0 background, label + 1


def shapes(count: int, size: int = 32, *, channels: int = 1, most: int = 3,
           radius: tuple[float, float] = (6, 10), overlap: bool = True, noise: float = 0.1,
           seed: int = 0) -> Shapes:
    """Images with light shapes on a dark background and noise, with the boxes of the shapes and the
    class of each pixel.

    Args:
        count: N.
        size: rows and columns.
        channels: 1 for grey images, 3 for colours.
        most: an image has 1 to `most` shapes.
        radius: the smallest and the largest, in pixels, of the circle around a shape.
        overlap: whether later shapes may cover earlier ones. A box is that of the whole shape, as
            far as it is in the image.
        noise: standard deviation.
        seed: of all random numbers.
    """
    who = "shapes"
    count, size, noise, rng = _checked(who, count, size, 8, noise, seed)
    channels = expect_choice(who, "channels", channels, (1, 3))
    most, overlap = expect_integer(who, "most", most, 1, 1000), expect_flag(who, "overlap", overlap)
    ends = items(radius)
    if (not ends or len(ends) != 2 or not all(is_number(end) for end in ends)
            or not 1 <= ends[0] <= ends[1] <= size / 2):
        raise wrong(who, "radius to be two numbers, the smallest and the largest, from 1 to half "
                    "the size", "radius", radius)
    found = Shapes(np.empty((count, channels, size, size), np.float32), [], [],
                   np.zeros((count, size, size), np.int64))
    for image, classes in zip(found.images, found.classes, strict=True):
        image[...] = rng.uniform(0, 0.3, (channels, 1, 1))
        boxes: list[list[int]] = []
        labels: list[int] = []
        for _ in range(rng.integers(1, most + 1)):
            for _ in range(1 if overlap else TRIES):
                shape = int(rng.integers(1, 4))
                row, column = rng.uniform(ends[0], size - ends[0], 2)
                covered = _inside(size, shape, row, column, rng.uniform(*ends),
                                  rng.uniform(0, 2 * np.pi))
                box = _box(covered)
                if overlap or not any(_meet(box, other) for other in boxes):
                    image[:, covered] = rng.uniform(0.5, 1, (channels, 1))
                    classes[covered] = shape
                    boxes.append(box)
                    labels.append(shape - 1)
                    break
        found.boxes.append(np.array(boxes, np.float64))
        found.labels.append(np.array(labels, np.int64))
    return found._replace(images=_noisy(found.images, noise, rng))


def _inside(size: int, shape: int, row: float, column: float, radius: float, angle: float
            ) -> np.ndarray:
    """Which pixels (size, size) a shape covers: 1 circle, 2 square, 3 triangle. Squares and
    triangles are turned by the angle."""
    rows, columns = np.mgrid[:size, :size].astype(float)
    down, right = rows - row, columns - column
    if shape == 1:
        return down**2 + right**2 < radius**2
    sides = 4 if shape == 2 else 3      # a pixel is inside if it is on the inner side of each edge
    edges = angle + 2 * np.pi / sides * np.arange(sides)[:, None, None]
    far: np.ndarray = (np.cos(edges) * down + np.sin(edges) * right).max(axis=0)
    return far < radius * np.cos(np.pi / sides)


def _box(covered: np.ndarray) -> list[int]:
    """x1, y1, x2, y2 around the pixels."""
    rows, columns = (np.flatnonzero(covered.any(axis=axis)) for axis in (1, 0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def _meet(a: list[int], b: list[int]) -> bool:
    return max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])


# --- stick figures --------------------------------------------------------------------------------

class Figures(NamedTuple):
    """What `stick_figures` draws."""

    images: np.ndarray          # (N, 1, size, size) float32, about 0 to 1
    points: np.ndarray          # (N, 7, 3): x and y of each joint in pixels, and 1 if it is visible


def stick_figures(count: int, size: int = 48, *, hidden: float = 0.2, noise: float = 0.05,
                  seed: int = 0) -> Figures:
    """Images of figures made of sticks, with the places of their seven joints: head, neck, left and
    right hand, hip, left and right foot.

    A figure faces away: its left hand is left in the image if it hangs down.

    Args:
        count: N.
        size: rows and columns.
        hidden: probability that a hand or a foot is covered by a dark disc. Its mark is then 0, as
            its place is not known.
        noise: standard deviation.
        seed: of all random numbers.
    """
    who = "stick_figures"
    count, size, noise, rng = _checked(who, count, size, 16, noise, seed)
    hidden = expect_number(who, "hidden", hidden, 0, 1)
    images = np.empty((count, 1, size, size), np.float32)
    points = np.ones((count, len(JOINTS), 3))
    for image, marks in zip(images[:, 0], points, strict=True):
        marks[:, :2] = joints = _joints(size, rng)
        image[...] = dark = rng.uniform(0, 0.2)
        light = rng.uniform(0.6, 1)
        for a, b in LIMBS:
            image[_distance(size, joints[a], joints[b]) < 0.025 * size] = light
        image[_distance(size, joints[0], joints[0]) < 0.07 * size] = light
        for joint in (2, 3, 5, 6):
            if rng.random() < hidden:
                image[_distance(size, joints[joint], joints[joint]) < 0.09 * size] = dark
                marks[joint, 2] = 0
    return Figures(_noisy(images, noise, rng), points)


def _joints(size: int, rng: np.random.Generator) -> np.ndarray:
    """x and y of the joints. Angles are from the direction downwards, in radians, to the right."""
    def step(start: np.ndarray, angle: float, length: float) -> np.ndarray:
        return start + length * size * np.array([np.sin(angle), np.cos(angle)])

    lean, scale = rng.uniform(-0.4, 0.4), rng.uniform(0.8, 1.0)
    neck = size * np.array([rng.uniform(0.4, 0.6), rng.uniform(0.28, 0.38)])
    hip = step(neck, lean, 0.28 * scale)
    head = step(neck, lean + np.pi + rng.uniform(-0.3, 0.3), 0.13 * scale)
    hands = [step(neck, lean + side * rng.uniform(0.4, 2.4), 0.26 * scale) for side in (-1, 1)]
    feet = [step(hip, lean / 2 + side * rng.uniform(0.1, 0.9), 0.3 * scale) for side in (-1, 1)]
    return np.clip(np.stack([head, neck, *hands, hip, *feet]), 1, size - 1)


def _distance(size: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The distance (size, size) of each pixel's centre from the segment between two points."""
    place = np.stack(np.meshgrid(*2 * [np.arange(size) + 0.5]), axis=-1)      # (size, size, 2)
    along = b - a
    share = ((place - a) @ along / max(along @ along, 1e-12)).clip(0, 1)
    gap: Any = place - a - share[..., None] * along
    return np.sqrt((gap * gap).sum(axis=-1))
