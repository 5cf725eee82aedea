# SPDX-License-Identifier: Apache-2.0
"""libnibble's optimizers as torch.optim.Optimizer subclasses. CPU tensors, float32 and bfloat16."""
from .drop_in_lowbit import (AdamW32bit, AdamW4bit, AdamW8bit, AdamWFp8, Adagrad8bit, Adam8bit,
                             AdEMAMix8bit, LAMB8bit, Lion8bit, RMSprop8bit, SGD8bit)
from .drop_in_torch import SGD, Adafactor, Adagrad, Adam, AdamW, Muon, RMSprop
from .library import (InvalidArgument, NibbleError, NonFinite, OutOfMemory, Unsupported,
                      set_thread_count)
from .optimizer import Optimizer

__all__ = ["Optimizer", "AdamW", "Adam", "SGD", "Adagrad", "RMSprop", "Adafactor", "Muon",
           "AdamW8bit", "Adam8bit", "AdamW32bit", "AdamW4bit", "AdamWFp8", "Lion8bit", "SGD8bit",
           "RMSprop8bit", "Adagrad8bit", "AdEMAMix8bit", "LAMB8bit", "NibbleError",
           "InvalidArgument", "Unsupported", "OutOfMemory", "NonFinite", "set_thread_count"]
