"""All sections with their options, and the graph of a whole cfg file."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from xpnet.backends.arguments import perhaps
from xpnet.io.darknet import joins, recurrent, sections
from xpnet.io.darknet.builder import Builder
from xpnet.io.darknet.cfg import Config, Section
from xpnet.io.darknet.heads import HEADS
from xpnet.node import Node


class Kind(NamedTuple):
    """A section: what makes its nodes, its options, and the options that must have a certain value
    because another one would change what is computed."""

    make: Callable[[Builder], Node]
    keys: str = ""
    without_effect: str = ""            # key=value, ...


STREAMS = "stream wait_stream"          # where a GPU computes
POOL = "size stride stride_x stride_y padding"
KINDS = {
    "convolutional": Kind(
        sections.convolutional,
        "filters groups size stride stride_x stride_y pad padding dilation activation "
        f"batch_normalize share_index angle {STREAMS}",
        "antialiasing assisted_excitation binary xnor bin_output cbn flipped dot sway rotate "
        "stretch stretch_sway coordconv reverse grad_centr"),
    "connected": Kind(sections.connected, "output activation batch_normalize"),
    "local": Kind(sections.local, "filters size stride pad activation"),
    "batchnorm": Kind(sections.batchnorm),
    "maxpool": Kind(sections.maxpool, POOL,
                    "maxpool_depth out_channels=1 antialiasing maxpool_zero_nonmax"),
    "local_avgpool": Kind(sections.local_avgpool, POOL),
    "avgpool": Kind(sections.avgpool),
    "upsample": Kind(sections.upsample, "stride", "scale=1"),
    "reorg": Kind(sections.reorg, "stride reverse", "flatten extra"),
    "reorg3d": Kind(sections.reorg3d, "stride reverse"),
    "softmax": Kind(sections.softmax, "groups temperature spatial noloss"),
    "dropout": Kind(sections.dropout, "probability",
                    "dropblock dropblock_size_rel dropblock_size_abs"),
    "crop": Kind(sections.crop,
                 "crop_height crop_width noadjust flip angle saturation exposure shift"),
    "activation": Kind(sections.activation, "activation"),
    "cost": Kind(sections.cost, "type scale ratio noobj thresh"),
    "route": Kind(joins.route, f"layers groups group_id {STREAMS}"),
    "shortcut": Kind(joins.shortcut, "from weights_type weights_normalization activation",
                     "alpha=1 beta=1"),
    "scale_channels": Kind(joins.scale_channels, "from scale_wh activation"),
    "sam": Kind(joins.sam, "from activation"),
    "rnn": Kind(recurrent.recurrent,
                "output hidden activation batch_normalize logistic shortcut"),
    "lstm": Kind(recurrent.recurrent, "output batch_normalize"),
    "gru": Kind(recurrent.recurrent, "output batch_normalize tanh"),
}
REASONS = {"crnn": "no layer here reads a sequence of images"}      # why it is refused
HEAD_KEYS = {
    "yolo": "mask anchors classes num jitter resize ignore_thresh truth_thresh random max "
            "scale_x_y iou_thresh iou_loss iou_thresh_kind iou_normalizer obj_normalizer "
            "cls_normalizer delta_normalizer nms_kind beta_nms max_delta label_smooth_eps "
            "objectness_smooth new_coords focal_loss counters_per_class show_details "
            "track_history_size sim_thresh dets_for_track dets_for_show track_ciou_norm",
    "region": "anchors bias_match classes coords num softmax jitter resize rescore object_scale "
              "noobject_scale class_scale coord_scale mask_scale absolute thresh random log sqrt "
              "focal_loss classfix max background",
    "detection": "classes coords rescore side num softmax sqrt jitter resize object_scale "
                 "noobject_scale class_scale coord_scale forced random reorg max",
}
NET_KEYS = (
    "batch subdivisions width height channels inputs momentum decay angle aspect saturation "
    "exposure hue learning_rate learning_rate_min burn_in power max_batches policy step steps "
    "scale scales seq_scales gamma sgdr_cycle sgdr_mult adam B1 B2 eps max_crop min_crop max_ratio "
    "min_ratio center flip blur gaussian_noise mixup cutmix mosaic mosaic_bound letter_box "
    "label_smooth_eps resize_step random notruth clip ema_alpha loss_scale dynamic_minibatch "
    "optimized_memory workspace_size_limit_MB try_fix_nan use_cuda_graph show_receptive_field "
    "max_chart_loss augment_speed sequential_subdivisions weights_reject_freq equidistant_point "
    "badlabels_rejection_percentage num_sigmas_reject_badlabels adversarial_lr attention track "
    "contrastive contrastive_jit_flip contrastive_color unsupervised")
TRAINING = "stopbackward learning_rate"         # options of every layer
UNTRAINED = ("onlyforward dont_update burnin_update dontload dontloadscales dontsave numload truth "
             "smooth train_only_bn clip")


def _neutral(text: str) -> dict[str, float]:
    pairs = (word.partition("=") for word in text.split())
    return {key: float(value or 0) for key, _, value in pairs}


def _check(section: Section, steps: bool) -> None:
    """Raise ValueError for a section or an option that xpnet does not have."""
    if section.index < 0:
        section.expect_keys([*NET_KEYS.split(), "time_steps"], {} if steps else {"time_steps": 1})
        return
    if section.kind in HEADS:
        keys, neutral = HEAD_KEYS[section.kind], ""
    elif section.kind in KINDS:
        _, keys, neutral = KINDS[section.kind]
    else:
        reason, known = REASONS.get(section.kind), [*KINDS, *HEADS]
        raise section.wrong(f"a section of {', '.join(known)}" + perhaps(section.kind, known)
                            + (f"; [{section.kind}] is refused because {reason}" if reason else ""),
                            received="a section")
    section.expect_keys(f"{keys} {TRAINING}".split(), _neutral(f"{neutral} {UNTRAINED}"))


def build(config: Config) -> Builder:
    """The nodes of all sections.

    Raises:
        ValueError: a section or an option is unknown or malformed, or a layer cannot be built. The
            error names the section and the line.
    """
    steps = recurrent.has_steps(config)
    for section in [*config.layers, config.net]:
        _check(section, steps)
    b = Builder(config, steps)
    for section in config.layers:
        b.section = section
        if section.kind in HEADS:
            b.add_head()
            b.values.append(None)
            continue
        try:
            b.value = KINDS[section.kind].make(b)
        except (ValueError, TypeError) as error:
            text = str(error)
            if config.path in text:
                raise
            raise ValueError(f"{text.removesuffix('.')}, [{section.kind}] of layer "
                             f"{section.index}, {config.path}, line {section.line}.") from error
        b.values.append(b.value)
    b.finish()
    return b
