"""The error about an argument or a method that does not exist names the one that is meant; too many
and missing arguments are errors in the same form."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from xpnet.backends.arguments import nearest

Function = TypeVar("Function", bound=Callable[..., Any])

# Arguments of other libraries, and ours; the first that the function has is meant.
OTHERS: dict[str, tuple[str, ...]] = {
    "learning_rate": ("lr",), "decay": ("weight_decay",),
    "alpha": ("slope",), "beta_1": ("betas",), "beta_2": ("betas",), "epsilon": ("eps",),
    "kernel": ("kernel_size",), "size": ("kernel_size",), "pool_size": ("kernel_size",),
    "filter_size": ("kernel_size",), "strides": ("stride",), "pad": ("padding",),
    "dilation_rate": ("dilation",), "use_bias": ("bias",), "act": ("activation",),
    "kernel_initializer": ("init",), "weight_init": ("init",), "initializer": ("init",),
    "out_channels": ("filters", "units"), "num_filters": ("filters",), "channels": ("filters",),
    "out_features": ("units",), "hidden_size": ("units",), "num_units": ("units",),
    "num_layers": ("layers",), "num_groups": ("groups",), "num_heads": ("heads",),
    "num_embeddings": ("tokens",), "input_dim": ("tokens",), "vocab_size": ("tokens",),
    "embedding_dim": ("features",), "output_dim": ("features",),
    "stddev": ("std",), "dim": ("axis",), "end": ("stop",),
    "rate": ("p",), "prob": ("p",), "negative_slope": ("slope",), "smoothing": ("label_smoothing",),
    "validation_data": ("validation",), "val_data": ("validation",),
    "validation_split": ("validation",), "nb_epoch": ("epochs",), "n_epochs": ("epochs",),
    "num_epochs": ("epochs",), "max_steps": ("steps",), "bs": ("batch_size",),
    "criterion": ("loss",), "loss_fn": ("loss",), "scheduler": ("schedule",),
    "gradient_accumulation": ("accumulate",), "accumulation_steps": ("accumulate",),
    "sample_weights": ("sample_weight",), "class_weights": ("class_weight",),
    "sequence_length": ("lengths",), "seq_lengths": ("lengths",), "input_lengths": ("lengths",),
    "device": ("backend",), "num_classes": ("classes",), "n_classes": ("classes",),
}
FOLLOWS = {"in_channels", "in_features", "input_size", "num_features", "normalized_shape",
           "embed_dim"}

# Methods that networks of other libraries have, and what does the same here.
METHODS = {
    "compile": "net.fit(..., loss=..., optimizer=...)", "train": "net.fit",
    "fit_generator": "net.fit", "train_on_batch": "xn.TrainStep", "partial_fit": "xn.TrainStep",
    "zero_grad": "net.fit or xn.TrainStep, which set the gradients anew in each step",
    "eval": "net.predict or net.evaluate, which choose the mode", "score": "net.evaluate",
    "predict_classes": "net.predict(...).argmax(axis=1)",
    "state_dict": "net.arrays, all arrays by name", "get_weights": "net.arrays",
    "set_weights": "net.arrays", "named_parameters": "net.arrays",
    "load_state_dict": "net.load_torch", "load_weights": "net.load", "save_weights": "net.save",
    "cpu": 'net.to("numpy") or net.to("numba")', "cuda": 'net.to("cupy")',
    "count_params": "net.parameters.size", "plot": "net.draw",
}


def no_attribute(network: Any, name: str) -> str:
    """The error about an attribute that a network does not have."""
    text = f"{type(network).__name__} has no {name}"
    if name.startswith("_"):
        return text
    if name in METHODS:
        return f"{text}; here it is {METHODS[name]}"
    meant = nearest(name, [one for one in dir(network) if not one.startswith("_")])
    return text + (f"; perhaps {meant} is meant" if meant else "")


def hinted(function: Function) -> Function:
    """A method whose errors about its arguments say what was expected, and name an argument that is
    meant.

    A constructor is named after its class, any other method by its own name.
    """
    code = function.__code__        # type: ignore[attr-defined]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        return function
    names = code.co_varnames[1:code.co_argcount + code.co_kwonlyargcount]
    several = bool(code.co_flags & inspect.CO_VARARGS)
    places = names[:code.co_argcount - 1]       # of the arguments that may stand without a name
    defaults = len(function.__defaults__ or ())     # type: ignore[attr-defined]
    needed = {*places[:len(places) - defaults],
              *(set(names[len(places):])
                - set(function.__kwdefaults__ or ()))}      # type: ignore[attr-defined]

    def who(self: Any) -> str:
        return type(self).__name__ if function.__name__ == "__init__" else function.__name__

    @functools.wraps(function)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in names:
                raise TypeError(f"{who(self)}: expected {_listed(names)}. "
                                f"Received: {name}{_meaning(name, names)}.")
        if len(args) > len(places) and not several:
            raise TypeError(f"{who(self)}: expected {_without_names(places)}"
                            f"{_more(names, places)}. Received: {len(args)}.")
        if missing := needed - {*places[:len(args)], *kwargs}:
            listed = ", ".join(name for name in names if name in missing)
            raise TypeError(f"{who(self)}: expected {_listed(names)}. Received: no {listed}.")
        return function(self, *args, **kwargs)
    return checked      # type: ignore[return-value]


def _listed(names: tuple[str, ...]) -> str:
    return f"the arguments {', '.join(names)}" if names else "no arguments"


def _without_names(places: tuple[str, ...]) -> str:
    if not places:
        return "no values without a name"
    some = f"at most {len(places)} values" if len(places) > 1 else "at most one value"
    return f"{some} without a name, {', '.join(places)}"


def _more(names: tuple[str, ...], places: tuple[str, ...]) -> str:
    """What people of other libraries have in mind, or the arguments that need their names."""
    if places and places[0] in ("filters", "units"):
        return "; how many channels or features come in follows from the layer before"
    if places == ("layers",):
        return "; the layers are one list, [Conv2d(...), ...]"
    rest = names[len(places):]
    return f"; with their names: {', '.join(rest)}" if rest else ""


def _meaning(name: str, names: tuple[str, ...]) -> str:
    if name in FOLLOWS:
        return ", which follows from the layer before"
    meant = next((one for one in OTHERS.get(name, ()) if one in names), None) or nearest(name,
                                                                                        names)
    return f", which is {meant} here" if meant else ""
