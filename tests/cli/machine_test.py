# SPDX-License-Identifier: Apache-2.0
"""A machine that has too little: disk, memory, a reader of the output."""
import os
import re
import resource
import subprocess
import unittest

import harness


def limit(kind, size):
    """For subprocess: a resource limit of the child."""
    return lambda: resource.setrlimit(kind, (size, size))


# The thread sanitizer's runtime handles signals by itself: the limit's SIGXFSZ kills the process.
def limits_file_size(test):
    return unittest.skipIf("thread" in os.environ.get("NIBBLE_SANITIZED", ""),
                           "under the thread sanitizer the limit kills the process")(test)


class Machine(harness.Errors):
    @limits_file_size
    def test_disk_full(self):
        """A limit on file sizes stands for a full disk: whatever the run was writing is gone."""
        for size in (0, 100, 5000, 40000):
            output = self.path("out-%d" % size)
            arguments = self.finetune_arguments(output, save_steps=1, lora_r=16)
            result = self.nibble("finetune", *arguments,
                                 preexec_fn=limit(resource.RLIMIT_FSIZE, size))
            with self.subTest(size):
                self.assert_error(result, output, output=output)

    def test_disk_full_for_real(self):
        disk = self.path("disk")
        os.mkdir(disk)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk],
                          stderr=subprocess.DEVNULL).returncode:
            self.skipTest("mounting a small disk needs root")
        self.addCleanup(subprocess.run, ["umount", disk])
        output = os.path.join(disk, "out")
        result = self.nibble("finetune", *self.finetune_arguments(output, save_steps=1, lora_r=64))
        self.assert_error(result, output, "space", output=output)

    @limits_file_size
    def test_disk_full_keeps_the_last_checkpoint(self):
        output = self.path("out")
        settings = {"max_steps": 4, "save_steps": 2}
        self.finetune(output, **settings)
        for name in ("adapter_model.safetensors", "adapter.gguf", "adapter_config.json"):
            os.remove(os.path.join(output, name))
        before = sorted(os.listdir(output))
        result = self.nibble("finetune", *self.finetune_arguments(output, **settings), "--resume",
                             preexec_fn=limit(resource.RLIMIT_FSIZE, 3000))
        self.assert_error(result, output)
        self.assertEqual(sorted(os.listdir(output)), before)
        self.assertEqual(self.nibble("finetune", *self.finetune_arguments(output, **settings),
                                     "--resume").returncode, 0)

    @unittest.skipIf(os.environ.get("NIBBLE_SANITIZED"), "a sanitizer needs the address space")
    def test_too_little_memory(self):
        """What is estimated is enough, and what is not is told before the first step, with the
        amount and by the rehearsal too."""
        output = self.path("out")
        arguments = list(self.finetune_arguments(output, lora_r=4096, max_steps=1))
        told = self.nibble("finetune", *arguments, "--dry-run").stderr
        total, optimizer = map(int, re.search(
            r"memory: (\d+) MiB expected .* optimizer (\d+),", told).groups())
        self.assertGreater(optimizer, 50)
        # Both fail before there is a byte of the optimizer's; the second leaves room for the rest.
        for mib in (optimizer + 50, total - 160):
            for extra in ([], ["--dry-run"]):
                with self.subTest(mib=mib, extra=extra):
                    result = self.nibble("finetune", *arguments, *extra,
                                         preexec_fn=limit(resource.RLIMIT_AS, mib << 20))
                    self.assert_error(result, self.model, "MiB")
                    self.assertFalse(os.path.exists(output))
        result = self.nibble("finetune", *arguments,
                             preexec_fn=limit(resource.RLIMIT_AS, (total + 20) << 20))
        self.assertEqual(result.returncode, 0, result.stderr)

    @unittest.skipIf(os.environ.get("NIBBLE_SANITIZED"), "a sanitizer needs the address space")
    def test_any_amount_of_memory(self):
        """However little there is, the run ends well or says so."""
        for mib in (1000, 500, 300, 250, 200, 150, 120, 100):
            output = self.path("out-%d" % mib)
            result = self.nibble("finetune", *self.finetune_arguments(output),
                                 preexec_fn=limit(resource.RLIMIT_AS, mib << 20))
            with self.subTest(mib=mib):
                if result.returncode == 127:  # the loader itself had no room for the libraries
                    continue
                if result.returncode:
                    self.assert_error(result, output=output)

    def test_closed_output(self):
        read, write = os.pipe()
        os.close(read)
        result = subprocess.run([harness.NIBBLE, "inspect", self.model], stdout=write,
                                stderr=subprocess.PIPE, timeout=60)
        os.close(write)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"cannot write the output", result.stderr)


if __name__ == "__main__":
    harness.main()
