# SPDX-License-Identifier: Apache-2.0
"""torch_adapter_oracle.py: state_dicts from before the first step, and those that are refused."""
import copy

import torch

import nibble_torch
from torch_adapter_common import check, parameters, refused, run, same_bits

BESIDE = ("bf16_master", "bf16_correction16", "bf16_correction8")


def before_the_first_step():
    """What stands beside bfloat16 weights is not there yet, and a state_dict must not say it is."""
    for weight_format in BESIDE:
        def make(values):
            params = parameters(dtype=torch.bfloat16)
            for p in params:
                p.data.copy_(values)
            return params, nibble_torch.AdamW(params, lr=1e-2, weight_format=weight_format)

        expected, optimizer = make(2.0)
        run(optimizer, expected, 0, 3)
        params, optimizer = make(2.0)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        run(optimizer, params, 0, 3)
        check("%s: its own state_dict, copied and loaded before the first step" % weight_format,
              same_bits(params, expected))
        _, fresh = make(5.0)
        used, optimizer = make(7.0)
        run(optimizer, used, 0, 2)
        optimizer.load_state_dict(copy.deepcopy(fresh.state_dict()))
        for p in used:
            p.data.copy_(2.0)  # the weights that go with it, loaded after the states
        run(optimizer, used, 0, 3)
        check("  and into one that has made steps", same_bits(used, expected))


def half_loaded():
    """A state_dict that is refused for its last parameter or group leaves all as it was."""
    def make():
        params = parameters()
        optimizer = nibble_torch.AdamW8bit([{"params": params[:2]}, {"params": params[2:]}])
        return params, run(optimizer, params, 0, 2) and optimizer

    params, source = make()
    run(source, params, 2, 5)
    kept = copy.deepcopy(source.state_dict())
    for what, change, words in (
            ("step 'x'", lambda d: d["state"][4].update(step="x"), "step is 'x'"),
            ("step -5", lambda d: d["state"][4].update(step=-5), "step is -5"),
            ("step 1.5", lambda d: d["state"][4].update(step=1.5), "step is 1.5"),
            ("lr -1", lambda d: d["param_groups"][1].update(lr=-1.0), "learning_rate"),
            ("lr nan", lambda d: d["param_groups"][1].update(lr=float("nan")), "learning_rate"),
            ("betas", lambda d: d["param_groups"][1].update(betas=(0.9, 1.0)), "beta2"),
            ("amsgrad", lambda d: d["param_groups"][1].update(amsgrad=True), "amsgrad")):
        other, optimizer = make()
        bad = copy.deepcopy(kept)
        change(bad)
        before = copy.deepcopy(optimizer.state_dict())
        refused("loading with %s" % what, lambda: optimizer.load_state_dict(bad), words)
        after = optimizer.state_dict()
        check("  nothing has changed", after["param_groups"] == before["param_groups"] and all(
            torch.equal(value, before["state"][i][key]) if torch.is_tensor(value)
            else value == before["state"][i][key]
            for i, entry in after["state"].items() for key, value in entry.items()))
        control, twin = make()
        run(optimizer, other, 2, 4), run(twin, control, 2, 4)
        check("  and it goes on as if not asked", same_bits(other, control))
    theirs = torch.optim.AdamW(parameters(), lr=1e-3).state_dict()
    theirs["param_groups"][0]["lr"] = float("nan")
    refused("importing with lr nan",
            lambda: nibble_torch.AdamW(parameters()).import_state_dict(theirs), "learning_rate")
