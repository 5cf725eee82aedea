# SPDX-License-Identifier: Apache-2.0
"""torch_adapter_oracle.py: the commands of examples/pytorch/README.md, run as they stand there in a
Python environment that has what they need but not the package."""
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile

from torch_adapter_common import REPOSITORY, check


def commands():
    text = open(os.path.join(REPOSITORY, "examples", "pytorch", "README.md")).read()
    block = re.search(r"```sh\n(.*?)```", text, re.S).group(1)
    return [line.split("#")[0].strip() for line in block.splitlines() if line.strip()]


def make_environment(folder):
    """python and pip whose packages are this interpreter's, and then their own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = os.path.join(folder, "bin", "python")
    own = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                         check=True, capture_output=True, text=True).stdout.strip()
    with open(os.path.join(own, "theirs.pth"), "w") as file:
        file.write(sysconfig.get_path("purelib") + "\n")
    pip = os.path.join(folder, "bin", "pip")
    with open(pip, "w") as file:
        file.write("#!/bin/sh\nexec %s -m pip \"$@\"\n" % python)
    os.chmod(pip, 0o755)
    # setup.py reads NIBBLE_LIBRARY: without it the first command builds the library for minutes.
    env = {**os.environ, "PATH": os.path.join(folder, "bin") + os.pathsep + os.environ["PATH"],
           "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env.pop("PYTHONPATH", None)
    return env


def readme_commands():
    """With a library named on the command line that one is packaged, where CMake would build it."""
    library = os.environ.get("NIBBLE_LIBRARY")
    lines = commands()
    check("README.md has three commands", len(lines) == 3)
    with tempfile.TemporaryDirectory() as folder:
        tree = os.path.join(folder, "nibble")  # pip leaves build/ behind
        shutil.copytree(REPOSITORY, tree, ignore=shutil.ignore_patterns(
            ".git", "build*", ".venv*", "*.egg-info", "models"))
        env = make_environment(os.path.join(folder, "venv"))
        for line in lines:
            line = line.replace("/path/libnibble.so", library or "/path/libnibble.so")
            if "train.py" in line:
                env.pop("NIBBLE_LIBRARY", None)  # what was installed
                line += " --steps 2"
            elif "/path/" in line:
                continue
            done = subprocess.run(["sh", "-c", line], cwd=tree, env=env, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode != 0:
                print(done.stdout[-2000:])
            check("README.md: %s" % line, done.returncode == 0)
        script = "import nibble_torch; print(nibble_torch.__file__)"
        where = subprocess.run(["python", "-c", script], env=env, text=True, stdout=subprocess.PIPE,
                               cwd=os.path.join(tree, "examples", "pytorch")).stdout
        check("beside train.py the installed package is imported", "site-packages" in where)
