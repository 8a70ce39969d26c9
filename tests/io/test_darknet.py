"""Networks of Darknet compute what Darknet computes, and are written as they were read."""

from __future__ import annotations

import copy
import math
import struct

import numpy as np
import pytest
from darknet_reference import (
    ACTIVATIONS,
    Reference,
    arrays,
    largest_error,
    randomized,
    saved,
)
from tiers import first

import xpnet as xn
from xpnet.io.darknet.cfg import parse
from xpnet.io.darknet.table import build
from xpnet.io.darknet.weights import Header, bytes_of
from xpnet.models import DARKNETS
from xpnet.models import darknet as cfg_files

NET = "[net]\nheight=9\nwidth=8\nchannels=4\n"
CONV = "[convolutional]\nfilters=6\nsize=3\npad=1\nactivation=leaky\n"
CASES = {
    "convolution": "[convolutional]\nfilters=6\nsize=3\nstride_x=2\nstride_y=3\npadding=2\n"
                   "groups=2\nactivation=linear\n",
    "dilation": "[convolutional]\nfilters=3\nsize=3\npad=1\ndilation=2\nbatch_normalize=1\n",
    "defaults": "[conv]\n",
    "shared": CONV + "[convolutional]\nfilters=6\nsize=3\npad=1\nbatch_normalize=1\n"
              "activation=mish\n" "[convolutional]\nshare_index=-1\nfilters=6\nsize=3\npad=1\n"
              "batch_normalize=1\nactivation=mish\n",
    "connected": "[connected]\noutput=5\nactivation=leaky\n[conn]\noutput=3\nbatch_normalize=1\n"
                 "activation=relu\n",
    "map-after-connected": "[connected]\noutput=5\n[convolutional]\nfilters=3\nactivation=tanh\n",
    "local": "[local]\nfilters=3\nsize=3\npad=1\nstride=2\nactivation=leaky\n[local]\nfilters=2\n"
             "size=2\n",
    "batchnorm": "[batchnorm]\n[avgpool]\n[batchnorm]\n",
    "maxpool": "[maxpool]\nsize=2\nstride=2\n[maxpool]\nsize=3\nstride=1\n[max]\nsize=3\nstride=2\n"
               "padding=1\n",
    "maxpool-of-even-size": "[maxpool]\nsize=2\nstride=1\n[maxpool]\nsize=4\nstride_x=2\n"
                            "stride_y=3\n",
    "local_avgpool": "[local_avgpool]\nsize=3\nstride=2\n[local_avgpool]\nsize=2\nstride=1\n",
    "upsample": "[upsample]\n[upsample]\nstride=3\n",
    "reorg": "[crop]\ncrop_height=6\ncrop_width=8\nnoadjust=1\n[reorg]\nstride=2\n[reorg]\n"
             "stride=2\nreverse=1\n",
    "reorg3d": "[crop]\ncrop_height=6\ncrop_width=8\n[reorg3d]\nstride=2\n",
    "softmax": "[softmax]\ngroups=4\ntemperature=2\n",
    "softmax-of-pixels": "[softmax]\nspatial=1\n",
    "classifier": "[avgpool]\n[dropout]\nprobability=.3\n[softmax]\n[cost]\ntype=sse\n",
    "crop": "[crop]\ncrop_height=6\ncrop_width=5\nflip=1\n",
    "route": "[maxpool]\nsize=2\nstride=2\n[upsample]\n[crop]\ncrop_height=9\ncrop_width=8\n"
             "noadjust=1\n" + CONV + "[route]\nlayers=-1, 2\ngroups=2\ngroup_id=1\n",
    "route-of-one": CONV + CONV + "[route]\nlayers=-2\n[shortcut]\nfrom=1\n",
    "shortcut": "[convolutional]\nfilters=4\nactivation=linear\n" * 3
                + "[shortcut]\nfrom=-3,-2\nactivation=leaky\n",
    "shortcut-of-other-shapes":
        "[crop]\ncrop_height=8\ncrop_width=8\n[conv]\nfilters=6\n[conv]\nfilters=3\nsize=3\n"
        "stride=2\npad=1\n[shortcut]\nfrom=-2\nactivation=leaky\n[conv]\nfilters=7\n"
        "[shortcut]\nfrom=-2\n[shortcut]\nfrom=1\n",
    "scale_channels": CONV + "[avgpool]\n[convolutional]\nfilters=6\n[scale_channels]\nfrom=-3\n"
                      "activation=relu\n",
    "scale_wh": CONV + "[convolutional]\nfilters=1\n[scale_channels]\nfrom=-2\nscale_wh=1\n",
    "sam": CONV + "[convolutional]\nfilters=6\n[sam]\nfrom=-2\n",
} | {f"weighted-{kind}-{rule}": "[convolutional]\nfilters=4\nactivation=linear\n" * 2
     + f"[shortcut]\nfrom=-2\nweights_type={kind}\nweights_normalization={rule}\n"
       "activation=mish\n"
     for kind in ("per_feature", "per_channel") for rule in ("none", "relu", "softmax")
     } | {f"activation-{name}": f"[activation]\nactivation={name}\n" for name in ACTIVATIONS}


