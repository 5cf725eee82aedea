#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Optimizer steps of libnibble beside its peers' on the CPU, in paired rounds (bench/README.md).

Installs the peers into a venv, checks that every contender does the work, runs each once a round
in turn, and prints medians of the per-round ratios with their quartiles, and the GB/s of each
round. Ratios are speeds, ours over theirs: more is better for us. `asked` and `goal` are issue 4's.
"""
import argparse
import gc
import importlib.metadata
import json
import logging
import os
import sys
import time
import warnings

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from peers import environment  # noqa: E402

NAMES = ("fp32", "bf16_fp32_states", "bf16_bf16_states", "low_bit", "int8_bitsandbytes",
         "int4_torchao", "offload", "blockwise", "small_tensors")
PACKAGES = ("torch", "deepspeed", "bitsandbytes", "torchao", "numpy")


def parse():
    """Flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    environment.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--elements", type=float, default=100e6, help="parameters (default 100e6)")
    parser.add_argument("--work", action="append", choices=NAMES, metavar="NAME",
                        help="only this one; may be given again: " + ", ".join(NAMES))
    options = parser.parse_args()
    if options.rounds < 1 or options.elements < 4096:
        parser.error("--rounds must be at least 1, --elements at least 4096")
    return options


def versions():
    """name version, ... of the peers that are there."""
    found = []
    for name in PACKAGES:
        try:
            found.append("%s %s" % (name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append(name + " missing")
    return ", ".join(found)


def huge_pages():
    """Share of a fresh tensor's memory in huge pages: the setting that all contenders have."""
    import torch
    before = environment.field("/proc/self/smaps_rollup", "AnonHugePages")
    tensor = torch.ones(64 << 20)
    after = environment.field("/proc/self/smaps_rollup", "AnonHugePages")
    grown = (int(after.split()[0]) - int(before.split()[0])) << 10
    return min(grown / (tensor.numel() * 4), 1)


def print_rows(rows):
    """The table, and below it the GB/s of each round."""
    for row in rows:
        asked = "" if row["asked"] is None else " asked %.2f%s" % (
            row["asked"], "" if row["ratio"] >= row["asked"] else " MISSED")
        goal = "" if row["goal"] is None else " goal %.2f" % row["goal"]
        print("  %-50s | %-40s | %8.1f | %8.1f | %7.2f (%.2f-%.2f) of %d%s%s" % (
            row["work"], row["peer"], row["ours"], row["theirs"], row["ratio"], row["ratio_q1"],
            row["ratio_q3"], row["rounds"], asked, goal))


def print_bandwidths(rows):
    """GB/s of each round, each contender of the work once."""
    lines = {}
    for row in rows:
        for name, speeds in ((row["contender"], row["ours_gb_s"]),
                             (row["peer"], row["theirs_gb_s"])):
            if len(speeds) > len(lines.get(name, ())):
                lines[name] = speeds
    for name, speeds in lines.items():
        print("    GB/s %-46s %s" % (name, " ".join("%.1f" % speed for speed in speeds)))


def main():
    options = parse()
    environment.enter(options)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import torch
    from peers import nibble_api, works
    assert tuple(works.WORKS) == NAMES
    path = environment.find_library(options)
    library = nibble_api.Library(path)
    library.set_threads(environment.PROCESSORS)
    torch.set_num_threads(environment.PROCESSORS)
    isa = library.set_isa("auto")
    context = "%s; libnibble %s, %s; %s; %s" % (
        environment.machine(), library.text("version_string"), isa, versions(),
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))
    print(context)
    print("%d threads for everyone, OpenMP teams asleep between turns (OMP_WAIT_POLICY=passive, "
          "GOMP_SPINCOUNT=0), %.0f %% of a fresh tensor in huge pages (GLIBC_TUNABLES)" % (
              environment.PROCESSORS, 100 * huge_pages()))
    rows = []
    for name in options.work or NAMES:
        print("%s: %s" % (name, " ".join(works.WORKS[name].__doc__.split())), flush=True)
        new = [row for row in works.WORKS[name](library, int(options.elements), options.rounds)
               if row]
        gc.collect()
        print("  %-50s | %-40s | %8s | %8s | ratio (quartiles)" % (
            "work", "peer", "ours M/s", "theirs"))
        print_rows(new)
        print_bandwidths(new)
        rows += [{**row, "context": context} for row in new]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
