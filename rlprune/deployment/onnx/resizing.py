"""Scaling and cutting pictures inside of a file, as Pillow does it before one."""

from __future__ import annotations

from collections.abc import Sequence

from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.onnx.graph import HEAD
from rlprune.errors import DataError, RLPruneError

_FILTERS = {"bilinear": 'mode = "linear"', "bicubic": 'mode = "cubic", cubic_coeff_a = -0.5'}
"""ONNX's words for those of Pillow's filters that it has; `nearest` is picked by index."""


def check_resizable(preprocessing: Preprocessing) -> None:
    """Make sure that a file can scale and cut pictures as a network's preprocessing says.

    Raises:
        RLPruneError: it cannot.
    """
    if preprocessing.transform_name is not None:
        raise RLPruneError(
            f"resize: this network's pictures come from a transform of its user's own, {preprocessing.transform_name}, "
            "which no ONNX file can hold; export without resize, and transform pictures before"
        )
    if preprocessing.resize is not None and preprocessing.interpolation not in (*_FILTERS, "nearest"):
        allowed = ", ".join(_FILTERS)
        raise RLPruneError(
            f"resize: interpolation is {preprocessing.interpolation!r}, and ONNX has {allowed} and nearest; "
            "export without resize, and scale pictures before"
        )


def check_picture(preprocessing: Preprocessing, image_shape: Sequence[int], height: int, width: int) -> None:
    """Make sure that a picture of this size comes to the network's.

    Args:
        preprocessing: the network's.
        image_shape: (C, H, W) of its images.
        height: of the picture.
        width: of the picture.

    Raises:
        DataError: it does not.
    """
    if not preprocessing.sizes:
        return
    scaled = _scaled_size(preprocessing.resize, height, width)
    needed = tuple(image_shape[1:])
    small = scaled[0] < needed[0] or scaled[1] < needed[1]
    if small or (preprocessing.crop is None and scaled != needed):
        raise DataError(
            f"pictures of {width}x{height} pixels come to {scaled[1]}x{scaled[0]} by the network's preprocessing, "
            f"{preprocessing.without_statistics.text}; it takes {needed[1]}x{needed[0]}: cut them to that shape first"
        )


def _scaled_size(resize: int | tuple[int, int] | None, height: int, width: int) -> tuple[int, int]:
    if resize is None:
        return height, width
    if isinstance(resize, tuple):
        return resize
    short = min(height, width)
    return height * resize // short, width * resize // short


def resize_function(preprocessing: Preprocessing, image_shape: Sequence[int]) -> str:
    """A function of the file: pictures uint8 (B, C, any, any) -> uint8 (B, C, H, W), the network's size.

    Args:
        preprocessing: the network's; where it says nothing of sizes, pictures are scaled until they cover the
            network's, and their middle is cut out.
        image_shape: (C, H, W).
    """
    channels, height, width = image_shape
    scaling, cutting = _steps(preprocessing)
    return f"""
    {HEAD}
    resize (images) => (pixels)
    {{
      batch_and_channels = Shape <start = 0, end = 2> (images)
      h = Shape <start = 2, end = 3> (images)
      w = Shape <start = 3, end = 4> (images)
      network_h = Constant <value_ints = [{height}]> ()
      network_w = Constant <value_ints = [{width}]> ()
      {scaling}
      {cutting}
      fixed = Constant <value_ints = [0, {channels}, {height}, {width}]> ()
      pixels = Reshape (middle, fixed)
    }}
    """


def _steps(preprocessing: Preprocessing) -> tuple[str, str]:
    """How `scaled` comes of `images`, and `middle` of `scaled`."""
    resize = preprocessing.resize
    if not preprocessing.sizes:
        return _cover() + _scaled("bilinear"), _cut(_DOWN)
    cutting = "middle = Identity (scaled)" if preprocessing.crop is None else _cut(_NEAREST)
    if resize is None:
        return "scaled = Identity (images)", cutting
    size = _fixed(resize) if isinstance(resize, tuple) else _shorter(resize)
    return size + _scaled(preprocessing.interpolation), cutting


