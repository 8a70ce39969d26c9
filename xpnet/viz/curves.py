"""Training curves: the columns of one history, or of several, over the epochs; and the losses over
learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xpnet.checks import expect_choice, items, shown, wrong
from xpnet.viz.figure import STYLES, axes_for, colour, new_figure

if TYPE_CHECKING:
    from xpnet.history import History
    from xpnet.training.rates import LearningRates

WHO = "show_training"
KINDS = "loss", "accuracy"      # each has axes of its own


def show_training(runs: History | Mapping[str, History], columns: Sequence[str] | None = None, *,
                  ax: Any = None) -> Any:
    """A figure of columns of a history over the epochs, or of several histories together.

    Columns whose names end in "loss" share axes, and so do those that end in "accuracy"; any
    other column has axes of its own. Of several runs, each has a colour, and each column of the
    same axes a line style.

    Args:
        runs: what `fit` returns, or a dict of names and such histories.
        columns: names of columns, e.g. ["val_loss"]; by default all losses and accuracies.
        ax: axes of matplotlib, in which all columns are drawn; by default those of a new figure.

    Returns:
        A matplotlib Figure: a notebook shows it, and `figure.savefig("file.png")` saves it.

    Raises:
        ValueError: a history has no epoch, or no history has such a column.
        ImportError: matplotlib is not installed.
    """
    named = runs if isinstance(runs, Mapping) else {"": runs}
    for name, history in named.items():
        if not hasattr(history, "rows"):
            raise TypeError(f"{WHO}: expected a History, as fit returns it, or a dict of names and "
                            f"Histories. Received: {shown(history)}.")
        if not history.rows:
            raise ValueError(f"{WHO}: expected at least one epoch. Received: none"
                             + (f" in {shown(name)}." if name else "."))
    there = list(dict.fromkeys(column for history in named.values() for column in history))
    if not named or columns is None and not any(map(_kind, there)):
        raise ValueError(f"{WHO}: expected a history with a loss or an accuracy. Received: "
                         f"{shown(runs)}.")
    groups = _groups(_expect_columns(columns, there))
    if ax is not None:
        groups = {", ".join(groups): [column for names in groups.values() for column in names]}
        all_axes = [axes_for(WHO, ax, 5, 3.5)]
    else:
        figure = new_figure(WHO, 5 * len(groups), 3.5)
        all_axes = list(figure.subplots(1, len(groups), squeeze=False)[0])
    for axes, (kind, names) in zip(all_axes, groups.items(), strict=True):
        _draw(axes, named, names)
        axes.set_xlabel("epoch")
        axes.set_ylabel(kind)
        axes.legend()
    return all_axes[0].figure


def _kind(column: str) -> str:
    """"loss", "accuracy" or ""."""
    return next((kind for kind in KINDS if column.endswith(kind)), "")


def _expect_columns(columns: Any, there: Sequence[str]) -> tuple[str, ...]:
    if columns is None:
        return tuple(column for column in there if _kind(column))
    names = [columns] if isinstance(columns, str) else items(columns)
    if not names:
        raise wrong(WHO, "columns to be None or names of columns", "columns", columns)
    return tuple(expect_choice(WHO, "columns", name, there) for name in names)


def _groups(columns: Sequence[str]) -> dict[str, list[str]]:
    """The columns of each axes, by what the axes are called."""
    groups: dict[str, list[str]] = {}
    for column in columns:
        groups.setdefault(_kind(column) or column, []).append(column)
    return groups


def _draw(axes: Any, runs: Mapping[str, History], columns: Sequence[str]) -> None:
    """One run: a colour for each column. Several runs: a colour for each run."""
    single = len(runs) == 1
    for number, (name, history) in enumerate(runs.items()):
        for k, column in enumerate(columns):
            if column not in history.keys():
                continue
            label = " ".join(part for part in (name, column if single or len(columns) > 1 else "")
                             if part)
            axes.plot(history["epoch"], history[column], label=label,
                      color=colour(k if single else number),
                      linestyle=STYLES[k % len(STYLES)],
                      marker="o" if len(history.rows) == 1 else None)


def show_rates(found: LearningRates, *, ax: Any = None) -> Any:
    """A figure of the losses over the learning rates, with the suggestion as a vertical line.

    Args:
        found: what `find_lr` returns.
        ax: axes of matplotlib; by default those of a new figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    who = "show_rates"
    if not hasattr(found, "smoothed"):
        raise TypeError(f"{who}: expected what find_lr returns. Received: {shown(found)}.")
    axes = axes_for(who, ax, 5, 3.5)
    axes.semilogx(found.rates, found.losses, color=colour(0), alpha=0.3, label="loss")
    axes.semilogx(found.rates, found.smoothed, color=colour(0), label="smoothed")
    if found.suggestion is not None:
        axes.axvline(found.suggestion, color=colour(1), linestyle=":",
                     label=f"suggestion: {found.suggestion:.2g}")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.legend()
    return axes.figure
