#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mutation test of the arithmetic: small mistakes, one at a time, that the tests must notice.

    tools/mutate.py --count 40 --seed 1        a random sample; exit 0 iff >= 90 % are killed
    tools/mutate.py --files 'src/math/rules/*' --list

Works in a copy of the tree (build/mutate). A mutant goes through stages, each a build whose tests
pass without it, until one kills it; "survived" means that it passed the last:
  math    tests/math alone, which need nothing but the headers (only for src/math).
  scalar  no SIMD backend: what a CPU below AVX2 runs. Soon built (not for cpu/).
  one     the best instruction set of this machine beside the scalar code (avx2: that one, for a
          mutant in code that only AVX2 has).
  all     everything (left out by --quick).
  device  cuda/ alone: the kernels on the stand-in (tests/conformance).
Mutants that change nothing that a test may see stand in tools/mutate_equivalent.txt, with the
reason, and are not counted: records of `file`, `code` (the line, stripped), `mutation` (as --list
prints it, or * for every one of that line) and `reason`, with an empty line between records.
"""
import argparse
import collections
import difflib
import fnmatch
import os
import pathlib
import random
import re
import subprocess
import sys
import time

import mutations

ROOT = pathlib.Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tools" / "mutate_equivalent.txt"
GLOBS = ["src/math/*.h", "src/backend/reference.cc", "cpu/simd/*-inl.h", "cpu/optim/*-inl.h",
         "cuda/*.cc", "cuda/optim/*.cu", "cuda/optim/*.cuh"]
OPTIM = ["src/optim/*.cc"]
TESTS = ["math_test", "optim_golden_test", "optim_test"]
FILTER = "-*MoreThanTwoToThe31Elements*:*AnyThreadCount*"  # minutes each
CONFIGURE = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG",
             "-DNIBBLE_BUILD_TRAIN=OFF", "-DNIBBLE_BUILD_BENCH=OFF"]
KERNELS, TARGETS = "cpu/optim/kernels.cc", "cpu/simd/targets.h"
LARGE = b"HWY_AVX3 | HWY_AVX3_DL | "
NO_KERNELS = b"""#include "backend/cpu_backends.h"
namespace nibble::backend {
std::vector<const Backend*> cpu_backends() { return {}; }
}  // namespace nibble::backend
"""
# A header of src/math is in all of libnibble: one parse instead of sixteen. The files that are left
# out have names of their own that would collide.
UNITY = """
set_target_properties(nibble_optim PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
set_source_files_properties(${PROJECT_SOURCE_DIR}/cpu/optim/kernels.cc
  ${PROJECT_SOURCE_DIR}/src/optim/orthogonal.cc ${PROJECT_SOURCE_DIR}/src/optim/states.cc
  TARGET_DIRECTORY nibble_optim PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
"""

Mutant = collections.namedtuple("Mutant", "path start end new line code label")


def mutants_of(path):
    text = (ROOT / path).read_text()
    for start, end, new in mutations.mutations(text):
        begin = text.rfind("\n", 0, start) + 1
        line = text[begin:].split("\n", 1)[0]
        column = start - begin - (len(line) - len(line.lstrip())) + 1
        old, shown = (" ".join(t.split()) for t in (text[start:end], new))
        label = f"{column}: {old} -> {shown or 'nothing'}"
        yield Mutant(path, start, end, new, text.count("\n", 0, start) + 1, line.strip(), label)


def known_equivalents():
    records = re.findall(r"^file: (.*)\ncode: (.*)\nmutation: (.*)\nreason: .+",
                         EQUIVALENT.read_text(), re.M)
    return set(records)


# ---- building and testing -----------------------------------------------------------------------


def tests_of(stage):
    if stage == "device":
        return ["conformance_test"]
    return TESTS[:1] if stage == "math" else TESTS


class Workshop:
    def __init__(self, folder, verbose):
        self.tree, self.build = folder / "tree", folder / "build"
        golden = ROOT.parent / "shared" / "golden"  # where the tests look, seen from the copy
        self.env = ({"NIBBLE_GOLDEN_DIR": str(golden)} if golden.is_dir() else {}) | os.environ
        self.limits, self.verbose = {}, verbose

    def write(self, path, data):
        target = self.tree / path
        if not target.exists() or target.read_bytes() != data:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

    def copy(self):
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                                check=True, capture_output=True, text=True).stdout.split("\n")
        for path in listed:
            if path and (ROOT / path).is_file() and path not in (KERNELS, TARGETS):
                unity = UNITY.encode() if path == "CMakeLists.txt" else b""
                self.write(path, (ROOT / path).read_bytes() + unity)
        self.set_stage("scalar")
        subprocess.run(["cmake", "-S", self.tree, "-B", self.build, *CONFIGURE], check=True,
                       stdout=subprocess.DEVNULL)

    def set_stage(self, stage):
        kernels, targets = (ROOT / KERNELS).read_bytes(), (ROOT / TARGETS).read_bytes()
        best = "bitalg" in pathlib.Path("/proc/cpuinfo").read_text()
        if stage in ("one", "avx2", "device"):
            left_out = b"HWY_AVX2 | HWY_AVX3 | " if best and stage != "avx2" else LARGE
            targets = targets.replace(b"TARGETS (", b"TARGETS (" + left_out)
        self.write(KERNELS, NO_KERNELS if stage in ("math", "scalar") else kernels)
        self.write(TARGETS, targets)

    def compiles(self, stage):
        command = ["ninja", "-j1", "-C", self.build, *tests_of(stage)]
        done = subprocess.run(command, capture_output=True, text=True)
        print(done.stdout[-3000:] if done.returncode != 0 and self.verbose else "", end="")
        return done.returncode == 0

    def killer(self, stage):
        """The first test that fails, "" if none, "timeout" if one hangs."""
        for test in tests_of(stage):
            program = next(self.build.glob(f"tests/*/{test}"))
            began = time.monotonic()
            command = [program, "--gtest_fail_fast", f"--gtest_filter={FILTER}"]
            try:
                done = subprocess.run(command, env=self.env, capture_output=True, text=True,
                                      errors="replace",
                                      timeout=self.limits.get((stage, test), 3600))
            except subprocess.TimeoutExpired:
                return "timeout"
            if done.returncode != 0:
                failed = re.findall(r"^\[  FAILED  \] ([\w./]+)", done.stdout, re.M)
                running = re.findall(r"^\[ RUN      \] ([\w./]+)", done.stdout, re.M)
                return failed[0] if failed else f"{(running or [test])[-1]} (crash)"
            self.limits.setdefault((stage, test), 60 + 10 * (time.monotonic() - began))
        return ""

    def check_baseline(self, stage):
        began = time.monotonic()
        self.set_stage(stage)
        if not self.compiles(stage):
            sys.exit(f"stage {stage}: the unchanged tree does not build")
        failed = self.killer(stage)
        if failed:
            sys.exit(f"stage {stage}: the unchanged tree fails: {failed}")
        print(f"# stage {stage}: unchanged tree passes, {time.monotonic() - began:.0f} s",
              flush=True)

    def judge(self, mutant, stages, passed):
        """Who killed it (or "does not compile", "timeout", "") and at which stage."""
        for stage in stages:
            if stage not in passed:
                self.write(mutant.path, changed(mutant)[0].encode())
                self.check_baseline(stage)
                passed.add(stage)
            self.set_stage(stage)
            self.write(mutant.path, changed(mutant)[1].encode())
            found = self.killer(stage) if self.compiles(stage) else "does not compile"
            if found:
                break
        self.write(mutant.path, changed(mutant)[0].encode())
        return found, stage


def changed(mutant):
    before = (ROOT / mutant.path).read_text()
    return before, before[:mutant.start] + mutant.new + before[mutant.end:]


def stages_of(mutant):
    if mutant.path.startswith("src/"):
        return ["math", "scalar", "one"] if "/math/" in mutant.path else ["scalar", "one"]
    if mutant.path.startswith("cuda/"):
        return ["device"]
    inside = re.findall(r"^#(if|else|endif)(.*)", changed(mutant)[0][:mutant.start], re.M)
    return ["avx2" if inside and inside[-1] == ("if", " HWY_TARGET == HWY_AVX2") else "one"]


def diff_of(mutant):
    before, after = (text.split("\n") for text in changed(mutant))
    lines = difflib.unified_diff(before, after, n=0, lineterm="")
    return "\n".join("    " + x for x in list(lines)[3:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--files", action="append", metavar="GLOB", help="only these files")
    parser.add_argument("--optim", action="store_true", help="src/optim/*.cc as well")
    parser.add_argument("--match", help="only mutants whose 'path:line column: old -> new' has it")
    parser.add_argument("--count", type=int, help="a random sample of this size")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="start no mutant after these")
    parser.add_argument("--quick", action="store_true", help="leave the last stage out")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    parser.add_argument("--verbose", action="store_true", help="compiler output of what fails")
    args = parser.parse_args()

    paths = [str(p.relative_to(ROOT)) for d in ("src", "cpu", "cuda") for p in (ROOT / d).rglob("*.*")]
    for globs in (GLOBS + (OPTIM if args.optim else []), args.files or ["*"]):
        paths = [p for p in paths if any(fnmatch.fnmatch(p, g) for g in globs)]
    known = known_equivalents()
    every = [m for p in sorted(paths) for m in mutants_of(p)]
    mutants = [m for m in every
               if not {(m.path, m.code, m.label), (m.path, m.code, "*")} & known]
    if args.match:
        mutants = [m for m in mutants if args.match in f"{m.path}:{m.line} {m.label}"]
    print(f"# {len(every)} mutants in {len(paths)} files; {len(mutants)} to be tested "
          "(the rest equivalent or not asked for)")
    if args.count is not None and args.count < len(mutants):
        mutants = random.Random(args.seed).sample(mutants, args.count)
    if args.minutes > 1e8:  # all will run, so in the order that rebuilds least
        mutants.sort()
    if args.list:
        for m in mutants:
            print(f"{m.path}:{m.line} {m.label}\n    {m.code}")
        return 0

    shop, passed, began = Workshop(ROOT / "build" / "mutate", args.verbose), set(), time.monotonic()
    shop.copy()
    counts, survivors = collections.Counter(), []
    for m in mutants:
        if time.monotonic() - began > args.minutes * 60:
            counts["not run"] += 1
            continue
        start = time.monotonic()
        found, stage = shop.judge(m, stages_of(m) + ([] if args.quick else ["all"]), passed)
        verdict = {"": "survived", "timeout": "timed out"}.get(found, found)
        kind = verdict if verdict in ("survived", "timed out", "does not compile") else "killed"
        counts[kind] += 1
        by = f" by {found}" if kind == "killed" else ""
        seconds = time.monotonic() - start
        print(f"{kind}: {m.path}:{m.line} {m.label}{by} [{stage}, {seconds:.0f} s]", flush=True)
        if kind == "survived":
            survivors.append(m)
            print(diff_of(m), flush=True)
    killed = counts["killed"] + counts["timed out"]  # a test that hangs has noticed
    judged = killed + counts["survived"]
    share = killed / max(judged, 1)
    print("# " + ", ".join(f"{v} {k}" for k, v in sorted(counts.items())))
    for m in survivors:
        print(f"# survivor: {m.path}:{m.line} {m.label}")
    print(f"# {killed} of {judged} killed: {100 * share:.1f} %")
    return 0 if share >= 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())
