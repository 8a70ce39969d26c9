"""Pictures of networks and of what they compute, as figures of matplotlib (the extra `viz`).

    figure = xn.viz.show_filters(net, "conv1")
    figure.savefig("filters.png")

Every function returns a Figure, which needs no window: a notebook shows it, and `savefig` writes
it. Where one axes suffices, `ax=` draws into axes of yours. The numbers that are drawn come from
functions of arrays, in xpnet.explain and elsewhere.
"""

from xpnet.viz.activations import show_activations, show_activations_on
from xpnet.viz.confusion import show_confusion, show_mistakes
from xpnet.viz.convolution import KERNELS, pyramid, show_convolution, show_pyramid
from xpnet.viz.curves import show_rates, show_training
from xpnet.viz.explanations import show_explanations, show_heat, show_maximization
from xpnet.viz.fields import show_receptive_field
from xpnet.viz.filters import show_feature_maps, show_filters
from xpnet.viz.graph import show_graph
from xpnet.viz.images import show_images
from xpnet.viz.learning import show_gradient_sizes, show_statistics, show_surface
from xpnet.viz.pooling import POOLINGS, show_pooling
from xpnet.viz.regions import show_regions
from xpnet.viz.spread import show_spread
from xpnet.viz.windows import show_window

__all__ = [
    "KERNELS", "POOLINGS", "pyramid", "show_activations", "show_activations_on", "show_confusion",
    "show_convolution", "show_explanations", "show_feature_maps", "show_filters",
    "show_gradient_sizes", "show_graph", "show_heat", "show_images", "show_maximization",
    "show_mistakes", "show_pooling", "show_pyramid", "show_rates", "show_receptive_field",
    "show_regions", "show_spread", "show_statistics", "show_surface", "show_training",
    "show_window",
]
