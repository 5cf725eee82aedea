# SPDX-License-Identifier: Apache-2.0
"""state_dict()s of bitsandbytes, torchao and torch.optim, as nibble_optimizer_import_state takes
them. Those libraries need not be installed: states are told by their keys and attributes."""
from collections import namedtuple

import torch

# format: nibble's name of the codes' format. codes: tensor, as many as the parameter's elements
# (half for 4 bits). scales: float32 [blocks] or None. map: float32 values by code or None.
Foreign = namedtuple("Foreign", "format codes scales map block")

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_BNB_WRAPPED = "__bnb_optimizer_quant_state__"
_HYPERS = ("lr", "initial_lr", "betas", "eps", "weight_decay", "alpha", "momentum", "dampening",
           "nesterov", "lr_decay", "maximize")
# torch.optim's names of a factored second moment.
_TORCH_FACTORED = {"row_var": "exp_avg_sq_row", "col_var": "exp_avg_sq_col",
                   "variance": "exp_avg_sq"}
_BNB_STATES = {"state1": {"sgd": "momentum_buffer", "rmsprop": "square_avg", "adagrad": "sum"},
               "state2": {}}


def plain(tensor):
    """A float tensor as a state without blocks."""
    if tensor.dtype is torch.bfloat16:
        return Foreign("bf16", tensor, None, None, 0)
    return Foreign("fp32", tensor.float(), None, None, 0)


def check_fits(foreign, count, what):
    """ValueError unless codes, scales and map are what `count` elements need."""
    def expect(array, number, part):
        if array.numel() != number:
            raise ValueError("%s has %d %s, %d expected" % (what, array.numel(), part, number))

    wanted = _DTYPES.get(foreign.format)
    if foreign.codes.dtype is not wanted if wanted else foreign.codes.element_size() != 1:
        raise ValueError("%s has codes of %s, %s expected"
                         % (what, foreign.codes.dtype, wanted or "bytes"))
    four_bits = foreign.format == "int4"
    expect(foreign.codes, (count + 1) // 2 if four_bits else count, "elements or bytes of codes")
    if foreign.map is not None:
        expect(foreign.map, 16 if four_bits else 256, "values in its map")
    if foreign.scales is not None and count > 0:
        block, given = foreign.block, max(foreign.scales.numel(), 1)
        if not block:  # as libnibble derives it
            block = 1
            while -(-count // block) > given:
                block *= 2
        expect(foreign.scales, -(-count // block), "scales")


def _from_torchao(state, name):
    """OptimState8bit, OptimState4bit or OptimStateFp8: codes, scale and, for the first two, qmap.
    All else must be a plain tensor."""
    kind = type(state).__name__
    formats = {"OptimState8bit": "int8", "OptimState4bit": "int4", "OptimStateFp8": "fp8"}
    if kind in formats:
        table = getattr(state, "qmap", None)
        return Foreign(formats[kind], state.codes, state.scale.flatten(), table,
                       state.numel() // max(state.scale.numel(), 1))
    if kind not in ("Tensor", "Parameter"):
        raise ValueError("state %r is a %s; a plain tensor or torchao's OptimState8bit, "
                         "OptimState4bit or OptimStateFp8 expected" % (name, kind))
    return plain(state)


def _bnb_parts(entry, name):
    """state1 or state2 of bitsandbytes as a Foreign."""
    codes = entry[name]
    if codes.dtype is not torch.uint8:
        return plain(codes)
    number = name[-1]
    scales = entry.get("absmax" + number)
    if scales is None:
        raise ValueError("bitsandbytes' %s is quantised but there is no absmax%s" % (name, number))
    return Foreign("int8", codes, scales, entry.get("qmap" + number), 0)


def _split(foreign):
    """AdEMAMix's state1 holds both first moments, [2, shape], and absmax1 [2, blocks]."""
    halves = []
    for i in range(2):
        scales = foreign.scales.reshape(2, -1)[i] if foreign.scales is not None else None
        halves.append(foreign._replace(codes=foreign.codes[i], scales=scales))
    return halves


def _from_bnb(entry, rule):
    if rule == "ademamix":
        fast, slow = _split(_bnb_parts(entry, "state1"))
        return {"exp_avg": fast, "exp_avg_slow": slow, "exp_avg_sq": _bnb_parts(entry, "state2")}
    out = {_BNB_STATES["state1"].get(rule, "exp_avg"): _bnb_parts(entry, "state1")}
    if entry.get("state2") is not None:
        out["exp_avg_sq"] = _bnb_parts(entry, "state2")
    return out


def decode_entry(entry, rule):
    """(step, {nibble's name of the state: Foreign}) of a parameter's state in another library.
    A state_dict without a step (torch.optim's SGD and Muon) is taken to have made one."""
    entry = {**entry, **entry.get(_BNB_WRAPPED, {})}
    if "state1" in entry:
        states = _from_bnb(entry, rule)
    else:
        states = {_TORCH_FACTORED.get(key, key): _from_torchao(value, key)
                  for key, value in entry.items() if torch.is_tensor(value) and key != "step"}
    return int(entry.get("step", 1 if states else 0)), states


def _check(own, states, param, name):
    arrays = {key for key in own if torch.is_tensor(own[key])}
    needed = {key for key in arrays if "." not in key and key not in ("master", "correction")}
    if needed != states.keys():
        raise ValueError("parameter %r: rule %r has the states %s, the state_dict %s"
                         % (name, own["rule"], sorted(needed), sorted(states)))
    for key, foreign in states.items():
        count = own[key].numel() if key.startswith("exp_avg_sq_") else param.numel()
        check_fits(foreign, count, "parameter %r: state %r" % (name, key))


def import_state_dict(optimizer, state_dict, hyper_parameters):
    from . import groups, state_dicts  # which uses Foreign
    plan = []
    for handle, index, p, entry in state_dicts.pair_up(optimizer, state_dict):
        if not entry:
            continue
        name = handle.info(index)["name"]
        if "rule" in entry:
            raise ValueError("parameter %r: a state of nibble_torch's; use load_state_dict()"
                             % name)
        step, states = decode_entry(entry, optimizer.state[p]["rule"])
        if states or step:
            _check(optimizer.state[p], states, p, name)
            plan.append((handle, index, p, step, states))
    merged = groups.changed(optimizer, state_dict, _HYPERS) if hyper_parameters else []
    for handle, index, p, step, states in plan:
        for key, foreign in states.items():
            if key.startswith("exp_avg_sq_"):
                handle.load_states(index, {key: foreign.codes})
            else:
                handle.import_state(index, key, foreign)
        optimizer.state[p]["step"] = step
    groups.take(optimizer, merged)
