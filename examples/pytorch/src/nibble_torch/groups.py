# SPDX-License-Identifier: Apache-2.0
"""Parameter groups: what may change after they were made, and taking over saved ones."""
import copy

import torch

from .library import InvalidArgument


def fixed_options(optimizer, group):
    """What must stay as it was when the group's handle was made."""
    return {"rule": optimizer._rule_of(group),
            **{key: group.get(key, value) for key, value in optimizer._options.items()}}


def check_fixed(optimizer, groups):
    """InvalidArgument if an option of these groups, which stand for the optimizer's, differs from
    what its handle was made with."""
    for number, (group, fixed) in enumerate(zip(groups, optimizer._fixed)):
        now = fixed_options(optimizer, group)
        for key in fixed:
            if now[key] != fixed[key]:
                raise InvalidArgument(
                    "group %d: %s was %r when the group was made and cannot become %r%s"
                    % (number, key, fixed[key], now[key], " (it follows from amsgrad and "
                       "decoupled_weight_decay)" if key == "rule" else ""))


def check(optimizer, groups):
    """Raises what the library would for hyper-parameters of these groups, which stand for the
    optimizer's. Changes nothing."""
    check_fixed(optimizer, groups)
    for group, handle in zip(groups, optimizer._handles):
        optimizer._check_group(group)
        before = dict(handle.hypers)
        try:
            handle.set_hypers(optimizer._hypers(group, 1))
        finally:
            handle.set_hypers(before)


def changed(optimizer, state_dict, keys=None):
    """Copies of the optimizer's groups with the hyper-parameters of the saved ones: all, or those
    of `keys`; ValueError where they cannot be had. `keys`: those that the optimizer has."""
    out = []
    for group, saved in zip(optimizer.param_groups, state_dict["param_groups"]):
        merged = dict(group)
        for key, value in saved.items():
            if key in ("params", "param_names", *optimizer._options):
                continue
            if keys is None or (key in keys and key in group):
                merged[key] = copy.deepcopy(value)
        out.append(merged)
    check(optimizer, out)
    return out


def take(optimizer, groups):
    for group, merged in zip(optimizer.param_groups, groups):
        for key, value in merged.items():
            if key == "params" or value is group.get(key):
                continue
            if torch.is_tensor(value) and torch.is_tensor(group.get(key)):
                group[key].fill_(value)
            else:
                group[key] = float(value) if torch.is_tensor(value) else value
