"""What a network knows of its last training, beside its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xpnet.buffers import Shape
from xpnet.checks import expect_class_names, expect_positive
from xpnet.ports import Ports

if TYPE_CHECKING:
    from xpnet.history import History
    from xpnet.losses import Loss

FITS = "crop", "stretch"    # how an image file is made to fit, see xpnet.data.read_image


@dataclass(frozen=True)
class Trained:
    """What a network knows of its last training; it is saved with the network.

    Attributes:
        classes: the names of the classes, in the order of the output's channels.
        scale: what the pixels or other numbers of samples are divided by.
        image_fit: how image files were made to fit, "crop" or "stretch", see xn.data.read_image.
        losses: the loss of each output. In a network from a file, a loss that is no class of xpnet
            is only the name of its class.
        loss_weights: the factor of each loss.
        history: the History of the last fit.
    """

    classes: tuple[str, ...] | None = None
    scale: float | None = None
    image_fit: str | None = None
    losses: tuple[Loss | str, ...] = ()
    loss_weights: tuple[float, ...] = ()
    history: History | None = None

    def of_inputs(self) -> Trained:
        """What stays true for a network with the same inputs and other outputs."""
        return Trained(scale=self.scale, image_fit=self.image_fit)


def expect_classes(who: str, classes: Any, outputs: Sequence[Shape]) -> tuple[str, ...]:
    """Names of the classes of a network with outputs of these shapes: one for each channel of its
    only output, or two for a single channel."""
    names = expect_class_names(who, classes)
    if len(outputs) != 1:
        raise ValueError(f"{who}: expected a network with one output, for names of classes. "
                         f"Received: {len(outputs)} outputs.")
    K = outputs[0][0]
    if len(names) != K and (len(names), K) != (2, 1):
        raise ValueError(f"{who}: expected {K if K > 1 else '1 or 2'} names of classes, for an "
                         f"output of shape {outputs[0]}. Received: {len(names)}.")
    return names


class TrainedFacts:
    """The attributes of a network that its `trained` has."""

    trained: Trained
    outs: Ports

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes: those of the Dataset of the last fit, or names that were
        assigned, or given to a network of xpnet.models. None if there are none.

        In the order of the channels of the output: names[0] is channel 0. An output with a single
        channel may have two.
        """
        return self.trained.classes

    @classes.setter
    def classes(self, names: Sequence[str] | None) -> None:
        shapes = [node.shape for node in self.outs.nodes]
        self.trained = replace(self.trained, classes=None if names is None else expect_classes(
            "Network", names, shapes))

    @property
    def scale(self) -> float | None:
        """What the numbers of the samples are divided by before they enter the network, e.g. 255:
        that of the Dataset of the last fit, or an assigned one. None if it is not known.

        Arrays that are passed to the network have to be divided already.
        """
        return self.trained.scale

    @scale.setter
    def scale(self, scale: float | None) -> None:
        self.trained = replace(self.trained, scale=None if scale is None else expect_positive(
            "Network", "scale", scale))

    @property
    def loss(self) -> Any:
        """The loss of the last fit; for several outputs a list or dict, as the outputs are. None
        before a fit. A loss of your own is only the name of its class after loading."""
        return self.outs.pack(self.trained.losses) if self.trained.losses else None

    @property
    def history(self) -> History | None:
        """The History of the last fit; None before a fit.

        That of a loaded network has no columns of times (names that end with "seconds"), so that
        two equal trainings give equal files.
        """
        return self.trained.history
