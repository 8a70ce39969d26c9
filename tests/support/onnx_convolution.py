"""ONNX operators on our layers and kernels: convolution, shapes and padding."""

from __future__ import annotations

import numpy as np
from onnx_operators import run_layer

import xpnet as xn


def transposed_arguments(attributes, x, W):
    """The attributes of ConvTranspose as options. In ONNX the output's shape can also determine the
    padding."""
    stride, dilation = (tuple(attributes.get(name, (1, 1))) for name in ("strides", "dilations"))
    extra = tuple(attributes.get("output_padding", (0, 0)))
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    wanted = attributes.get("output_shape")
    same = attributes.get("auto_pad", b"NOTSET").decode()
    if wanted or same in ("SAME_UPPER", "SAME_LOWER"):
        wanted = wanted[-2:] if wanted else [n * s for n, s in zip(x.shape[2:], stride)]
        total = [s * (n - 1) + e + d * (k - 1) + 1 - size
                 for s, n, e, d, k, size in zip(stride, x.shape[2:], extra, dilation, W.shape[2:],
                                                wanted)]
        # larger than the kernel: rows to which no element contributes
        extra = tuple(e + max(-t, 0) for e, t in zip(extra, total))
        less, more = [max(t, 0) // 2 for t in total], [max(t, 0) - max(t, 0) // 2 for t in total]
        # If the padding is odd, the larger half is at the end for SAME_UPPER, else at the
        # beginning.
        (top, left), (bottom, right) = (less, more) if same == "SAME_UPPER" else (more, less)
    return {"stride": stride, "padding": (top, bottom, left, right), "output_padding": extra,
            "dilation": dilation,
            "groups": attributes.get("group", 1)}


def conv_transpose(backend, attributes, inputs, outputs):
    x, W, *bias = inputs
    options = transposed_arguments(attributes, x, W)
    layer = xn.ConvTranspose2d(W.shape[1] * options["groups"], W.shape[2:], bias=bool(bias),
                               **options)
    return [run_layer(backend, layer, x, W=W, **dict(zip(["b"], bias)))]


def depth_to_space(backend, attributes, inputs, outputs):
    order = attributes.get("mode", b"DCR").decode()
    return [run_layer(backend, xn.PixelShuffle(attributes["blocksize"], order), inputs[0])]


def space_to_depth(backend, attributes, inputs, outputs):
    order = attributes.get("mode", b"DCR").decode()
    return [run_layer(backend, xn.PixelUnshuffle(attributes["blocksize"], order), inputs[0])]


def pad(backend, attributes, inputs, outputs):
    x, pads, value, *axes = inputs
    axes = axes[0] if axes else range(4)
    before, after = ({int(axis) % 4: int(p) for axis, p in zip(axes, half)}
                     for half in np.split(pads, 2))
    assert all(before.get(axis, 0) == after.get(axis, 0) == 0 for axis in (0, 1))
    sides = tuple(half.get(axis, 0) for axis in (2, 3) for half in (before, after))
    return [run_layer(backend, xn.ConstantPad2d(sides, float(value)), x)]


def center_crop_pad(backend, attributes, inputs, outputs):
    """The axis that keeps its length is the channel axis; each of the others is cropped or padded
    on both sides."""
    x, wanted = inputs
    axes = [axis % 3 for axis in attributes.get("axes", range(3))]
    size = [dict(zip(axes, wanted.tolist())).get(axis, x.shape[axis]) for axis in range(3)]
    channels = next(axis for axis in range(3) if size[axis] == x.shape[axis])
    maps, size = (np.moveaxis(x, channels, 0)[None],
                  [n for axis, n in enumerate(size) if axis != channels])
    crop, border = [], []
    for have, want in zip(maps.shape[2:], size):
        less, more = max(have - want, 0), max(want - have, 0)
        crop += [less // 2, less - less // 2]
        border += [more // 2, more - more // 2]
    maps = run_layer(backend, xn.Crop2d(tuple(crop)), maps)
    return [np.moveaxis(run_layer(backend, xn.ZeroPad2d(tuple(border)), maps)[0], 0, channels)]


def upsample(backend, attributes, inputs, outputs):
    x, scales = inputs
    return [run_layer(backend,
                      xn.Upsample2d(tuple(scales[2:].tolist()), attributes["mode"].decode()), x)]


# mode, coordinate_transformation_mode, nearest_mode -> Upsample2d's mode and align_corners
RESIZES = {
    ("nearest", "half_pixel", "round_prefer_floor"): ("nearest-exact", False),
    ("nearest", "asymmetric", "floor"): ("nearest", False),
    ("linear", "half_pixel", ""): ("bilinear", False),
    ("linear", "align_corners", ""): ("bilinear", True),
    ("linear", "pytorch_half_pixel", ""): ("bilinear", False),
    ("cubic", "half_pixel", ""): ("bicubic", False),
    ("cubic", "align_corners", ""): ("bicubic", True),
}


def resize(backend, attributes, inputs, outputs):
    x, wanted = inputs[0], inputs[-1].tolist()              # scales, or sizes (the only integers)
    axes = [axis % 4 for axis in attributes.get("axes", range(4))]
    in_scales = inputs[-1].dtype == np.float32
    scales = {axis: value if in_scales else value / x.shape[axis]
              for axis, value in zip(axes, wanted)}
    policy = attributes.get("keep_aspect_ratio_policy", b"stretch").decode()
    if policy != "stretch":
        kept = (min if policy == "not_larger" else max)(scales.values())
        scales = {axis: int(kept * x.shape[axis] + 0.5) / x.shape[axis] for axis in axes}
    mode = attributes["mode"].decode()
    how = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    rounding = (attributes.get("nearest_mode", b"round_prefer_floor").decode() if mode == "nearest"
                else "")
    unknown = attributes.get("antialias", 0) or attributes.get("exclude_outside", 0)
    if (mode, how, rounding) not in RESIZES or unknown:
        raise ValueError("no layer does this")
    layer = xn.Upsample2d((scales.get(2, 1.0), scales.get(3, 1.0)), *RESIZES[mode, how, rounding])
    return [run_layer(backend, layer, x)]


def elementwise(layer):
    """A merging layer: the whole array of a case is one sample."""
    return lambda backend, attributes, inputs, outputs: [
        run_layer(backend, layer(), *(x[None] for x in inputs))[0]]


def reshape(backend, attributes, inputs, outputs):
    x, shape = inputs
    wanted = [x.shape[axis] if n == 0 and not attributes.get("allowzero", 0) else int(n)
              for axis, n in enumerate(shape)]
    return [run_layer(backend, xn.Reshape(wanted), x[None])[0]]


def transpose(backend, attributes, inputs, outputs):
    axes = attributes.get("perm", range(inputs[0].ndim)[::-1])
    return [run_layer(backend, xn.Permute(axes), inputs[0][None])[0]]


OPERATORS = {"ConvTranspose": conv_transpose, "DepthToSpace": depth_to_space,
             "SpaceToDepth": space_to_depth, "Pad": pad,
             "CenterCropPad": center_crop_pad, "Upsample": upsample, "Resize": resize,
             "Reshape": reshape, "Transpose": transpose,
             "Mul": elementwise(xn.Multiply), "Sub": elementwise(xn.Subtract),
             "Mean": elementwise(xn.Average),
             "Max": elementwise(xn.Maximum), "Min": elementwise(xn.Minimum)}
WITH_WINDOWS = ("ConvTranspose",)  # operators of which only the cases with two spatial axes count
REASONS: dict[str, list[str]] = {          # the reasons why cases cannot pass
    "of two elements that are equally near Upsample2d takes the second, as PyTorch does, ONNX by "
    "default the first": [
        "test_resize_downsample_sizes_nearest", "test_resize_downsample_sizes_nearest_not_larger",
        "test_resize_downsample_sizes_nearest_not_smaller", "test_resize_upsample_sizes_nearest",
        "test_resize_upsample_sizes_nearest_axes_2_3",
        "test_resize_upsample_sizes_nearest_axes_3_2",
        "test_resize_upsample_sizes_nearest_not_larger"],
    "ONNX aligns the corners of an output whose size was not rounded yet": [
        "test_resize_downsample_scales_cubic_align_corners",
        "test_resize_downsample_scales_linear_align_corners"],
    "an output of one row or column stands in the middle of the input, with pytorch_half_pixel at "
    "its beginning": [
        "test_resize_downsample_sizes_linear_pytorch_half_pixel"],
    "Upsample2d takes samples and does not average": [
        "test_resize_downsample_scales_cubic_antialias",
        "test_resize_downsample_scales_linear_antialias",
        "test_resize_downsample_sizes_cubic_antialias",
        "test_resize_downsample_sizes_linear_antialias"],
    "the cubic kernel has a = -3/4 and repeats the edge": [
        "test_resize_downsample_scales_cubic_A_n0p5_exclude_outside",
        "test_resize_upsample_scales_cubic_A_n0p5_exclude_outside"],
    "a pixel is a square around its centre, or the corners are aligned; other ways to count places "
    "are not there": [
        "test_resize_downsample_scales_linear_half_pixel_symmetric",
        "test_resize_upsample_scales_linear_half_pixel_symmetric",
        "test_resize_upsample_scales_cubic_asymmetric",
        "test_resize_upsample_sizes_nearest_ceil_half_pixel",
        "test_resize_upsample_sizes_nearest_floor_align_corners",
        "test_resize_upsample_sizes_nearest_round_prefer_ceil_asymmetric"],
    "merging layers take inputs of one shape": [
        "test_mul_bcast", "test_sub_bcast"],
    "merging layers take two inputs or more": [
        "test_max_one_input", "test_mean_one_input", "test_min_one_input"],
    "a sample has no axis without elements": [
        "test_reshape_allowzero_reordered"],
    "Upsample2d has no region of interest": [
        "test_resize_tf_crop_and_resize", "test_resize_tf_crop_and_resize_axes_2_3",
        "test_resize_tf_crop_and_resize_axes_3_2",
        "test_resize_tf_crop_and_resize_extrapolation_value"],
}