def _scaled(interpolation: str) -> str:
    if interpolation == "nearest":
        return _picked("images", "h", 2, "rows") + _picked("rows", "w", 3, "scaled")
    how = f"{_FILTERS[interpolation]}, antialias = 1, exclude_outside = 1"
    return f"""
      sizes = Concat <axis = 0> (batch_and_channels, new_h, new_w)
      scaled = Resize <{how}, coordinate_transformation_mode = "half_pixel"> (images, , , sizes)
    """


def _picked(source: str, side: str, axis: int, result: str) -> str:
    """Along one side the positions that the middles of new ones fall on, summed up one by one as Pillow does."""
    return f"""
      {side}_one = Constant <value = int64[1] {{1}}> ()
      {side}_half = Constant <value = double[1] {{0.5}}> ()
      {side}_before = Cast <to = 11> ({side})
      {side}_after = Cast <to = 11> (new_{side})
      {side}_step = Div ({side}_before, {side}_after)
      {side}_first = Mul ({side}_step, {side}_half)
      {side}_rest = Sub (new_{side}, {side}_one)
      {side}_steps = Expand ({side}_step, {side}_rest)
      {side}_summands = Concat <axis = 0> ({side}_first, {side}_steps)
      {side}_axis = Constant <value_int = 0> ()
      {side}_middles = CumSum ({side}_summands, {side}_axis)
      {side}_old = Cast <to = 7> ({side}_middles)
      {result} = Gather <axis = {axis}> ({source}, {side}_old)
    """


def _fixed(size: tuple[int, int]) -> str:
    return f"""
      new_h = Constant <value_ints = [{size[0]}]> ()
      new_w = Constant <value_ints = [{size[1]}]> ()
    """


def _shorter(size: int) -> str:
    """The shorter side comes to a size, the longer one to what goes with it, rounded down."""
    return f"""
      shorter = Constant <value_ints = [{size}]> ()
      short = Min (h, w)
      h_large = Mul (h, shorter)
      w_large = Mul (w, shorter)
      new_h = Div (h_large, short)
      new_w = Div (w_large, short)
    """


def _cover() -> str:
    """Scaled by the larger of both ratios, rounded, and never smaller than the network's size."""
    return """
      h_double = Cast <to = 11> (h)
      w_double = Cast <to = 11> (w)
      network_h_double = Cast <to = 11> (network_h)
      network_w_double = Cast <to = 11> (network_w)
      ratio_h = Div (network_h_double, h_double)
      ratio_w = Div (network_w_double, w_double)
      ratio = Max (ratio_h, ratio_w)
      h_exact = Mul (h_double, ratio)
      w_exact = Mul (w_double, ratio)
      h_even = Round (h_exact)
      w_even = Round (w_exact)
      h_round = Cast <to = 7> (h_even)
      w_round = Cast <to = 7> (w_even)
      new_h = Max (h_round, network_h)
      new_w = Max (w_round, network_w)
    """


_DOWN = """
      two = Constant <value_ints = [2]> ()
      top = Div (over_h, two)
      left = Div (over_w, two)
"""
"""Half of what is over, rounded down."""
_NEAREST = """
      two = Constant <value_floats = [2.0]> ()
      over_h_float = Cast <to = 1> (over_h)
      over_w_float = Cast <to = 1> (over_w)
      half_h = Div (over_h_float, two)
      half_w = Div (over_w_float, two)
      even_h = Round (half_h)
      even_w = Round (half_w)
      top = Cast <to = 7> (even_h)
      left = Cast <to = 7> (even_w)
"""
"""Half of what is over, rounded as Python does: a half to the even side."""


def _cut(halves: str) -> str:
    return f"""
      scaled_h = Shape <start = 2, end = 3> (scaled)
      scaled_w = Shape <start = 3, end = 4> (scaled)
      over_h = Sub (scaled_h, network_h)
      over_w = Sub (scaled_w, network_w)
      {halves}
      bottom = Add (top, network_h)
      right = Add (left, network_w)
      starts = Concat <axis = 0> (top, left)
      ends = Concat <axis = 0> (bottom, right)
      axes = Constant <value_ints = [2, 3]> ()
      middle = Slice (scaled, starts, ends, axes)
    """
