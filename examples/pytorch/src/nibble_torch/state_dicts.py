# SPDX-License-Identifier: Apache-2.0
"""state_dict() of this package, and loading it.

torch.optim's layout. The state of a parameter is a flat dict of
    step int, rule, format, weight_format str, block int, seed int,
    and the library's arrays by name: "exp_avg" (uint8 [shape]), "exp_avg.scale" (float32 [blocks]),
    ..., "master" (float32 [shape]) or "correction" (int8, int16 [shape]).
Tensors, numbers and strings only, so torch.load(weights_only=True) takes it.
"""
import torch

from . import groups
from .handle import Handle
from .interop import Foreign, check_fits, plain

FACTORED = ("exp_avg_sq_row", "exp_avg_sq_col")  # float32, whatever the format
BESIDE_WEIGHTS = ("master", "correction")
MOST_STEPS = 2 ** 53
DESCRIPTION = ("rule", "format", "block", "weight_format")


def pair_up(optimizer, state_dict):
    """[(handle, index, parameter, state or None)] of all parameters, by torch.optim's numbering.
    ValueError if the groups differ in number or size."""
    saved = state_dict["param_groups"]
    sizes = [len(g["params"]) for g in saved]
    own = [len(g["params"]) for g in optimizer.param_groups]
    if sizes != own:
        raise ValueError("the state_dict has groups of %s parameters, this optimizer of %s"
                         % (sizes, own))
    out = []
    for group, handle, theirs in zip(optimizer.param_groups, optimizer._handles, saved):
        for index, (p, key) in enumerate(zip(group["params"], theirs["params"])):
            out.append((handle, index, p, state_dict["state"].get(key)))
    return out


def arrays_of(entry):
    return {key: value for key, value in entry.items() if torch.is_tensor(value)}


def formats_of(text, arrays):
    """{state: format} from "int8" or "exp_avg=int8,exp_avg_sq=fp32", for states that are there."""
    names = [name for name in arrays if "." not in name and name not in BESIDE_WEIGHTS]
    if "=" in text:
        return dict(part.split("=") for part in text.split(","))
    return {name: text for name in names}


def _check(own, saved, param, name):
    """None if the arrays can be copied as they are, else what they stand for; ValueError if they
    cannot be used at all."""
    for key in ("rule", "weight_format"):
        if saved[key] != own[key]:
            raise ValueError("parameter %r: the state_dict was made with %s %r, this optimizer has "
                             "%r" % (name, key, saved[key], own[key]))
    if "stochastic" in own["weight_format"] and saved["seed"] != own["seed"]:
        raise ValueError("parameter %r: the state_dict was made with seed %d, this optimizer has "
                         "%d, so stochastic rounding would differ; create it with that seed"
                         % (name, saved["seed"], own["seed"]))
    ours, theirs = arrays_of(own), arrays_of(saved)
    same = saved["format"] == own["format"] and saved["block"] == own["block"]
    foreign = {} if same else foreign_states(saved, param, name)
    for key, state in foreign.items():
        check_fits(state, param.numel(), "parameter %r: state %r" % (name, key))
    for key in ours if same else [key for key in ours if "." not in key]:
        if key not in foreign:
            _check_array(theirs, key, ours[key], name)
    missing = [key for key in foreign if key not in ours]
    if missing:
        raise ValueError("parameter %r: state %r is not one of this optimizer's"
                         % (name, missing[0]))
    return None if same else foreign


def foreign_states(entry, param, name):
    """{state: Foreign} of what can be decoded; master copies and factored moments cannot."""
    arrays = arrays_of(entry)
    out = {}
    for state, state_format in formats_of(entry["format"], arrays).items():
        if state not in arrays or state.startswith(FACTORED):
            continue
        if state + ".row" in arrays:
            out[state] = plain(_from_rank1(entry["rule"], state, arrays, param, name))
            continue
        scales = arrays.get(state + ".scale")
        own = "int4" if state_format == "int4_rank1" else state_format  # where scales are of blocks
        out[state] = Foreign(own, arrays[state], scales, None,
                             entry["block"] if scales is not None else 0)
    return out


def _check_array(arrays, key, own, name):
    there = arrays.get(key)
    if there is None or (there.numel(), there.dtype) != (own.numel(), own.dtype):
        raise ValueError("parameter %r: state %r is %s; %d of %s expected" % (
            name, key, "missing" if there is None else "%d of %s" % (there.numel(), there.dtype),
            own.numel(), own.dtype))


def _from_rank1(rule, state, arrays, param, name):
    """A state with scales of rows and columns as floats: these go by the whole matrix, so an
    optimizer of that format reads them."""
    reader = Handle(rule=rule, hypers={}, state_format="fp32", weight_format="fp32",
                    formats={"*": "%s=int4_rank1" % state}, mode="default", block_size=None,
                    min_quantized_elements=1, seed=0, nonfinite="skip_step", decay=None)
    reader.add_param("read", param.shape, "fp32", "F32")
    own = {key: array for key, array in reader.states(0, param.shape).items()
           if key.split(".")[0] == state}
    for key, array in own.items():
        _check_array(arrays, key, array, name)
    reader.load_states(0, {key: arrays[key] for key in own})
    return reader.export_state(0, state, param.shape)


def _convert(handle, index, states, arrays):
    """Arrays in another format or block, state by state; what has no format is copied."""
    for name, state in states.items():
        handle.import_state(index, name, state)
    handle.load_states(index, {name: array for name, array in arrays.items()
                               if "." not in name and name not in states})


def _step_of(saved, name):
    step = saved["step"]
    if torch.is_tensor(step) and step.numel() == 1:
        step = step.item()
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= MOST_STEPS:
        raise ValueError("parameter %r: step is %r; an integer from 0 to 2^53 expected"
                         % (name, saved["step"]))
    return step


def load(optimizer, state_dict):
    pairs = pair_up(optimizer, state_dict)
    plan = []
    for handle, index, p, saved in pairs:
        name = handle.info(index)["name"]
        if saved is None or not all(key in saved for key in (*DESCRIPTION, "step", "seed")):
            raise ValueError("parameter %r: the state_dict has no state of nibble_torch's for it; "
                             "for those of bitsandbytes, torchao and torch.optim use "
                             "import_state_dict()" % name)
        step = _step_of(saved, name)
        foreign = _check(optimizer.state[p], saved, p, name)
        arrays = arrays_of(saved)
        if step == 0:  # not taken from the weights yet, or what they say themselves
            arrays = {key: array for key, array in arrays.items() if key not in BESIDE_WEIGHTS}
        plan.append((step, arrays, foreign))
    merged = groups.changed(optimizer, state_dict)
    for (handle, index, p, _), (step, arrays, foreign) in zip(pairs, plan):
        if foreign is None:
            handle.load_states(index, arrays)
        else:
            _convert(handle, index, foreign, arrays)
        optimizer.state[p]["step"] = step
    if any(step == 0 for step, _, _ in plan):  # the next step binds, and takes it from the weights
        for slots in optimizer._slots:
            for slot in slots:
                slot[1] = None
    groups.take(optimizer, merged)
