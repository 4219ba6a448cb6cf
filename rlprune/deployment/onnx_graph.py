"""The graph that joins the pieces of a dynamic network in one ONNX file, in the notation of ONNX itself."""

from __future__ import annotations

from dataclasses import dataclass

OPSET = 18
"""Version of the operators that the file uses."""
DOMAIN = "rlprune"
"""Of the functions of the file."""
IR_VERSION = 10
"""Version of the file format."""
_INT64 = 7
"""ONNX's number of the type."""
_EMPTY = "int64[0] empty {}"
_HEAD = f'<domain: "{DOMAIN}", opset_import: ["": {OPSET}, "{DOMAIN}": 1]>'
"""What the text of a function of the file begins with."""


@dataclass(frozen=True)
class GraphSpec:
    """What the joining graph needs to know of a dynamic network.

    Attributes:
        image_shape: (C, H, W).
        n_classes: logits.
        max_passes: the most passes an image may have.
        first: profile that every image runs first; None if the policy chooses it.
        stem_macs: multiply-adds of the stem.
        body_macs: of the body of each profile.
        decision_macs: of one decision.
    """

    image_shape: tuple[int, ...]
    n_classes: int
    max_passes: int
    first: int | None
    stem_macs: int
    body_macs: tuple[int, ...]
    decision_macs: int


def main_graph(spec: GraphSpec) -> str:
    """The graph that joins the pieces, in the notation of ONNX itself.

    What a pass leaves behind, `logits` to `chosen`, goes through a loop: those who wait run what they chose, and are
    asked again unless that was their last pass. With nobody waiting it ends.
    """
    shape = ", ".join(map(str, spec.image_shape))
    first_pass = _no_pass(spec) if spec.first is None else _first_pass(spec, spec.first)
    outputs = f"float[B, {spec.n_classes}] logits, int64[B, {spec.max_passes}] profiles, int64[B] macs"
    return f"""
    dynamic (uint8[B, {shape}] images) => ({outputs})
    {{
      features, seen = {DOMAIN}.start (images)
      zero = Constant <value_int = 0> ()
      one = Constant <value_int = 1> ()
      minus_one = Constant <value_int = -1> ()
      last_axis = Constant <value_ints = [1]> ()
      n_done = Constant <value_int = {0 if spec.first is None else 1}> ()
      max_passes = Constant <value_int = {spec.max_passes}> ()
      bodies_macs = Constant <value_ints = {list(spec.body_macs)}> ()
      n_images = Shape <start = 0, end = 1> (images)
      n_images_scalar = Squeeze (n_images)
      everyone = Range (zero, n_images_scalar, one)
      {first_pass}
      n_waiting_0 = Size (waiting_0)
      any_0 = Greater (n_waiting_0, zero)
      n_left = Sub (max_passes, n_done)
{_loop(spec)}
      did_run = GreaterOrEqual (profiles, zero)
      counted = Cast <to = {_INT64}> (did_run)
      passes = ReduceSum <keepdims = 0> (counted, last_axis)
      passes_and_one = Add (passes, one)
      decisions = Min (passes_and_one, max_passes)
      decision_macs = Constant <value_int = {spec.decision_macs}> ()
      deciding = Mul (decisions, decision_macs)
      macs = Add (spent, deciding)
    }}
    """


def _loop(spec: GraphSpec) -> str:
    """One more pass of those who wait, again and again."""
    n_classes, max_passes = spec.n_classes, spec.max_passes
    return f"""
      logits, profiles, spent, waiting, chosen = Loop (
        n_left, any_0, logits_0, profiles_0, spent_0, waiting_0, chosen_0
      ) <body = one_pass (
          int64 n_turn, bool again, float[B, {n_classes}] believed, int64[B, {max_passes}] ran, int64[B] spent_before,
          int64[n] runs, int64[n] runs_what
        ) => (
          bool more, float[B, {n_classes}] believed_after, int64[B, {max_passes}] ran_after, int64[B] spent_after,
          int64[m] waits, int64[m] waits_for
        ) {{
          n_pass = Add (n_turn, n_done)
          new_logits, whose = {DOMAIN}.run (features, runs, runs_what)
          old_logits = Gather (believed, whose)
          n_runs = Shape (runs)
          passes_made = Expand (n_pass, n_runs)
          combined = {DOMAIN}.believe (old_logits, new_logits, passes_made)
          rows = Unsqueeze (whose, last_axis)
          believed_after = ScatterND (believed, rows, combined)

          prices = Gather (bodies_macs, runs_what)
          spent_after = ScatterElements <reduction = "add"> (spent_before, runs, prices)
          run_rows = Unsqueeze (runs, last_axis)
          run_columns = Unsqueeze (passes_made, last_axis)
          cells = Concat <axis = 1> (run_rows, run_columns)
          ran_after = ScatterND (ran, cells, runs_what)

          passes_now = Add (n_pass, one)
          asks = Less (passes_now, max_passes)
          waits, waits_for = If (asks) <
            then_branch = is_asked () => (int64[n_on] who, int64[n_on] what) {{
              who, what = {DOMAIN}.ask (seen, runs, runs_what, believed_after, spent_after, passes_now)
            }},
            else_branch = was_last () => (int64[0] no_one, int64[0] no_profile) {{
              no_one = Constant <value = {_EMPTY}> ()
              no_profile = Constant <value = {_EMPTY}> ()
            }}
          >
          n_waits = Size (waits)
          more = Greater (n_waits, zero)
        }}>
    """


