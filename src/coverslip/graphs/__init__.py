"""A bundle as an ONNX graph: pixels in, calibrated scores out.

`raw_graph` takes images as they are decoded and does all that coverslip does to them; `stored_graph` begins behind the resize,
where images have one size, and is what prediction runs on.
"""

from coverslip.graphs.assembly import raw_graph as raw_graph
from coverslip.graphs.assembly import stored_graph as stored_graph
