"""Networks in the files of Darknet: a cfg file with the architecture, and a weights file.

cfg.py reads the text; table.py, builder.py, sections.py, recurrent.py, unrolled.py and joins.py
make a graph of it; heads.py keeps the options of the detection sections, weights.py reads and
writes the arrays, export.py writes other networks, and files.py has the public functions.
"""

from xpnet.io.darknet.files import Darknet, load_darknet, network_from_text, save_darknet
from xpnet.io.darknet.heads import Head
from xpnet.io.darknet.weights import Header

__all__ = ["Darknet", "Head", "Header", "load_darknet", "network_from_text", "save_darknet"]
