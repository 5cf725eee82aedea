# SPDX-License-Identifier: Apache-2.0
"""torch_adapter_oracle.py: state_dict round trips, and imports from other libraries."""
import copy
import gc
import io
import pickle

import bitsandbytes
import torch
import torchao.optim

import nibble_torch
from torch_adapter_common import (STEPS, TORCH_CASES, apart, check, eager_torchao, parameters,
                                  refused, run, same_bits)

ROUND_TRIPS = [
    ("AdamW", torch.float32, {}), ("AdamW8bit", torch.float32, {"amsgrad": True}),
    ("AdamW8bit", torch.float32, {"state_format": "int8_log", "block_size": 128}),
    ("AdamW4bit", torch.bfloat16, {}), ("AdamW4bit", torch.float32, {"state_format": "int4_rank1"}),
    ("AdamWFp8", torch.bfloat16, {"weight_format": "bf16_correction8"}),
    ("AdamW8bit", torch.bfloat16, {"weight_format": "bf16_master"}),
    ("AdamW8bit", torch.bfloat16, {"weight_format": "bf16_correction16"}),
    ("Lion8bit", torch.float32, {}), ("SGD8bit", torch.float32, {"lr": 0.01, "momentum": 0.9}),
    ("RMSprop8bit", torch.float32, {"momentum": 0.9}), ("Adagrad8bit", torch.float32, {}),
    ("AdEMAMix8bit", torch.float32, {}), ("LAMB8bit", torch.float32, {}),
    ("Adafactor", torch.float32, {}), ("SGD", torch.float32, {"lr": 0.01})]


