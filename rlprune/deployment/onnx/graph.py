"""Writes the graph that joins the exported parts of a dynamic network, in the text format of ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OPSET = 18
"""Version of the operators that the file uses."""
DOMAIN = "rlprune"
"""Domain of the functions of the file."""
IR_VERSION = 10
"""Version of the file format."""
_EMPTY = "int64[0] empty {}"
HEAD = f'<domain: "{DOMAIN}", opset_import: ["": {OPSET}, "{DOMAIN}": 1]>'
"""First line of every function of the file."""


@dataclass(frozen=True)
class GraphSpec:
    """The properties of a dynamic network that its joining graph depends on.

    Attributes:
        image_shape: (C, H, W).
        n_classes: number of logits.
        max_passes: the most passes an image may have.
        firsts: profiles of which all images of a call run the same one first, by the budget where there are several;
            empty if images may begin differently.
        stem_macs: MACs of the stem.
        body_macs: MACs of the body under each profile.
        decision_macs: MACs of one decision.
        shared: names of the shared weights that each profile reads.
        ranged: whether the file has a budget for an input.
        resized: whether pictures of any size go in.
        feature_type: of the stem's features, as ONNX calls it.
    """

    image_shape: tuple[int, ...]
    n_classes: int
    max_passes: int
    firsts: tuple[int, ...]
    stem_macs: int
    body_macs: tuple[int, ...]
    decision_macs: int
    shared: tuple[tuple[str, ...], ...]
    ranged: bool = False
    resized: bool = False
    feature_type: str = "float"

    @property
    def pixels(self) -> str:
        """What goes into the network."""
        return "pixels" if self.resized else "images"

    @property
    def place(self) -> str:
        """The last input of what decides, where there is one."""
        return ", place" if self.ranged else ""


def signature(image_shape: Sequence[int], n_classes: int, max_passes: int, *, ranged: bool, resized: bool) -> str:
    """Inputs and outputs of a file, in the text format of ONNX."""
    channels, *sizes = image_shape
    shape = ", ".join(map(str, ("B", channels, *(("height", "width") if resized else sizes))))
    inputs = f"uint8[{shape}] images{', float[1] budget' if ranged else ''}"
    outputs = f"float[B, {n_classes}] logits, int64[B, {max_passes}] profiles, int64[B] macs"
    return f"({inputs}) => (int64[B] label, float[B] probability, {outputs})"


def answer() -> str:
    """What stands at the end: the class of the largest probability, and that probability."""
    return """
      probabilities = Softmax <axis = 1> (logits)
      label = ArgMax <axis = 1, keepdims = 0> (probabilities)
      probability = ReduceMax <keepdims = 0> (probabilities, last_axis)
    """


def static_graph(image_shape: Sequence[int], n_classes: int, macs: int, *, resized: bool) -> str:
    """The graph of a network that is the same for every image, in the text format of ONNX."""
    return f"""
    static {signature(image_shape, n_classes, 1, ranged=False, resized=resized)}
    {{
      {f"pixels = {DOMAIN}.resize (images)" if resized else ""}
      features = {DOMAIN}.start ({"pixels" if resized else "images"})
      logits = {DOMAIN}.profile_0 (features)
      zero = Constant <value_int = 0> ()
      last_axis = Constant <value_ints = [1]> ()
      price = Constant <value_int = {macs}> ()
      n_images = Shape <start = 0, end = 1> (images)
      one_pass = Concat <axis = 0> (n_images, last_axis)
      profiles = Expand (zero, one_pass)
      macs = Expand (price, n_images)
{answer()}
    }}
    """


def main_graph(spec: GraphSpec) -> str:
    """The graph that joins the parts, in the text format of ONNX.

    A loop carries the state between passes, `logits` and `profiles` of all images, and which wait, for what, after how
    many MACs: these run the profiles chosen for them, and the policy then decides on them again unless that was their
    last pass. The loop ends when no image waits. What everything cost is looked up once, from the profiles.
    """
    first_pass = _first_pass(spec) if spec.firsts else _no_pass(spec)
    sizes = {"ranged": spec.ranged, "resized": spec.resized}
    return f"""
    dynamic {signature(spec.image_shape, spec.n_classes, spec.max_passes, **sizes)}
    {{
      {f"pixels = {DOMAIN}.resize (images)" if spec.resized else ""}
      {f"place = {DOMAIN}.place (budget)" if spec.ranged else ""}
      zero = Constant <value_int = 0> ()
      one = Constant <value_int = 1> ()
      last_axis = Constant <value_ints = [1]> ()
      n_done = Constant <value_int = {1 if spec.firsts else 0}> ()
      max_passes = Constant <value_int = {spec.max_passes}> ()
      n_images = Shape <start = 0, end = 1> (images)
      n_images_scalar = Squeeze (n_images)
      everyone = Range (zero, n_images_scalar, one)
      {first_pass}
      n_waiting_0 = Size (waiting_0)
      any_0 = Greater (n_waiting_0, zero)
      n_left = Sub (max_passes, n_done)
{_loop(spec)}
{_macs(spec)}
{answer()}
    }}
    """


def _macs(spec: GraphSpec) -> str:
    """What images cost: stem, first decision, and every pass with the decision after it, which the last one has not.

    The first part of the table is for all passes but the last; -1, no pass, reads the zero at the end of either.
    """
    last = [*spec.body_macs, 0]
    others = [macs + spec.decision_macs for macs in spec.body_macs]
    parts = [0] * (spec.max_passes - 1) + [len(last)]
    return f"""
      pass_prices = Constant <value_ints = {[*others, 0, *last]}> ()
      parts = Constant <value_ints = {parts}> ()
      for_all = Constant <value_int = {spec.stem_macs + spec.decision_macs}> ()
      rows_of_prices = Add (profiles, parts)
      passes_macs = Gather (pass_prices, rows_of_prices)
      all_passes_macs = ReduceSum <keepdims = 0> (passes_macs, last_axis)
      macs = Add (all_passes_macs, for_all)"""


def _loop(spec: GraphSpec) -> str:
    """The loop over passes."""
    n_classes = spec.n_classes
    max_passes = spec.max_passes
    run_inputs = ", ".join(("features", "running", "running_profiles", *all_shared(spec)))
    return f"""
      bodies_macs = Constant <value_ints = {list(spec.body_macs)}> ()
      logits, profiles, waiting, chosen, spent = Loop (
        n_left, any_0, logits_0, profiles_0, waiting_0, chosen_0, spent_0
      ) <body = one_pass (
          int64 iteration, bool condition,
          float[B, {n_classes}] logits_before, int64[B, {max_passes}] profiles_before,
          int64[n] running, int64[n] running_profiles, int64[n] spent_before
        ) => (
          bool more,
          float[B, {n_classes}] logits_after, int64[B, {max_passes}] profiles_after,
          int64[m] waiting_after, int64[m] chosen_after, int64[m] spent_after
        ) {{
          n_pass = Add (iteration, n_done)
          new_logits, owners = {DOMAIN}.run ({run_inputs})
          old_logits = Gather (logits_before, owners)
          n_running = Shape (running)
          passes_made = Expand (n_pass, n_running)
          combined = {DOMAIN}.combine (old_logits, new_logits, passes_made)
          rows = Unsqueeze (owners, last_axis)
          logits_after = ScatterND (logits_before, rows, combined)

          run_rows = Unsqueeze (running, last_axis)
          run_columns = Unsqueeze (passes_made, last_axis)
          cells = Concat <axis = 1> (run_rows, run_columns)
          profiles_after = ScatterND (profiles_before, cells, running_profiles)

          passes_now = Add (n_pass, one)
          may_go_on = Less (passes_now, max_passes)
          waiting_after, chosen_after, spent_after = If (may_go_on) <
            then_branch = decide_again () => (int64[n_on] next_images, int64[n_on] next_profiles, int64[n_on] so_far) {{
              pass_macs = Gather (bodies_macs, running_profiles)
              spent_now = Add (spent_before, pass_macs)
              next_images, next_profiles, so_far = {DOMAIN}.decide_next (
                observed, running, running_profiles, logits_after, spent_now, passes_now{spec.place}
              )
            }},
            else_branch = stop () => (int64[0] no_images, int64[0] no_profiles, int64[0] no_macs) {{
              no_images = Constant <value = {_EMPTY}> ()
              no_profiles = Constant <value = {_EMPTY}> ()
              no_macs = Constant <value = {_EMPTY}> ()
            }}
          >
          n_waiting = Size (waiting_after)
          more = Greater (n_waiting, zero)
        }}>
    """


def _no_pass(spec: GraphSpec) -> str:
    """The state before any pass: logits of zeros, and every image waiting to run what the policy chose for it."""
    return f"""
      features = {DOMAIN}.start ({spec.pixels})
      observed = {DOMAIN}.observe (features)
      n_classes = Constant <value_ints = [{spec.n_classes}]> ()
      n_passes = Constant <value_ints = [{spec.max_passes}]> ()
      logits_shape = Concat <axis = 0> (n_images, n_classes)
      profiles_shape = Concat <axis = 0> (n_images, n_passes)
      minus_one = Constant <value_int = -1> ()
      nothing = Constant <value_float = 0.0> ()
      stem_macs = Constant <value_int = {spec.stem_macs}> ()
      logits_0 = Expand (nothing, logits_shape)
      profiles_0 = Expand (minus_one, profiles_shape)
      spent_0 = Expand (stem_macs, n_images)
      waiting_0 = Identity (everyone)
      passes_0 = Expand (zero, n_images)
      chosen_0, accept_0 = {DOMAIN}.decide (observed, logits_0, passes_0, spent_0{spec.place})
    """


def _first_pass(spec: GraphSpec) -> str:
    """The state after a first pass that is the same for all images: none are gathered.

    Some images may run that profile again later, so a session may hold the weights of its body twice.
    """
    nobody, not_yet = f"Constant <value = {_EMPTY}> ()", ["-1"] * (spec.max_passes - 1)
    decide = f"""
      spent_by_first = Constant <value_ints = {[spec.stem_macs + macs for macs in spec.body_macs]}> ()
      spent_first = Gather (spent_by_first, first)
      spent_by_all = Expand (spent_first, n_images)
      passes_of_all = Expand (one, n_images)
      choice, accept = {DOMAIN}.decide (observed, logits_0, passes_of_all, spent_by_all{spec.place})
      waiting_0, chosen_0, spent_0 = {DOMAIN}.go_on (everyone, first, choice, accept, spent_by_all)
    """
    nothing_more = f"waiting_0 = {nobody} chosen_0 = {nobody} spent_0 = {nobody}"
    return f"""
      {_first_logits(spec)}
      observed = {DOMAIN}.observe (features)
      n_passes = Constant <value_ints = [{spec.max_passes}]> ()
      profiles_shape = Concat <axis = 0> (n_images, n_passes)
      none_more = Constant <value = int64[{len(not_yet)}] others {{{", ".join(not_yet)}}}> ()
      profiles_of_one = Concat <axis = 0> (first, none_more)
      profiles_0 = Expand (profiles_of_one, profiles_shape)
      {decide if spec.max_passes > 1 else nothing_more}
    """


def _first_logits(spec: GraphSpec) -> str:
    """Features of the images, the profile that they all run first, int64 (1,), and its logits."""
    if len(spec.firsts) > 1:
        return f"features, first, logits_0 = {DOMAIN}.begin ({', '.join((spec.pixels, 'place', *all_shared(spec)))})"
    (k,) = spec.firsts
    run = f"{DOMAIN}.profile_{k} ({', '.join(('features', *spec.shared[k]))})"
    return f"features = {DOMAIN}.start ({spec.pixels}) first = Constant <value_ints = [{k}]> () logits_0 = {run}"


def all_shared(spec: GraphSpec) -> tuple[str, ...]:
    """The names of all shared weights, each once."""
    return tuple(dict.fromkeys(name for names in spec.shared for name in names))


def decide_functions(spec: GraphSpec) -> list[str]:
    """Functions of the file: which of some images, whose last pass ran `last`, run again, and under which profile."""
    return [
        f"""
    {HEAD}
    go_on (images, last, choice, accept, spent) => (waiting, chosen, spent_by_waiting)
    {{
      same = Equal (choice, last)
      done = Or (accept, same)
      not_done = Not (done)
      waiting = Compress <axis = 0> (images, not_done)
      chosen = Compress <axis = 0> (choice, not_done)
      spent_by_waiting = Compress <axis = 0> (spent, not_done)
    }}
    """,
        f"""
    {HEAD}
    decide_next (observed, images, last, logits, spent, n_passes{spec.place}) => (waiting, chosen, spent_by_waiting)
    {{
      observed_here = Gather (observed, images)
      logits_here = Gather (logits, images)
      n_images = Shape (images)
      passes_here = Expand (n_passes, n_images)
      choice, accept = {DOMAIN}.decide (observed_here, logits_here, passes_here, spent{spec.place})
      waiting, chosen, spent_by_waiting = {DOMAIN}.go_on (images, last, choice, accept, spent)
    }}
    """,
    ]


def start_function() -> str:
    """A function of the file: pixels to the stem's features."""
    return f"""
    {HEAD}
    start (images) => (features)
    {{
      scaled = {DOMAIN}.pixels (images)
      features = {DOMAIN}.stem (scaled)
    }}
    """