@pytest.mark.parametrize("name", first(CASES, *[name for name in CASES
                                                if not name.startswith("activation-")]))
def test_every_section_computes_what_darknet_computes(name, tmp_path):
    (tmp_path / "given.cfg").write_text(NET + CASES[name])
    net = randomized(xn.io.load_darknet(tmp_path / "given.cfg", backend="numpy"))
    text, content = saved(net, tmp_path)
    x = np.random.default_rng(1).normal(0, 2, (4, 9, 8))
    expected = Reference(text, content).outputs(x)[-1]
    expected = expected if net.output.shape == expected.shape else expected.reshape(
        net.output.shape)
    assert largest_error(net, [expected], x) < 2e-5     # SELU's constants have five digits
    assert expected.size > 1 and np.abs(expected).max() > 1e-3


def test_yolov3_tiny_against_loops(tmp_path):
    """All of yolov3-tiny for a small image, with classes=2 and without large convolutions."""
    net = randomized(xn.models.yolov3_tiny((3, 32, 64), classes=2, backend="numpy"))
    net.parameters *= 0.3               # values stay of the order of 1 through 13 convolutions
    x = np.random.default_rng(1).uniform(0, 1, (3, 32, 64))
    values = Reference(*saved(net, tmp_path)).outputs(x)
    assert [head.layer for head in net.darknet.heads] == ["conv15", "conv22"]
    expected = [values[15], values[22]]
    assert [y.shape for y in expected] == [(21, 1, 2), (21, 2, 4)]
    assert all(np.abs(y).max() > 0.01 for y in expected)
    assert largest_error(net, expected, x) < 1e-4


def test_models_read_weights(tmp_path):
    net = randomized(xn.models.darknet_tiny((3, 32, 32), classes=7, backend="numpy"))
    saved(net, tmp_path)
    weights = tmp_path / "net.weights"
    again = xn.models.darknet_tiny((3, 64, 64), classes=7, weights=weights, backend="numpy")
    assert arrays(again) == arrays(net)
    with pytest.raises(ValueError, match="expected a weights file of 4,185,952 bytes"):
        xn.models.darknet_tiny(weights=weights, backend="numpy")


# --- weights files --------------------------------------------------------------------------------

SIZES = {
    "yolov2": 203_934_264, "yolov2_tiny": 44_948_600, "yolov3": 248_007_048,
    "yolov3_spp": 252_209_544, "yolov3_tiny": 35_434_956, "yolov4": 257_717_640,
    "yolov4_tiny": 24_251_276, "darknet19": 83_427_124, "darknet53": 166_582_580,
    "darknet_tiny": 4_185_972, "darknet_resnet50": 91_303_604,
    "darknet_densenet201": 68_825_780,
}
LAYERS = {"yolov3": 107, "yolov3_tiny": 24, "yolov4": 162, "yolov4_tiny": 38, "darknet53": 78}


@pytest.mark.parametrize("name", DARKNETS)
def test_published_sizes_of_weights_files(name, monkeypatch):
    """The bytes of the files that Darknet's authors published, with the header of 20 bytes."""
    built = []

    def built_only(text: str, path: str, weights: None, **options: object) -> xn.Network:
        built.append(build(parse(text, path)))
        return xn.Sequential([xn.Linear(1)], input_shape=(1,), backend="numpy")

    monkeypatch.setattr(cfg_files, "network_from_text", built_only)
    DARKNETS[name]()
    assert 20 + bytes_of(built[0].stored) == SIZES[name]
    assert len(built[0].values) == LAYERS.get(name, len(built[0].values))


EVERYTHING = (NET + CONV + "[convolutional]\nbatch_normalize=1\nfilters=6\n[shortcut]\nfrom=-2\n"
              "weights_type=per_channel\n[local]\nfilters=2\nsize=3\n[batchnorm]\n[connected]\n"
              "output=5\n[connected]\noutput=3\nbatch_normalize=1\n")


@pytest.fixture
def net(tmp_path) -> xn.Network:
    (tmp_path / "all.cfg").write_text(EVERYTHING)
    return randomized(xn.io.load_darknet(tmp_path / "all.cfg", backend="numpy"))


def test_there_and_back_gives_equal_bytes(net, tmp_path):
    text, content = saved(net, tmp_path)
    back = xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "net.weights", backend="numpy",
                              seed=5)
    assert arrays(back) == arrays(net)
    assert saved(back, tmp_path) == (text, content)
    x = np.random.default_rng(0).normal(size=(2, 4, 9, 8))
    assert np.array_equal(back.predict(x), net.predict(x))


@pytest.mark.parametrize(("version", "seen"), [((0, 1, 0), 77), ((0, 2, 0), 2**40),
                                               ((1, 0, 3), 2**40)])
