"""Images of characters for a web page."""

import base64
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image (H, W), 0 = background, as a data URL of a PNG with dark ink on white paper."""
    out = BytesIO()
    Image.fromarray(255 - image).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
