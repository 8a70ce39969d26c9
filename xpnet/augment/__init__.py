"""Data augmentation: random changes of images that do not change what they show."""

from xpnet.augment import color, geometry, mixing, noise
from xpnet.augment.base import Augmentation, augmented
from xpnet.augment.color import *
from xpnet.augment.geometry import *
from xpnet.augment.mixing import *
from xpnet.augment.noise import *

__all__ = ["Augmentation", "augmented"]
__all__ += color.__all__ + geometry.__all__ + mixing.__all__ + noise.__all__
