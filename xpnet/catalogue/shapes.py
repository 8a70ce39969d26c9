"""The catalogue: shapes and merging."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.layers import (
    Add,
    Average,
    ChannelShuffle,
    CircularPad2d,
    Concat,
    ConstantPad2d,
    Crop2d,
    Flatten,
    Maximum,
    Minimum,
    Multiply,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    ReflectionPad2d,
    ReplicationPad2d,
    Reshape,
    Subtract,
    Upsample2d,
    ZeroPad2d,
)

MAPS = ((4, 7, 6),)

ITEMS: list[Item] = [
    Item(Flatten, Flatten, MAPS, pytorch="Flatten", keras="Flatten", common=True),
    Item(Reshape, lambda: Reshape((6, -1, 4)), MAPS, pytorch="Unflatten", keras="Reshape",
         common=True),
    Item(Permute, lambda: Permute((1, 2, 0)), MAPS, pytorch="torch.permute", keras="Permute",
         common=True),
    Item(ChannelShuffle, lambda: ChannelShuffle(2), MAPS, pytorch="ChannelShuffle"),
    Item(Add, Add, 2 * MAPS, pytorch="torch.add", keras="Add", numpynet="Shortcut_layer"),
    Item(Concat, Concat, ((1, 4, 5), (3, 4, 5)), pytorch="torch.concat", keras="Concatenate",
         numpynet="Route_layer"),
    Item(Average, Average, 3 * MAPS, keras="Average"),
    Item(Subtract, Subtract, 2 * MAPS, pytorch="torch.sub", keras="Subtract"),
    Item(Multiply, Multiply, 3 * MAPS, pytorch="torch.mul", keras="Multiply"),
    Item(Maximum, Maximum, 3 * MAPS, pytorch="torch.maximum", keras="Maximum"),
    Item(Minimum, Minimum, 2 * MAPS, pytorch="torch.minimum", keras="Minimum"),
    Item(Upsample2d, lambda: Upsample2d((2, 1.5), "bilinear"), MAPS,
         pytorch="Upsample", keras="UpSampling2D", numpynet="Upsample_layer"),
    Item(PixelShuffle, lambda: PixelShuffle(2), MAPS,
         pytorch="PixelShuffle", keras="ops.depth_to_space", numpynet="Shuffler_layer"),
    Item(PixelUnshuffle, lambda: PixelUnshuffle(2), ((3, 4, 6),), pytorch="PixelUnshuffle",
         keras="ops.space_to_depth"),
    Item(ZeroPad2d, lambda: ZeroPad2d((1, 0, 2, 3)), MAPS, pytorch="ZeroPad2d",
         keras="ZeroPadding2D"),
    Item(ConstantPad2d, lambda: ConstantPad2d((1, 2), -0.5), MAPS, pytorch="ConstantPad2d"),
    Item(ReflectionPad2d, lambda: ReflectionPad2d((2, 1, 0, 3)), MAPS, pytorch="ReflectionPad2d"),
    Item(ReplicationPad2d, lambda: ReplicationPad2d((2, 1, 0, 3)), MAPS,
         pytorch="ReplicationPad2d"),
    Item(CircularPad2d, lambda: CircularPad2d((2, 1, 0, 3)), MAPS, pytorch="CircularPad2d"),
    Item(Crop2d, lambda: Crop2d((1, 0, 2, 3)), MAPS, keras="Cropping2D"),
]
