# SPDX-License-Identifier: Apache-2.0
"""The environment of the Python benches: a venv with the peers, libnibble, processors, pages.

Imports nothing outside the standard library: it runs before the venv exists.
"""
import os
import pathlib
import platform
import subprocess
import sys

BENCH = pathlib.Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
REQUIREMENTS = BENCH / "requirements-peers.txt"
INSIDE = "NIBBLE_BENCH_INSIDE"
PROCESSORS = len(os.sched_getaffinity(0))


def add_arguments(parser):
    """The flags that both benches share."""
    parser.add_argument("--venv", type=pathlib.Path, default=ROOT / ".venv-peers", metavar="DIR",
                        help="environment of the peers, made if need be (default: %(default)s)")
    parser.add_argument("--no-install", action="store_true",
                        help="use the environment as it is, or this interpreter if there is none")
    parser.add_argument("--library", type=pathlib.Path, metavar="FILE",
                        help="libnibble.so (default: that of the release preset, built if need be)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the rows there")


def make_venv(directory):
    """As make_venv of tools/venv.sh: made anew when the requirements or the interpreter change.

    A directory that this did not make is left alone.
    """
    stamp = "Python %s\n%s" % (platform.python_version(), REQUIREMENTS.read_text(encoding="utf-8"))
    mark = directory / "nibble-stamp"
    if mark.exists() and mark.read_text(encoding="utf-8") == stamp:
        return
    if directory.exists() and not mark.exists() and any(directory.iterdir()):
        sys.exit("%s was not made by this script: give --no-install to use it as it is" % directory)
    print("installing the peers into %s" % directory, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
    mark.touch()
    subprocess.run([directory / "bin" / "python", "-m", "pip", "install", "--quiet",
                    "--disable-pip-version-check", "-r", REQUIREMENTS], check=True)
    mark.write_text(stamp, encoding="utf-8")  # last: one that was broken off is made anew


def settings(venv, processors):
    """Environment variables that must stand before the process starts.

    Threads: the same number for every contender; OpenMP teams of peers sleep when they have no
    work instead of spinning beside the next contender (protocol, 3).
    Pages: glibc asks for huge pages for every allocation, whoever makes it: weights, gradients,
    states and temporaries of all contenders alike. The peers are faster so than as they come.
    """
    count = str(processors)
    return {
        INSIDE: "1",
        "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "PATH": os.pathsep.join([str(venv / "bin"), os.environ.get("PATH", "")]),
        "TORCH_EXTENSIONS_DIR": str(venv / "torch_extensions"),  # DeepSpeed's kernel
        "TORCHINDUCTOR_CACHE_DIR": str(venv / "torch_inductor"),  # torchao's
        "TOKENIZERS_PARALLELISM": "false",
    }


def enter(options, processors=PROCESSORS):
    """Returns inside the venv with settings() in force; runs the script again if it must."""
    if os.environ.get(INSIDE):
        return
    venv = options.venv.absolute()
    if not options.no_install:
        make_venv(venv)
    python = venv / "bin" / "python"
    if not python.exists():
        python = pathlib.Path(sys.executable)
    os.execve(python, [str(python), *sys.argv], {**os.environ, **settings(venv, processors)})


def find_library(options):
    """Path of libnibble.so; builds the release preset if the default is not there."""
    if options.library:
        return options.library
    path = ROOT / "build" / "release" / "src" / "capi" / "libnibble.so"
    if not path.exists():
        subprocess.run(["cmake", "--preset", "release"], cwd=ROOT, check=True)
        subprocess.run(["cmake", "--build", "--preset", "release", "--target", "nibble"], cwd=ROOT,
                       check=True)
    return path


def field(path, key):
    """The value behind `key` in a file such as /proc/cpuinfo."""
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return "unknown"


def machine():
    """Processor, number of processors, memory, kernel and load, for the head of a report."""
    memory = int(field("/proc/meminfo", "MemTotal").split()[0]) >> 20
    return "%s, %d processors, %d GiB, Linux %s, load %.2f" % (
        field("/proc/cpuinfo", "model name"), PROCESSORS, memory, platform.release(),
        os.getloadavg()[0])
