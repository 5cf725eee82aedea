# SPDX-License-Identifier: Apache-2.0
"""Puts libnibble.so into the package: the file that NIBBLE_LIBRARY names, or one that CMake builds
from the repository two levels up (NIBBLE_BUILD_JOBS: how many compilers; default: CMake's)."""
import os
import shutil
import subprocess
import tempfile

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

REPOSITORY = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
OPTIONS = ["-DCMAKE_BUILD_TYPE=Release", "-DNIBBLE_BUILD_TRAIN=OFF", "-DNIBBLE_BUILD_TESTS=OFF",
           "-DNIBBLE_BUILD_BENCH=OFF"]


def build_library(target):
    if not os.path.exists(os.path.join(REPOSITORY, "include", "nibble", "nibble.h")):
        raise SystemExit("nibble_torch: %s is not nibble's repository; name a built libnibble.so "
                         "in NIBBLE_LIBRARY" % REPOSITORY)
    if shutil.which("cmake") is None:
        raise SystemExit("nibble_torch: cmake is needed to build libnibble; or name a built "
                         "libnibble.so in NIBBLE_LIBRARY")
    jobs = os.environ.get("NIBBLE_BUILD_JOBS", "")
    with tempfile.TemporaryDirectory() as build:
        subprocess.run(["cmake", "-S", REPOSITORY, "-B", build, *OPTIONS], check=True)
        subprocess.run(["cmake", "--build", build, "--target", "nibble", "--parallel"]
                       + ([jobs] if jobs else []), check=True)
        for folder, _, files in os.walk(build):
            if "libnibble.so" in files:
                shutil.copy(os.path.join(folder, "libnibble.so"), target)
                return
    raise SystemExit("nibble_torch: CMake built no libnibble.so")


class BuildWithLibrary(build_py):
    def run(self):
        super().run()
        target = os.path.join(self.build_lib, "nibble_torch", "libnibble.so")
        given = os.environ.get("NIBBLE_LIBRARY")
        if given:
            shutil.copy(given, target)
        else:
            build_library(target)


class PlatformWheel(bdist_wheel):
    """For any Python 3 of this platform: the library is loaded through ctypes."""

    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self):
        return ("py3", "none", super().get_tag()[2])


class BinaryDistribution(Distribution):
    def has_ext_modules(self):
        return True


setup(cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel},
      distclass=BinaryDistribution)
