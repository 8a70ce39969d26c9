"""cfg files of Darknet: how they are read, and what is refused, with the line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hostile_files import limited_memory
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples

import xpnet as xn
from xpnet.io.darknet.cfg import MOST_BYTES, parse
from xpnet.io.darknet.table import build

NET = "[net]\nwidth=8\nheight=8\nchannels=3\n"


def loaded(text: str | bytes, folder: Path, **options: object) -> xn.Network:
    path = folder / "net.cfg"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return xn.io.load_darknet(path, backend="numpy", **options)     # type: ignore[arg-type]


def refused(text: str | bytes, folder: Path) -> str:
    """The error, which is one line of the library's form and names the file."""
    with pytest.raises(ValueError) as caught:       # noqa: PT011 - the form is checked below
        loaded(text, folder)
    message = str(caught.value)
    assert re.fullmatch(r"[^\n]+: expected [^\n]+ Received: [^\n]+", message), message
    assert "net.cfg" in message
    return message


# --- what is read ---------------------------------------------------------------------------------

def test_blanks_comments_and_ends_of_lines(tmp_path):
    text = ("\ufeff; a comment\r\n  [ net ]\r\nwidth = 8\r\n\theight=8 # rows\r\nchannels=4\r\n"
            "# Training\r\n\r\n[convolutional]\r\nfilters= 4  #384\r\nsize=3\r\npad = 1\r\n"
            "activation = leaky   # 0.1\r\n[ route ]\r\nlayers = -1, \t -1\r\n")
    net = loaded(text, tmp_path)
    assert net.input.shape == (4, 8, 8) and net.output.shape == (8, 8, 8)
    assert [layer.name for layer in net.layers] == ["conv0", "leaky0", "route1"]
    assert [section.line for section in net.darknet.config] == [2, 8, 13]


def test_what_is_written_is_read_again(tmp_path):
    text = NET + "[conv]\nfilters = 2 # two\n[avg]\n[soft]\ngroups=1\n"
    net = loaded(text, tmp_path)
    xn.io.save_darknet(net, tmp_path / "again.cfg")
    written = (tmp_path / "again.cfg").read_text()
    assert written == NET + ("\n[convolutional]\nfilters=2\n\n[avgpool]\n\n[softmax]\ngroups=1\n")
    assert parse(written, "").text() == written
    assert not (tmp_path / "again.weights").exists()


def test_input_size_replaces_height_and_width(tmp_path):
    text = NET + "[conv]\nfilters=2\nsize=3\n"
    assert loaded(text, tmp_path, input_size=(5, 7)).output.shape == (2, 3, 5)
    net = loaded(text, tmp_path, input_size=16)
    assert net.output.shape == (2, 14, 14)
    xn.io.save_darknet(net, tmp_path / "b.cfg")
    assert "width=16\nheight=16" in (tmp_path / "b.cfg").read_text()
    with pytest.raises(ValueError, match="load_darknet: expected input_size to be"):
        loaded(text, tmp_path, input_size=0)


def test_of_an_option_given_twice_the_first_counts(tmp_path):
    net = loaded(NET + "decay=1\ndecay=2\n[conv]\nfilters=3\nfilters=4\n", tmp_path)
    assert net.output.shape == (3, 8, 8) and net.darknet.config.net.number("decay") == 1


def test_inputs_instead_of_an_image(tmp_path):
    net = loaded("[net]\ninputs=7\n[connected]\noutput=3\n", tmp_path)
    assert net.input.shape == (7,) and net.output.shape == (3,)


def test_layers_before_stopbackward_are_frozen(tmp_path):
    text = NET + "[conv]\nfilters=2\n[conv]\nfilters=3\nstopbackward={}\n[conv]\nfilters=4\n"
    trainable = [layer.trainable for layer in loaded(text.format(1), tmp_path).layers]
    assert trainable == [False] * 4 + [True] * 2 or trainable == [False, False, True]
    assert all(layer.trainable for layer in loaded(text.format(800), tmp_path).layers)


def test_learning_rate_of_a_layer(tmp_path):
    net = loaded(NET + "[conv]\nfilters=2\n[conv]\nfilters=3\nlearning_rate=.25\n", tmp_path)
    assert [layer.lr_scale for layer in net.layers] == [1, 0.25]