def test_versions_of_the_header(net, tmp_path, version, seen):
    _, content = saved(net, tmp_path)
    header = struct.pack("<3i" + ("I" if version == (0, 1, 0) else "Q"), *version, seen)
    (tmp_path / "old.weights").write_bytes(header + content[20:])
    back = xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "old.weights", backend="numpy")
    assert back.darknet.header == Header(version, seen)
    assert arrays(back) == arrays(net)
    assert saved(back, tmp_path)[1] == header + content[20:]


@pytest.mark.parametrize("version", [(1001, 0, 0), (0, 1001, 0)])
def test_connected_weights_are_transposed_in_some_versions(net, tmp_path, version):
    """Such a file is read as the reference reads it, and written in the usual order."""
    text, content = saved(net, tmp_path)
    stored, floats, at, parts = net.darknet.stored, np.frombuffer(content[20:], "<f4"), 0, []
    for array in stored:
        size = math.prod(array.shape)
        part, at = floats[at:at + size], at + size
        turned = array.section.kind == "connected" and array.what == "weights"
        parts.append(part.reshape(array.shape).T.ravel() if turned else part)
    new = struct.pack("<3iQ", *version, 9) + np.concatenate(parts).tobytes()
    assert new[20:] != content[20:]
    (tmp_path / "turned.weights").write_bytes(new)
    back = xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "turned.weights", backend="numpy")
    assert arrays(back) == arrays(net)
    x = np.random.default_rng(0).normal(size=(4, 9, 8))
    assert largest_error(back, [Reference(text, new).outputs(x)[-1]], x) < 1e-5
    assert saved(back, tmp_path)[1][20:] == content[20:]


def test_files_without_the_biases_of_batchnorm(net, tmp_path):
    """The first Darknet does not save them. The size says so, and they are 0."""
    _, content = saved(net, tmp_path)
    at, kept = 20, [content[:20]]
    for array in net.darknet.stored:
        size = 4 * math.prod(array.shape)
        if (array.section.kind, array.what) != ("batchnorm", "biases"):
            kept.append(content[at:at + size])
        at += size
    (tmp_path / "older.weights").write_bytes(b"".join(kept))
    back = xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "older.weights", backend="numpy")
    net.arrays["bn4.beta"].data[:] = 0
    assert len(content) - len(b"".join(kept)) == 4 * 2 and arrays(back) == arrays(net)


def test_a_short_or_long_file_is_refused_and_the_array_is_named(net, tmp_path):
    _, content = saved(net, tmp_path)
    path = tmp_path / "damaged.weights"

    def message(new: bytes) -> str:
        path.write_bytes(new)
        with pytest.raises(ValueError, match="load_darknet: expected") as caught:
            xn.io.load_darknet(tmp_path / "net.cfg", path, backend="numpy")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "4 bytes too short; it ends 4 bytes before the end of the variances of layer 6" in (
        message(content[:-4]))
    assert "1 bytes too short" in message(content[:-1]) and "7 bytes too long" in (
        message(content + b"1234567"))
    first_array = 6 * 4                                     # the biases of layer 0
    assert "it ends 3 bytes before the end of the biases of layer 0, [convolutional]" in (
        message(content[:20 + first_array - 3]))
    assert "it ends 864 bytes before the end of the weights of layer 0" in (
        message(content[:20 + first_array]))
    assert "3 bytes before the end of the header" in message(content[:17])
    assert "20 bytes before" in message(b"")
    with pytest.raises(FileNotFoundError, match="expected the name of a weights file"):
        xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "none.weights")


def test_the_size_is_compared_before_memory_is_allocated(tmp_path):
    """A network of 2^38 weights is refused because of its weights file, not for want of memory."""
    (tmp_path / "large.cfg").write_text("[net]\ninputs=1000000\n[connected]\noutput=1000000\n")
    (tmp_path / "small.weights").write_bytes(bytes(100))
    with pytest.raises(ValueError, match="expected a weights file of 4,000,004,000,000 bytes"):
        xn.io.load_darknet(tmp_path / "large.cfg", tmp_path / "small.weights")


def test_cutoff_reads_a_file_of_the_first_layers(net, tmp_path):
    _, content = saved(net, tmp_path)
    header, first_two = 20, bytes_of([a for a in net.darknet.stored if a.section.index < 2])
    (tmp_path / "first.weights").write_bytes(content[:header + first_two])
    part = xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "first.weights", cutoff=2, seed=3,
                              backend="numpy")
    same = {name for name, content in arrays(part).items() if content == arrays(net)[name]}
    assert same == {"conv0.W", "conv0.b", "conv1.W", "bn1.gamma", "bn1.beta", "bn1.mean", "bn1.var"}
    with pytest.raises(ValueError, match="too short"):
        xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "first.weights", backend="numpy")


def test_copies_and_other_networks(net, tmp_path):
    assert saved(copy.deepcopy(net), tmp_path) == saved(net, tmp_path)
    with pytest.raises(TypeError, match="save_darknet: expected a network. Received: list"):
        xn.io.save_darknet([], tmp_path / "a.cfg")         # type: ignore[arg-type]
    assert not (tmp_path / "a.cfg").exists()
