"""A page in the browser that shows how a network works. It needs the extra `explore`."""

from xpnet.explore.explorer import Explorer, explore

__all__ = ["Explorer", "explore"]