def test_shared_convolutions_are_one_layer(tmp_path):
    conv = "[conv]\nfilters=3\nbatch_normalize=1\nactivation=leaky\n"
    net = loaded(NET + conv + conv + "share_index=0\n" + conv + "share_index=-2\n", tmp_path)
    assert [type(layer).__name__ for layer in net.layers] == [
        "Conv2d", "BatchNorm2d", "LeakyReLU", "LeakyReLU", "LeakyReLU"]
    assert [node.name for node in net.nodes][3:5] == ["conv0:2", "bn0:2"]
    with pytest.raises(ValueError, match="share_index to name a .convolutional. with these"):
        loaded(NET + conv + conv.replace("3", "4") + "share_index=0\n", tmp_path)


HEAD = """[yolo]
mask = 3,4,5
anchors = 10,14,  23,27,  37,58,  81,82,  135,169,  344,319
classes=2
num=6
jitter=.3
iou_loss=ciou
scale_x_y = 1.05
counters_per_class = 7, 9
"""


def test_heads_are_kept_with_their_settings(tmp_path):
    net = loaded(NET + "[conv]\nfilters=21\nactivation=linear\n" + HEAD
                 + "[route]\nlayers=-2\n[conv]\nfilters=14\nactivation=linear\n[region]\n"
                   "anchors=1,2,3,4.5\nnum=2\nclasses=2\nsoftmax=1\n", tmp_path)
    yolo, region = net.darknet.heads
    assert [node.name for node in net.output] == [yolo.layer, region.layer] == ["conv0", "conv3"]
    assert (yolo.kind, yolo.index, yolo.classes, yolo.boxes) == ("yolo", 1, 2, 3)
    assert yolo.mask == (3, 4, 5) and yolo.anchors[3:] == ((81, 82), (135, 169), (344, 319))
    assert yolo.settings == {"jitter": 0.3, "iou_loss": "ciou", "scale_x_y": 1.05,
                             "counters_per_class": "7,9"}
    assert (region.kind, region.mask, region.coords) == ("region", (0, 1), 4)
    assert region.anchors == ((1, 2), (3, 4.5)) and region.settings == {"softmax": 1}


def test_detection_reads_a_vector(tmp_path):
    text = (NET + "[connected]\noutput={}\nactivation=linear\n[detection]\nclasses=2\nside=3\n"
            "num=2\n")
    net = loaded((text + "coords=4\n").format(9 * (10 + 2)), tmp_path)
    head, = net.darknet.heads
    assert net.output.shape == (12, 3, 3) and head.anchors == () and head.grid == (3, 3)
    assert net.output.name == head.layer == "detection1"
    assert "expected 108 inputs" in refused((text + "coords=4\n").format(107), tmp_path)
    assert "expected coords=4" in refused(text.format(108), tmp_path)


# --- what is refused ------------------------------------------------------------------------------