def run_function(spec: GraphSpec) -> str:
    """A function of the file: logits of images under the profiles chosen for them, and the image of every row."""
    n_classes = spec.n_classes
    profiles = range(len(spec.body_macs))
    return f"""
    {HEAD}
    run ({", ".join(("features", "images", "chosen", *all_shared(spec)))}) => (logits, owners)
    {{
      zero = Constant <value_int = 0> ()
      nothing = Constant <value_float = 0.0> ()
      nobody = Constant <value_ints = [0, {n_classes}]> ()
      no_logits = Expand (nothing, nobody)
      {"".join(_run_profile(k, n_classes, spec.shared[k]) for k in profiles)}
      logits = Concat <axis = 0> ({", ".join(f"logits_of_{k}" for k in profiles)})
      owners = Concat <axis = 0> ({", ".join(f"bucket_{k}" for k in profiles)})
    }}
    """


def _run_profile(k: int, n_classes: int, shared: Sequence[str]) -> str:
    """The part of `run` that runs one profile on the images that chose it, if there are any."""
    return f"""
      index_{k} = Constant <value_int = {k}> ()
      chose_{k} = Equal (chosen, index_{k})
      bucket_{k} = Compress <axis = 0> (images, chose_{k})
      size_{k} = Size (bucket_{k})
      any_{k} = Greater (size_{k}, zero)
      logits_of_{k} = If (any_{k}) <
        then_branch = run_{k} () => (float[n_{k}, {n_classes}] output_{k}) {{
          input_{k} = Gather (features, bucket_{k})
          output_{k} = {DOMAIN}.profile_{k} ({", ".join((f"input_{k}", *shared))})
        }},
        else_branch = skip_{k} () => (float[0, {n_classes}] none_{k}) {{
          none_{k} = Identity (no_logits)
        }}
      >"""