def through_torch_save(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def round_trips():
    for name, dtype, arguments_ in ROUND_TRIPS:
        make = lambda params: getattr(nibble_torch, name)(params, **arguments_)
        whole = parameters(dtype=dtype)
        optimizer = make(whole)
        run(optimizer, whole, 0, 7)
        state = through_torch_save(optimizer.state_dict())
        half = [torch.nn.Parameter(p.detach().clone()) for p in whole]
        run(optimizer, whole, 7, 14)
        resumed = make(half)
        resumed.load_state_dict(state)
        run(resumed, half, 7, 14)
        arrays = [[t for s in o.state.values() for t in s.values() if torch.is_tensor(t)]
                  for o in (optimizer, resumed)]
        check("%s(%s) %s: through torch.save(weights_only), weights and states to the bit"
              % (name, ", ".join("%s=%s" % item for item in arguments_.items()),
                 str(dtype)[6:]), same_bits(whole, half) and same_bits(*arrays))

    params = parameters()
    optimizer = nibble_torch.AdamW8bit(params)
    run(optimizer, params, 0, 5)
    kept = copy.deepcopy(optimizer.state_dict())
    pickled = pickle.loads(pickle.dumps(optimizer.state_dict()))
    entry, small = kept["state"][0], kept["state"][3]
    check("a state describes itself: rule, format, block, step", (
        entry["rule"], entry["format"], entry["block"], entry["step"], small["format"])
        == ("adamw", "int8", 256, 5, "fp32") and entry["exp_avg"].dtype == torch.uint8)
    view = optimizer.state[params[0]]["exp_avg"]
    copied = view.clone()
    run(optimizer, params, 5, 6)
    check("deepcopy and pickle are copies, optimizer.state is a live view",
          torch.equal(kept["state"][0]["exp_avg"], pickled["state"][0]["exp_avg"])
          and torch.equal(copied, kept["state"][0]["exp_avg"]) and not torch.equal(view, copied))
    del optimizer
    gc.collect()
    check("a view outlives its optimizer", view.sum().item() >= 0)

    for name, arguments_, bar in (("AdamW", {}, 1e-6), ("AdamW8bit", {"block_size": 64}, 0.02),
                                  ("AdamW8bit", {"state_format": "int8_log"}, 0.03)):
        other = parameters()
        converted = getattr(nibble_torch, name)(other, **arguments_)
        converted.load_state_dict(kept)
        source = nibble_torch.AdamW8bit(parameters())
        source.load_state_dict(kept)
        first = source.param_groups[0]["params"][0]
        a = converted.export_state(other[0], "exp_avg")
        b = source.export_state(first, "exp_avg")
        check("int8 states of block 256 loaded into %s(%s), relative rms"
              % (name, arguments_ or ""), ((a - b).norm() / b.norm()).item(), bar)

    rank1 = parameters()
    source = nibble_torch.AdamW4bit(rank1, state_format="int4_rank1")
    run(source, rank1, 0, 5)
    saved = copy.deepcopy(source.state_dict())
    for state_format, bar in (("fp32", 0.0), ("int8", 0.02), ("int4", 0.2)):
        other = parameters()
        converted = nibble_torch.AdamW8bit(other, state_format=state_format)
        converted.load_state_dict(saved)
        for state in ("exp_avg", "exp_avg_sq"):
            a, b = (o.export_state(p[0], state) for o, p in ((converted, other), (source, rank1)))
            check("int4_rank1 states loaded into %s: %s, relative rms" % (state_format, state),
                  ((a - b).norm() / b.norm()).item(), bar)
    saved["state"][0]["exp_avg_sq.row"] = torch.zeros(3)
    refused("rank-1 states with too few scales", lambda: nibble_torch.AdamW8bit(
        parameters()).load_state_dict(saved), "'exp_avg_sq.row' is 3 of")

    fresh = nibble_torch.AdamW8bit(parameters())
    before = [t.clone() for s in fresh.state.values() for t in s.values() if torch.is_tensor(t)]
    bad = copy.deepcopy(kept)
    bad["state"][4]["exp_avg"] = torch.zeros(2)
    refused("a state of the wrong size", lambda: fresh.load_state_dict(bad), "'param.4'")
    full = parameters()
    plain = nibble_torch.AdamW(full)
    run(plain, full, 0, 1)
    narrow = copy.deepcopy(plain.state_dict())
    narrow["state"][0]["exp_avg"] = narrow["state"][0]["exp_avg"].half()
    refused("fp32 states that were cast to half", lambda: fresh.load_state_dict(narrow),
            "codes of torch.float16, torch.float32 expected")
    refused("another rule", lambda: nibble_torch.Lion8bit(parameters()).load_state_dict(kept),
            "rule 'adamw'")
    refused("groups of other sizes", lambda: nibble_torch.AdamW8bit(parameters()[1:])
            .load_state_dict(kept), "groups of")
    refused("a state_dict of torch.optim", lambda: fresh.load_state_dict(
        torch.optim.AdamW(parameters()).state_dict()), "import_state_dict")
    after = [t for s in fresh.state.values() for t in s.values() if torch.is_tensor(t)]
    check("after these nothing has changed", same_bits(before, after))


def close_states(ours, params, pairs):
    """The largest distance of exported states from the other library's own, relative to the
    largest of each state."""
    worst = 0.0
    for param, name, theirs in pairs:
        mine = ours.export_state(param, name)
        theirs = theirs.float().view(mine.shape)
        largest = theirs.abs().max().clamp(min=1e-30)
        worst = max(worst, ((mine - theirs).abs().max() / largest).item())
    return worst


def bnb_value(state, number, half=None):
    """A state of bitsandbytes, dequantised by bitsandbytes."""
    codes = state["state%d" % number]
    if codes.dtype != torch.uint8:
        return codes if half is None else codes[half]
    scales, table = state["absmax%d" % number], state["qmap%d" % number]
    if half is not None:
        codes, scales = codes[half].contiguous(), scales.reshape(2, -1)[half].contiguous()
    return bitsandbytes.functional.dequantize_blockwise(
        codes, absmax=scales, code=table, blocksize=256).view(codes.shape)


BNB_IMPORTS = [("AdamW8bit", {}, {"exp_avg": (1,), "exp_avg_sq": (2,)}),
               ("Adam8bit", {}, {"exp_avg": (1,), "exp_avg_sq": (2,)}),
               ("AdamW32bit", {}, {"exp_avg": (1,), "exp_avg_sq": (2,)}),
               ("Lion8bit", {}, {"exp_avg": (1,)}),
               ("SGD8bit", {"lr": 0.01, "momentum": 0.9}, {"momentum_buffer": (1,)}),
               ("RMSprop8bit", {}, {"square_avg": (1,)}), ("Adagrad8bit", {}, {"sum": (1,)}),
               ("AdEMAMix8bit", {},
                {"exp_avg": (1, 0), "exp_avg_slow": (1, 1), "exp_avg_sq": (2,)})]


def import_bitsandbytes():
    shapes = ((128, 64), (5000,), (100,))  # whole blocks, a tail, and one that keeps fp32
    for name, arguments_, states in BNB_IMPORTS:
        theirs_p = parameters(shapes)
        theirs = getattr(bitsandbytes.optim, name)(theirs_p, **arguments_)
        theirs.param_groups[0]["lr"] = 0.003
        run(theirs, theirs_p, 0, 5)
        ours_p = [torch.nn.Parameter(p.detach().clone()) for p in theirs_p]
        ours = getattr(nibble_torch, name)(ours_p, **arguments_)
        ours.import_state_dict(through_torch_save(theirs.state_dict()))
        pairs = [(p, state, bnb_value(theirs.state[q], *where)) for p, q in zip(ours_p, theirs_p)
                 for state, where in states.items()]
        # Their RMSprop and Adagrad keep positive states in the signed map, ours in the unsigned.
        exact = name not in ("RMSprop8bit", "Adagrad8bit")
        check("import of bitsandbytes.optim.%s: states, relative to the largest" % name,
              close_states(ours, ours_p, pairs), 0.0 if exact else 0.02)
        check("  its step and learning rate", ours.state[ours_p[0]]["step"] == 5
              and ours.param_groups[0]["lr"] == 0.003)
        run(theirs, theirs_p, 5, 8), run(ours, ours_p, 5, 8)
        moved = torch.cat([(a - b).detach().flatten() for a, b in zip(ours_p, theirs_p)])
        check("  three more steps of both, rms of the difference", moved.square().mean().sqrt()
              .item(), 2e-4)

    sound = nibble_torch.AdamW8bit(parameters(shapes))
    before = [t.clone() for s in sound.state.values() for t in s.values() if torch.is_tensor(t)]
    for key, value in (("absmax1", torch.zeros(7)), ("qmap2", torch.zeros(16)),
                       ("state2", torch.zeros(5, dtype=torch.uint8))):
        theirs_p = parameters(shapes)
        theirs = bitsandbytes.optim.AdamW8bit(theirs_p)
        run(theirs, theirs_p, 0, 1)
        theirs.state[theirs_p[1]][key] = value
        refused("an import with a wrong %s" % key,
                lambda: sound.import_state_dict(theirs.state_dict()), "'param.1'")
    after = [t for s in sound.state.values() for t in s.values() if torch.is_tensor(t)]
    check("after these nothing has changed", same_bits(before, after))

    codes = torch.randn(8192).abs()
    for block in (2048, 256):
        q, state = bitsandbytes.functional.quantize_blockwise(codes, blocksize=block)
        table = bitsandbytes.functional.create_dynamic_map(signed=False)
        u, second = bitsandbytes.functional.quantize_blockwise(codes, code=table, blocksize=block)
        foreign = {"state": {0: {"step": 9, "state1": q, "absmax1": state.absmax,
                                 "qmap1": state.code, "state2": u, "absmax2": second.absmax,
                                 "qmap2": table}},
                   "param_groups": [{"params": [0], "lr": 1e-3}]}
        for own in (2048, 256):
            p = torch.nn.Parameter(torch.zeros(8192))
            ours = nibble_torch.AdamW8bit([p], block_size=own)
            ours.import_state_dict(foreign)
            truth = [bitsandbytes.functional.dequantize_blockwise(q, absmax=state.absmax,
                                                                  code=state.code, blocksize=block),
                     bitsandbytes.functional.dequantize_blockwise(u, absmax=second.absmax,
                                                                  code=table, blocksize=block)]
            check("import of bitsandbytes' block %d into block %d" % (block, own), close_states(
                ours, [p], [(p, "exp_avg", truth[0]), (p, "exp_avg_sq", truth[1])]),
                0.0 if own == block else 0.02)


def import_torchao():
    eager_torchao()
    shapes = ((128, 64), (64, 96), (5000,), (100,))  # 5000: not whole blocks, so theirs is fp32
    for name, arguments_ in (("AdamW8bit", {}), ("AdamW4bit", {}), ("AdamWFp8", {}),
                             ("AdamW8bit", {"block_size": 2048})):
        theirs_p = parameters(shapes)
        theirs = getattr(torchao.optim, name)(theirs_p, **arguments_)
        run(theirs, theirs_p, 0, 5)
        ours_p = [torch.nn.Parameter(p.detach().clone()) for p in theirs_p]
        ours = getattr(nibble_torch, name)(ours_p, **arguments_)
        ours.import_state_dict(through_torch_save(theirs.state_dict()))
        names = [n for n in theirs.state[theirs_p[0]] if n != "step"]
        value = lambda s: s.dequantize() if hasattr(s, "dequantize") and hasattr(s, "codes") else s
        for which, bar in ((slice(0, 2), 1e-7), (slice(3, 4), 0.0)):
            pairs = [(p, n, value(theirs.state[q][n]))
                     for p, q in list(zip(ours_p, theirs_p))[which] for n in names]
            check("import of torchao.optim.%s(%s): states of %s parameters" % (
                name, arguments_ or "", "large" if which.start == 0 else "small"),
                close_states(ours, ours_p, pairs), bar)
        check("  its step", ours.state[ours_p[0]]["step"] == 5)
        run(theirs, theirs_p, 5, 8), run(ours, ours_p, 5, 8)
        moved = torch.cat([(a - b).detach().flatten() for a, b in zip(ours_p, theirs_p)])
        check("  three more steps of both, rms of the difference",
              moved.square().mean().sqrt().item(), 1e-3 if "4bit" in name else 2e-4)


def import_torch():
    for name, arguments_ in TORCH_CASES:
        if arguments_.get("maximize"):
            continue
        theirs_p = parameters()
        theirs = getattr(torch.optim, name)(theirs_p, **arguments_)
        run(theirs, theirs_p, 0, 5)
        ours_p = [torch.nn.Parameter(p.detach().clone()) for p in theirs_p]
        ours = getattr(nibble_torch, name)(ours_p, **arguments_)
        ours.import_state_dict(theirs.state_dict())
        run(theirs, theirs_p, 5, STEPS), run(ours, ours_p, 5, STEPS)
        check("a run of torch.optim.%s(%s) taken over at step 5" % (
            name, ", ".join("%s=%s" % item for item in arguments_.items())),
            apart(ours_p, theirs_p), 1.0)