def _no_pass(spec: GraphSpec) -> str:
    """What there is before any pass: nothing is believed, and every image waits for what the policy chose first."""
    return f"""
      n_classes = Constant <value_ints = [{spec.n_classes}]> ()
      n_passes = Constant <value_ints = [{spec.max_passes}]> ()
      logits_shape = Concat <axis = 0> (n_images, n_classes)
      profiles_shape = Concat <axis = 0> (n_images, n_passes)
      nothing = Constant <value_float = 0.0> ()
      stem_macs = Constant <value_int = {spec.stem_macs}> ()
      logits_0 = Expand (nothing, logits_shape)
      profiles_0 = Expand (minus_one, profiles_shape)
      spent_0 = Expand (stem_macs, n_images)
      waiting_0 = Identity (everyone)
      passes_0 = Expand (zero, n_images)
      chosen_0, accept_0 = {DOMAIN}.decide (seen, logits_0, passes_0, spent_0)
    """


def _first_pass(spec: GraphSpec, first: int) -> str:
    """What a first pass leaves that is the same for all images, so that none need be picked out, or asked before.

    Its profile may be run again later, by some images, so a session may hold that body's weights twice.
    """
    n_later = spec.max_passes - 1
    spent = spec.stem_macs + spec.body_macs[first]
    nobody = f"Constant <value = {_EMPTY}> ()"
    asks = f"waiting_0, chosen_0 = {DOMAIN}.ask (seen, everyone, ran_first, logits_0, spent_0, one)"
    return f"""
      first = Constant <value_int = {first}> ()
      spent_first = Constant <value_int = {spent}> ()
      n_later = Constant <value_ints = [{n_later}]> ()
      logits_0 = {DOMAIN}.profile_{first} (features)
      ran_first = Expand (first, n_images)
      first_column = Unsqueeze (ran_first, last_axis)
      later_shape = Concat <axis = 0> (n_images, n_later)
      later_columns = Expand (minus_one, later_shape)
      profiles_0 = Concat <axis = 1> (first_column, later_columns)
      spent_0 = Expand (spent_first, n_images)
      {asks if n_later else f"waiting_0 = {nobody} chosen_0 = {nobody}"}
    """


def ask_function() -> str:
    """Who of the images asked, whose last pass ran `last`, goes on, and with which profile; a function of the file."""
    return f"""
    {_HEAD}
    ask (seen, asked, last, believed, spent, n_passes) => (waiting, chosen)
    {{
      seen_here = Gather (seen, asked)
      believed_here = Gather (believed, asked)
      spent_here = Gather (spent, asked)
      n_asked = Shape (asked)
      passes_here = Expand (n_passes, n_asked)
      choice, accept = {DOMAIN}.decide (seen_here, believed_here, passes_here, spent_here)
      same = Equal (choice, last)
      done = Or (accept, same)
      goes_on = Not (done)
      waiting = Compress <axis = 0> (asked, goes_on)
      chosen = Compress <axis = 0> (choice, goes_on)
    }}
    """


def run_function(n_profiles: int, n_classes: int) -> str:
    """The logits of images under the profiles they chose, and whose is which; a function of the file."""
    profiles = range(n_profiles)
    return f"""
    {_HEAD}
    run (features, runs, chosen) => (logits, whose)
    {{
      zero = Constant <value_int = 0> ()
      nothing = Constant <value_float = 0.0> ()
      nobody = Constant <value_ints = [0, {n_classes}]> ()
      no_logits = Expand (nothing, nobody)
      {"".join(_run_profile(k, n_classes) for k in profiles)}
      logits = Concat <axis = 0> ({", ".join(f"logits_of_{k}" for k in profiles)})
      whose = Concat <axis = 0> ({", ".join(f"bucket_{k}" for k in profiles)})
    }}
    """


def _run_profile(k: int, n_classes: int) -> str:
    """The part of it that runs one profile, on the images that chose it, if there are any."""
    return f"""
      index_{k} = Constant <value_int = {k}> ()
      chose_{k} = Equal (chosen, index_{k})
      bucket_{k} = Compress <axis = 0> (runs, chose_{k})
      size_{k} = Size (bucket_{k})
      any_{k} = Greater (size_{k}, zero)
      logits_of_{k} = If (any_{k}) <
        then_branch = run_{k} () => (float[n_{k}, {n_classes}] output_{k}) {{
          input_{k} = Gather (features, bucket_{k})
          output_{k} = {DOMAIN}.profile_{k} (input_{k})
        }},
        else_branch = skip_{k} () => (float[0, {n_classes}] none_{k}) {{
          none_{k} = Identity (no_logits)
        }}
      >"""