CONV = "[convolutional]\nfilters=3\nactivation=linear\n"     # lines 5 to 7
REFUSED = {
    "": "no section",
    "[net]\nwidth=8\n": "[net] alone",
    "width=8\n": "an option before the first section in",
    "[conv]\nfilters=2\n[conv]\n": "[convolutional] first",
    NET + "nonsense\n": "'nonsense' in",
    NET + "[conv\n": "'[conv' in",
    NET + "[]\n": "'[]' in",
    NET + "=3\n": "'=3' in",
    NET + "a=\n": "'a=' in",
    NET + "[conv]\nfilters=\x00\n": "line 6",
    "[net]\nwidth=8\nheight=8\n[conv]\n": "no channels in [net]",
    "[net]\nwidth=8\nheight=8\nchannels=0\n[conv]\n": "channels=0 in [net]",
    NET + "widht=9\n[conv]\n": 'perhaps "width". Received: widht=9 in [net], ',
    NET + "time_steps=3\n[conv]\n": "expected time_steps=1",
    NET + "[rnn]\noutput=3\n": "expected a sequence before it, of inputs and time_steps of [net]",
    NET + "[Convolutional]\n": 'perhaps "convolutional". Received: a section in [Convolutional] of',
    NET + "[crnn]\noutput=3\n": "[crnn] is refused because no layer here reads a sequence",
    NET + "[lstm]\noutput=3\n": "expected a sequence before it, of inputs and time_steps of [net]",
    NET + CONV + "[lrn]\n": "a section in [lrn] of layer 1",
    NET + "[conv]\nfilters=0\n": "expected filters to be an int, 1 or larger. Received: "
                                 "filters=0 in [convolutional] of layer 0, ",
    NET + "[conv]\nfilters=two\n": "filters=two in",
    NET + "[conv]\nfilters=2,3\n": "filters=2,3 in",
    NET + "[conv]\nfilters=99999999999\n": "filters=99999999999 in",
    NET + "[conv]\nfliters=2\n": 'perhaps "filters". Received: fliters=2 in',
    NET + "[conv]\nactivation=leeky\n": 'perhaps "leaky". Received: activation=leeky in',
    NET + "[conv]\nantialiasing=1\n": "expected antialiasing=0; xpnet does not have",
    NET + "[conv]\nxnor=1\n": "expected xnor=0",
    NET + "[conv]\nsize=9\n": "Received: 8x8, padded to 8x8, [convolutional] of layer 0, ",
    NET + "[conv]\ngroups=2\nfilters=2\n": "Received: 3 channels, 2 filters, [convolutional] of",
    NET + "[max]\nsize=3\npadding=7\n": "[maxpool] of layer 0",
    NET + "[max]\nmaxpool_depth=1\n": "expected maxpool_depth=0",
    NET + "[dropout]\n": "no probability in [dropout] of layer 0",
    NET + "[dropout]\nprobability=1\n": "[dropout] of layer 0",
    NET + "[route]\nlayers=-1\n": "expected layers to name layers before this one",
    NET + CONV + "[route]\nlayers=1\n": "layers=1 in [route] of layer 1",
    NET + CONV + "[route]\n": "no layers in [route]",
    NET + CONV + "[route]\nlayers=0\ngroups=2\n": "expected groups to divide the 3 channels",
    NET + CONV + "[route]\nlayers=0\ngroups=3\ngroup_id=3\n": "expected group_id below groups=3",
    NET + CONV + "[max]\nsize=2\nstride=2\n[route]\nlayers=0,1\n": "[route] of layer 2",
    NET + CONV + "[shortcut]\nfrom=-1\nweights_type=per_pixel\n": "weights_type=per_pixel in",
    NET + CONV + "[conv]\nsize=3\nstride=2\n[shortcut]\nfrom=0\n": "a multiple of 3x3",
    NET + CONV + "[conv]\nfilters=2\n[shortcut]\nfrom=0,0\n": "[shortcut] of layer 2",
    NET + CONV + "[scale_channels]\nfrom=0\n": "a value of shape (3, 1, 1) before it",
    NET + "[reorg]\nstride=2\n": "expected stride^2 to divide the channels",
    NET + "[crop]\ncrop_height=9\ncrop_width=8\n": "expected a crop of at most 8x8",
    NET + "[crop]\ncrop_height=8\n": "no crop_width in",
    NET + "[softmax]\ngroups=5\n": "expected groups to divide the 192 inputs",
    NET + "[softmax]\ntree=9k.tree\n": "tree=9k.tree in",
    NET + "[softmax]\ntemperature=nan\n": "temperature=nan in",
    NET + "[local]\nfilters=2\nsize=5\npad=1\n": "expected pad=1 with size=3",
    NET + "[upsample]\nscale=2\n": "expected scale=1",
    NET + "[upsample]\nstride=-2\n": "stride=-2 in",
    NET + HEAD: "expected a layer before it",
    NET + CONV + HEAD: "expected a map of 21 channels",
    NET + CONV + HEAD.replace("3,4,5", "3,4,6"): "mask=3,4,6 in",
    NET + CONV + HEAD.replace("num=6", "num=5"): "expected anchors to be 10 numbers",
    NET + "[conv]\nfilters=21\n" + HEAD.replace("jitter=.3", "jitter=a"): "jitter=a in [yolo] of",
    NET + "[conv]\nfilters=21\n" + HEAD.replace("jitter=.3", "map=coco9k.map"): "map=coco9k.map",
    NET + "[conv]\nfilters=21\n" + HEAD + "[conv]\n": "expected a value before it that is part of "
                                                     "the graph; [route] reads others. Received: "
                                                     "what yolo, region, detection decode in "
                                                     "[convolutional] of layer 2",
    NET + "[conv]\nfilters=21\n" + HEAD + "[route]\nlayers=1\n": "layers=1 in [route] of layer 2",
    NET + CONV + CONV + "[route]\nlayers=0\n": "a layer that no other one reads in [convolutional] "
                                              "of layer 1",
    NET + CONV + "[conv]\ndontload=1\n": "expected dontload=0",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_refused_with_the_reason(text, tmp_path):
    assert REFUSED[text] in refused(text, tmp_path)


@pytest.mark.parametrize(("text", "line"), [
    (NET + "\n# a comment\nnonsense\n", 7), (NET + CONV + "[rnn]\n", 8),
    (NET + "[conv]\nsize=3\nfilters=x\n", 7), (NET + "[conv]\nsize=99\n", 5),
    (NET + "[conv]\nantialiasing=1\n", 6), ("[net]\nwidth=8\nheight=0\nchannels=2\n[conv]\n", 3)])
def test_errors_name_the_line(text, line, tmp_path):
    assert refused(text, tmp_path).endswith(f"net.cfg, line {line}.")
    assert refused(text.replace("\n", "\r\n"), tmp_path).endswith(f"net.cfg, line {line}.")


@pytest.mark.parametrize(("text", "expected"), [
    ("[" + "a" * 99999 + "]\n", "a section of"), ("[conv]\n" + "a" * 99999 + "=1\n", "options"),
    ("[conv]\n[route]\nlayers=" + "-1," * 99999 + "\n", "at most 4096 values of layers")])
def test_long_lines_take_little_time_and_their_errors_are_short(text, expected, tmp_path):
    said = refused(NET + text, tmp_path)
    assert f"load_darknet: expected {expected}" in said and len(said) < 700


def test_files_that_are_no_cfg_files(tmp_path):
    assert "line 1" in refused(bytes(range(256)) * 4, tmp_path)
    assert "at most" in refused(b"#" * (MOST_BYTES + 1), tmp_path)
    with pytest.raises(FileNotFoundError, match="load_darknet: expected the name of a cfg file"):
        xn.io.load_darknet(tmp_path / "none.cfg")
    with pytest.raises(FileNotFoundError, match="expected the name of a cfg file"):
        xn.io.load_darknet(tmp_path)
    with pytest.raises(TypeError, match="load_darknet: expected the name of a file"):
        xn.io.load_darknet(3)       # type: ignore[arg-type]


WORDS = st.sampled_from(
    "[net] [conv] [maxpool] [route] [shortcut] [yolo] [reorg] [softmax] [local] [avgpool] [sam] "
    "[rnn] [lstm] [gru] output=3 tanh=1 time_steps=2 inputs=3 "
    "width=8 height=8 channels=4 filters=3 size=3 size=0 stride=2 pad=1 groups=2 layers=-1 "
    "layers=0,-2 from=-2 from=9 activation=leaky activation=x mask=0 anchors=1,2 classes=1 num=1 "
    "batch_normalize=1 share_index=0 dilation=70000 filters=2000000000 stride=-1 = x # [".split())


@given(st.lists(WORDS, max_size=14))
@examples(200)
def test_nonsense_gives_a_network_or_one_line(words):
    """Only the nodes are made: nothing is allocated, whatever the sizes are."""
    text = "\n".join(["[net]", "width=8", "height=8", "channels=4", *words])
    try:
        build(parse(text, "a.cfg"))
    except ValueError as error:
        assert re.fullmatch(r"[^\n]+: expected [^\n]+ Received: [^\n]+", str(error)), error
        assert "a.cfg" in str(error)


@pytest.mark.parametrize("text", [
    NET + "[conv]\nfilters=2000000000\n[conv]\nfilters=1\n[scale_channels]\nfrom=0\nscale_wh=1\n",
    NET + "[conv]\nfilters=4\n[yolo]\nnum=2000000000\nanchors=1,2\n",
    NET + "[upsample]\nstride=2000000000\n", NET + "[softmax]\ngroups=2000000000\n",
    NET + "[local]\nfilters=2000000000\nsize=3\n[local]\nfilters=2000000000\nsize=3\n",
    NET + "[shortcut]\nfrom=0\n", "[net]\ninputs=2000000000\n[connected]\noutput=2000000000\n",
    "[net]\ninputs=5\n[connected]\noutput=2000000001\n[detection]\ncoords=4\nside=1\n"
    "num=400000000\n", "[net]\ninputs=2000000000\ntime_steps=9\n[rnn]\nhidden=2000000000\n"
    "output=2000000000\n", "[net]\ninputs=5\ntime_steps=2000000000\n[lstm]\noutput=200000000\n"])
def test_large_numbers_take_no_memory(text):
    """The nodes are made, or a line is refused; neither takes what the numbers would."""
    with limited_memory(1e6):
        try:
            build(parse(text, "a.cfg"))
        except ValueError as error:
            assert "a.cfg" in str(error)


def test_a_failed_load_changes_nothing(tmp_path):
    net = loaded(NET + CONV, tmp_path)
    before = net.parameters.copy()
    xn.io.save_darknet(net, tmp_path / "a.cfg", tmp_path / "a.weights")
    content = (tmp_path / "a.weights").read_bytes()
    (tmp_path / "a.weights").write_bytes(content[:-2])
    with pytest.raises(ValueError, match="2 bytes too short"):
        xn.io.load_darknet(tmp_path / "a.cfg", tmp_path / "a.weights")
    assert np.array_equal(net.parameters, before)
