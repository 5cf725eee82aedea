# SPDX-License-Identifier: Apache-2.0
"""state_dict() of this package, and loading it.

torch.optim's layout. The state of a parameter is a flat dict of
    step int, rule, format, weight_format str, block int, seed int,
    and the library's arrays by name: "exp_avg" (uint8 [shape]), "exp_avg.scale" (float32 [blocks]),
    ..., "master" (float32 [shape]) or "correction" (int8, int16 [shape]).
Tensors, numbers and strings only, so torch.load(weights_only=True) takes it.
"""
import copy

import torch

from .interop import Foreign, check_fits

FACTORED = ("exp_avg_sq_row", "exp_avg_sq_col")  # float32, whatever the format
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
    names = [name for name in arrays if "." not in name and name not in ("master", "correction")]
    if "=" in text:
        return dict(part.split("=") for part in text.split(","))
    return {name: text for name in names}


def _check(own, saved, param, name):
    """Whether the arrays can be copied as they are; ValueError if they cannot be used at all."""
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
    if not same and "int4_rank1" in saved["format"]:
        raise ValueError("parameter %r: states with rank-1 scales cannot be converted to %s"
                         % (name, own["format"]))
    foreign = {} if same else foreign_states(saved)
    for key, state in foreign.items():
        check_fits(state, param.numel(), "parameter %r: state %r" % (name, key))
    for key in ours if same else [key for key in ours if "." not in key]:
        there = theirs.get(key)
        if there is None or (key not in foreign and (there.numel(), there.dtype)
                             != (ours[key].numel(), ours[key].dtype)):
            raise ValueError("parameter %r: state %r is %s; %d of %s expected" % (
                name, key, "missing" if there is None else "%d of %s"
                % (there.numel(), there.dtype), ours[key].numel(), ours[key].dtype))
    return same


def foreign_states(entry):
    """{state: Foreign} of what can be decoded; master copies and factored moments cannot."""
    arrays = arrays_of(entry)
    out = {}
    for name, state_format in formats_of(entry["format"], arrays).items():
        scales = arrays.get(name + ".scale")
        if name in arrays and not name.startswith(FACTORED):
            out[name] = Foreign(state_format, arrays[name], scales, None,
                                entry["block"] if scales is not None else 0)
    return out


def _convert(handle, index, entry):
    """Arrays in another format or block, state by state; what has no format is copied."""
    states = foreign_states(entry)
    for name, state in states.items():
        handle.import_state(index, name, state)
    handle.load_states(index, {name: array for name, array in arrays_of(entry).items()
                               if "." not in name and name not in states})


def take_hypers(optimizer, state_dict, keys=None):
    """Hyper-parameters of saved groups into the optimizer's: all, or those of `keys`."""
    for group, saved in zip(optimizer.param_groups, state_dict["param_groups"]):
        for key, value in saved.items():
            if key in ("params", "param_names", *optimizer._options):
                continue
            if keys is not None and key not in keys:
                continue
            if torch.is_tensor(value) and torch.is_tensor(group.get(key)):
                group[key].fill_(value)
            elif keys is None or key in group:
                group[key] = float(value) if torch.is_tensor(value) else copy.deepcopy(value)


def load(optimizer, state_dict):
    pairs = pair_up(optimizer, state_dict)
    plan = []
    for handle, index, p, saved in pairs:
        name = handle.info(index)["name"]
        if saved is None or not all(key in saved for key in DESCRIPTION):
            raise ValueError("parameter %r: the state_dict has no state of nibble_torch's for it; "
                             "for those of bitsandbytes, torchao and torch.optim use "
                             "import_state_dict()" % name)
        plan.append(_check(optimizer.state[p], saved, p, name))
    for (handle, index, p, saved), same in zip(pairs, plan):
        if same:
            handle.load_states(index, arrays_of(saved))
        else:
            _convert(handle, index, saved)
        optimizer.state[p]["step"] = int(saved["step"])
    take_hypers(optimizer, state_dict)
